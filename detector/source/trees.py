"""Boosted trees as plain arrays: evaluated, and explained by exact Shapley values, without what grew them.

Trees are grown by scikit-learn's HistGradientBoosting. Cues are float32 here, and a threshold is rounded down to
float32, which sends every float32 the same way as the original does: the routes are the same. A cue that is
undefined (NaN) is not routed: both ways are taken, by the shares of the training samples, so that it tells nothing.
Shapes: n samples, C cues, T trees, E nodes of all trees, L leaves, D most cues on one path, K outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from math import comb

import numpy as np

ROWS = 128  # samples at a time, for the memory of a prediction
DTYPES = {
    "feature": np.int16,  # -1 at a leaf
    "threshold": np.float32,  # left where the cue is at most this
    "left": np.int32,
    "right": np.int32,
    "value": np.float32,  # of a leaf, in log-odds
    "count": np.int32,  # training samples that came by
    "root": np.int32,
    "output": np.int16,
    "baseline": np.float32,
}


@dataclass(frozen=True, eq=False)
class Trees:
    """Node arrays (E,): `feature`, `threshold`, `left`, `right`, `value`, `count`; tree arrays (T,): `root` (its
    first node) and `output` (which of the K sums it adds to); `baseline` (K,)."""

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    count: np.ndarray
    root: np.ndarray
    output: np.ndarray
    baseline: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype in DTYPES.items():
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype))
        self._check()

    def _check(self) -> None:
        """Every tree ends: children lie behind their node and within the arrays; numbers are finite."""
        nodes, inner = len(self.feature), self.feature >= 0
        at = np.arange(nodes)[inner]
        sizes = {len(getattr(self, name)) for name in list(DTYPES)[:6]}
        children = np.concatenate([self.left[inner] - at, self.right[inner] - at])
        ends = np.concatenate([self.left[inner], self.right[inner], self.root])
        numbers = np.concatenate([self.value, self.baseline, self.threshold[inner]])
        sound = sizes == {nodes} and len(self.root) == len(self.output) and nodes > 0
        sound = sound and (children > 0).all() and (ends >= 0).all() and (ends < nodes).all()
        sound = sound and (self.count > 0).all() and np.isfinite(numbers).all()
        if not sound or ((self.output < 0) | (self.output >= len(self.baseline))).any():
            raise ValueError("the arrays are no trees that end; they are damaged, copy the model anew")

    @classmethod
    def from_sklearn(cls, model) -> Trees:
        """Of a fitted HistGradientBoostingClassifier without categories."""
        columns: dict[str, list] = {name: [] for name in DTYPES}
        start = 0
        for iteration in model._predictors:
            for output, predictor in enumerate(iteration):
                nodes = predictor.nodes
                leaf = nodes["is_leaf"].astype(bool)
                columns["feature"].append(np.where(leaf, -1, nodes["feature_idx"]))
                columns["threshold"].append(_down(np.where(leaf, 0, nodes["num_threshold"])))
                columns["left"].append(np.where(leaf, 0, nodes["left"].astype(np.int64) + start))
                columns["right"].append(np.where(leaf, 0, nodes["right"].astype(np.int64) + start))
                columns["value"].append(np.where(leaf, nodes["value"], 0))
                columns["count"].append(nodes["count"])
                columns["root"].append([start])
                columns["output"].append([output])
                start += len(nodes)
        columns["baseline"].append(np.ravel(model._baseline_prediction))
        return cls(**{name: np.concatenate(parts) for name, parts in columns.items()})

    def arrays(self) -> dict[str, np.ndarray]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Sums (n, K) float64 of the leaves' values, each times the chance that cues (n, C) come there: 0 or 1 of
        what is defined, the training's share of what is not."""
        out = np.tile(self.baseline.astype(np.float64), (len(x), 1))
        for start in range(0, len(x), ROWS):  # (ROWS, L, D) at a time
            chance = np.prod(self._leaves.passed(x[start : start + ROWS]), axis=2) * self._leaves.value
            for k in range(len(self.baseline)):
                out[start : start + ROWS, k] += chance[:, self._leaves.output == k].sum(axis=1)
        return out

    def expected(self) -> np.ndarray:
        """What is predicted of nothing known, (K,): the mean over the training samples' leaves."""
        out = self.baseline.astype(np.float64)
        weight = self._leaves.value * np.prod(self._leaves.share, axis=1)
        np.add.at(out, self._leaves.output, weight)
        return out

    def shapley(self, x: np.ndarray) -> np.ndarray:
        """Exact Shapley values (C, K) of one sample's cues (C,): they sum to prediction less `expected`.

        The game is that of Lundberg et al. 2020 (path-dependent TreeSHAP): of an unknown cue, both ways are taken
        by the training samples' shares. A leaf's part is its value times a product over the cues on its path, so
        its Shapley values come from products of polynomials (1 for known, share for unknown). An undefined cue is
        never known: its value is 0, exactly.
        """
        leaves = self._leaves
        known, share = leaves.passed(x[None])[0], leaves.share
        depth = known.shape[1]
        out = np.zeros((len(x), len(self.baseline)))
        for i in range(depth):
            weight = np.ones((len(known), 1))  # coefficient j: of j other cues known
            for other in range(depth):
                if other != i:
                    weight = (
                        np.pad(weight, [(0, 0), (0, 1)]) * share[:, other : other + 1]
                        + np.pad(weight, [(0, 0), (1, 0)]) * known[:, other : other + 1]
                    )
            chances = [1 / (depth * comb(depth - 1, j)) for j in range(depth)]
            value = leaves.value * (known[:, i] - share[:, i]) * (weight @ chances)
            used = leaves.cue_used[:, i]
            np.add.at(out, (leaves.cue[used, i], leaves.output[used]), value[used])
        return out

    @cached_property
    def _leaves(self) -> _Leaves:
        return _leaf_table(self)


