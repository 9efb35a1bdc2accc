"""Classifiers over cues: grown or fitted by scikit-learn, kept and evaluated as plain arrays.

Each has `fit`, `logits` (n, C) -> (n, K), `parts` (how one sample's logits came about) and `arrays`. With two
classes K is 1 and the logit is that of class 1; with more, K is their number. NaN is undefined and tells nothing.
Shapes: n samples, C cues, K outputs, V support vectors, H hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from detector.source.trees import Trees

MOST = 4.0  # deviations: what lies farther out says no more, and cannot throw a line or a kernel off
NEVER = 1e30  # the spread of a cue that never varied: it counts for nothing
BOOSTS = (250, 60)  # trees of two classes; of each of more
ROUNDS = 12  # pairs of orders in which the cues of a kernel machine become known


class Classifier(Protocol):
    """What the source model needs of a classifier; `parts` are of one sample (C,) -> (C, K), `exact` says which."""

    name: ClassVar[str]
    exact: ClassVar[str]

    @classmethod
    def fit(cls, values: np.ndarray, target: np.ndarray, *, seed: int = 0) -> Self: ...
    def logits(self, values: np.ndarray) -> np.ndarray: ...
    def parts(self, values: np.ndarray) -> np.ndarray: ...
    def arrays(self) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True, eq=False)
class Scaling:
    """Cues (n, C) to deviations from the training median, clipped; an undefined one lies at the median."""

    middle: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Scaling:
        """Robust: the median, and the quartiles' distance over 1.35; cues that never vary count for nothing."""
        defined = np.isfinite(values).any(axis=0)
        low, middle, high = np.nanpercentile(np.where(defined, values, 0.0), [25, 50, 75], axis=0)
        spread = (high - low) / 1.349
        spread = np.where(spread > 0, spread, np.nanstd(np.where(defined, values, 0.0), axis=0))
        return cls(middle.astype(np.float32), np.where(spread > 0, spread, NEVER).astype(np.float32))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        scaled = (np.asarray(values, np.float64) - self.middle) / self.spread
        return np.clip(np.where(np.isfinite(scaled), scaled, 0.0), -MOST, MOST)


@dataclass(frozen=True, eq=False)
class Boosting:
    """Gradient-boosted trees of a few leaves; `parts` are exact Shapley values."""

    trees: Trees
    name: ClassVar[str] = "boosting"
    exact: ClassVar[str] = "Shapley values of the trees, exact"

    @classmethod
    def fit(cls, values: np.ndarray, target: np.ndarray, *, seed: int = 0, rounds: int | None = None) -> Self:
        from sklearn.ensemble import HistGradientBoostingClassifier

        classes = int(target.max()) + 1
        model = HistGradientBoostingClassifier(
            max_iter=rounds or BOOSTS[classes > 2],
            learning_rate=0.06,
            max_leaf_nodes=4,
            min_samples_leaf=30,
            l2_regularization=5.0,
            max_features=0.2,
            early_stopping=False,
            class_weight="balanced",
            random_state=seed,
        )
        return cls(Trees.from_sklearn(model.fit(np.asarray(values, np.float32), target)))

    def logits(self, values: np.ndarray) -> np.ndarray:
        return self.trees.predict(values)

    def parts(self, values: np.ndarray) -> np.ndarray:
        return self.trees.shapley(values)

    def arrays(self) -> dict[str, np.ndarray]:
        return self.trees.arrays()

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Self:
        return cls(Trees(**arrays))


@dataclass(frozen=True, eq=False)
class _Arrays:
    """A classifier whose fields are its arrays."""

    def arrays(self) -> dict[str, np.ndarray]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Self:
        for name, value in arrays.items():
            if not np.isfinite(value).all():
                raise ValueError(f"the array {name!r} of the model is not finite; copy the model anew")
        return cls(**arrays)

    @property
    def scaling(self) -> Scaling:
        return Scaling(self.middle, self.spread)


