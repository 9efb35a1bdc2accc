"""Error rates of a replay detector: `(genuine_scores, replay_scores)` in, numbers out. Pure NumPy.

A score is higher where the speech is more genuine. `p_miss` is the share of genuine trials rejected, `p_fa`
the share of replays accepted; both are fractions in [0, 1]. In ISO/IEC 30107-3 words: BPCER = `p_miss`,
APCER = `p_fa` of one playback device.

**Two conventions for a threshold.** Everything that sweeps (`det_curve`, `eer`, `min_dcf`, `p_miss_at`, ...)
accepts where `score > threshold`, the threshold being one of the scores. A decision accepts where
`score >= threshold`; `decision_threshold` turns the first kind into the second (the next float above).

Definitions are those of ASVspoof 5 unless a docstring says otherwise.
Shapes: G genuine scores, R replay scores, K points of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

Metric = Callable[[np.ndarray, np.ndarray], Any]


def validate(genuine_scores, replay_scores) -> tuple[np.ndarray, np.ndarray]:
    """Both classes as float64 vectors (G,), (R,); ValueError unless 1-D, finite and not empty."""
    return _vector(genuine_scores, "genuine"), _vector(replay_scores, "replay")


def _vector(scores, name: str) -> np.ndarray:
    try:
        vector = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} scores are not numbers; expected a 1-D array of floats") from None
    if vector.ndim != 1:
        raise ValueError(
            f"{name} scores have shape {vector.shape}; expected one dimension, one score a trial"
        )
    if vector.size == 0:
        raise ValueError(f"there are no {name} scores; a rate needs at least one trial of each class")
    if not np.isfinite(vector).all():
        bad = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise ValueError(f"{name} score {bad} is {vector[bad]}; expected finite scores, so score it again")
    return vector


def _rejected(genuine: np.ndarray, replay: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Genuine and replay trials rejected (K,) at each threshold (K,), from none to all.

    The thresholds are a float just below the lowest score, then each different score: tied scores are
    rejected together.
    """
    scores = np.concatenate([genuine, replay])
    order = np.argsort(scores, kind="stable")  # merges sorted classes in linear time: the bootstrap's case
    scores = scores[order]
    last_of_tie = np.append(np.flatnonzero(scores[1:] != scores[:-1]), scores.size - 1)
    genuine_out = np.cumsum(order < genuine.size)[last_of_tie]
    replay_out = last_of_tie + 1 - genuine_out
    first = np.nextafter(scores[0], -np.inf)
    return (
        np.concatenate([[0], genuine_out]),
        np.concatenate([[0], replay_out]),
        np.concatenate([[first], scores[last_of_tie]]),
    )


