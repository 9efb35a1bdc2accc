"""All the numbers of one score file, each with its interval: what metrics.json holds and the report shows.

Rates are fractions in [0, 1], costs normalised, Cllr in bits. One bootstrap serves all figures of the whole
table, so that they stand on the same draws.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

import numpy as np

from eval import metrics
from eval.breakdown import BREAKDOWNS, breakdown, speaker_groups
from eval.scores import ScoreTable

LEVEL = 0.95
SEED = 0
NOT_CALIBRATED = (
    "refused: it takes calibrated log-likelihood ratios (column llr), and not every trial has one"
)
OWN_EER = "the EER threshold of these very trials: optimistic, a threshold belongs to dev"

SCORE_METRICS: dict[str, Callable] = {
    "eer": metrics.eer,
    "eer_rocch": metrics.eer_rocch,
    "p_miss_at_p_fa_0.01": lambda genuine, replay: metrics.p_miss_at(genuine, replay, 0.01),
    "p_miss_at_p_fa_0.05": lambda genuine, replay: metrics.p_miss_at(genuine, replay, 0.05),
    "min_dcf": metrics.min_dcf,
    "min_cllr": metrics.min_cllr,
}
LLR_METRICS: dict[str, Callable] = {"act_dcf": metrics.act_dcf, "cllr": metrics.cllr}


class DetBand(NamedTuple):
    """`p_miss` (K,) with its interval at false-alarm rates `p_fa` (K,), fractions."""

    p_fa: np.ndarray
    p_miss: np.ndarray
    low: np.ndarray
    high: np.ndarray


def summarise(
    table: ScoreTable,
    *,
    threshold: float | None = None,
    threshold_origin: str = "",
    n: int = 1000,
    step: Callable[[str], None] = lambda _: None,
) -> tuple[dict, DetBand]:
    """The figures (plain dict, ready for JSON) of a labelled table and the band of its DET curve.

    `threshold` decides by `score >= threshold` and comes from elsewhere (dev); without it the EER threshold
    of these trials is taken, and the figures say so. `step` is told what is being worked on.
    """
    labelled = table.select(table.genuine | table.replay)
    _refuse_one_class(labelled)
    step("all trials")
    figures, band = _whole(labelled, threshold, threshold_origin, n)
    groups = speaker_groups(labelled)
    figures["interval"] = {
        "level": LEVEL,
        "method": "percentile bootstrap",
        "draws": n,
        "over": "speakers" if groups else "trials",
        "seed": SEED,
    }
    figures["metrics"]["eer_decided"] = _decided(labelled, figures["metrics"]["eer"], n)
    figures["breakdowns"] = {}
    for name, by in BREAKDOWNS.items():
        step(f"by {name}")
        if cells := breakdown(labelled, by, n=n, level=LEVEL, seed=SEED):
            figures["breakdowns"][name] = [asdict(cell) for cell in cells]
    return {"trials": _counts(table), **figures}, band


def _refuse_one_class(table: ScoreTable) -> None:
    missing = [
        name
        for name, of_class in (("genuine", table.genuine), ("replay", table.replay))
        if not of_class.any()
    ]
    if missing:
        which = "no trial has a label" if len(missing) == 2 else f"no trial is labelled {missing[0]!r}"
        raise ValueError(
            f"{which}, and an error rate needs both classes; write 'genuine' or 'replay' into a column 'label' of "
            "the scores, or give --protocol FILE, a tab-separated table with the columns trial and label"
        )


def _counts(table: ScoreTable) -> dict:
    reasons = Counter(table.flag[table.abstained].tolist())
    return {
        "genuine": int(table.genuine.sum()),
        "replay": int(table.replay.sum()),
        "unlabelled": int((table.label == "").sum()),
        "abstained": int(table.abstained.sum()),
        "abstained_reasons": dict(sorted(reasons.items())),
        "coverage": 1 - float(table.abstained.mean()),
    }


def _decided(table: ScoreTable, whole: dict, n: int) -> dict | None:
    """The EER of the trials on which the detector did not abstain; None where a class is left empty."""
    decided = table.select(~table.abstained)
    counts = {"genuine": int(decided.genuine.sum()), "replay": int(decided.replay.sum())}
    if len(decided) == len(table):
        return {**whole, **counts}
    if not all(counts.values()):
        return None
    genuine, replay = decided.score[decided.genuine], decided.score[decided.replay]
    rate, threshold = metrics.eer(genuine, replay)
    groups = speaker_groups(decided)
    low, high = metrics.bootstrap_interval(
        genuine, replay, metrics.eer, n=n, level=LEVEL, groups=groups, seed=SEED
    )
    return {"value": rate, "low": low, "high": high, "threshold": threshold, **counts}


def _whole(table: ScoreTable, threshold: float | None, origin: str, n: int) -> tuple[dict, DetBand]:
    """Every figure over all labelled trials, from one bootstrap."""
    if threshold is None:
        sweep = metrics.eer(table.score[table.genuine], table.score[table.replay])[1]
        threshold, origin, optimistic = metrics.decision_threshold(sweep), OWN_EER, True
    elif not np.isfinite(threshold):
        raise ValueError(f"the threshold is {threshold}; expected a finite score, such as the one of dev")
    else:
        origin, optimistic = origin or "given by the caller", False
    table = table.select(np.argsort(table.score, kind="stable"))  # sorted classes make every draw cheap
    genuine, replay = table.select(table.genuine), table.select(table.replay)
    measure = _Measure(genuine, replay, threshold, table.calibrated)
    one_each = np.ones(len(genuine), dtype=np.int64), np.ones(len(replay), dtype=np.int64)
    values, p_miss = measure(*one_each)
    groups = speaker_groups(table)
    draws = metrics.resampled_counts(len(genuine), len(replay), n=n, groups=groups, seed=SEED)
    drawn = [measure(*counts) for counts in draws]
    with np.errstate(all="ignore"):
        bounds = np.nanquantile([value for value, _ in drawn], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    band = metrics.percentile_interval(np.array([curve for _, curve in drawn]), LEVEL)
    found = {
        name: {"value": float(value), "low": float(low), "high": float(high)}
        for name, value, low, high in zip(measure.names, values, *bounds, strict=True)
    }
    names = [*SCORE_METRICS, *(LLR_METRICS if table.calibrated else ())]
    result = {name: found[name] for name in names}
    for name in ("eer", "min_dcf", "p_miss_at_p_fa_0.01", "p_miss_at_p_fa_0.05"):
        result[name]["threshold"] = float(SCORE_METRICS[name](genuine.score, replay.score)[1])
    if not table.calibrated:
        result |= {name: {"refused": NOT_CALIBRATED} for name in LLR_METRICS}
    point = {"threshold": float(threshold), "origin": origin, "optimistic": optimistic}
    point |= {"bpcer": found["bpcer"], "p_fa": found["p_fa"]}
    if measure.devices:
        worst = max(measure.devices, key=lambda device: found[f"apcer {device}"]["value"])
        point["apcer_max"] = {**found["apcer_max"], "device": worst}
        counts = Counter(replay.conditions["playback_device"].tolist())
        point["apcer"] = {
            device: {**found[f"apcer {device}"], "replay": counts[device]} for device in measure.devices
        }
    return {"metrics": result, "operating_point": point}, DetBand(measure.grid, p_miss, *band)


class _Measure:
    """Calls as `measure(genuine_counts, replay_counts)` -> the figures `names`, and p_miss on `grid`."""

    def __init__(self, genuine: ScoreTable, replay: ScoreTable, threshold: float, calibrated: bool):
        self.genuine, self.replay, self.calibrated = genuine, replay, calibrated
        self.rejected, self.accepted = genuine.score < threshold, replay.score >= threshold
        devices = replay.conditions.get("playback_device")
        self.devices: list[str] = []
        if devices is not None:
            words, self.device = np.unique(devices, return_inverse=True)
            self.devices = words.tolist()
        # evenly spaced on the normal-deviate axis, so that the band is smooth where the curve is drawn
        self.grid = 1 / (1 + np.exp(-np.linspace(-7.6, 7.6, 161)))
        self.names = [*SCORE_METRICS, *(LLR_METRICS if calibrated else ()), "bpcer", "p_fa"]
        if self.devices:
            self.names += [*(f"apcer {device}" for device in self.devices), "apcer_max"]

    def __call__(self, of_genuine: np.ndarray, of_replay: np.ndarray) -> tuple[list[float], np.ndarray]:
        genuine, replay = np.repeat(self.genuine.score, of_genuine), np.repeat(self.replay.score, of_replay)
        values = [np.ravel(metric(genuine, replay))[0] for metric in SCORE_METRICS.values()]
        if self.calibrated:
            llr = np.repeat(self.genuine.llr, of_genuine), np.repeat(self.replay.llr, of_replay)
            values += [metric(*llr) for metric in LLR_METRICS.values()]
        values.append(of_genuine @ self.rejected / of_genuine.sum())
        values.append(of_replay @ self.accepted / of_replay.sum())
        if self.devices:
            size = len(self.devices)
            accepted = np.bincount(self.device, of_replay * self.accepted, minlength=size)
            with np.errstate(invalid="ignore"):  # a device may be missing from a draw of whole speakers
                apcer = accepted / np.bincount(self.device, of_replay, minlength=size)
            values += [*apcer, np.nanmax(apcer)]
        p_miss, p_fa, _ = metrics.det_curve(genuine, replay)
        return values, p_miss[np.searchsorted(-p_fa, -self.grid)]
