"""A recipe fixes what a simulated corpus contains: sizes, shares, laws of place and level, what is shared.

Recipes are TOML files; the shipped ones lie in `recipes/` beside this file.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PARTITIONS = ("train", "dev", "eval")
SHIPPED = Path(__file__).parent / "recipes"


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
    source_recorders: dict[str, float] = field(default_factory=lambda: {"1": 0.4, "2": 0.35, "3": 0.25})
    codec_share: float = 0.3
    built_in_share: float = 0.3  # share of the vehicle's replays that come from its own loudspeakers
    real_noise_share: float = 0.5  # share of scenes that use a clip of --noise where it is given
    snr_db: dict[str, list[float]] = field(
        default_factory=lambda: {"1": [5, 25], "2": [15, 40], "3": [3, 20], "4": [3, 20]}
    )
    level_dbfs: list[float] = field(default_factory=lambda: [-36.0, -26.0])
    lead_seconds: list[float] = field(default_factory=lambda: [0.10, 0.45])
    trail_seconds: list[float] = field(default_factory=lambda: [0.15, 0.60])
    command_seconds: list[float] = field(default_factory=lambda: [1.0, 4.0])
    device_noise: bool = True  # hiss, hum and recorder noise; off for the noise-floor probe
    null: bool = False  # no difference between the chains: the null control

    def __post_init__(self) -> None:
        if self.protocol not in ("open", "closed"):
            raise ValueError(f"recipe {self.name!r}: protocol is {self.protocol!r}; expected open or closed")
        for key in ("pairs", "rooms", "devices", "speaker_share", "voices"):
            if unknown := set(getattr(self, key)) - set(PARTITIONS):
                raise ValueError(
                    f"recipe {self.name!r}: {key} names {sorted(unknown)[0]!r}; expected train, dev, eval"
                )
        if not any(self.pairs.values()) or min(self.pairs.values()) < 0:
            raise ValueError(f"recipe {self.name!r}: pairs are {self.pairs}; expected at least one pair")
        if set(self.environments) - set("1234") or sum(self.environments.values()) <= 0:
            raise ValueError(f"recipe {self.name!r}: environments must be shares of '1' to '4'")
        if set(self.source_recorders) - set("123") or sum(self.source_recorders.values()) <= 0:
            raise ValueError(f"recipe {self.name!r}: source_recorders must be shares of '1' to '3'")

    def scaled(self, scale: float) -> Recipe:
        """The recipe with `scale` times as many pairs in every partition that has any (at least one)."""
        if not scale > 0:
            raise ValueError(f"scale is {scale}; expected a positive number such as 0.1 or 2")
        pairs = {k: max(1, round(n * scale)) if n else 0 for k, n in self.pairs.items()}
        return dataclasses.replace(self, pairs=pairs)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


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
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: not a readable recipe ({error}); expected TOML") from None
    known = [f.name for f in dataclasses.fields(Recipe)]
    if unknown := [key for key in fields if key not in known]:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{path}: unknown key {unknown[0]!r}{hint} (known: {', '.join(known)})")
    try:
        return Recipe(**{"name": path.stem, **fields})
    except (TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: a value has the wrong type ({error}); see {SHIPPED.name}/small.toml"
        ) from None
