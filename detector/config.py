"""One frozen dataclass is the command line, builds the model, and is saved beside the weights.

Imports nothing heavy: `replayguard train --help` is answered from here.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from remasc.sentences import quoted

PUBLISHED = {
    "epochs": 100,
    "batch_size": 64,
    "learning_rate": 1e-4,
    "schedule": "published",
    "weight_decay": 1e-3,
    "patience": 15,
    "clip": 0.0,
}
COMPACT = PUBLISHED | {
    "epochs": 40,
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "clip": 5.0,
}
# Of the compact detector, by its backbone: what differs from the CNN's.
BACKBONES: dict[str, dict[str, Any]] = {
    "cnn": {},
    "edge": {},
    "ast": {"learning_rate": 3e-4},
    "psla": {"learning_rate": 1e-3},
}
MALRAD = PUBLISHED | {
    "batch_size": 8,
    "schedule": "cosine",  # over how many epochs the paper leaves open
    "weight_decay": 1e-4,
}
ACOUSTIC_MAPS = MALRAD | {"batch_size": 64, "learning_rate": 1e-3}  # the paper leaves its recipe open
MIXTURE = {"epochs": 100}  # of expectation-maximisation, which stops by itself
# What is not said on the command line, by system.
DEFAULTS: dict[str, dict[str, Any]] = {
    "compact": COMPACT,
    "nn-single": PUBLISHED,
    "nn-dummy": PUBLISHED,
    "nn-multichannel": PUBLISHED,
    "malrad": MALRAD,
    "acoustic-maps": ACOUSTIC_MAPS,
    "lfcc-gmm": MIXTURE,
    "cqcc-gmm": MIXTURE,
    "void": {},
    "sub-bass": {},
    "gcc": {},
}
BASELINES = ("lfcc-gmm", "cqcc-gmm", "void", "sub-bass", "gcc")  # no network: see detector/baselines
ANY_ARRAY = ("compact", "lfcc-gmm", "cqcc-gmm", "void", "sub-bass")  # one set of weights for any of them
CHOOSING = ("nn-multichannel", "malrad")  # may be trained on some of an array's microphones
ADAM = ("malrad",)  # by its paper; AdamW for all others
ARRAY_NAMES = ("D1", "D2", "D3", "D4")
# Where a run and its base lie and how fast it goes; everything else decides its result (of the base its weights,
# whose hash `detector.rundir` compares).
PLACE = ("corpus", "out", "base", "cache", "workers", "device", "checkpoint_minutes", "resume", "test_run")


@dataclass(frozen=True)
class TrainConfig:
    """What one training run is. Unset (None) values take the system's own defaults at once.

    Args:
        corpus: Folder of a ReMASC copy or of a simulated corpus.
        out: Folder of the run; an interrupted run goes on there.
        system: compact, nn-single, nn-dummy, nn-multichannel, malrad or acoustic-maps; without a network
            lfcc-gmm, cqcc-gmm, void, sub-bass or gcc, which take epochs (the two mixtures: at most so many
            iterations) and no other setting of a network.
        array: D1, D2, D3 or D4; "all" (the default of compact) where one set of weights serves them all.
        seed: Draws the initial weights, the order of the clips, and augmentation.
        epochs: At most so many (100; compact: 40).
        batch_size: Clips per step over all processes together (64; malrad: 8).
        learning_rate: Its peak (published 1e-4, acoustic-maps 1e-3, compact 2e-3).
        backbone: Of compact: cnn, edge (a CNN of under 20,000 parameters), ast (AST tiny) or psla (EfficientNet
            B0), on the same planes.
        schedule: published = a tenth of the peak rising linearly over 20 epochs, then halved every 20;
            cosine = one epoch of rise, then a half cosine down to a hundredth.
        weight_decay: Of AdamW (1e-3), of malrad's Adam and of acoustic-maps (1e-4).
        patience: Stop after so many epochs without a better dev EER (15), counted from the end of the rate's rise
            at the earliest; 0 = never.
        clip: Largest norm of the gradient; 0 = as it is (published 0, compact 5).
        filters: Filters of the bank of nn-single, nn-dummy and nn-multichannel.
        channels: Of nn-multichannel and malrad: the array's microphones that are heard, from 1, such as 1-4-2;
            default: all.
        seconds: First seconds of a recording that compact trains on; published networks take 1 s.
        dev_share: Share of core held back as dev, where the corpus does not list its own.
        protocol_seed: Draws the dev speakers there, so that all seeds of a system choose on the same dev.
        p_fa: Share of replays that the shipped threshold accepts on dev.
        harden: Share of each step's clips that are attacked with short adversarial stretches, so that the detector
            learns to withstand pulses (0 = none; compact alone; see `replayguard attack`).
        base: A detector to go on from, by name or folder: its network is taken with its weights instead of random
            ones, and trained by a schedule of its own.
        device: auto, cpu, cuda or mps.
        amp: Mixed precision on CUDA; for compact also on a CPU that multiplies bfloat16 (1.7 to 2.7 times as fast).
        workers: Processes that load data; default: 0 on the CPU, 4 for a GPU.
        cache: Folder of prepared clips, may be shared by runs; default: OUT/prepared.
        checkpoint_minutes: Save the state at least so often, besides every epoch; 0 = every step.
        resume: Go on where an interrupted run stopped; --no-resume throws its state away.
        test_run: Prove the set-up in seconds: a few clips, one epoch, saved, resumed and loaded.
    """

    corpus: Path
    out: Path
    system: str = "compact"
    array: str | None = None
    seed: int = 0
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    backbone: Literal["cnn", "edge", "ast", "psla"] = "cnn"
    schedule: Literal["published", "cosine", "constant"] | None = None
    weight_decay: float | None = None
    patience: int | None = None
    clip: float | None = None
    filters: int = 64
    channels: str | None = None
    seconds: float = 4.0
    dev_share: float = 0.2
    protocol_seed: int = 0
    p_fa: float = 0.05
    harden: float = 0.0
    base: str | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    amp: bool = True
    workers: int | None = None
    cache: Path | None = None
    checkpoint_minutes: float = 10.0
    resume: bool = True
    test_run: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.system, str) or self.system not in DEFAULTS:
            raise ValueError(f"unknown system {quoted(self.system)}{_near(str(self.system), DEFAULTS)}")
        for name, value in (DEFAULTS[self.system] | self._by_backbone()).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name in ("corpus", "out", "cache"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, Path(getattr(self, name)))
        if self.array is None and self.system == "compact":
            object.__setattr__(self, "array", "all")
        _check_types(self)
        _check_used(self)
        _check_array(self)
        _check_ranges(self)

    def _by_backbone(self) -> dict[str, Any]:
        """What the backbone changes of the system's defaults; ValueError where it is not known, or no choice."""
        if self.backbone not in tuple(BACKBONES):
            raise ValueError(
                f"unknown backbone {quoted(self.backbone)}{_near(str(self.backbone), BACKBONES)}"
            )
        if self.backbone != "cnn" and self.system != "compact":
            raise ValueError(f"{self.system} is a network of its own; --backbone is for compact")
        return BACKBONES[self.backbone]

    @property
    def arrays(self) -> tuple[str, ...]:
        """The names of the arrays that this run is for."""
        return ARRAY_NAMES if self.array == "all" else (str(self.array),)

    @property
    def microphones(self) -> tuple[int, ...] | None:
        """The channels that are heard, counted from 0; None: all."""
        return None if self.channels is None else tuple(int(n) - 1 for n in self.channels.split("-"))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; `from_dict` takes them back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    def identity(self) -> dict[str, Any]:
        """What decides the result: two runs with the same identity and protocol are the same run."""
        return {name: value for name, value in self.to_dict().items() if name not in PLACE}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The config of `to_dict`'s values. An unknown key is a ValueError with the close matches."""
        if not isinstance(values, Mapping):
            raise ValueError(f"a training config is a table of names and values, got {type(values).__name__}")
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise ValueError(f"unknown key {quoted(name)} in a training config{_near(str(name), known)}")
        if missing := [name for name in ("corpus", "out") if name not in values]:
            raise ValueError(f"a training config needs the key {missing[0]!r}")
        return cls(**values)


