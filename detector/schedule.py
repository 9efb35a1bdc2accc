"""Pure functions of a run's identity: the learning rate, the order of the clips, and the seeds of every step.

Nothing here has a state, so a resumed run needs none: step `s` of epoch `e` is the same whenever it comes.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch

from detector.config import TrainConfig

RAMP_EPOCHS = 20  # of the published schedule
HALVING_EPOCHS = 20


def ramp_epochs(config: TrainConfig) -> int:
    """Epochs over which the rate rises."""
    return {"published": RAMP_EPOCHS, "cosine": 1, "constant": 0}[config.schedule]


def learning_rate(config: TrainConfig, position: float) -> float:
    """The rate at `position` in epochs (2.5 = the middle of the third epoch).

    The paper says "1e-5 rising linearly to 1e-4 over 20 epochs, then halved every 20"; here the peak holds
    from epoch 20 to 40, the first half begins at 40 (open in the paper).
    """
    peak = float(config.learning_rate)
    if config.schedule == "constant":
        return peak
    if config.schedule == "published":
        if position < RAMP_EPOCHS:
            return peak * (0.1 + 0.9 * position / RAMP_EPOCHS)
        return peak * 0.5 ** math.floor((position - RAMP_EPOCHS) / HALVING_EPOCHS)
    if position < 1:
        return peak * (0.1 + 0.9 * position)
    done = min(1.0, (position - 1) / max(1e-9, config.epochs - 1))
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The clips' numbers of each batch of one epoch: every clip once, the last batch may be smaller."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return [order[start : start + batch_size] for start in range(0, count, batch_size)]


def step_seed(*identity: int) -> int:
    """A seed below 2**63 that belongs to (seed, epoch, step, ...)."""
    digest = hashlib.sha256(",".join(map(str, identity)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def step_generator(*identity: int) -> torch.Generator:
    """Seeds dropout (torch's global generator) and returns the generator of this step's augmentation."""
    seed = step_seed(*identity)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)