def det_curve(genuine_scores, replay_scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(p_miss, p_fa, thresholds)`, each (K,), accepting where score > threshold.

    The thresholds are the sorted scores, each once (tied scores form one point), after one just below the
    lowest: `p_miss` rises from 0 to 1, `p_fa` falls from 1 to 0.

    >>> p_miss, p_fa, thresholds = det_curve([1.0, 2.0], [0.0, 1.0])
    >>> p_miss.tolist(), p_fa.tolist(), thresholds.tolist()[1:]
    ([0.0, 0.0, 0.5, 1.0], [1.0, 0.5, 0.0, 0.0], [0.0, 1.0, 2.0])
    """
    genuine, replay = validate(genuine_scores, replay_scores)
    genuine_out, replay_out, thresholds = _rejected(genuine, replay)
    return genuine_out / genuine.size, (replay.size - replay_out) / replay.size, thresholds


def eer(genuine_scores, replay_scores) -> tuple[float, float]:
    """Equal error rate (fraction) and its sweep threshold, as ASVspoof 5 defines it: the point of the DET
    curve with the smallest |p_miss - p_fa|, the mean of the two. Constant scores give 0.5."""
    p_miss, p_fa, thresholds = det_curve(genuine_scores, replay_scores)
    point = int(np.argmin(np.abs(p_miss - p_fa)))
    return float(p_miss[point] + p_fa[point]) / 2, float(thresholds[point])


def eer_rocch(genuine_scores, replay_scores) -> float:
    """Equal error rate where the convex hull of the ROC crosses p_miss = p_fa (Brummer, BOSARIS).

    Does not depend on how a tie is broken and never exceeds 0.5; on small sets it differs from `eer`.
    """
    genuine, replay = validate(genuine_scores, replay_scores)
    genuine_out, replay_out = _hull(*_rejected(genuine, replay)[:2])
    p_miss, p_fa = genuine_out / genuine.size, 1 - replay_out / replay.size
    gap = p_miss - p_fa  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(p_miss[after - 1] + share * (p_miss[after] - p_miss[after - 1]))


def _hull(genuine_out: np.ndarray, replay_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rejection counts at the corners of the ROC's convex hull, exact in integers.

    A point on or inside the line between its neighbours is no corner, so all such may go at once; repeated
    until none is left. The corners are also the pools of PAV (pool adjacent violators).
    """
    x, y = genuine_out.astype(np.int64), replay_out.astype(np.int64)
    while x.size > 2:
        dx, dy = np.diff(x), np.diff(y)
        corner = dy[:-1] * dx[1:] > dy[1:] * dx[:-1]  # replays per genuine must fall from step to step
        if corner.all():
            break
        keep = np.concatenate([[True], corner, [True]])
        x, y = x[keep], y[keep]
    return x, y


def cllr(genuine_llr, replay_llr) -> float:
    """Cost of log-likelihood ratios (Brummer), in bits, >= 0; 1 = as good as knowing nothing.

    Takes calibrated natural-log likelihood ratios, not raw scores.
    """
    genuine, replay = validate(genuine_llr, replay_llr)
    bits = np.logaddexp(0, -genuine).mean() + np.logaddexp(0, replay).mean()
    return float(bits) / (2 * math.log(2))


def min_cllr(genuine_scores, replay_scores) -> float:
    """`cllr` after the best monotonic recalibration on these very trials (PAV), in bits, in [0, 1]."""
    genuine, replay = validate(genuine_scores, replay_scores)
    genuine_out, replay_out = _hull(*_rejected(genuine, replay)[:2])
    p, q = np.diff(genuine_out) / genuine.size, np.diff(replay_out) / replay.size
    with np.errstate(divide="ignore", invalid="ignore"):  # a pool of one class costs nothing: 0 log2(inf) = 0
        bits = np.where(p > 0, p * np.log2((p + q) / p), 0) + np.where(q > 0, q * np.log2((p + q) / q), 0)
    return float(bits.sum()) / 2


def min_dcf(
    genuine_scores, replay_scores, *, p_spoof: float = 0.05, c_miss: float = 1.0, c_fa: float = 10.0
) -> tuple[float, float]:
    """Smallest normalised detection cost over all thresholds and its sweep threshold; cost in [0, 1].

    cost = c_miss (1 - p_spoof) p_miss + c_fa p_spoof p_fa, over that of the better constant answer.
    """
    miss, fa = _weights(p_spoof, c_miss, c_fa)
    p_miss, p_fa, thresholds = det_curve(genuine_scores, replay_scores)
    cost = miss * p_miss + fa * p_fa
    point = int(np.argmin(cost))
    return float(cost[point]) / min(miss, fa), float(thresholds[point])


def act_dcf(
    genuine_llr, replay_llr, *, p_spoof: float = 0.05, c_miss: float = 1.0, c_fa: float = 10.0
) -> float:
    """Normalised detection cost at the Bayes threshold log(c_fa p_spoof / (c_miss (1 - p_spoof))).

    Takes calibrated natural-log likelihood ratios, not raw scores. At least `min_dcf`; may exceed 1.
    """
    miss, fa = _weights(p_spoof, c_miss, c_fa)
    genuine, replay = validate(genuine_llr, replay_llr)
    threshold = math.log(fa / miss)
    cost = miss * np.mean(genuine <= threshold) + fa * np.mean(replay > threshold)
    return float(cost) / min(miss, fa)


def _weights(p_spoof: float, c_miss: float, c_fa: float) -> tuple[float, float]:
    if not 0 < p_spoof < 1 or not c_miss > 0 or not c_fa > 0:
        raise ValueError(
            f"p_spoof = {p_spoof}, c_miss = {c_miss}, c_fa = {c_fa}; expected a prior between 0 and 1 and "
            "positive costs"
        )
    return c_miss * (1 - p_spoof), c_fa * p_spoof


def min_tdcf(
    genuine_scores,
    replay_scores,
    *,
    p_miss_asv: float,
    p_fa_asv: float,
    p_miss_spoof_asv: float,
    p_spoof: float = 0.05,
    p_target: float = 0.95 * 0.99,
    p_nontarget: float = 0.95 * 0.01,
    c_miss_asv: float = 1.0,
    c_fa_asv: float = 10.0,
    c_miss: float | None = None,
    c_fa: float = 10.0,
    form: str = "2019",
) -> tuple[float, float]:
    """Smallest normalised tandem detection cost with a given speaker verifier (ASV), and its sweep threshold.

    The ASV's three rates are fractions: targets rejected, non-targets accepted, spoofs rejected.

    `form="2019"` (Kinnunen et al. 2018, ASVspoof 2019), normalised by min(C1, C2), in [0, 1]; `c_miss`, the
    cost of a genuine trial that the detector rejects, is 1 where it is not given:
        C1 = p_target (c_miss - c_miss_asv p_miss_asv) - p_nontarget c_fa_asv p_fa_asv
        C2 = c_fa p_spoof (1 - p_miss_spoof_asv)
        cost = C1 p_miss + C2 p_fa
    `form="2021"` (the revision of Kinnunen et al. 2020, ASVspoof 2021), normalised by C0 + min(C1, C2): the
    floor C0 is what the ASV costs by itself. Costs belong to the tandem here, so `c_miss_asv` is the cost of
    a rejected target by either, `c_fa_asv` of an accepted non-target, `c_fa` of an accepted spoof; `c_miss`
    does not exist, and giving it is a ValueError:
        C0 = p_target c_miss_asv p_miss_asv + p_nontarget c_fa_asv p_fa_asv
        C1 = p_target c_miss_asv - C0
        C2 = c_fa p_spoof (1 - p_miss_spoof_asv)
        cost = C0 + C1 p_miss + C2 p_fa
    """
    for name, rate in (("p_miss", p_miss_asv), ("p_fa", p_fa_asv), ("p_miss_spoof", p_miss_spoof_asv)):
        if not 0 <= rate <= 1:
            raise ValueError(f"{name}_asv is {rate}; expected a fraction between 0 and 1, not a percentage")
    if form == "2021" and c_miss is not None:
        raise ValueError(
            f"c_miss is {c_miss}, but the 2021 form has one cost for a rejected target, c_miss_asv; leave c_miss "
            "out, or take form='2019'"
        )
    c_miss = 1.0 if c_miss is None else c_miss
    for name, prior in (("p_spoof", p_spoof), ("p_target", p_target), ("p_nontarget", p_nontarget)):
        if not 0 <= prior <= 1:
            raise ValueError(f"{name} is {prior}; expected a prior between 0 and 1")
    if not all(cost > 0 for cost in (c_miss, c_fa, c_miss_asv, c_fa_asv)):
        raise ValueError(
            f"the costs c_miss = {c_miss}, c_fa = {c_fa}, c_miss_asv = {c_miss_asv}, c_fa_asv = {c_fa_asv} are "
            "not all positive; expected what a mistake costs"
        )
    c2 = c_fa * p_spoof * (1 - p_miss_spoof_asv)
    if form == "2019":
        c0 = 0.0
        c1 = p_target * (c_miss - c_miss_asv * p_miss_asv) - p_nontarget * c_fa_asv * p_fa_asv
    elif form == "2021":
        c0 = p_target * c_miss_asv * p_miss_asv + p_nontarget * c_fa_asv * p_fa_asv
        c1 = p_target * c_miss_asv - c0
    else:
        raise ValueError(f"unknown t-DCF form {form!r}; known: '2019', '2021'")
    if c1 < 0 or c2 < 0 or c0 + min(c1, c2) <= 0:
        raise ValueError(
            f"these ASV rates leave nothing to gain (C1 = {c1:g}, C2 = {c2:g}); the t-DCF needs an ASV that "
            "accepts some spoofs and is better than rejecting everybody"
        )
    p_miss, p_fa, thresholds = det_curve(genuine_scores, replay_scores)
    cost = (c0 + c1 * p_miss + c2 * p_fa) / (c0 + min(c1, c2))
    point = int(np.argmin(cost))
    return float(cost[point]), float(thresholds[point])


def p_miss_at(genuine_scores, replay_scores, p_fa: float) -> tuple[float, float]:
    """Share of genuine trials rejected at the lowest threshold whose false-alarm rate is at most `p_fa`
    (a fraction), and that sweep threshold. No interpolation: the point exists.

    >>> p_miss_at([1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 1.5, 0.5], 0.25)
    (0.25, 1.0)
    """
    if not 0 <= p_fa <= 1:
        raise ValueError(f"p_fa is {p_fa}; expected a fraction between 0 and 1, not a percentage")
    misses, false_alarms, thresholds = det_curve(genuine_scores, replay_scores)
    point = int(np.argmax(false_alarms <= p_fa))
    return float(misses[point]), float(thresholds[point])


def decision_threshold(sweep_threshold: float) -> float:
    """The threshold for `score >= threshold` that decides as `score > sweep_threshold` does."""
    return float(np.nextafter(sweep_threshold, np.inf))


class PresentationErrors(NamedTuple):
    """ISO/IEC 30107-3 rates at one threshold, as fractions."""

    apcer: dict[str, float]  # attack presentation classification error rate of each playback device
    apcer_max: float  # of the device that gets through best
    bpcer: float  # bona fide presentation classification error rate


def apcer_bpcer(
    genuine_scores, replay_scores, devices: Sequence[str] | np.ndarray, threshold: float
) -> PresentationErrors:
    """Rates of the decision `score >= threshold`: APCER per playback device and its maximum, and BPCER.

    `devices` (R,) names the playback device of each replay.
    """
    genuine, replay = validate(genuine_scores, replay_scores)
    devices = np.asarray(devices)
    if devices.shape != replay.shape:
        raise ValueError(f"{devices.size} playback devices for {replay.size} replays; expected one for each")
    accepted = replay >= threshold
    apcer = {str(device): float(accepted[devices == device].mean()) for device in np.unique(devices)}
    return PresentationErrors(apcer, max(apcer.values()), float(np.mean(genuine < threshold)))


def resampled_counts(
    num_genuine: int, num_replay: int, *, n: int = 1000, groups=None, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`n` bootstrap draws: how often each genuine (G,) and each replay trial (R,) was drawn.

    Without groups the trials of each class are drawn with replacement. `groups` names the group of each
    trial (a speaker, say): `(genuine_groups, replay_groups)`, or one sequence of G + R that covers genuine
    then replay. Groups are drawn whole, so a group in both classes brings both; groups of genuine trials
    only, of replays only and of both are drawn apart, so that neither class can come out empty.
    """
    rng = np.random.default_rng(seed)
    if groups is None:
        for _ in range(n):
            yield _draw(rng, num_genuine), _draw(rng, num_replay)
        return
    genuine_group, replay_group, strata = _strata(num_genuine, num_replay, groups)
    drawn = np.zeros(sum(stratum.size for stratum in strata), dtype=np.int64)
    for _ in range(n):
        for stratum in strata:
            drawn[stratum] = _draw(rng, stratum.size)
        yield drawn[genuine_group], drawn[replay_group]


def _draw(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.bincount(rng.integers(0, size, size), minlength=size)


def _strata(num_genuine: int, num_replay: int, groups) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """The group number of each genuine and replay trial, and the groups of one class, the other, and both."""
    number = _group_numbers(num_genuine, num_replay, groups)
    genuine_group, replay_group = number[:num_genuine], number[num_genuine:]
    in_genuine = np.bincount(genuine_group, minlength=number.max() + 1) > 0
    in_replay = np.bincount(replay_group, minlength=number.max() + 1) > 0
    kinds = (in_genuine & in_replay, in_genuine & ~in_replay, in_replay & ~in_genuine)
    strata = [np.flatnonzero(kind) for kind in kinds if kind.any()]
    if all(stratum.size == 1 for stratum in strata):
        raise ValueError(
            f"groups name {number.max() + 1} in all, so that every draw is the same and there is no interval; "
            "expected several speakers (or what the groups are) in a class, or leave groups out"
        )
    return genuine_group, replay_group, strata


def _group_numbers(num_genuine: int, num_replay: int, groups) -> np.ndarray:
    """The group of each genuine, then each replay trial, (G + R,), as a number from 0."""
    wanted = (
        f"expected one group for each of {num_genuine} genuine and {num_replay} replay trials, as "
        "(genuine_groups, replay_groups) or as one sequence of both"
    )
    try:
        paired = isinstance(groups, tuple | list) and len(groups) == 2 and np.ndim(groups[0]) == 1
        parts = [np.asarray(part) for part in (groups if paired else [groups])]
        sizes = [len(part) for part in parts]
        _, number = np.unique(np.concatenate(parts), return_inverse=True)
    except (TypeError, ValueError):  # no sequence, of several dimensions, or of what cannot be compared
        raise ValueError(f"groups are no sequence of names or of numbers; {wanted}") from None
    if number.ndim != 1 or sizes not in ([num_genuine, num_replay], [num_genuine + num_replay]):
        found = " and ".join(f"{size:,}" for size in sizes)
        raise ValueError(f"groups name {found} trials; {wanted}")
    return number


def bootstrap_interval(
    genuine_scores,
    replay_scores,
    metric: Metric,
    *,
    n: int = 1000,
    level: float = 0.95,
    groups=None,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval `(low, high)` of `metric(genuine, replay)` at confidence `level`.

    `metric` returns a number, or a tuple whose first entry is the number; it is called on sorted scores.
    `groups` as in `resampled_counts`: with few speakers and many trials each, draw speakers, because trials
    of one speaker fail together and an interval over trials is too narrow.
    """
    genuine, replay = validate(genuine_scores, replay_scores)
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"n = {n}, level = {level}; expected at least one draw and a level between 0 and 1")
    order_g, order_r = np.argsort(genuine, kind="stable"), np.argsort(replay, kind="stable")
    genuine, replay = genuine[order_g], replay[order_r]
    values = np.empty(n)
    draws = resampled_counts(genuine.size, replay.size, n=n, groups=groups, seed=seed)
    for i, (count_g, count_r) in enumerate(draws):
        value = metric(np.repeat(genuine, count_g[order_g]), np.repeat(replay, count_r[order_r]))
        values[i] = value[0] if isinstance(value, tuple) else value
    low, high = percentile_interval(values, level)
    return float(low), float(high)


def percentile_interval(values: np.ndarray, level: float = 0.95) -> np.ndarray:
    """The `level` percentile interval over the first axis of bootstrap values: (n, ...) -> (2, ...)."""
    return np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
