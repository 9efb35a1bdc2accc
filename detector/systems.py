"""The systems by name, what each takes, and how to build one from a checkpoint's config."""

from __future__ import annotations

import difflib
import warnings
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from detector.config import ANY_ARRAY, BASELINES
from remasc import MicArray
from remasc.arrays import get_array
from remasc.sentences import is_name, quoted

if TYPE_CHECKING:
    from torch import nn

# How a system picks the network's channels from a recording's.
CHANNELS = {
    "compact": "all",
    "nn-single": "first",
    "nn-dummy": "repeat-first",
    "nn-multichannel": "all",
    "malrad": "all",
    "acoustic-maps": "all",
    "lfcc-gmm": "first",
    "cqcc-gmm": "first",
    "void": "first",
    "sub-bass": "first",
    "gcc": "all",
}
WHOLE = ("compact", "acoustic-maps", *BASELINES)  # hear the whole recording; the others its first second
SYSTEMS = tuple(CHANNELS)


@dataclass(frozen=True)
class Specification:
    """What a trained network takes: its rate in Hz, its channels, and the arrays it was trained on.

    `num_mics` is the number of channels of the network, None where it takes any number up to `max_mics`;
    `seconds` is how much of a recording's beginning it hears, None for all of it; `channels` (from 0) are those of
    the recording that it hears, None for all or for what the system always takes.
    """

    system: str
    sample_rate: int
    arrays: tuple[str, ...]
    num_mics: int | None = None
    max_mics: int = 64
    seconds: float | None = None
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_system(self.system)
        if type(self.sample_rate) is not int or not 4000 <= self.sample_rate <= 192000:
            raise ValueError(
                f"specification: sample_rate is {quoted(self.sample_rate)}; expected 4000 to 192000 Hz"
            )
        for name, value in (("max_mics", self.max_mics), ("num_mics", self.num_mics)):
            if not (value is None and name == "num_mics" and self.system == "compact") and (
                type(value) is not int or not 1 <= value <= 64
            ):
                raise ValueError(f"specification: {name} is {quoted(value)}; expected 1 to 64")
        if self.seconds is None and self.system not in WHOLE:
            object.__setattr__(self, "seconds", 1.0)
        if self.seconds is not None and not (
            type(self.seconds) in (int, float) and 0.1 <= self.seconds <= 600
        ):
            raise ValueError(f"specification: seconds is {quoted(self.seconds)}; expected 0.1 to 600")
        if not isinstance(self.arrays, list | tuple) or not all(map(is_name, self.arrays)):
            raise ValueError(f"specification: arrays is {quoted(self.arrays)}; expected a list of names")
        object.__setattr__(self, "arrays", tuple(self.arrays))
        if self.channels is not None:
            self._check_channels(self.channels)
            object.__setattr__(self, "channels", tuple(self.channels))

    def _check_channels(self, channels: object) -> None:
        whole = isinstance(channels, list | tuple) and all(type(c) is int and 0 <= c < 64 for c in channels)
        if not whole or not len(set(channels)) == len(channels) == self.num_mics:
            raise ValueError(
                f"specification: channels is {quoted(channels)}; expected num_mics different ones, from 0"
            )

    def as_dict(self) -> dict[str, object]:
        plain = asdict(self) | {"arrays": list(self.arrays)}
        chosen = plain.pop("channels")
        return plain if chosen is None else plain | {"channels": list(chosen)}

    @classmethod
    def from_dict(cls, values: dict) -> Specification:
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or not {"system", "sample_rate", "arrays"} <= set(values) <= known:
            raise ValueError(f"specification: expected a table with the keys {', '.join(sorted(known))}")
        return cls(**values)

    def check(self, num_mics: int, array: MicArray | None) -> None:
        """Refuse a channel count the network cannot take; warn of an array it was not trained on."""
        if num_mics > self.max_mics:
            raise ValueError(f"{num_mics} channels; {self.system} takes at most {self.max_mics}")
        if self.channels is not None:
            if max(self.channels) >= num_mics:
                raise ValueError(
                    f"the recording has {num_mics} channels; this {self.system} hears channel "
                    f"{max(self.channels) + 1}: use a detector trained on this array"
                )
        elif CHANNELS[self.system] == "all" and self.num_mics not in (None, num_mics):
            raise ValueError(
                f"the recording has {num_mics} channels; this {self.system} was trained on "
                f"{'/'.join(self.arrays)} and takes {self.num_mics}: use a detector trained on this array"
            )
        if self.num_mics is not None and self.arrays and array is not None and array.name not in self.arrays:
            warnings.warn(
                f"this {self.system} was trained on {'/'.join(self.arrays)}, not on {array.name}: its scores "
                "are not calibrated there",
                stacklevel=4,
            )

    def channels_of(self, waveform: np.ndarray) -> np.ndarray:
        """The network's channels (num_mics, T) of a recording (M, T)."""
        if self.channels is not None:
            return waveform[list(self.channels)]
        if CHANNELS[self.system] == "first":
            return waveform[:1]
        if CHANNELS[self.system] == "repeat-first":
            return np.repeat(waveform[:1], self.num_mics, axis=0)
        return waveform


