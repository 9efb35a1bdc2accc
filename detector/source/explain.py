"""Why a decision came about: the cues that drove it, each with its value, what people have, and a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from detector.source.cues import CUES

FINE = "fine-shape"
INSIDE = (5, 50, 95)  # percentiles of the training's people: the range that is told, and its middle


@dataclass(frozen=True)
class Reason:
    """A cue, or all coefficients of the spectrum's fine shape together (`FINE`, without value and range). `part` is
    what it adds to the log-likelihood ratio: above zero it speaks for a person. `value` is None where undefined;
    `low` and `high` hold nine in ten of the people in training, None where none had the cue."""

    cue: str
    group: str
    part: float
    value: float | None
    unit: str
    low: float | None
    high: float | None
    sentence: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Explanation:
    """`base + sum of all parts = llr`; `reasons` are the strongest, `others` what the parts of the rest sum to.
    `beside` holds sentences of what was measured and not judged: where the sound came from."""

    base: float
    reasons: tuple[Reason, ...]
    others: float
    method: str
    beside: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        return asdict(self) | {"reasons": [reason.as_dict() for reason in self.reasons]}


def ranges(values: np.ndarray) -> np.ndarray:
    """Percentiles 5, 50 and 95 of each cue over recordings (n, C) -> (C, 3) float32, NaN where none has it."""
    out = np.full((values.shape[1], len(INSIDE)), np.nan, np.float32)
    defined = np.isfinite(values).any(axis=0)
    if defined.any():
        out[defined] = np.nanpercentile(values[:, defined], INSIDE, axis=0).T
    return out


def explanation(
    names: Sequence[str],
    values: np.ndarray,
    parts: np.ndarray,
    base: float,
    human: np.ndarray,
    method: str,
    most: int | None = 5,
) -> Explanation:
    """Of cues (C,) with their parts (C,) in nats and people's ranges (C, 3); `most` reasons, None for all.

    First the strongest of what a person can check; then, as one reason, the coefficients that nobody can.
    """
    order = [int(i) for i in np.argsort(-np.abs(parts), kind="stable") if parts[i] != 0]
    fine = [i for i in order if not CUES[names[i]].checkable]
    plain = [i for i in order if CUES[names[i]].checkable]
    told = plain if most is None else plain[: max(1, most - bool(fine))]
    reasons = [_reason(names[i], float(values[i]), float(parts[i]), human[i]) for i in told]
    if fine and (most is None or len(told) < most):
        reasons.append(_fine_shape(values[fine], parts[fine], human[fine]))
    rest = float(parts.sum()) - sum(reason.part for reason in reasons)
    return Explanation(base, tuple(reasons), rest, method)


def _fine_shape(values: np.ndarray, parts: np.ndarray, human: np.ndarray) -> Reason:
    outside = int(((values < human[:, 0]) | (values > human[:, 2])).sum())
    sentence = f"the spectrum's fine shape: {outside} of {len(values)} coefficients outside of people's"
    return Reason(FINE, "fine shape", float(parts.sum()), None, "", None, None, sentence)


def unjudged(cues: dict[str, float]) -> tuple[str, ...]:
    """Sentences of the defined cues that are told to a person and kept from the classifiers."""
    return tuple(
        CUES[name].say(value)
        for name, value in cues.items()
        if not CUES[name].judged and not math.isnan(value)
    )


def _reason(name: str, value: float, part: float, human: np.ndarray) -> Reason:
    cue = CUES[name]
    low, _, high = (None if math.isnan(v) else float(v) for v in human)
    sentence = cue.say(value)
    if low is None or high is None:
        sentence += "; people in training had none"
    else:
        where = "" if math.isnan(value) else ": inside" if low <= value <= high else ": outside"
        sentence += f"; people {cue.number(low)} to {cue.number(high)}{where}"
    return Reason(name, cue.group, part, None if math.isnan(value) else value, cue.unit, low, high, sentence)


def by_group(names: Sequence[str], parts: np.ndarray) -> dict[str, float]:
    """Parts (C,) summed over the groups of cues, in the order of the groups."""
    out: dict[str, float] = {}
    for name, part in zip(names, parts, strict=True):
        out[CUES[name].group] = out.get(CUES[name].group, 0.0) + float(part)
    return out
