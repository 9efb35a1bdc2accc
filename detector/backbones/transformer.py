"""The transformer that AST and SSAST share, under the names of timm's distilled DeiT.

Shapes: B batch, C planes, F mel bands, N frames, R x S patch grid (rows of frequency, columns of time), P = R S
patches, L = P + 2 tokens, D embedding. Patch index = row * S + column.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}  # embedding, heads
DEPTH = 12
TOKENS = 2  # class and distillation come before the patches
FEW = 1 << 24  # attention weights that a CPU may hold at once


class Attention(nn.Module):
    """Multi-head self-attention, (B, L, D) -> (B, L, D). `mask` (B, 1, 1, L): True where a token may be seen."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = attended(q, k, v, mask)
        return self.proj(y.transpose(1, 2).flatten(2))


def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention, (B, H, L, D / H) -> the same; `mask` (B, 1, 1, L).

    In bfloat16 a CPU's fused kernel is slower than the formula, whose weights (B, H, L, L) are held instead: with
    its backward three to five times, alone up to two; measured at 50 to 514 tokens.
    """
    few = q.shape[0] * q.shape[1] * q.shape[2] ** 2 <= FEW
    if not (q.device.type == "cpu" and q.dtype == torch.bfloat16 and few):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    weights = (q * q.shape[-1] ** -0.5) @ k.mT
    if mask is not None:
        weights = weights.masked_fill(~mask, -torch.inf)
    return weights.softmax(dim=-1).to(v.dtype) @ v


class MLP(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a skip."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, planes: int, dim: int, patch: tuple[int, int], stride: tuple[int, int]):
        super().__init__()
        self.proj = nn.Conv2d(planes, dim, patch, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Transformer(nn.Module):
    """Spectrograms -> patches (`embed`) -> encoded tokens (`encode`).

    Fewer frames than it was built for take the position embeddings of the first columns. `checkpointing`
    computes each block again in the backward pass, which trades time for memory.
    """

    def __init__(
        self,
        size: str,
        mels: int,
        frames: int,
        patch: tuple[int, int],
        stride: tuple[int, int],
        planes: int = 1,
        checkpointing: bool = False,
    ):
        super().__init__()
        dim, heads = SIZES[size]
        self.dim, self.patch, self.stride, self.checkpointing = dim, patch, stride, checkpointing
        self.rows = (mels - patch[0]) // stride[0] + 1
        self.columns = self.columns_of(frames)
        self.patch_embed = PatchEmbed(planes, dim, patch, stride)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, TOKENS + self.rows * self.columns, dim))
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        for token in (self.cls_token, self.dist_token, self.pos_embed):
            nn.init.trunc_normal_(token, std=0.02)
        self.blocks.apply(_start)

    def columns_of(self, frames):
        """Columns of patches that lie wholly within so many frames; a number or a tensor of them."""
        return (frames - self.patch[1]) // self.stride[1] + 1

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, F, N) -> patches (B, R, S, D), without their positions."""
        return self.patch_embed(x).permute(0, 2, 3, 1)

    def encode(self, patches: Tensor, columns: Tensor | None = None) -> Tensor:
        """Patches (B, R, S, D) -> tokens (B, 2 + R S, D), class and distillation first.

        `columns` (B,) are the real ones of each item; no token sees a patch beyond them.
        """
        batch, across = patches.shape[0], patches.shape[2]
        tokens, positions = self.pos_embed.split([TOKENS, self.rows * self.columns], dim=1)
        positions = positions.unflatten(1, (self.rows, self.columns))[:, :, :across]
        start = torch.cat([self.cls_token, self.dist_token], dim=1) + tokens
        x = torch.cat([start.expand(batch, -1, -1), (patches + positions).flatten(1, 2)], dim=1)
        mask = None
        if columns is not None:
            mask = F.pad(self.real(columns, across).flatten(1), (TOKENS, 0), value=True)[:, None, None]
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, mask, use_reentrant=False)
            else:
                x = block(x, mask)
        return self.norm(x)

    def real(self, columns: Tensor, across: int) -> Tensor:
        """True where a patch is real: (B,) -> (B, R, across)."""
        within = torch.arange(across, device=columns.device) < columns[:, None]
        return within[:, None].expand(-1, self.rows, -1)


def pair(value: Any) -> tuple:
    """One number, or two (frequency, time), as two; what is neither is left for `check_grid` to refuse."""
    return tuple(value) if isinstance(value, Sequence) else (value, value)


def check_grid(mels: int, frames: int, size: str, patch: tuple[int, int], stride: tuple[int, int]) -> None:
    """ValueError, in one sentence, where no transformer can be built."""
    if size not in tuple(SIZES):  # also where it is nothing that can be looked up
        raise ValueError(f"size {size!r} is not known; expected one of {', '.join(SIZES)}")
    values = (mels, frames, *patch, *stride)
    whole = all(isinstance(value, Integral) and value >= 1 for value in values)
    if not (whole and len(patch) == len(stride) == 2):
        raise ValueError(
            f"mels {mels!r}, frames {frames!r}, patch {patch!r}, stride {stride!r}: expected whole numbers from 1, "
            "two of patch and stride"
        )
    if mels < patch[0] or frames < patch[1]:
        raise ValueError(
            f"{mels} mel bands x {frames} frames hold no patch of {patch[0]} x {patch[1]}; give at least that many"
        )


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