@dataclass(frozen=True, eq=False)
class Logistic(_Arrays):
    """A line: `weights` (K, C, B) on each scaled cue's B basis functions (one here: itself) and `offset` (K,);
    `parts` are its exact split. What is undefined lies at the functions' `mean` (C, B) over training."""

    middle: np.ndarray
    spread: np.ndarray
    mean: np.ndarray
    weights: np.ndarray
    offset: np.ndarray
    name: ClassVar[str] = "logistic"
    exact: ClassVar[str] = "weight times deviation from the training mean, exact"
    knots: ClassVar[tuple[float, ...]] = ()
    cost: ClassVar[float] = 0.02

    @classmethod
    def fit(cls, values: np.ndarray, target: np.ndarray, *, seed: int = 0) -> Self:
        from sklearn.linear_model import LogisticRegression

        scaling = Scaling.of(values)
        bases = cls._bases(scaling(values))
        mean = bases.mean(axis=0).astype(np.float32)
        model = LogisticRegression(C=cls.cost, class_weight="balanced", max_iter=2000, random_state=seed)
        model.fit((bases - mean).reshape(len(bases), -1), target)
        weights = model.coef_.reshape(-1, *mean.shape).astype(np.float32)
        return cls(scaling.middle, scaling.spread, mean, weights, model.intercept_.astype(np.float32))

    @classmethod
    def _bases(cls, scaled: np.ndarray) -> np.ndarray:
        """Scaled cues (n, C) and how far they lie beyond each knot: (n, C, B)."""
        return np.stack([scaled, *(np.maximum(scaled - knot, 0) for knot in cls.knots)], axis=-1)

    def _deviations(self, values: np.ndarray) -> np.ndarray:
        found = self._bases(self.scaling(values)) - self.mean
        return np.where(np.isfinite(values)[..., None], found, 0.0)

    def logits(self, values: np.ndarray) -> np.ndarray:
        return np.einsum("ncb,kcb->nk", self._deviations(values), self.weights, optimize=True) + self.offset

    def parts(self, values: np.ndarray) -> np.ndarray:
        return np.einsum("cb,kcb->ck", self._deviations(values), self.weights)


@dataclass(frozen=True, eq=False)
class Additive(Logistic):
    """A curve for each cue, bent at the training median and a deviation from it on either side: what lies far out
    may speak for a device on both sides. `parts` are exact, as the line's."""

    name: ClassVar[str] = "additive"
    exact: ClassVar[str] = "each cue's curve less its training mean, exact"
    knots: ClassVar[tuple[float, ...]] = (-1.0, 0.0, 1.0)
    cost: ClassVar[float] = 0.01


