"""Mixtures of Gaussians with diagonal covariance: density, and expectation-maximisation in bounded memory.

Shapes: N frames, D columns, K components. float64. The steps are those of scikit-learn's GaussianMixture, to which
they are equal in the tests; scikit-learn holds N x K numbers several times over, these a chunk of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CHUNK = 8192  # frames: 34 MB for 512 components
FLOOR = 1e-3  # added to every variance; the columns are standardised, so a thousandth of their own
TOLERANCE = 1e-3  # of the mean log-likelihood of a frame, as scikit-learn's
STARTING_FRAMES = 50  # for each component: what k-means sees


@dataclass
class Mixture:
    """`weights` (K,) sum to 1, `means` and `variances` (K, D)."""

    weights: Tensor
    means: Tensor
    variances: Tensor

    def float(self) -> Mixture:
        return Mixture(self.weights.float(), self.means.float(), self.variances.float())

    def log_joint(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, K): natural log of weight times density of each component."""
        precision = 1 / self.variances
        square = x.square() @ precision.T - 2 * x @ (self.means * precision).T
        square = square + (self.means.square() * precision).sum(dim=1)
        constant = self.variances.log().sum(dim=1) + x.shape[1] * math.log(2 * math.pi)
        return self.weights.log() - 0.5 * (square + constant)

    def log_density(self, x: Tensor) -> Tensor:
        """(N, D) -> (N,)."""
        return torch.cat([self.log_joint(part).logsumexp(dim=1) for part in x.split(CHUNK)])


@dataclass(frozen=True)
class Standing:
    """How far a fit is: its iterations, its last mean log-likelihood of a frame, and whether it has stopped."""

    iterations: int = 0
    likelihood: float = -math.inf
    stopped: bool = False


def advance(
    mixture: Mixture,
    standing: Standing,
    x: Tensor,
    iterations: int,
    tick: Callable[[float], None] = lambda _: None,
) -> tuple[Mixture, Standing]:
    """From where a fit on (N, D) stands to so many iterations in all, or to where the likelihood rises by less than
    `TOLERANCE`; `tick` is told it after each iteration."""
    while standing.iterations < iterations and not standing.stopped:
        mixture, likelihood = improved(mixture, x)
        stopped = likelihood - standing.likelihood < TOLERANCE
        standing = Standing(standing.iterations + 1, likelihood, stopped)
        tick(likelihood)
    return mixture, standing


def improved(mixture: Mixture, x: Tensor) -> tuple[Mixture, float]:
    """One step of expectation-maximisation on (N, D), and the mean log-likelihood before it."""
    total, sums = 0.0, _Sums(len(mixture.weights), x)
    for part in x.split(CHUNK):
        joint = mixture.log_joint(part)
        density = joint.logsumexp(dim=1, keepdim=True)
        total += float(density.sum())
        sums.add((joint - density).exp(), part)
    return sums.mixture(), total / len(x)


def first_mixture(x: Tensor, components: int, seed: int) -> Mixture:
    """Each frame belongs to the nearest of the centres that k-means finds on some of the frames."""
    from sklearn.cluster import MiniBatchKMeans  # imported late: slow, and only a training needs it

    rng = np.random.default_rng(seed)
    some = rng.permutation(len(x))[: STARTING_FRAMES * components]
    found = MiniBatchKMeans(components, random_state=seed % 2**32, n_init=1, batch_size=4096)
    centres = torch.from_numpy(found.fit(x[some].numpy()).cluster_centers_).to(x)
    sums = _Sums(components, x)
    for part in x.split(CHUNK):
        nearest = torch.cdist(part, centres).argmin(dim=1)
        sums.add(torch.nn.functional.one_hot(nearest, components).to(x), part)
    return sums.mixture()


class _Sums:
    """What a maximisation needs of all frames, gathered chunk by chunk."""

    def __init__(self, components: int, x: Tensor) -> None:
        self.count = x.new_zeros(components)
        self.first = x.new_zeros(components, x.shape[1])
        self.second = torch.zeros_like(self.first)

    def add(self, share: Tensor, x: Tensor) -> None:
        """`share` (N, K): how much of each frame of x (N, D) belongs to each component."""
        self.count += share.sum(dim=0)
        self.first += share.T @ x
        self.second += share.T @ x.square()

    def mixture(self) -> Mixture:
        count = (self.count + 10 * torch.finfo(self.count.dtype).eps)[:, None]
        means = self.first / count
        variances = (self.second / count - means.square()).clamp(min=0) + FLOOR
        return Mixture(count[:, 0] / count.sum(), means, variances)
