"""A small convolutional backbone over planes of frequency and time.

Shapes: B batch, C planes, K bands, N frames, D embedding.
"""

from __future__ import annotations

import torch
from torch import nn


def frame_mask(lengths: torch.Tensor, frames: int) -> torch.Tensor:
    """True where a frame is real: (B,) -> (B, N)."""
    return torch.arange(frames, device=lengths.device)[None] < lengths[:, None]


class Block(nn.Module):
    """Two 3x3 convolutions with a skip, then an average over 2 bands and `time` frames.

    Frames beyond an item's length are set to zero before each convolution, which is what its own padding would
    be, so an item's result does not depend on what it is batched with.
    """

    def __init__(self, inputs: int, outputs: int, time: int):
        super().__init__()
        self.time = time
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.pool = nn.AvgPool2d((2, time))

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mask = frame_mask(lengths, x.shape[-1])[:, None, None]
        first = torch.relu(self.first_norm(self.first(x * mask))) * mask
        second = torch.relu(self.second_norm(self.second(first)) + first)
        return self.pool(second), lengths // self.time


class CNN(nn.Module):
    """Planes (B, C, K, N) and lengths (B,) -> frames (B, D, N // 4) and their lengths; N >= 4.

    `widths` are the channels of the four blocks; time is halved in the first two. Planes lie with their
    channels innermost in memory (channels_last), which trains twice as fast on a CPU.
    """

    TIME = (2, 2, 1, 1)

    def __init__(self, planes: int, bands: int, widths: tuple[int, ...], embedding: int):
        super().__init__()
        blocks, inputs = [], planes
        for width, time in zip(widths, self.TIME, strict=True):
            blocks.append(Block(inputs, width, time))
            inputs = width
        self.blocks = nn.ModuleList(blocks)
        self.join = nn.Conv1d(inputs * (bands // 2 ** len(widths)), embedding, 1)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x, lengths = block(x, lengths)
        return torch.relu(self.join(x.flatten(1, 2))), lengths
