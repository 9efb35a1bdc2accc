"""From scores to log-likelihood ratios, and from a false-alarm rate to a threshold. Fitted on dev, kept with the
model. Scores and llrs: higher = more genuine; llrs are natural logarithms."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from eval.metrics import validate
from remasc.sentences import quoted

LARGEST = 1e100


@dataclass(frozen=True)
class Calibration:
    """`llr = slope * score + offset`, with slope >= 0: calibration never reverses a ranking."""

    slope: float
    offset: float

    def __post_init__(self) -> None:
        numbers = all(_is_number(value) for value in (self.slope, self.offset))
        if not numbers or self.slope < 0:
            raise ValueError(
                f"calibration is slope {quoted(self.slope)}, offset {quoted(self.offset)}; expected finite "
                "numbers and slope >= 0"
            )

    def llr(self, score: np.ndarray | float) -> np.ndarray | float:
        return self.slope * score + self.offset

    def as_dict(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def fit(cls, genuine_scores: np.ndarray, replay_scores: np.ndarray) -> Calibration:
        """Affine calibration by logistic regression with both classes weighing the same (prior 0.5), so that
        the fitted log-odds are the log-likelihood ratio. Newton's method; a small ridge (1e-4) on the slope
        keeps it finite where the classes are separable."""
        genuine, replay = validate(genuine_scores, replay_scores)
        scores = np.concatenate([genuine, replay])
        target = np.concatenate([np.ones(len(genuine)), np.zeros(len(replay))])
        weight = np.where(target == 1, 0.5 / len(genuine), 0.5 / len(replay))
        centre, spread = scores.mean(), scores.std() or 1.0
        design = np.stack([(scores - centre) / spread, np.ones_like(scores)], axis=1)
        ridge = np.diag([1e-4, 0.0])
        theta = np.zeros(2)
        for _ in range(100):
            p = 1 / (1 + np.exp(-np.clip(design @ theta, -500, 500)))
            gradient = design.T @ (weight * (p - target)) + ridge @ theta
            hessian = (design * (weight * p * (1 - p))[:, None]).T @ design + ridge + 1e-12 * np.eye(2)
            step = np.linalg.solve(hessian, gradient)
            theta -= step * min(1.0, 4.0 / max(np.abs(step).max(), 1e-12))
            if np.abs(step).max() < 1e-10:
                break
        if theta[0] <= 0:  # dev says the scores are no better than chance: they carry no evidence
            return cls(0.0, 0.0)
        return cls(float(theta[0] / spread), float(theta[1] - theta[0] * centre / spread))


def _is_number(value: object) -> bool:
    """A number that a float32 score can be multiplied with and stays finite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def threshold_at(replay_scores: np.ndarray, p_fa: float) -> float:
    """The smallest threshold at which `score >= threshold` accepts at most a share `p_fa` of the replays.

    It is the next float above a replay's score, so that the score itself is rejected.
    """
    if not 0 <= p_fa < 1:
        raise ValueError(f"p_fa is {p_fa}; expected a rate from 0 up to 1")
    ordered = np.sort(np.asarray(replay_scores, dtype=np.float64))[::-1]
    allowed = math.floor(p_fa * len(ordered))
    return float(np.nextafter(ordered[allowed], np.inf))


def probability(llr: float, prior: float = 0.5) -> float:
    """Posterior probability of a living person, sigmoid(llr + logit(prior)); prior strictly between 0 and 1."""
    if not 0 < prior < 1:
        raise ValueError(f"prior is {prior}; expected a probability strictly between 0 and 1")
    log_odds = llr + math.log(prior / (1 - prior))
    return 1 / (1 + math.exp(-log_odds)) if log_odds >= 0 else math.exp(log_odds) / (1 + math.exp(log_odds))