def _near(word: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(word[:100], known := list(known), n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(known)}"


def _check_types(config: TrainConfig) -> None:
    """Each value has the type its field declares (an int passes for a float, a bool for nothing else)."""
    for name, hint in typing.get_type_hints(TrainConfig).items():
        value = getattr(config, name)
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        options = typing.get_args(hint) if typing.get_origin(hint) is typing.Union else options
        if not any(_is_a(value, option) for option in options):
            words = " or ".join(_words(option) for option in options if option is not type(None))
            raise ValueError(f"{name} is {quoted(value)}; expected {words}")


def _is_a(value: Any, option: Any) -> bool:
    if typing.get_origin(option) is Literal:
        return isinstance(value, str) and value in typing.get_args(option)
    if isinstance(value, bool):
        return option is bool
    return isinstance(value, (int, float) if option is float else option)


def _words(option: Any) -> str:
    if typing.get_origin(option) is Literal:
        return " or ".join(typing.get_args(option))
    return {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word"}.get(
        option.__name__, "a path"
    )


def _check_used(config: TrainConfig) -> None:
    """What a system has no use for is an error, not a setting without effect."""
    for name in COMPACT if config.system in BASELINES else ():
        if name not in DEFAULTS[config.system] and getattr(config, name) is not None:
            raise ValueError(f"{config.system} has no {name}, for it trains no network; leave it out")
    if config.system in BASELINES and config.base is not None:
        raise ValueError(f"{config.system} has no base, for it trains no network; leave it out")
    if config.channels is None:
        return
    if config.system not in CHOOSING:
        raise ValueError(
            f"{config.system} hears the channels it always hears; --channels is of {CHOOSING[0]}"
        )
    heard = config.channels.split("-")
    if not all(re.fullmatch("[1-9][0-9]?", word) for word in heard) or len(set(heard)) < len(heard):
        raise ValueError(
            f"channels is {quoted(config.channels)}; expected microphones such as 1-4-2, each once"
        )


def _check_array(config: TrainConfig) -> None:
    known = (*ARRAY_NAMES, "all") if config.system in ANY_ARRAY else ARRAY_NAMES
    if config.array is None or config.array not in known:
        fact = "no array was named" if config.array is None else f"unknown array {quoted(config.array)}"
        raise ValueError(f"{fact}; {config.system} trains on one of {', '.join(known)}: give --array")


def _check_ranges(config: TrainConfig) -> None:
    ranges = {
        "seed": (0, 2**62),
        "epochs": (1, 10**6),
        "batch_size": (1, 10**6),
        "learning_rate": (1e-12, 1e3),
        "weight_decay": (0, 1e3),
        "patience": (0, 10**6),
        "clip": (0, 1e9),
        "filters": (2, 4096),
        "seconds": (0.1, 600),
        "dev_share": (0.001, 0.9),
        "protocol_seed": (0, 2**62),
        "p_fa": (0, 0.999),
        "harden": (0, 1 if config.system == "compact" else 0),
        "checkpoint_minutes": (0, 1e6),
        "workers": (0, 1024),
    }
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if value is not None and not low <= value <= high:  # NaN is in no range
            raise ValueError(f"{name} is {quoted(value)}; expected {low:g} to {high:g}")
