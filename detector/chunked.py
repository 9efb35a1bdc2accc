"""The compact detector's network a chunk of frames at a time, for exports: what it keeps of a command has one size.

Every layer keeps the last frames that its next outputs need; the pooling keeps sums. A convolution needs one frame
of the future, so the last few outputs are made as if the command ended here, counted into the score so far, and
made again when more has come: the score so far is always that of the whole network on all frames so far.
Shapes: B batch, C channels, K bands, n frames of a chunk (a multiple of 4), D embedding, S numbers of state.
"""

from __future__ import annotations

from itertools import islice
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detector.backbones.cnn import CNN, Block

STEP = 4  # frames for which the CNN gives one vector
NEVER = -1e30  # the largest attention of no frames


class _Clock(NamedTuple):
    """Where a chunk stands, in frames of one layer (the command's, divided by `per`); all (B,) int64."""

    begin: Tensor  # the chunk's first frame
    kept: Tensor  # of the chunk: frames that will not come again
    length: Tensor  # of the command so far

    def per(self, frames: int) -> _Clock:
        return _Clock(self.begin // frames, self.kept // frames, self.length // frames)

    def real(self, lag: int, count: int) -> Tensor:
        """Which of `count` frames, the first `lag` before the chunk, lie within the command: (B, count)."""
        at = self.begin[:, None] - lag + torch.arange(count, device=self.begin.device)
        return (at >= 0) & (at < self.length[:, None])


class ChunkedBlock(nn.Module):
    """`Block` on frames that follow those of its context. Its input lags `lag` frames behind the chunk."""

    def __init__(self, block: Block, lag: int):
        super().__init__()
        self.first = _along_bands(fuse_conv_bn_eval(block.first, block.first_norm))
        self.second = _along_bands(fuse_conv_bn_eval(block.second, block.second_norm))
        self.time, self.lag = block.time, lag
        self.uneven = (lag + 2) % block.time  # a frame that waits for its partner

    @property
    def lag_after(self) -> int:
        return (self.lag + 2 + self.uneven) // self.time

    def contexts(self, bands: int) -> list[tuple[int, ...]]:
        """Their shapes: channels, bands, frames."""
        inputs = [self.first.in_channels, self.second.in_channels, self.second.out_channels]
        return [
            (width, bands, count) for width, count in zip(inputs, (2, 2, self.uneven), strict=True) if count
        ]

    def forward(self, x: Tensor, contexts: list[Tensor], clock: _Clock) -> tuple[Tensor, list[Tensor]]:
        """x (B, C, K, m), contexts as `contexts` says -> (B, C', K // 2, m'), and the contexts to come."""
        x = torch.cat([contexts[0], _masked(x, clock.real(self.lag, x.shape[-1]))], dim=-1)
        first = torch.relu(self.first(F.pad(x, (0, 1))))
        first = _masked(first, clock.real(self.lag + 1, first.shape[-1]))
        first = torch.cat([contexts[1], first], dim=-1)
        second = torch.relu(self.second(F.pad(first, (0, 1))) + first[..., 1:])
        second = torch.cat([*contexts[2:], second], dim=-1)
        heard = (x, first, second)[: len(contexts)]
        after = [_held(whole, clock.kept, old.shape[-1]) for whole, old in zip(heard, contexts, strict=True)]
        return F.avg_pool2d(second, (2, self.time)), after


class Chunked(nn.Module):
    """planes (B, 6, K, n), lengths (B,), frames (B,), state (B, S) -> score (B,), frames (B,), state (B, S).

    `frames` is how many of the command need not come again, 0 at its beginning, always a multiple of 4: the chunk
    begins there. `lengths` is how many there are so far, at most frames + n; beyond it the chunk is padding.
    The state of a beginning is zeros.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        backbone: CNN = network.backbone
        bands, self.lag, self.shapes = network.front.bands, 0, list[tuple[int, ...]]()
        self.blocks = nn.ModuleList()
        for block in backbone.blocks:
            self.blocks.append(ChunkedBlock(block, self.lag))
            self.lag = self.blocks[-1].lag_after
            self.shapes += self.blocks[-1].contexts(bands)
            bands //= 2
        self.shapes += [(backbone.join.out_channels,)] * 4
        self.size = sum(map(prod, self.shapes))
        self.join, self.attention, self.head = backbone.join, network.pooling.attention, network.head

    def forward(
        self, planes: Tensor, lengths: Tensor, frames: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        flat = state.split([prod(shape) for shape in self.shapes], dim=1)
        parts = [part.unflatten(1, shape) for part, shape in zip(flat, self.shapes, strict=True)]
        before, sums = iter(parts[:-4]), tuple(parts[-4:])
        kept = lengths // STEP * STEP
        clock, x, per, after = _Clock(frames, kept - frames, lengths), planes, 1, []
        for block in self.blocks:
            x, contexts = block(x, list(islice(before, 2 + block.uneven)), clock.per(per))
            per, after = per * block.time, after + contexts
        x = torch.relu(self.join(x.flatten(1, 2)))
        clock = clock.per(per)
        real = clock.real(self.lag, x.shape[-1])
        final = torch.arange(x.shape[-1], device=x.device) < clock.kept[:, None]
        attention = self.attention(x)
        sums = _joined(sums, _sums(x, attention, (real & final)[:, None]))
        logits = self.head(_statistics(_joined(sums, _sums(x, attention, (real & ~final)[:, None]))))
        state = torch.cat([part.flatten(1) for part in (*after, *sums)], dim=1)
        return logits[:, 0] - logits[:, 1], kept, state


Sums = tuple[Tensor, Tensor, Tensor, Tensor]
"""Of frames, each (B, D): weight (relative to exp of the largest attention), that attention, mean, deviations."""


def _sums(x: Tensor, attention: Tensor, real: Tensor) -> Sums:
    top = attention.masked_fill(~real, NEVER).amax(dim=-1)
    weights = (attention - top[..., None]).clamp(max=0).exp() * real
    total = weights.sum(dim=-1)
    mean = (weights * x).sum(dim=-1) / total.clamp(min=1e-30)
    return total, top, mean, (weights * (x - mean[..., None]).square()).sum(dim=-1)


def _joined(one: Sums, other: Sums) -> Sums:
    """Of both; deviations are joined as Chan's are, since a difference of large sums would lose them."""
    tops = [torch.where(sums[0] > 0, sums[1], NEVER) for sums in (one, other)]
    top = torch.maximum(*tops)
    scales = [(each - top).exp() for each in tops]
    weights = [sums[0] * scale for sums, scale in zip((one, other), scales, strict=True)]
    total = weights[0] + weights[1]
    share, apart = weights[1] / total.clamp(min=1e-30), other[2] - one[2]
    squares = one[3] * scales[0] + other[3] * scales[1] + apart.square() * weights[0] * share
    return total, top, one[2] + apart * share, squares


def _statistics(sums: Sums) -> Tensor:
    """Weighted mean and standard deviation (B, 2 D), as `AttentiveStatistics` gives them."""
    total, _, mean, squares = sums
    return torch.cat([mean, (squares / total.clamp(min=1e-30)).clamp(min=1e-6).sqrt()], dim=1)


def _along_bands(convolution: nn.Conv2d) -> nn.Conv2d:
    """Padded along the bands alone: along time, what comes before is the context's."""
    convolution.padding = (1, 0)
    return convolution


def _masked(x: Tensor, real: Tensor) -> Tensor:
    return x * real[:, None, None]


def _held(x: Tensor, start: Tensor, count: int) -> Tensor:
    """`count` frames of (B, C, K, m) from `start` (B,) on."""
    at = start[:, None] + torch.arange(count, device=x.device)
    return x.gather(-1, at[:, None, None].expand(*x.shape[:-1], count))
