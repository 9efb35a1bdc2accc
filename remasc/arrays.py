"""Microphone arrays: the four of ReMASC and any described by a small TOML or JSON file.

Coordinates in metres: x to the array's right as it looks forward, y up, z towards the talker.
Channel order = file order. Shapes: M microphones; positions (M, 3).
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from remasc.sentences import is_name, quoted, reason

MAX_MICROPHONES = 64
MAX_APERTURE_M = 20.0


@dataclass(frozen=True, eq=False)
class MicArray:
    """A microphone array: its geometry, its rate, and the order in which channels are added in tables.

    `positions` is (M, 3) float64 in metres.
    `channel_order` holds the file's channels, from 0, in the order in which the ReMASC paper adds them.
    """

    name: str
    positions: np.ndarray
    sample_rate: int
    description: str = ""
    channel_order: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ValueError(
                f"an array is named {quoted(self.name)}; expected one line of at most 200 printable characters"
            )
        positions = np.array(self.positions, dtype=np.float64)
        if positions.ndim != 2 or positions.shape[1] != 3 or not 1 <= len(positions) <= MAX_MICROPHONES:
            raise ValueError(
                f"array {self.name!r}: positions have shape {positions.shape}; expected (M, 3) metres "
                f"with 1 to {MAX_MICROPHONES} microphones"
            )
        if not np.isfinite(positions).all() or np.ptp(positions, axis=0).max() > MAX_APERTURE_M:
            raise ValueError(
                f"array {self.name!r}: positions must be finite and within {MAX_APERTURE_M:g} m of each "
                "other; give them in metres, not millimetres"
            )
        if not 8000 <= int(self.sample_rate) <= 192000:
            raise ValueError(
                f"array {self.name!r}: sample_rate is {quoted(self.sample_rate)}; expected 8000 to 192000 Hz"
            )
        order = tuple(int(c) for c in self.channel_order) or tuple(range(len(positions)))
        if sorted(order) != list(range(len(positions))):
            raise ValueError(
                f"array {self.name!r}: channel_order {quoted(list(order))} is not an order of the channels "
                f"0..{len(positions) - 1}"
            )
        positions.setflags(write=False)
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "sample_rate", int(self.sample_rate))
        object.__setattr__(self, "channel_order", order)

    @property
    def num_mics(self) -> int:
        return len(self.positions)

    def select(self, channels: tuple[int, ...]) -> MicArray:
        """The array made of some of the channels (from 0), in that order."""
        return MicArray(self.name, self.positions[list(channels)], self.sample_rate, self.description)

    def channels(
        self, count: int | None = None, *, order: str = "paper", dummy: bool = False
    ) -> tuple[int, ...]:
        """`count` of the file's channels (from 0), all by default, as the tables of the paper use them.

        order "paper": as `channel_order` adds them; "file": 1-2-3-4. dummy: channel 1 `count` times, the
        control with as many inputs and no spatial information.
        """
        count = self.num_mics if count is None else count
        if not 1 <= count <= self.num_mics:
            raise ValueError(
                f"array {self.name!r} has {self.num_mics} channels; {count} cannot be taken, "
                f"1 to {self.num_mics} can"
            )
        if order not in ("paper", "file"):
            raise ValueError(f"unknown channel order {order!r}; known: paper, file")
        if dummy:
            return (0,) * count
        return self.channel_order[:count] if order == "paper" else tuple(range(count))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, MicArray)
            and self.name == other.name
            and self.sample_rate == other.sample_rate
            and self.channel_order == other.channel_order
            and np.array_equal(self.positions, other.positions)
        )

    def __hash__(self) -> int:
        return hash((self.name, self.sample_rate, self.positions.tobytes()))

    @classmethod
    def from_file(cls, path: str | Path) -> MicArray:
        """Read an array file (TOML or JSON): `name`, `sample_rate`, `positions` in metres, and if wanted
        `description` and `channel_order`. Raises ValueError with one sentence on anything else."""
        path = Path(path)
        fact = f"{path}: not a readable array file"
        if not path.exists():
            raise ValueError(f"{path}: no such array file; expected TOML or JSON, see data/README.md")
        try:
            text = path.read_text(encoding="utf-8")
            fields = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
            raise ValueError(f"{fact} ({reason(error)}); expected TOML or JSON, see data/README.md") from None
        if not isinstance(fields, dict):
            raise ValueError(f"{fact}; expected a table with name, sample_rate and positions")
        known = ("name", "positions", "sample_rate", "description", "channel_order")
        if unknown := [key for key in fields if key not in known]:
            close = difflib.get_close_matches(str(unknown[0])[:100], known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{path}: unknown key {quoted(unknown[0])}{hint} (known: {', '.join(known)})")
        if missing := [key for key in ("positions", "sample_rate") if key not in fields]:
            raise ValueError(f"{path}: the key {missing[0]!r} is missing; see data/README.md for an example")
        try:
            values = {
                "name": fields.get("name", path.stem),
                "positions": np.asarray(_rows(fields["positions"]), dtype=np.float64),
                "sample_rate": _whole(fields["sample_rate"]),
                "description": str(fields.get("description", "")),
                "channel_order": tuple(map(_whole, fields.get("channel_order", ()))),
            }
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{fact} ({reason(error)}); expected numbers, see data/README.md") from None
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _rows(positions: object) -> list[list[float]]:
    """The positions of an array file; a ValueError names the row that is not three numbers (from 1)."""
    if not isinstance(positions, list) or not positions:
        raise ValueError("positions are no list of rows")
    for number, row in enumerate(positions, start=1):
        if not isinstance(row, list) or len(row) != 3 or not all(type(x) in (int, float) for x in row):
            raise ValueError(f"row {number} of positions is {quoted(row)}, not three numbers x, y, z")
    return positions


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError(f"{quoted(value)} is no whole number")
    return int(value)


def _line(count: int, step: float) -> np.ndarray:
    positions = np.zeros((count, 3))
    positions[:, 0] = (np.arange(count) - (count - 1) / 2) * step
    return positions


def _hexagon(diameter: float, centre: bool) -> np.ndarray:
    """Six microphones in the x-y plane at 180, 240, 300, 0, 60, 120 degrees; a seventh in the centre."""
    angles = np.radians([180, 240, 300, 0, 60, 120])
    ring = np.stack([np.cos(angles), np.sin(angles), np.zeros(6)], axis=1) * diameter / 2
    return np.concatenate([ring, np.zeros((1, 3))]) if centre else ring


ARRAYS: dict[str, MicArray] = {
    "D1": MicArray("D1", _line(2, 0.060), 44100, "Google AIY Voice Kit", (0, 1)),
    "D2": MicArray("D2", _line(4, 0.050), 44100, "ReSpeaker 4-Mic Linear Array", (0, 3, 1, 2)),
    "D3": MicArray("D3", _hexagon(0.093, False), 44100, "ReSpeaker Core v2", (0, 3, 1, 4, 2, 5)),
    "D4": MicArray("D4", _hexagon(0.075, True), 16000, "Amlogic A113X1", (0, 3, 1, 4, 2, 5, 6)),
}


def get_array(name_or_path: str | Path) -> MicArray:
    """An array by its name ("D1".."D4") or from a TOML/JSON file; an unknown name gets close matches."""
    text = str(name_or_path)
    if text.upper() in ARRAYS:
        return ARRAYS[text.upper()]
    if Path(text).suffix.lower() in (".toml", ".json") or Path(text).is_file():
        return MicArray.from_file(text)
    close = difflib.get_close_matches(text.upper(), ARRAYS, n=2, cutoff=0.4)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    raise ValueError(
        f"unknown array {text!r}{hint}; known: {', '.join(ARRAYS)}, or the path of a TOML or JSON array file"
    )


def tdoa(array: MicArray, azimuth: float, elevation: float, speed_of_sound: float = 343.0) -> np.ndarray:
    """Far-field time differences of arrival (M, M) in seconds, `tdoa[i, j] = t_i - t_j`.

    Azimuth in radians, positive to +x; elevation in radians, positive to +y; (0, 0) looks along +z.
    A microphone nearer to the source hears it earlier, so its row is negative.
    """
    towards = np.array(
        [
            math.sin(azimuth) * math.cos(elevation),
            math.sin(elevation),
            math.cos(azimuth) * math.cos(elevation),
        ]
    )
    delay = -array.positions @ towards / speed_of_sound
    return delay[:, None] - delay[None, :]