def check_system(name: str) -> str:
    """The name itself if it is a system's, else ValueError with close matches."""
    if name not in SYSTEMS:
        close = difflib.get_close_matches(str(name)[:100], SYSTEMS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"unknown system {quoted(name)}{hint}; expected one of {', '.join(SYSTEMS)}")
    return name


def specify(
    system: str, arrays: tuple[MicArray, ...], channels: tuple[int, ...] | None = None
) -> Specification:
    """The specification of a system to be trained on these arrays (one for what hears their geometry), or on
    these of its channels."""
    check_system(system)
    names = tuple(array.name for array in arrays)
    if system == "compact":
        from detector.model import CompactDetector

        return Specification(system, CompactDetector.sample_rate, names, None, CompactDetector.max_mics)
    if len(arrays) != 1 and system not in ANY_ARRAY:
        raise ValueError(f"{system} is trained on one array at a time, got {', '.join(names)}; choose one")
    num_mics = 1 if CHANNELS[system] == "first" else arrays[0].num_mics
    if channels is not None and max(channels) >= num_mics:
        raise ValueError(
            f"{names[0]} has {num_mics} microphones; number {max(channels) + 1} is not among them"
        )
    sample_rate = arrays[0].sample_rate
    if system in BASELINES:
        from detector.baselines import BASELINES as kinds

        sample_rate = kinds[system].rate or sample_rate
    num_mics = num_mics if channels is None else len(channels)
    return Specification(system, sample_rate, names, num_mics, channels=channels)


def build_network(config: dict) -> nn.Module:
    """The untrained network of a checkpoint's config: `specification`, and `network` (its own arguments)."""
    specification = Specification.from_dict(config["specification"])
    arguments = dict(config.get("network", {}))
    if specification.system == "compact":
        from detector.model import CompactDetector

        if specification.sample_rate != CompactDetector.sample_rate:
            raise ValueError(
                f"specification: sample_rate is {specification.sample_rate}; compact takes "
                f"{CompactDetector.sample_rate} Hz"
            )
        return CompactDetector(**arguments)
    if specification.system in BASELINES:
        from detector.baselines import BASELINES as kinds

        return kinds[specification.system](specification.num_mics, specification.sample_rate, **arguments)
    from detector import published

    if specification.system == "acoustic-maps":
        return published.AcousticMaps(_array(specification, arguments))
    network = published.MALRAD if specification.system == "malrad" else published.NNMultichannel
    return network(specification.num_mics, specification.sample_rate, **arguments)


def _array(specification: Specification, arguments: dict) -> MicArray:
    """The array of acoustic maps: its geometry as the checkpoint keeps it, or by name before there is one."""
    name = specification.arrays[0] if specification.arrays else ""
    array = (
        MicArray(name, np.array(arguments["positions"]), specification.sample_rate)
        if "positions" in arguments
        else get_array(name)
    )
    if (array.num_mics, array.sample_rate) != (specification.num_mics, specification.sample_rate):
        raise ValueError(
            f"specification: {quoted(specification.num_mics)} channels at {specification.sample_rate} Hz; the "
            f"array {array.name} has {array.num_mics} at {array.sample_rate} Hz"
        )
    return array
