"""How few recordings of an array move a detector's answers there: fitted on all, chosen by held-out ones.

Each way has a handful of parameters on what the frozen network says:

- calibration: the llr shifted, or scaled and shifted;
- head: the last layer anew, drawn to the base's by a ridge;
- genuine: no replay was recorded. A likelihood ratio's inverse has the mean 1 over genuine trials, which fixes the
  shift where the array moves both classes alike. What share of replays gets through cannot be known.

Folds that share no speaker (no file, where speakers are few or not known) choose: a larger way is kept only where
it lowers the cost of held-out recordings (`eval.metrics.cllr`) by more than its standard error.
Shapes: n recordings, E numbers of an embedding. Llrs are natural logarithms, higher = more genuine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detector.calibration import threshold_at
from eval.metrics import cllr, eer
from remasc.sentences import quoted

WAYS = ("auto", "calibration", "head", "genuine")
LEAST = 8  # recordings of a class, for anything to be said of it
LEAST_FOR_HEAD = 20
FOLDS = 5
FEW_SPEAKERS = 4  # fewer cannot be parted so that a fold's says anything of the next speaker
RIDGES = (1000.0, 300.0, 100.0, 30.0, 10.0)  # precision of the head's change, in recordings


@dataclass(frozen=True)
class Heard:
    """Target recordings as the frozen network says them: `scores` (n,), `embeddings` (n, E) or (n, 0) where it has
    none, `genuine` (n,) bool, `speakers` n words (empty where not known), `names` n words, `seconds` (n,);
    `left_out` counts by reason what could not be judged."""

    scores: np.ndarray
    embeddings: np.ndarray
    genuine: np.ndarray
    speakers: tuple[str, ...]
    names: tuple[str, ...]
    seconds: np.ndarray
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def minutes(self) -> float:
        return float(self.seconds.sum()) / 60

    def only(self, kept: np.ndarray) -> Heard:
        """The recordings for which `kept` (n,) is True."""
        numbers = np.flatnonzero(kept)
        return Heard(
            self.scores[kept],
            self.embeddings[kept],
            self.genuine[kept],
            tuple(self.speakers[i] for i in numbers),
            tuple(self.names[i] for i in numbers),
            self.seconds[kept],
            self.left_out,
        )


@dataclass(frozen=True)
class Adapted:
    """What was learnt: the array's llr is `slope * base's llr + offset`, plus `change @ [embedding, 1]` (E + 1,)
    where there is a head. `way` says which one was kept, `said` what a person must know, `figures` what was
    measured on held-out folds."""

    way: str
    slope: float
    offset: float
    change: np.ndarray | None
    figures: dict[str, Any]
    said: tuple[str, ...]


def learn(
    heard: Heard,
    llr: np.ndarray,
    limit: float,
    way: str = "auto",
    p_miss: float | None = None,
    p_fa: float | None = None,
) -> Adapted:
    """The way that held-out recordings recommend, fitted on all of them.

    `llr` (n,) is the base's, accepted from `limit` on; `p_miss` asks for a shift that rejects at most so many of
    the genuine recordings, `p_fa` for one that accepts at most so many of the replayed.
    """
    if way not in WAYS:
        raise ValueError(f"unknown way {quoted(way)}; expected one of {', '.join(WAYS)}")
    for name, rate in (("p_miss", p_miss), ("p_fa", p_fa)):
        if rate is not None and not 0 <= rate < 1:
            raise ValueError(f"{name} is {rate}; expected a rate from 0 up to 1")
    if p_miss is not None and p_fa is not None:
        raise ValueError("one shift cannot set both p_miss and p_fa; give one of them")
    genuine, replay = int(heard.genuine.sum()), int((~heard.genuine).sum())
    if genuine < LEAST or (way in ("calibration", "head") and replay < LEAST):
        raise ValueError(
            f"{genuine} genuine and {replay} replayed recordings can be judged; expected at least {LEAST} "
            f"genuine, and {LEAST} replayed for anything but --way genuine"
        )
    if way == "genuine" or replay < LEAST:
        if p_fa is not None:
            raise ValueError(
                f"p_fa cannot be set without {LEAST} replayed recordings; give p_miss, or record some"
            )
        return _of_genuine(llr[heard.genuine], limit, p_miss, 0 if way == "genuine" else replay)
    return _of_both(llr, heard, limit, way, p_miss, p_fa)


# ---------------------------------------------------------------- genuine recordings alone


def _of_genuine(llr: np.ndarray, limit: float, p_miss: float | None, replays: int) -> Adapted:
    said = [
        "p_fa, the share of replays that get through, cannot be known: "
        + (f"only {replays} replayed recordings were heard" if replays else "no replay was heard"),
    ]
    inverse = np.exp(-llr)
    offset = float(np.log(inverse.mean()))
    error = float(inverse.std() / inverse.mean() / math.sqrt(len(llr)))
    if p_miss is not None:
        offset, error = _offset_at(llr, limit, p_miss), 0.0
        said.append(f"the threshold rejects at most {p_miss:.1%} of these genuine recordings")
    elif abs(offset) <= error:
        offset = 0.0
        said.append("the shift is no larger than its error, so that nothing was changed")
    else:
        said.append("shifted as if the array moves genuine and replayed recordings alike")
    before, after = int((llr < limit).sum()), int((llr + offset < limit).sum())
    figures = {"rejected_genuine": {"base": [before, len(llr)], "adapted": [after, len(llr)]}, "error": error}
    return Adapted("genuine" if offset else "none", 1.0, offset, None, figures, tuple(said))


def _offset_at(llr: np.ndarray, limit: float, p_miss: float) -> float:
    """The shift with which `llr + shift >= limit` rejects at most a share `p_miss`."""
    lowest_accepted = float(np.sort(llr)[math.floor(p_miss * len(llr))])
    return math.nextafter(limit - lowest_accepted, math.inf) + 1e-9 * max(1.0, abs(lowest_accepted))


# ---------------------------------------------------------------- genuine and replayed recordings


@dataclass(frozen=True)
class Candidate:
    """A way: `fit(llr, embeddings, genuine)` -> (slope, offset, change or None)."""

    name: str
    fit: Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[float, float, np.ndarray | None]]


def _of_both(
    llr: np.ndarray, heard: Heard, limit: float, way: str, p_miss: float | None, p_fa: float | None
) -> Adapted:
    """The cheapest way that its betters do not beat by more than the error of the difference."""
    folds, by = folds_of(heard)
    simple = [Candidate("none", _unchanged), Candidate("shift", _shift), Candidate("affine", _affine)]
    costs = {one.name: _held_out(one, llr, heard, folds) for one in simple}
    chosen = simple[0]
    for one in simple[1:]:
        chosen = _better(chosen, one, costs, heard.genuine)
    said: list[str] = []
    rare = min(heard.genuine.sum(), (~heard.genuine).sum())
    if way != "calibration" and heard.embeddings.shape[1] and rare >= LEAST_FOR_HEAD:
        heads = [Candidate(f"head, ridge {ridge:g}", _head(ridge)) for ridge in RIDGES]
        costs |= {one.name: _held_out(one, llr, heard, folds) for one in heads}
        best = min(heads, key=lambda one: cllr(*_by_class(costs[one.name], heard.genuine)))
        chosen = _better(chosen, best, costs, heard.genuine)
    if way == "head" and not chosen.name.startswith("head"):
        said.append(
            "no head is better than the calibration on held-out recordings, so that the latter was kept"
        )
    if chosen.name == "none":
        said.append(
            "nothing is better than the base on held-out recordings, so that it was kept as it is; --p-miss and "
            "--p-fa move the threshold"
        )
    slope, offset, change = chosen.fit(llr, heard.embeddings, heard.genuine)
    held_out = costs[chosen.name]
    moved = 0.0  # by what the folds' fits say: the last one has heard all that it is asked about
    if p_miss is not None:
        moved = _offset_at(held_out[heard.genuine], limit, p_miss)
        said.append(f"the threshold rejects at most {p_miss:.1%} of the held-out genuine recordings")
    if p_fa is not None:
        moved = limit - threshold_at(held_out[~heard.genuine], p_fa) - 1e-9
        said.append(f"the threshold accepts at most {p_fa:.1%} of the held-out replays")
    offset, held_out = offset + moved, held_out + moved
    figures = {
        "folds": {"number": int(folds.max()) + 1, "disjoint_in": by},
        "held_out_cllr": {name: cllr(*_by_class(found, heard.genuine)) for name, found in costs.items()},
        "base": _rates(llr, heard.genuine, limit),
        "held_out": _rates(held_out, heard.genuine, limit),
    }
    return Adapted(chosen.name.split(",")[0], slope, offset, change, figures, tuple(said))


def folds_of(heard: Heard) -> tuple[np.ndarray, str]:
    """A fold (n,) for each recording and what no two folds share: "speakers", or "files" where few
    speakers are known or a class would be missing somewhere. Drawn by a hash of the name."""
    speakers = set(heard.speakers)
    for by, keys in (("speakers", heard.speakers), ("files", heard.names)):
        if by == "speakers" and ("" in speakers or len(speakers) < FEW_SPEAKERS):
            continue
        classes = {key: set() for key in keys}
        for key, genuine in zip(keys, heard.genuine, strict=True):
            classes[key].add(bool(genuine))
        home: dict[str, int] = {}
        for kind in ({True}, {False}, {True, False}):
            own = sorted((key for key in classes if classes[key] == kind), key=_hash)
            home |= {key: place % FOLDS for place, key in enumerate(own)}
        folds = np.array([home[key] for key in keys])
        folds = np.unique(folds, return_inverse=True)[1]
        if all(0 < heard.genuine[folds != k].sum() < (folds != k).sum() for k in range(folds.max() + 1)):
            return folds, by
    raise ValueError("the recordings cannot be parted into folds with both classes in each; record more")


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8")).digest()


def _held_out(one: Candidate, llr: np.ndarray, heard: Heard, folds: np.ndarray) -> np.ndarray:
    """The llr (n,) of each recording by a fit that has not heard its fold."""
    out = np.empty_like(llr)
    for fold in range(folds.max() + 1):
        kept, held = folds != fold, folds == fold
        slope, offset, change = one.fit(llr[kept], heard.embeddings[kept], heard.genuine[kept])
        out[held] = slope * llr[held] + offset
        if change is not None:
            out[held] += _with_one(heard.embeddings[held]) @ change
    return out


def _better(one: Candidate, other: Candidate, costs: dict[str, np.ndarray], genuine: np.ndarray) -> Candidate:
    """The larger way `other` only where it saves more than the standard error of what it saves."""
    sign = np.where(genuine, -1, 1)
    saved = np.logaddexp(0, sign * costs[one.name]) - np.logaddexp(0, sign * costs[other.name])
    classes = [saved[genuine], saved[~genuine]]
    mean = sum(part.mean() for part in classes) / 2
    error = math.sqrt(sum(part.var() / len(part) for part in classes)) / 2
    return other if mean > error else one


def _by_class(values: np.ndarray, genuine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values[genuine], values[~genuine]


def _rates(llr: np.ndarray, genuine: np.ndarray, limit: float) -> dict[str, Any]:
    """EER, and how many of each class the threshold gets wrong: [count, of]."""
    person, replay = _by_class(llr, genuine)
    return {
        "eer": float(eer(person, replay)[0]),
        "cllr": cllr(person, replay),
        "rejected_genuine": [int((person < limit).sum()), len(person)],
        "accepted_replays": [int((replay >= limit).sum()), len(replay)],
    }


def _unchanged(llr: np.ndarray, embeddings: np.ndarray, genuine: np.ndarray) -> tuple[float, float, None]:
    return 1.0, 0.0, None


def _shift(llr: np.ndarray, embeddings: np.ndarray, genuine: np.ndarray) -> tuple[float, float, None]:
    (offset,) = logistic(np.ones((len(llr), 1)), llr, genuine, np.array([1.0]))
    return 1.0, float(offset), None


def _affine(llr: np.ndarray, embeddings: np.ndarray, genuine: np.ndarray) -> tuple[float, float, None]:
    slope, offset = logistic(np.stack([llr, np.ones_like(llr)], axis=1), llr, genuine, np.array([10.0, 1.0]))
    return max(0.0, 1 + float(slope)), float(offset), None


def _head(ridge: float) -> Callable[..., tuple[float, float, np.ndarray]]:
    def fit(llr: np.ndarray, embeddings: np.ndarray, genuine: np.ndarray) -> tuple[float, float, np.ndarray]:
        middle, spread = embeddings.mean(axis=0), embeddings.std(axis=0) + 1e-3
        design = _with_one((embeddings - middle) / spread)
        theta = logistic(design, llr, genuine, np.append(np.full(design.shape[1] - 1, ridge), 1.0))
        change = theta[:-1] / spread
        return 1.0, 0.0, np.append(change, theta[-1] - middle @ change)

    return fit


def _with_one(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def logistic(design: np.ndarray, start: np.ndarray, genuine: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """Parameters (d,) of `llr = start + design @ theta` by logistic regression, both classes weighing the same.

    `ridge` (d,) is the precision of a prior at zero, in recordings. Newton's method; the cost is convex.
    """
    weight = np.where(genuine, 0.5 / genuine.sum(), 0.5 / (~genuine).sum()) * len(start)
    sign = np.where(genuine, -1.0, 1.0)

    def cost(theta: np.ndarray) -> float:
        return float(weight @ np.logaddexp(0, sign * (start + design @ theta)) + 0.5 * ridge @ theta**2)

    theta = np.zeros(design.shape[1])
    for _ in range(100):
        wrong = np.exp(
            -np.logaddexp(0, -sign * (start + design @ theta))
        )  # the chance given to the other class
        gradient = design.T @ (weight * sign * wrong) + ridge * theta
        hessian = (design * (weight * wrong * (1 - wrong))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        while cost(theta - step) > cost(theta) and np.abs(step).max() > 1e-9:
            step = step / 2  # far from the minimum a whole step may lead away
        theta -= step
        if np.abs(step).max() < 1e-9:
            break
    return theta
