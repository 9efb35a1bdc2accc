"""What training minimises. Logits are (B, 2) in the published order: column 0 genuine, column 1 replay."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from remasc import Label

GENUINE_COLUMN, REPLAY_COLUMN = 0, 1


def columns_of(labels: Tensor) -> Tensor:
    """Labels (n,), genuine = 1, as columns of the logits. The one place where the polarity is turned."""
    return torch.where(labels == int(Label.GENUINE), GENUINE_COLUMN, REPLAY_COLUMN)


def class_weights(columns: Tensor) -> Tensor:
    """(2,) float32: each class weighs the other's share, so that both weigh the same in all.

    >>> class_weights(torch.tensor([0, 1, 1, 1]))
    tensor([0.7500, 0.2500])
    """
    counts = torch.bincount(columns, minlength=2).float()
    return counts.flip(0) / counts.sum()


def weighted_cross_entropy(
    logits: Tensor, columns: Tensor, weights: Tensor, total: Tensor | float | None = None
) -> Tensor:
    """Cross-entropy (scalar), each item weighted by its class, over the sum of these weights.

    `total` replaces that sum where the items are one process's part of a batch.
    """
    items = F.cross_entropy(logits.float(), columns, reduction="none")
    weight = weights[columns]
    return (weight * items).sum() / (weight.sum() if total is None else total)