@dataclass(frozen=True, eq=False)
class Kernel(_Arrays):
    """RBF support vector machines, each class against the rest: `vectors` (V, C) of scaled cues, `weights` (K, V).

    `parts` are Shapley values over drawn orders of the cues (the same orders every time): they sum exactly to the
    decision less that of nothing known, but how they are divided has a drawing error.

    What is undefined is not put at the middle: there it would be nearer to every vector than a measured one is, all
    kernels would rise and the decision with them. It has the kernel that one expects of it: each cue's factor is
    averaged over a Gaussian of the training's `mean` and `variance` (C,) of that cue, which has a closed form.
    """

    middle: np.ndarray
    spread: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    vectors: np.ndarray
    weights: np.ndarray
    offset: np.ndarray
    gamma: np.ndarray  # (1,)
    name: ClassVar[str] = "svm"
    exact: ClassVar[str] = f"Shapley values over {2 * ROUNDS} drawn orders of the cues"

    @classmethod
    def fit(cls, values: np.ndarray, target: np.ndarray, *, seed: int = 0, cost: float = 4.0) -> Self:
        from sklearn.svm import SVC

        scaling, gamma = Scaling.of(values), 1.0 / values.shape[1]
        scaled = scaling(values).astype(np.float32)
        count = int(target.max()) + 1
        weights, offsets = np.zeros((1 if count == 2 else count, len(scaled))), []
        for k in range(len(weights)):
            model = SVC(C=cost, gamma=gamma, class_weight="balanced", random_state=seed)
            model.fit(scaled.astype(np.float64), target == (1 if count == 2 else k))
            weights[k, model.support_] = model.dual_coef_[0]
            offsets.append(model.intercept_[0])
        used = (weights != 0).any(axis=0)
        return cls(
            scaling.middle,
            scaling.spread,
            scaled.mean(axis=0),
            scaled.var(axis=0),
            scaled[used],
            weights[:, used].astype(np.float32),
            np.array(offsets, np.float32),
            np.array([gamma], np.float32),
        )

    def logits(self, values: np.ndarray) -> np.ndarray:
        return self._of_scaled(self.scaling(values), np.isfinite(values))

    def _of_scaled(self, scaled: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Decisions (n, K) of scaled cues (n, C), of which the `known` (n, C) count and the others are expected."""
        x, gamma = np.where(known, scaled, 0.0), float(self.gamma[0])
        vectors = self.vectors.astype(np.float64)
        wide = 1 + 2 * gamma * self.variance.astype(np.float64)
        expected = np.square(vectors - self.mean) / wide + np.log(wide) / (2 * gamma)  # instead of a distance
        distance = np.square(x).sum(axis=1)[:, None] - 2 * x @ vectors.T
        distance += known @ np.square(vectors).T + ~known @ expected.T
        return np.exp(-gamma * np.maximum(distance, 0)) @ self.weights.T.astype(np.float64) + self.offset

    def parts(self, values: np.ndarray) -> np.ndarray:
        scaled, rng = self.scaling(values), np.random.default_rng(0)
        told = np.flatnonzero(np.isfinite(values))
        out = np.zeros((len(scaled), len(self.offset)))
        for _ in range(ROUNDS):  # each order with its reverse: much of their errors cancels
            order = rng.permutation(told)
            for turned in (order, order[::-1]):
                known = np.zeros((len(turned) + 1, len(scaled)), bool)
                for step, cue in enumerate(turned):
                    known[step + 1 :, cue] = True
                decisions = self._of_scaled(np.broadcast_to(scaled, known.shape), known)
                out[turned] += np.diff(decisions, axis=0) / (2 * ROUNDS)
        return out


@dataclass(frozen=True, eq=False)
class Neural(_Arrays):
    """A hidden layer on the embedding of the replay detector's backbone (frozen, so one pass serves both).

    `values` are embeddings here, not cues: it has no parts by cue.
    """

    middle: np.ndarray
    spread: np.ndarray
    first: np.ndarray  # (H, C)
    first_offset: np.ndarray
    second: np.ndarray  # (K, H)
    offset: np.ndarray
    name: ClassVar[str] = "neural"
    exact: ClassVar[str] = "none: it does not read cues"

    @classmethod
    def fit(cls, values: np.ndarray, target: np.ndarray, *, seed: int = 0, hidden: int = 32) -> Self:
        import warnings

        from sklearn.neural_network import MLPClassifier

        scaling = Scaling.of(values)
        model = MLPClassifier(
            (hidden,), alpha=1.0, learning_rate_init=2e-3, max_iter=60, batch_size=64, random_state=seed
        )
        with warnings.catch_warnings(action="ignore"):  # the epochs are fixed, not waited for
            model.fit(scaling(values), target)
        weights: list[Any] = [w.T.astype(np.float32) for w in model.coefs_]
        offsets = [b.astype(np.float32) for b in model.intercepts_]
        return cls(scaling.middle, scaling.spread, weights[0], offsets[0], weights[1], offsets[1])

    def logits(self, values: np.ndarray) -> np.ndarray:
        hidden = np.maximum(self.scaling(values) @ self.first.T.astype(np.float64) + self.first_offset, 0)
        return hidden @ self.second.T.astype(np.float64) + self.offset

    def parts(self, values: np.ndarray) -> np.ndarray:
        return np.zeros((len(values), len(self.offset)))


CLASSIFIERS: dict[str, type] = {kind.name: kind for kind in (Boosting, Kernel, Logistic, Additive, Neural)}
