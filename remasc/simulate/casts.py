"""Who may speak in which partition, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from remasc.protocol import PARTITIONS
from remasc.sentences import counted
from remasc.simulate.recipes import Recipe
from remasc.simulate.speech import Clip, speaker_of
from remasc.simulate.split import split


@dataclass(frozen=True)
class Cast:
    """Who may speak in one partition, and what may be heard behind them."""

    partition: str
    speech: Path
    clips: dict[str, list[Clip]]  # by speaker or unlabelled set
    names: list[str]  # of this partition
    weights: np.ndarray  # how often each of them speaks, summing to one
    ids: dict[str, int]
    noise: list[str]

    def draw(self, rng: np.random.Generator) -> str:
        return str(rng.choice(self.names, p=self.weights))


def split_speakers(clips: list[Clip], recipe: Recipe) -> tuple[dict[str, list[str]], bool]:
    """Speakers (or unlabelled sets) by partition, disjoint, and whether each has the home of its own name.

    A set that names partitions itself is taken at its word. A set without speakers stays whole and is heard in
    train alone: who knows which voices it shares with another. ValueError where a partition would stay empty.
    """
    wanted = [p for p in PARTITIONS if recipe.pairs.get(p, 0)]
    told = {c.group: c.partition for c in clips if c.partition}
    labelled = sorted({c.group for c in clips if c.labelled} - set(told))
    loose = sorted({c.group for c in clips if not c.labelled} - set(labelled))
    parts = {p: sorted(name for name, home in told.items() if home == p) for p in wanted}
    empty = [p for p in wanted if not parts[p]]
    if len(wanted) == 1 and empty and not labelled:
        labelled, loose = loose, []
    if len(labelled) < len(empty):  # folders are no speakers: they may be words, or days
        raise ValueError(
            f"the speech folder names {counted(len(labelled), 'speaker')} for {counted(len(empty), 'partition')} "
            "that share none; expected a metadata.csv beside the sound files, with the header file,speaker"
        )
    dealt, own = split(labelled, recipe.speaker_share, wanted, key=speaker_of, needed=empty)
    parts = {p: sorted([*parts[p], *dealt[p]]) for p in wanted}
    if "train" in parts:
        parts["train"] += loose
    return parts, own


def weights_of(names: list[str], by_group: dict[str, list[Clip]], unlabelled_share: float) -> np.ndarray:
    """How often each speaks: every speaker alike, a set without speakers by its number of clips."""
    labelled = np.array([by_group[n][0].labelled for n in names])
    sizes = np.array([len(by_group[n]) for n in names], float) * ~labelled
    loose = unlabelled_share if labelled.any() else 1.0
    share = sizes / max(sizes.sum(), 1.0) * (loose if sizes.any() else 0.0)
    return share + labelled * (1 - share.sum()) / max(labelled.sum(), 1)
