"""Log-likelihood ratios of several detectors joined into one: logistic regression on dev (Brummer 2007).

Polarity: higher = more genuine. Shapes: n trials, S systems.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from remasc.sentences import quoted


@dataclass(frozen=True)
class Fusion:
    """`llr = weights . llrs + offset`; the weights belong to `systems`, in order."""

    systems: tuple[str, ...]
    weights: tuple[float, ...]
    offset: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "systems", tuple(self.systems))
        object.__setattr__(self, "weights", tuple(self.weights))
        numbers = [*self.weights, self.offset]
        plain = all(isinstance(v, int | float) and abs(v) < 1e6 for v in numbers)
        if not plain or len(self.weights) != len(self.systems) or not self.systems:
            raise ValueError(
                f"a fusion of {quoted(self.systems)} has weights {quoted(self.weights)}; expected a finite one each"
            )

    def __call__(self, llrs: np.ndarray) -> np.ndarray:
        """Joined ratios (n,) of (n, S)."""
        return np.asarray(llrs, np.float64) @ np.array(self.weights) + self.offset

    def as_dict(self) -> dict[str, object]:
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def fit(cls, systems: tuple[str, ...], llrs: np.ndarray, genuine: np.ndarray) -> Fusion:
        """On dev: logistic regression in which both classes weigh the same, so that its log-odds are a ratio.

        A small ridge (1e-3) pulls the weights to their mean's equal share, for systems that say the same.
        """
        llrs, genuine = np.asarray(llrs, np.float64), np.asarray(genuine, bool)
        if llrs.shape != (len(genuine), len(systems)) or genuine.all() or not genuine.any():
            raise ValueError(
                f"ratios of shape {llrs.shape} for {len(genuine)} trials and {len(systems)} systems; expected one "
                "for each and both classes on dev"
            )
        design = np.column_stack([llrs, np.ones(len(llrs))])
        weight = np.where(genuine, 0.5 / genuine.sum(), 0.5 / (~genuine).sum())
        ridge = 1e-3 * np.diag([1.0] * len(systems) + [0.0])
        prior = np.array([1 / len(systems)] * len(systems) + [0.0])
        theta = prior.copy()
        for _ in range(200):
            p = 1 / (1 + np.exp(-np.clip(design @ theta, -500, 500)))
            gradient = design.T @ (weight * (p - genuine)) + ridge @ (theta - prior)
            hessian = (design * (weight * p * (1 - p))[:, None]).T @ design + ridge
            step = np.linalg.solve(hessian + 1e-10 * np.eye(len(theta)), gradient)
            theta = theta - step * min(1.0, 2.0 / max(np.abs(step).max(), 1e-12))
            if np.abs(step).max() < 1e-10:
                break
        return cls(systems, tuple(map(float, theta[:-1])), float(theta[-1]))
