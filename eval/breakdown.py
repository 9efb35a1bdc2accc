"""Equal error rates by condition, each with its counts and its interval.

A breakdown by playback device or source recorder has no genuine trials of its own: it pools all genuine trials
of the same array and environment as its replays (evaluation.md, rule 6). A cell with fewer than 50 trials of
either class gives its counts and no rate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eval.metrics import bootstrap_interval, eer
from eval.scores import UNKNOWN_CONDITION, ScoreTable

MIN_TRIALS = 50  # of each class, for a rate to be printed
MIN_SPEAKERS = 10  # of each class, for speakers to be drawn instead of trials
NOBODY = ("0", UNKNOWN_CONDITION, "")  # speaker words of synthetic or unknown voices
POOLED = ("playback_device", "source_recorder")  # conditions which only replays have

# A position is a code whose meaning depends on the environment, so it never stands alone.
BREAKDOWNS: dict[str, tuple[str, ...]] = {
    "array": ("array",),
    "environment": ("environment",),
    "playback device": ("playback_device",),
    "source recorder": ("source_recorder",),
    "array × environment": ("array", "environment"),
    "position": ("environment", "position"),
}


@dataclass(frozen=True)
class Cell:
    """One condition: its trials per class and, where there are enough, its EER (fraction) and interval."""

    name: str
    genuine: int
    replay: int
    eer: float | None = None
    low: float | None = None
    high: float | None = None
    drawn: str = ""  # what the bootstrap draws: "speakers" or "trials"
    note: str = ""


def breakdown(
    table: ScoreTable, by: tuple[str, ...], *, n: int = 1000, level: float = 0.95, seed: int = 0
) -> list[Cell]:
    """One cell for each combination of the conditions `by` that occurs, in natural order of the names.

    Empty where the table lacks one of the conditions. `n` bootstrap draws per cell.
    """
    return [_cell(name, part, n, level, seed) for name, part in _parts(table, by)]


def _parts(table: ScoreTable, by: tuple[str, ...]) -> Iterator[tuple[str, ScoreTable]]:
    if not all(condition in table.conditions for condition in by):
        return
    labelled = table.select(table.genuine | table.replay)
    of_replays = any(condition in POOLED for condition in by)
    keys = list(zip(*(labelled.conditions[condition].tolist() for condition in by), strict=True))
    place = _place(labelled)
    for key in sorted(
        {k for k, r in zip(keys, labelled.replay, strict=True) if r or not of_replays}, key=_natural
    ):
        here = np.array([k == key for k in keys])
        if of_replays:
            here &= labelled.replay
            here |= labelled.genuine & np.isin(place, place[here])
        yield (
            " · ".join("unknown" if word == UNKNOWN_CONDITION else word for word in key),
            labelled.select(here),
        )


def _place(table: ScoreTable) -> np.ndarray:
    """A number (n,) for each trial's array and environment; the same for all where neither is known."""
    words = [table.conditions[name] for name in ("array", "environment") if name in table.conditions]
    if not words:
        return np.zeros(len(table), dtype=np.int64)
    return np.unique(np.stack(words, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def _natural(key: tuple[str, ...]) -> list[tuple[int, int, str]]:
    """Sorts "2" before "10" and "-1" before "1"; words after numbers."""
    return [(0, int(w), "") if re.fullmatch(r"-?[0-9]{1,18}", w) else (1, 0, w) for w in key]


def _cell(name: str, table: ScoreTable, n: int, level: float, seed: int) -> Cell:
    genuine, replay = table.score[table.genuine], table.score[table.replay]
    if min(genuine.size, replay.size) < MIN_TRIALS:
        note = f"under {MIN_TRIALS} trials"
        return Cell(name, genuine.size, replay.size, note=note)
    groups = speaker_groups(table)
    rate = eer(genuine, replay)[0]
    low, high = bootstrap_interval(genuine, replay, eer, n=n, level=level, groups=groups, seed=seed)
    note = "" if rate > 0 else "no error among these trials: the interval cannot see beyond them"
    return Cell(name, genuine.size, replay.size, rate, low, high, "speakers" if groups else "trials", note)


def speaker_groups(table: ScoreTable) -> tuple[np.ndarray, np.ndarray] | None:
    """`voice_groups` of a score table's speakers; None where it does not know them."""
    if "speaker" not in table.conditions:
        return None
    return voice_groups(table.conditions["speaker"], table.genuine, table.replay)


def voice_groups(
    voice: np.ndarray, genuine: np.ndarray, replay: np.ndarray, trial: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Bootstrap groups of the genuine and of the replay trials by voice, of words (n,) and masks (n,); None where
    trials are drawn instead, because the voices are unknown or fewer than `MIN_SPEAKERS` in a class.

    A trial of a synthetic voice or an unknown speaker is a group of its own, one where `trial` (n,) has it twice.
    """
    somebody = ~np.isin(voice, NOBODY)
    if min(np.unique(voice[label & somebody]).size for label in (genuine, replay)) < MIN_SPEAKERS:
        return None
    _, number = np.unique(voice, return_inverse=True)
    own = np.arange(len(voice))
    if trial is not None:
        _, first, inverse = np.unique(trial, return_index=True, return_inverse=True)
        own = first[inverse]
    groups = np.where(somebody, number, len(voice) + own)
    return groups[genuine], groups[replay]
