"""The five peers: two mixtures of Gaussians, Void's support vectors, and two physical cues.

Shapes: N frames, D columns, K components, S support vectors. Column order of classes: [genuine, replay].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from detector.baselines.baseline import Baseline, Tick, no_tick
from detector.baselines.cepstra import cqcc, lfcc
from detector.baselines.cues import VOID, bass_balance, quiet_coherence, void_features
from detector.baselines.gmm import Mixture, Standing, advance, first_mixture

ITERATIONS = 100  # at most; the fit stops by itself
LOOKS = (
    5,
    10,
    20,
    50,
)  # iterations after which dev is asked, besides the last; ASVspoof's scripts stop at 10
FRAMES_PER_COMPONENT = 4  # fewer make no component; only a test run has so few


class _MixturePair(Baseline):
    """A mixture of Gaussians for each class (ASVspoof); the score is the mean log-likelihood ratio of a frame.

    Open in the literature, and chosen here: columns standardised over the training frames, k-means to start,
    iterations until the mean log-likelihood rises by less than 1e-3, and dev chooses among `LOOKS` on the way.
    """

    sizes: ClassVar = {"components": ("weights", 1)}

    def __init__(self, channels: int = 1, sample_rate: int = 16000, *, components: int = 512) -> None:
        super().__init__(channels, sample_rate, components=components)
        shape = (2, components, self.columns)
        self.learnt(
            weights=torch.full(shape[:2], 1 / max(1, components)),
            means=torch.zeros(shape),
            variances=torch.ones(shape),
        )

    def choices(self, most_iterations: int | None) -> list[dict[str, Any]]:
        last = most_iterations or ITERATIONS
        return [{"iterations": look} for look in (*(look for look in LOOKS if look < last), last)]

    def steps(self, choices: Sequence[dict[str, Any]]) -> int:
        return 2 * choices[-1]["iterations"] if choices else 0

    def learn(
        self,
        features: Sequence[Tensor],
        genuine: np.ndarray,
        seed: int,
        tick: Tick = no_tick,
        before: dict[str, Any] | None = None,
        iterations: int = ITERATIONS,
    ) -> dict[str, Any]:
        classes = [  # single precision is three times as fast, and far finer than the stop
            torch.cat([part.float() for part, is_one in zip(features, chosen, strict=True) if is_one])
            for chosen in (genuine, ~genuine)
        ]
        if before is None:
            most = min(map(len, classes)) // FRAMES_PER_COMPONENT
            self.arguments["components"] = components = max(1, min(self.arguments["components"], most))
            mixtures = [first_mixture(x, components, seed + number) for number, x in enumerate(classes)]
            standings = [Standing(), Standing()]
        else:
            mixtures = [self._mixture(column).float() for column in (0, 1)]
            standings = [Standing(*standing) for standing in before["standings"]]
        found = [
            advance(mixture, standing, x, iterations, lambda likelihood: tick(-likelihood))
            for mixture, standing, x in zip(mixtures, standings, classes, strict=True)
        ]
        tensors = [vars(mixture) for mixture, _ in found]
        self.learnt(**{name: torch.stack([one[name] for one in tensors]) for name in tensors[0]})
        standings = [standing for _, standing in found]
        return {
            "loss": -sum(standing.likelihood for standing in standings) / 2,  # of a frame
            "iterations": max(standing.iterations for standing in standings),
            "standings": [list(astuple(standing)) for standing in standings],
            "settled": all(standing.stopped for standing in standings),
        }

    def _mixture(self, column: int) -> Mixture:
        return Mixture(self.weights[column], self.means[column], self.variances[column])

    def decide(self, features: Tensor) -> Tensor:
        one, other = (self._mixture(column).log_density(features).mean() for column in (0, 1))
        return one - other


class LFCCGMM(_MixturePair):
    """LFCC (19 + 0th, both deltas) and 512 components a class.

    >>> sum(p.numel() for p in LFCCGMM().parameters())
    124024
    """

    system, columns = "lfcc-gmm", 60

    @staticmethod
    def features(waveform: np.ndarray, rate: int) -> np.ndarray:
        return lfcc(waveform[0])


class CQCCGMM(_MixturePair):
    """CQCC (29 + 0th, both deltas) and 512 components a class.

    >>> sum(p.numel() for p in CQCCGMM().parameters())
    185524
    """

    system, columns = "cqcc-gmm", 90

    @staticmethod
    def features(waveform: np.ndarray, rate: int) -> np.ndarray:
        return cqcc(waveform[0])


class Void(Baseline):
    """Void: 97 features of the spectrum, a support-vector machine with radial basis.

    Open in the paper, and chosen here: columns standardised, classes weighted alike, C and gamma chosen by dev.
    The score is the decision function: the signed distance from the boundary.
    """

    system, columns = "void", VOID
    sizes: ClassVar = {"support": ("support", 0)}

    def __init__(self, channels: int = 1, sample_rate: int = 16000, *, support: int = 0) -> None:
        super().__init__(channels, sample_rate, support=support)
        self.learnt(
            support=torch.zeros(support, VOID),
            weights=torch.zeros(support),
            offset=torch.zeros(()),
            gamma=torch.ones(()),
        )

    @staticmethod
    def features(waveform: np.ndarray, rate: int) -> np.ndarray:
        return void_features(waveform[0])

    def choices(self, most_iterations: int | None) -> list[dict[str, Any]]:
        return [{"cost": c, "gamma": g / VOID} for c in (1.0, 10.0, 100.0) for g in (0.1, 0.3, 1.0, 3.0)]

    def learn(
        self,
        features: Sequence[Tensor],
        genuine: np.ndarray,
        seed: int,
        tick: Tick = no_tick,
        before: dict[str, Any] | None = None,
        cost: float = 10.0,
        gamma: float = 1 / VOID,
    ) -> dict[str, Any]:
        from sklearn.svm import SVC  # imported late: slow, and only a training needs it

        found = SVC(C=cost, gamma=gamma, class_weight="balanced").fit(
            torch.stack(list(features)).numpy(), genuine
        )
        self.arguments["support"] = len(found.support_vectors_)
        self.learnt(
            support=torch.from_numpy(found.support_vectors_.copy()),
            weights=torch.from_numpy(found.dual_coef_[0].copy()),
            offset=torch.tensor(found.intercept_[0]),
            gamma=torch.tensor(gamma),
        )
        return {"loss": self.loss(features, genuine)}

    def decide(self, features: Tensor) -> Tensor:
        distance = (self.support - features).square().sum(dim=1)
        return self.weights @ torch.exp(-self.gamma * distance) + self.offset


class _Cue(Baseline):
    """One number, and a logistic regression that learns on train which side is genuine."""

    columns = 1

    def __init__(self, channels: int = 1, sample_rate: int = 16000) -> None:
        super().__init__(channels, sample_rate)
        self.learnt(weights=torch.zeros(1), offset=torch.zeros(()))

    def learn(
        self,
        features: Sequence[Tensor],
        genuine: np.ndarray,
        seed: int,
        tick: Tick = no_tick,
        before: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        from sklearn.linear_model import LogisticRegression

        found = LogisticRegression(class_weight="balanced").fit(torch.stack(list(features)).numpy(), genuine)
        self.learnt(
            weights=torch.from_numpy(found.coef_[0].copy()), offset=torch.tensor(float(found.intercept_[0]))
        )
        return {"loss": self.loss(features, genuine)}

    def decide(self, features: Tensor) -> Tensor:
        return self.weights @ features + self.offset


class SubBass(_Cue):
    """The balance of energy below the human voice."""

    system = "sub-bass"

    @staticmethod
    def features(waveform: np.ndarray, rate: int) -> np.ndarray:
        return bass_balance(waveform[0])


class StereoGCC(_Cue):
    """Coherence between the microphones while nobody speaks, over all pairs of an array at its own rate."""

    system, rate, channels_heard = "gcc", None, None

    def __init__(self, channels: int = 2, sample_rate: int = 44100) -> None:
        super().__init__(channels, sample_rate)

    @staticmethod
    def features(waveform: np.ndarray, rate: int) -> np.ndarray:
        return quiet_coherence(waveform, rate)
