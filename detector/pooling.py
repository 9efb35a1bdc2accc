"""From frames to one vector per command. Shapes: B batch, D embedding, N frames."""

from __future__ import annotations

import torch
from torch import nn

from detector.backbones.cnn import frame_mask


class AttentiveStatistics(nn.Module):
    """Weighted mean and standard deviation over time, (B, D, N), (B,) -> (B, 2 D); the weights per dimension are
    learnt (Okabe et al., arXiv 1803.10963). Frames beyond an item's length weigh nothing."""

    def __init__(self, dim: int, hidden: int = 64):
        super().__init__()
        self.attention = nn.Sequential(nn.Conv1d(dim, hidden, 1), nn.Tanh(), nn.Conv1d(hidden, dim, 1))

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        mask = frame_mask(lengths, x.shape[-1])[:, None]
        weights = self.attention(x).masked_fill(~mask, float("-inf")).softmax(dim=-1)
        mean = (weights * x).sum(-1)
        variance = (weights * (x - mean[..., None]).square()).sum(-1)
        return torch.cat([mean, variance.clamp(min=1e-6).sqrt()], dim=1)