@dataclass(frozen=True, eq=False)
class _Leaves:
    """Every leaf as the conditions on its path, one for each cue there (L, D): low < cue <= high; `share` of the
    training samples that pass all splits of that cue. Unused places pass."""

    cue: np.ndarray
    cue_used: np.ndarray
    low: np.ndarray
    high: np.ndarray
    share: np.ndarray
    value: np.ndarray  # (L,)
    output: np.ndarray  # (L,)

    def passed(self, x: np.ndarray) -> np.ndarray:
        """Whether cues (n, C) meet the conditions, 0 or 1, and the share where a cue is undefined: (n, L, D)."""
        cue = np.asarray(x, np.float32)[:, self.cue]
        met = np.where(np.isnan(cue), self.share, (cue > self.low) & (cue <= self.high))
        return np.where(self.cue_used, met, 1.0)


def _leaf_table(trees: Trees) -> _Leaves:
    paths = []
    for root, output in zip(trees.root, trees.output, strict=True):
        pending = [(int(root), {})]
        while pending:
            node, path = pending.pop()
            cue = int(trees.feature[node])
            if cue < 0:
                paths.append((path, float(trees.value[node]), int(output)))
                continue
            low, high, share = path.get(cue, (-np.inf, np.inf, 1.0))
            limit = trees.threshold[node]
            for child, ends in (
                (int(trees.left[node]), (low, min(high, limit))),
                (int(trees.right[node]), (max(low, limit), high)),
            ):
                part = share * trees.count[child] / trees.count[node]
                pending.append((child, path | {cue: (*ends, part)}))
    depth = max(1, max(len(path) for path, _, _ in paths))
    table = np.zeros((len(paths), depth, 5))
    table[:] = (0, 0, -np.inf, np.inf, 1)
    for row, (path, _, _) in enumerate(paths):
        for place, (cue, facts) in enumerate(path.items()):
            table[row, place] = (cue, 1, *facts)
    cue, used, low, high, share = np.moveaxis(table, 2, 0)
    value, output = np.array([p[1] for p in paths]), np.array([p[2] for p in paths])
    limits = (low.astype(np.float32), high.astype(np.float32))
    return _Leaves(cue.astype(int), used > 0, *limits, share, value, output)


def _down(thresholds: np.ndarray) -> np.ndarray:
    """The largest float32 at or below each number; those beyond its range become its ends."""
    limit = np.finfo(np.float32)
    rounded = np.clip(thresholds, limit.min, limit.max).astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)
