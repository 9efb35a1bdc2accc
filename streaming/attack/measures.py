"""What an attack achieved, in numbers with intervals. Pure NumPy.

An attempt is a clip under one attack: was the victim right before, how often was it right after (a share, where it
was asked several times), and how sure of the truth (probabilities). Clips of one speaker succeed and fail together,
so whoever names the speakers (`groups`) gets intervals over speakers where there are at least `FEWEST` of them.
Shapes: C clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from eval.metrics import bootstrap_interval, eer, percentile_interval

FEWEST = 8  # speakers that an interval can be made of
DRAWS = 2000
Z = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def grouped(groups: Sequence[str] | None, count: int) -> np.ndarray:
    """The number (C,) of the group that each clip is drawn with: its speaker, or itself where these are few."""
    if groups is None or len(set(groups)) < FEWEST:
        return np.arange(count)
    return np.unique(np.asarray(groups), return_inverse=True)[1]


def share_of(hits: Sequence[float] | np.ndarray, groups: Sequence[str] | None = None) -> Rate | None:
    """The mean of shares 0..1 with Wilson's interval; None without clips.

    The interval is that of as many clips as these are worth: where speakers differ by more than their clips would
    by chance, fewer (the design effect of a cluster sample, Kish 1965; never below 1).

    >>> share_of([1, 1, 0, 0]).value
    0.5
    """
    values = np.asarray(hits, dtype=np.float64)
    if len(values) == 0:
        return None
    p = float(values.mean())
    n = len(values) / _design_effect(values - p, grouped(groups, len(values)), p * (1 - p))
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return Rate(p, float(max(0.0, centre - half)), float(min(1.0, centre + half)))


def _design_effect(residuals: np.ndarray, number: np.ndarray, variance: float) -> float:
    """How much more the mean varies over groups than it would over as many independent clips; at least 1."""
    sums = np.bincount(number, weights=residuals)
    if variance <= 0 or len(sums) in (1, len(residuals)):
        return 1.0
    over_groups = len(sums) / (len(sums) - 1) * np.square(sums).sum() / len(residuals) ** 2
    return max(1.0, float(over_groups * len(residuals) / variance))


def success(
    right_before: Sequence[bool], right_after: Sequence[float], groups: Sequence[str] | None = None
) -> Rate | None:
    """Share of the clips that the victim had right and has no longer. What it got wrong anyhow is no success."""
    before, after = np.asarray(right_before, dtype=bool), np.asarray(right_after, dtype=np.float64)
    return share_of(1 - after[before], None if groups is None else np.asarray(groups)[before].tolist())


def _means(columns: np.ndarray, groups: Sequence[str] | None, seed: int) -> np.ndarray:
    """Means (DRAWS, K) of the columns (C, K) in draws of whole groups."""
    number = grouped(groups, len(columns))
    size = number.max() + 1
    drawn = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), DRAWS)[:, number]
    return drawn @ columns / np.maximum(1, drawn.sum(axis=1, keepdims=True))


def mean_of(values: Sequence[float], groups: Sequence[str] | None = None, seed: int = 0) -> Rate | None:
    """Mean with its bootstrap interval; None without clips."""
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return None
    low, high = percentile_interval(_means(found[:, None], groups, seed)[:, 0])
    return Rate(float(found.mean()), float(low), float(high))


def gained(
    policy: Sequence[float],
    random: Sequence[float],
    best: Sequence[float],
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> Rate | None:
    """(policy - random) / (expert - random) of mean successes on the same clips (C,), with its bootstrap interval.

    None where the expert is no better than random moments: then there is nothing to reach. In draws where that is
    so the share counts as 0 where the policy is no better either, else as 1.
    """
    one, other, top = (np.asarray(values, dtype=np.float64) for values in (policy, random, best))
    if len(one) == 0 or top.mean() <= other.mean():
        return None
    above, room = _means(np.column_stack([one - other, top - other]), groups, seed).T
    shares = np.where(room > 1e-12, above / np.where(room > 1e-12, room, 1), above > 0)
    low, high = percentile_interval(shares)
    return Rate(float((one.mean() - other.mean()) / (top.mean() - other.mean())), float(low), float(high))


def ratio(
    one: Sequence[float], other: Sequence[float], groups: Sequence[str] | None = None, seed: int = 0
) -> Rate | None:
    """mean(one) / mean(other) on the same clips (C,), with its bootstrap interval; None where the other is 0.

    Draws in which the other is 0 have no ratio; they count as the largest of the rest.
    """
    pair = np.column_stack([one, other]).astype(np.float64)
    if len(pair) == 0 or pair[:, 1].mean() <= 0:
        return None
    above, below = _means(pair, groups, seed).T
    found = above[below > 0] / below[below > 0]
    found = np.append(found, np.full(int((below <= 0).sum()), found.max()))
    low, high = percentile_interval(found)
    return Rate(float(pair[:, 0].mean() / pair[:, 1].mean()), float(low), float(high))


def detection(
    genuine: np.ndarray,
    replay: np.ndarray,
    groups: tuple[Sequence[str], Sequence[str]] | None = None,
    seed: int = 0,
) -> Rate | None:
    """EER of clean genuine against attacked replayed scores; None where a class has no scores.

    What could not be scored (-inf) is rejected at every threshold. `groups`: the speakers of both.
    """
    genuine, replay = np.asarray(genuine, np.float64), np.asarray(replay, np.float64)
    finite = np.concatenate([genuine, replay])
    finite = finite[np.isfinite(finite)]
    if not len(genuine) or not len(replay) or not len(finite):
        return None
    genuine, replay = (
        np.where(np.isfinite(scores), scores, finite.min() - 1) for scores in (genuine, replay)
    )
    enough = groups is not None and len(set(groups[0]) | set(groups[1])) >= FEWEST
    low, high = bootstrap_interval(
        genuine, replay, eer, n=500, groups=tuple(map(list, groups)) if enough else None, seed=seed
    )
    return Rate(float(eer(genuine, replay)[0]), low, high)
