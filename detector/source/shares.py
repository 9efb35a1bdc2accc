"""From the logits of several classes to probabilities that are meant: temperature and offsets, fitted on dev."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

RIDGE = 1e-2  # on the offsets, for classes that dev hardly has


@dataclass(frozen=True)
class Shares:
    """`softmax(scale * logits + offsets)` (Guo et al. 2017, with an offset for each class): classifiers are trained
    as if all classes were as frequent, and too sure or unsure of themselves; dev tells both."""

    scale: float
    offsets: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", tuple(self.offsets))
        if not np.isfinite([self.scale, *self.offsets]).all():
            raise ValueError("the calibration of the kinds is not finite; copy the model anew")

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (n, K) of logits (n, K)."""
        z = self.scale * np.asarray(logits, np.float64) + np.array(self.offsets)
        share = np.exp(z - z.max(axis=1, keepdims=True))
        return share / share.sum(axis=1, keepdims=True)

    def as_dict(self) -> dict[str, object]:
        return asdict(self) | {"offsets": list(self.offsets)}

    @classmethod
    def fit(cls, logits: np.ndarray, number: np.ndarray) -> Shares:
        """The highest likelihood of the classes `number` (n,) under logits (n, K); as they come where n is 0."""
        from scipy.optimize import minimize

        classes = logits.shape[1]
        if not len(number):
            return cls(1.0, (0.0,) * classes)
        target = np.eye(classes)[number]

        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            share = cls(np.exp(theta[0]), theta[1:])(logits)
            miss = (share - target) / len(number)
            slope = np.concatenate([[np.exp(theta[0]) * (miss * logits).sum()], miss.sum(axis=0)])
            value = -np.log(np.maximum((share * target).sum(axis=1), 1e-12)).mean()
            return value + RIDGE * np.square(theta[1:]).sum(), slope + 2 * RIDGE * np.pad(theta[1:], (1, 0))

        theta = minimize(loss, np.zeros(1 + classes), jac=True, bounds=[(-4, 4)] + [(-5, 5)] * classes).x
        return cls(float(np.exp(theta[0])), tuple(map(float, theta[1:])))
