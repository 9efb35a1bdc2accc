"""A recipe fixes what a simulated corpus contains: sizes, shares, laws of place and level, what is shared.

Recipes are TOML files; the shipped ones lie in `recipes/` beside this file.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remasc.protocol import PARTITIONS
from remasc.sentences import is_name, quoted, reason

SHIPPED = Path(__file__).parent / "recipes"


_PARTITIONS = " ".join(PARTITIONS)
# What a recipe may say: tables by their keys, pairs of limits, single numbers; each with its smallest and largest.
_TABLES: dict[str, tuple[str, type, float, float]] = {
    "pairs": (_PARTITIONS, int, 0, 1_000_000),
    "rooms": (_PARTITIONS, int, 0, 1_000_000),
    "devices": (_PARTITIONS, int, 0, 1_000_000),
    "voices": (_PARTITIONS, int, 0, 10_000),
    "speaker_share": (_PARTITIONS, float, 0, 1000),
    "environments": ("1 2 3 4", float, 0, 1000),
    "source_recorders": ("1 2 3", float, 0, 1000),
}
_RANGES = {
    "level_dbfs": (-90, 0),
    "lead_seconds": (0, 30),
    "trail_seconds": (0, 30),
    "command_seconds": (0.1, 60),
}
_NUMBERS: dict[str, tuple[type, float, float]] = {
    "version": (int, 0, 1_000_000),
    "effort_db": (float, 0, 6),
    "colour_db": (float, 0, 6),
    "replays_per_genuine": (int, 0, 100),
    "random_rooms": (float, 0, 1),
    "codec_share": (float, 0, 1),
    "built_in_share": (float, 0, 1),
    "equaliser_share": (float, 0, 1),
    "dereverberated_share": (float, 0, 1),
    "target_room_share": (float, 0, 1),
    "bystander_share": (float, 0, 1),
    "real_noise_share": (float, 0, 1),
    "unlabelled_share": (float, 0, 1),
}


# Conditions that may be held out, and ReMASC's codes of them. A position's tens are the environment, its ones the
# talker's place there: the distance outdoors, the place in indoor-1, the only one in indoor-2, the vehicle's seat.
# Heights are the lower, middle and upper third of those in an environment (0.8 to 1.6 m; 0.65 to 0.95 in vehicles).
_CODES = {
    "environment": (1, 2, 3, 4),
    "playback_device": (1, 2, 3, 4, 5),
    "source_recorder": (1, 2, 3),
    "height": (1, 2, 3),
    "position": (11, 12, 21, 22, 23, 24, 25, 26, 31, 41, 42, 43, 44, 45, 46),
}


def _is_number(value: Any, kind: type, low: float, high: float) -> bool:
    allowed = (int,) if kind is int else (int, float)
    return type(value) in allowed and low <= value <= high


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a corpus, apart from the speech and noise folders and the seed.

    A pair is one genuine scene and its replayed sibling(s) of the same utterance in the same environment.
    Counts of rooms are per environment, counts of devices per playback family.
    """

    name: str
    version: int = 1
    pairs: dict[str, int] = field(default_factory=lambda: {"train": 0, "dev": 0, "eval": 48})
    replays_per_genuine: int = 1
    protocol: str = "open"  # "open": rooms and devices disjoint between partitions; "closed": shared
    environments: dict[str, float] = field(
        default_factory=lambda: {"1": 0.25, "2": 0.25, "3": 0.25, "4": 0.25}
    )
    random_rooms: float = 0.0  # share of the indoor train pairs that stand in random rooms
    rooms: dict[str, int] = field(default_factory=lambda: {"train": 20, "dev": 5, "eval": 8})
    devices: dict[str, int] = field(default_factory=lambda: {"train": 20, "dev": 6, "eval": 10})
    speaker_share: dict[str, float] = field(default_factory=lambda: {"train": 0.6, "dev": 0.15, "eval": 0.25})
    voices: dict[str, int] = field(default_factory=lambda: {"train": 24, "dev": 6, "eval": 10})
    unlabelled_share: float = 0.25  # how often train asks sets without speaker labels, where there are any
    source_recorders: dict[str, float] = field(default_factory=lambda: {"1": 0.4, "2": 0.35, "3": 0.25})
    effort_db: float = 3.0  # standard deviation of the voices' tilt, dB per octave around 1 kHz
    colour_db: float = 5.5  # and of their colour: a smooth curve, dB at each octave
    codec_share: float = 0.3
    built_in_share: float = 0.3  # share of the vehicle's replays that come from its own loudspeakers
    equaliser_share: float = 0.35  # of the replays: the attacker inverts the device's response
    dereverberated_share: float = 0.2  # of the recorded replays: the recording room's late part turned down
    target_room_share: float = 0.15  # of the recorded replays: recorded in the room where they are played
    bystander_share: float = 0.1  # of all scenes: a silent person breathes beside the talker or the device
    real_noise_share: float = 0.5  # share of scenes that use a clip of --noise where it is given
    snr_db: dict[str, list[float]] = field(
        default_factory=lambda: {"1": [5, 25], "2": [15, 40], "3": [3, 20], "4": [3, 20]}
    )
    level_dbfs: list[float] = field(default_factory=lambda: [-36.0, -26.0])
    lead_seconds: list[float] = field(default_factory=lambda: [0.10, 0.45])
    trail_seconds: list[float] = field(default_factory=lambda: [0.15, 0.60])
    command_seconds: list[float] = field(default_factory=lambda: [1.0, 4.0])
    device_noise: bool = True  # hiss, hum and recorder noise; off for the noise-floor probe
    held_out: dict[str, list[int]] = field(default_factory=dict)  # condition -> codes heard in eval alone
    replay_farther: bool = False  # the replays stand farther away: a leak on purpose, for the probes to find
    template: str = (
        ""  # "exact" or "matched": row by row after a real meta.csv; `pairs` then names partitions
    )
    null: bool = False  # no difference between the chains: the null control
    one_array: list[str] = field(
        default_factory=list
    )  # partitions whose scenes are each recorded by one array
    random_arrays: bool = False  # every scene is recorded by an array of its own, of 1 to 16 microphones
    # what is switched off to see what it carries
    movement: bool = True  # talkers sway and turn their heads
    directivity: bool = True  # mouths and drivers radiate unevenly
    one_driver: bool = False  # every device plays through one driver, in its middle

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ValueError(
                f"a recipe is named {quoted(self.name)}; expected one line of printable characters"
            )
        if self.protocol not in ("open", "closed"):
            raise ValueError(
                f"recipe {self.name!r}: protocol is {quoted(self.protocol)}; expected open or closed"
            )
        for key, (keys, kind, low, high) in _TABLES.items():
            self._expect_table(key, keys, kind, low, high)
        for key, (low, high) in _RANGES.items():
            self._expect_range(key, getattr(self, key), low, high)
        if not isinstance(self.snr_db, dict) or not set(self.snr_db) <= set("1234"):
            self._refuse("snr_db", self.snr_db, "a table with the keys 1, 2, 3, 4")
        for environment, limits in self.snr_db.items():
            self._expect_range(f"snr_db {quoted(environment)}", limits, -60, 120)
        for key, (kind, low, high) in _NUMBERS.items():
            if not _is_number(getattr(self, key), kind, low, high):
                self._refuse(key, getattr(self, key), f"{low:g} to {high:g}")
        for key in (f.name for f in dataclasses.fields(self) if f.type == "bool"):
            if not isinstance(getattr(self, key), bool):
                self._refuse(key, getattr(self, key), "true or false")
        if not isinstance(self.one_array, list) or not set(map(str, self.one_array)) <= set(PARTITIONS):
            self._refuse("one_array", self.one_array, f"a list of some of {', '.join(PARTITIONS)}")
        if self.one_array and self.random_arrays:
            self._refuse(
                "one_array", self.one_array, "none of it with random_arrays, where every scene has its own"
            )
        if self.template not in ("", "exact", "matched"):
            self._refuse("template", self.template, "exact or matched")
        self._expect_held_out()
        self._expect_whole()

    def _expect_table(self, key: str, keys: str, kind: type, low: float, high: float) -> None:
        table = getattr(self, key)
        names = keys.split()
        if not isinstance(table, dict) or not set(table) <= set(names):
            self._refuse(key, table, f"a table with the keys {', '.join(names)}")
        for name, value in table.items():
            if not _is_number(value, kind, low, high):
                self._refuse(f"{key} {name}", value, f"{low:g} to {high:g}")

    def _expect_range(self, key: str, limits: Any, low: float, high: float) -> None:
        plain = isinstance(limits, list | tuple) and len(limits) == 2
        if not (plain and all(_is_number(n, float, low, high) for n in limits) and limits[0] <= limits[1]):
            self._refuse(key, limits, f"two numbers from {low:g} to {high:g}, the smaller one first")

    def _expect_held_out(self) -> None:
        expected = (
            f"a table of {' or '.join(_CODES)} to some of its codes, not all, such as {{environment = [4]}}"
        )
        if not isinstance(self.held_out, dict) or not set(self.held_out) <= set(_CODES):
            self._refuse("held_out", self.held_out, expected)
        for condition, codes in self.held_out.items():
            plain = isinstance(codes, list) and all(type(c) is int and c in _CODES[condition] for c in codes)
            if not plain or not 0 < len(set(codes)) < len(_CODES[condition]):
                self._refuse("held_out", self.held_out, expected)

    def _expect_whole(self) -> None:
        """Something to simulate, and all that it needs."""
        wanted = {partition for partition, count in self.pairs.items() if count}
        if not wanted:
            self._refuse("pairs", self.pairs, "at least one pair")
        homes = {"train"} if self.protocol == "closed" else wanted
        heard = {environment for environment, share in self.environments.items() if share > 0}
        for key, needed in (("rooms", homes), ("devices", homes), ("snr_db", heard)):
            if missing := sorted(needed - set(getattr(self, key))):
                self._refuse(key, getattr(self, key), f"an entry for {missing[0]}")
        for partition in wanted:
            recorders = self.allowed(
                "source_recorder", partition, [int(code) for code in self.source_recorders]
            )
            for key, left in (
                ("environments", self.environments_of(partition)),
                ("source_recorders", recorders),
            ):
                shares = getattr(self, key)
                if sum(shares[str(code)] for code in left) <= 0:
                    self._refuse(key, shares, f"a share above 0 of what {partition} may hold (see held_out)")
        elsewhere = [key for key in ("random_rooms", "built_in_share", "template") if getattr(self, key)]
        if "position" in self.held_out and elsewhere:
            own = "none where a position is held out: it has positions of its own"
            self._refuse(elsewhere[0], getattr(self, elsewhere[0]), own)
        drivers = {p for p in wanted if not self.allowed("playback_device", p, (1, 2, 3, 4))}
        if drivers and not self.environments.get("4", 0) > 0:
            self._refuse("environments", self.environments, "vehicles, where their own loudspeakers play")
        if not any(self.speaker_share.get(partition, 1) for partition in wanted):
            self._refuse("speaker_share", self.speaker_share, "a share above 0 where there are pairs")

    def _refuse(self, key: str, value: Any, expected: str) -> None:
        raise ValueError(f"recipe {self.name!r}: {key} is {quoted(value)}; expected {expected}")

    def scaled(self, scale: float) -> Recipe:
        """The recipe with `scale` times as many pairs in every partition that has any (at least one)."""
        if not 0 < scale <= 1_000_000:
            raise ValueError(f"scale is {scale}; expected a positive number such as 0.1 or 2")
        pairs = {k: max(1, round(n * scale)) if n else 0 for k, n in self.pairs.items()}
        return dataclasses.replace(self, pairs=pairs)

    def allowed(self, condition: str, partition: str, codes: Sequence[int]) -> list[int]:
        """Those of `codes` that a partition may hold: what is held out is heard in eval, and nothing else there."""
        held = self.held_out.get(condition)
        if not held:
            return list(codes)
        return [code for code in codes if (code in held) == (partition == "eval")]

    def environments_of(self, partition: str) -> list[int]:
        """The environments that a partition may hold: not held out, and with a position that is not."""
        codes = self.allowed("environment", partition, sorted(map(int, self.environments)))
        return [environment for environment in codes if self.places_of(partition, environment)]

    def places_of(self, partition: str, environment: int) -> list[int]:
        """The talker's places in an environment that a partition may hold, as `_CODES` numbers them."""
        here = [code for code in _CODES["position"] if code // 10 == environment]
        return [code % 10 for code in self.allowed("position", partition, here)]

    def home(self, partition: str) -> str:
        """The word that rooms and device instances of a partition carry: closed corpora share them."""
        return partition if self.protocol == "open" else "shared"

    def source_of(self, partition: str) -> str:
        """The partition whose counts of rooms and devices hold."""
        return partition if self.protocol == "open" else "train"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def sha256(self) -> str:
        """Of every field: two corpora of one name and version whose recipes differ are told apart by it."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode("utf-8")).hexdigest()


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load_recipe(name_or_path: str | Path | Recipe) -> Recipe:
    """A shipped recipe by its name, or a TOML file; an unknown name or key answers with close matches."""
    if isinstance(name_or_path, Recipe):
        return name_or_path
    path = SHIPPED / f"{name_or_path}.toml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        known = shipped_recipes()
        close = difflib.get_close_matches(str(name_or_path), known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(
            f"unknown recipe {str(name_or_path)!r}{hint}; known: {', '.join(known)}, or a TOML file"
        )
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a readable recipe ({reason(error)}); expected TOML") from None
    known = [f.name for f in dataclasses.fields(Recipe)]
    if unknown := [key for key in fields if key not in known]:
        close = difflib.get_close_matches(unknown[0][:100], known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        hint = hint or "; see remasc.simulate.Recipe for what a recipe may say"
        raise ValueError(f"{path}: unknown key {quoted(unknown[0])}{hint}")
    try:
        return Recipe(**{"name": path.stem, **fields})
    except ValueError as error:
        raise ValueError(f"{path}: {error}; see {SHIPPED.name}/small.toml") from None
