"""What an attack achieved, in numbers with intervals. Pure NumPy.

An attempt is a clip under one attack: was the victim right before, how often was it right after (a share, where it
was asked several times), and how sure of the truth (probabilities). Clips are drawn whole in every bootstrap.
Shapes: C clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from eval.metrics import bootstrap_interval, eer, percentile_interval

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


def share_of(hits: Sequence[float] | np.ndarray) -> Rate | None:
    """The mean of shares 0..1 with Wilson's interval over the clips; None without clips.

    >>> share_of([1, 1, 0, 0]).value
    0.5
    """
    values = np.asarray(hits, dtype=np.float64)
    n = len(values)
    if n == 0:
        return None
    p = float(values.mean())
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return Rate(p, float(max(0.0, centre - half)), float(min(1.0, centre + half)))


def success(right_before: Sequence[bool], right_after: Sequence[float]) -> Rate | None:
    """Share of the clips that the victim had right and has no longer. What it got wrong anyhow is no success."""
    before, after = np.asarray(right_before, dtype=bool), np.asarray(right_after, dtype=np.float64)
    return share_of(1 - after[before])


def mean_of(values: Sequence[float], seed: int = 0) -> Rate | None:
    """Mean with its bootstrap interval over clips; None without clips."""
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return None
    rng = np.random.default_rng(seed)
    draws = found[rng.integers(0, len(found), (DRAWS, len(found)))].mean(axis=1)
    low, high = percentile_interval(draws)
    return Rate(float(found.mean()), float(low), float(high))


def gained(
    policy: Sequence[float], random: Sequence[float], best: Sequence[float], seed: int = 0
) -> Rate | None:
    """(policy - random) / (expert - random) of mean successes on the same clips (C,), bootstrapped over clips.

    None where the expert is no better than random moments: then there is nothing to reach. In draws where that is
    so the share counts as 0 where the policy is no better either, else as 1.
    """
    one, other, top = (np.asarray(values, dtype=np.float64) for values in (policy, random, best))
    if len(one) == 0 or top.mean() <= other.mean():
        return None
    rows = np.random.default_rng(seed).integers(0, len(one), (DRAWS, len(one)))
    above, room = (one - other)[rows].mean(axis=1), (top - other)[rows].mean(axis=1)
    shares = np.where(room > 1e-12, above / np.where(room > 1e-12, room, 1), above > 0)
    low, high = percentile_interval(shares)
    return Rate(float((one.mean() - other.mean()) / (top.mean() - other.mean())), float(low), float(high))


def detection(genuine: np.ndarray, replay: np.ndarray, seed: int = 0) -> Rate | None:
    """EER of clean genuine against attacked replayed scores; None where a class has no scores."""
    genuine, replay = (np.asarray(scores)[np.isfinite(scores)] for scores in (genuine, replay))
    if not len(genuine) or not len(replay):
        return None
    low, high = bootstrap_interval(genuine, replay, eer, n=500, seed=seed)
    return Rate(float(eer(genuine, replay)[0]), low, high)
