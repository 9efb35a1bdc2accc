"""Who is attacked: a replay detector or a keyword classifier, asked for scores, or for gradients.

A victim answers with log-odds of the truth: how sure it is of the true class against all others, in nats; an
attack drives them down. Every clip that is put before it counts as a query.
Shapes: B clips, M microphones, T samples, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from detector.hardening import Guarded, Together

CLIP_SAMPLES = 2_500_000  # microphones x samples put through a victim at once


class Victim(Protocol):
    """What is asked of a victim; `sample_rate` in Hz, `queries` counts the clips it has judged."""

    sample_rate: int
    queries: int
    device: Any

    def odds(self, x: Tensor, truth: int) -> Tensor:
        """Log-odds (B,) of the true class, of (B, M, T); without gradients."""

    def gradient_odds(self, x: Tensor, truth: int) -> Tensor:
        """The same with gradients; ValueError where there are none."""

    def verdict(self, x: np.ndarray, truth: int) -> tuple[float, bool]:
        """(score, is the decision right?) of the finished system for one recording (M, T)."""


def probability(odds: float | np.ndarray) -> float | np.ndarray:
    """Probability of the true class."""
    return 1 / (1 + np.exp(-np.clip(odds, -700, 700)))


class DetectorVictim:
    """A replay detector, ours or any with `score(waveform, rate, array)`. Truth: 1 genuine, 0 replay.

    An attack on a replay succeeds where `Detector.judge` accepts it at its threshold; what makes it abstain is
    no success. Batches go through the network; a detector without one is asked clip by clip. One that draws
    numbers is asked `draws` times, and answers with the mean.
    """

    def __init__(
        self, detector: Any, *, threshold: float | None = None, array: str | None = None, draws: int = 1
    ):
        self.detector, self.array, self.draws, self.queries = detector, array, draws, 0
        self.threshold = detector.threshold if threshold is None else threshold
        if self.threshold is None:
            raise ValueError(
                "the detector has no threshold, so nothing says whether an attack succeeds; give --threshold"
            )
        self.sample_rate = int(detector.specification.sample_rate)
        network = getattr(detector, "network", None)
        self.network = network if isinstance(network, nn.Module) else None
        weights = None if self.network is None else next(self.network.parameters(), None)
        self.device = "cpu" if weights is None else weights.device

    @torch.inference_mode()
    def odds(self, x: Tensor, truth: int) -> Tensor:
        self.queries += len(x) * self.draws
        sign = 1 if truth else -1
        return sign * torch.stack([self._scores(x) for _ in range(self.draws)]).mean(0)

    def _scores(self, x: Tensor) -> Tensor:
        if self.network is None:
            scores = [self.detector.score(one.cpu().numpy(), self.sample_rate, self.array) for one in x]
            return torch.tensor(scores)
        x = x.to(self.device)
        most = max(1, CLIP_SAMPLES // (x.shape[1] * x.shape[2]))
        return torch.cat([self.network(self._channels(part)) for part in x.split(most)])

    def gradient_odds(self, x: Tensor, truth: int) -> Tensor:
        if self.network is None:
            raise ValueError("this detector gives scores alone; attack it without gradients")
        self.queries += len(x) * self.draws
        picked, sign = self._channels(x.to(self.device)), 1 if truth else -1
        looks = [scores_with_gradients(self.network, picked) for _ in range(self.draws)]
        return sign * torch.stack(looks).mean(0)

    def verdict(self, x: np.ndarray, truth: int) -> tuple[float, bool]:
        self.queries += 1
        judged = self.detector.judge(x, self.sample_rate, self.array, threshold=self.threshold)
        score = -np.inf if judged.score is None else judged.score
        return float(score), judged.accepted == bool(truth)

    def _channels(self, x: Tensor) -> Tensor:
        """The network's channels of (B, M, T), as `Specification.channels_of` picks them."""
        pick = self.detector.specification.channels_of(np.arange(x.shape[1])[:, None])[:, 0]
        return x if len(pick) == x.shape[1] and (np.diff(pick) == 1).all() else x[:, pick.tolist()]


def scores_with_gradients(network: nn.Module, x: Tensor) -> Tensor:
    """Scores (B,) of (B, M, T), differentiable also where the network's front end switches gradients off.

    The compact detector's front end has no parameters, so it runs without gradients; its planes are smooth all
    the same (the principal direction comes from squaring the covariance, not from an eigen-decomposition). A
    little noise of its own on every channel keeps the deviation between channels away from zero, where it has
    no derivative.
    """
    if isinstance(network, Guarded):
        looks = [scores_with_gradients(network.network, network.look(x)) for _ in range(network.draws)]
        return torch.stack(looks).mean(0)
    if isinstance(network, Together):
        return network.joined(_each_with_gradients(network, x))
    if not hasattr(network, "prepare"):
        raise ValueError("this part of the detector gives scores alone; attack it without gradients")
    front = getattr(network, "front", None)
    opened = getattr(type(front).forward, "__wrapped__", None) if front is not None else None
    noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
    x = x + 1e-7 * noise
    try:
        features = network.prepare(x) if opened is None else opened(front, x)
    except RuntimeError:  # it leaves torch, which tensors with gradients refuse
        features = x.detach()
    if not features.requires_grad:
        raise ValueError("the detector's front end passes no gradients; attack it by its scores alone")
    logits = network.logits(features)
    return logits[:, 0] - logits[:, 1]


def _each_with_gradients(together: Together, x: Tensor) -> list[Tensor]:
    """Scores (B,) of each network: true ones of all, gradients of those that pass any (at least one).

    So the slope of the joint score leaves out a source model's cues; its value, by which an attacker chooses among
    what it tried, does not.
    """
    scores: list[Tensor] = []
    for network in together.networks:
        try:
            scores.append(scores_with_gradients(network, x))
        except ValueError:
            with torch.no_grad():
                scores.append(network(x))
    if not any(score.requires_grad for score in scores):
        raise ValueError("no detector of these passes gradients; attack them by their scores alone")
    return scores


class ClassifierVictim:
    """A keyword classifier: any module (B, T) -> (B, K) logits at `sample_rate`. Truth: the class's number.

    It hears the mean of the microphones. An attack succeeds where another class scores highest.
    """

    def __init__(self, module: Callable[[Tensor], Tensor], sample_rate: int = 16000):
        self.module, self.sample_rate, self.queries, self.device = module, sample_rate, 0, "cpu"

    @torch.inference_mode()
    def odds(self, x: Tensor, truth: int) -> Tensor:
        most = max(1, CLIP_SAMPLES // (x.shape[1] * x.shape[2]))
        return torch.cat([self._odds(part, truth) for part in x.split(most)])

    def gradient_odds(self, x: Tensor, truth: int) -> Tensor:
        return self._odds(x, truth)

    def verdict(self, x: np.ndarray, truth: int) -> tuple[float, bool]:
        self.queries += 1
        with torch.inference_mode():
            logits = self.module(torch.from_numpy(np.ascontiguousarray(x)).mean(0, keepdim=True))[0]
        return _odds_of(logits[None], truth).item(), int(logits.argmax()) == truth

    def _odds(self, x: Tensor, truth: int) -> Tensor:
        self.queries += len(x)
        return _odds_of(self.module(x.mean(dim=1)), truth)


def _odds_of(logits: Tensor, truth: int) -> Tensor:
    """Log-odds (B,) of class `truth` against all others together, of logits (B, K)."""
    others = torch.cat([logits[:, :truth], logits[:, truth + 1 :]], dim=1)
    return logits[:, truth] - others.logsumexp(dim=1)
