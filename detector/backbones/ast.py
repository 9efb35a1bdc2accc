"""AST of arXiv 2104.01778: a vision transformer over patches of a spectrogram.

Shapes: B batch, C planes, N frames, F mel bands, K classes, D embedding. Spectrograms are normalised log mel
(`detector.frontends.fbank`).
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor, nn

from detector.backbones.transformer import TOKENS, Transformer, check_grid, pair
from detector.backbones.weights import PRETRAINING, Source, fitted, read_source
from detector.published.weights import misfit

PATCH = (16, 16)
POOLINGS = ("tokens", "mean")


class AST(nn.Module):
    """Spectrograms (B, N, F) -> class logits (B, K); names, sizes and mathematics are the published ones.

    `stride` is in bands and frames, one number or two (frequency, time). `pooling` reads the mean of the class
    and distillation tokens ("tokens", AST) or of the patch tokens ("mean", SSAST). With `planes` > 1 the input
    is (B, C, N, F) and the first plane is the one that published weights were trained on.

    >>> sum(p.numel() for p in AST(527, 1024).v.parameters())
    5621568
    """

    def __init__(
        self,
        num_classes: int,
        frames: int,
        mels: int = 128,
        size: str = "tiny",
        stride: int | tuple[int, int] = 10,
        *,
        patch: tuple[int, int] = PATCH,
        pooling: str = "tokens",
        planes: int = 1,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        patch, stride = pair(patch), pair(stride)
        check_grid(mels, frames, size, patch, stride)
        if pooling not in POOLINGS or not all(
            isinstance(n, Integral) and n >= 1 for n in (num_classes, planes)
        ):
            raise ValueError(
                f"AST of {num_classes!r} classes, {planes!r} planes, pooling {pooling!r}: expected whole numbers "
                f"from 1 and one of {', '.join(POOLINGS)}"
            )
        self.num_classes, self.frames, self.mels, self.size, self.planes = (
            num_classes,
            frames,
            mels,
            size,
            planes,
        )
        self.pooling = pooling
        self.v = Transformer(size, mels, frames, patch, stride, planes, checkpointing)
        self.mlp_head = nn.Sequential(nn.LayerNorm(self.v.dim), nn.Linear(self.v.dim, num_classes))

    @classmethod
    def from_ssast(
        cls,
        source: Mapping[str, Tensor] | str | Path,
        num_classes: int,
        frames: int,
        stride: int | tuple[int, int] = 10,
    ) -> AST:
        """A classifier on a pretrained SSAST: its size, mel bands and patch shape, mean of the patch tokens.

        The stride is cut to the patch where it is longer (frame patches are 2 frames long), since no frame is
        to be skipped. A head comes along only where the source has one of `num_classes`.
        """
        found = read_source(source)
        patch = tuple(int(n) for n in found.filter().shape[2:])
        mels, _ = found.pretraining_input()
        stride = pair(stride)
        check_grid(mels, frames, found.size(), patch, stride)
        stride = (min(stride[0], patch[0]), min(stride[1], patch[1]))
        network = cls(num_classes, frames, mels, found.size(), stride, patch=patch, pooling="mean")
        network.load_source(found)
        return network

    def load_published(self, source: Mapping[str, Tensor] | str | Path) -> AST:
        """Load published weights in place, from a state dict or its `.pth` or `.safetensors` file. Returns self.

        Taken are the published AST (AudioSet, Speech Commands) and SSAST, timm's distilled DeiT (the filter
        summed over RGB) and the AST of `transformers`. Position embeddings of another size are cut or stretched
        as published. A head of another number of classes is left out: ours stays as it is. Raises ValueError,
        in one sentence, on anything else that does not fit, and changes nothing then.
        """
        return self.load_source(read_source(source))

    def load_source(self, source: Source) -> AST:
        """`load_published` of weights that are read already."""
        tensors = fitted(source, self.v.rows, self.v.columns, self.planes)
        tensors = {key: value for key, value in tensors.items() if not key.startswith(PRETRAINING)}
        own = self.state_dict()
        head = [key for key in own if key.startswith("mlp_head.")]
        there = tensors.get("mlp_head.1.weight")
        if there is None or len(there) != self.num_classes:
            tensors |= {key: own[key] for key in head}
        if fault := misfit(tensors, own):
            raise ValueError(
                f"{source.name} does not fit AST(size={self.size!r}, mels={self.mels}): {fault}; check the size"
            )
        self.load_state_dict(tensors)
        return self

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, N, F) or (B, C, N, F) -> logits (B, K). `lengths` (B,) are the real frames of each item.

        At most `frames` frames; fewer take the positions of the first columns. What lies beyond an item's
        length has no influence on its result.
        """
        return self.mlp_head(self.embed(x, lengths))

    def embed(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the head reads: (B, N, F) -> (B, D)."""
        tokens, real = self.tokens(x, lengths)
        if self.pooling == "tokens":
            return tokens[:, :TOKENS].mean(dim=1)
        patches = tokens[:, TOKENS:]
        if real is None:
            return patches.mean(dim=1)
        weight = real[..., None].to(patches.dtype)
        return (patches * weight).sum(dim=1) / weight.sum(dim=1)

    def tokens(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Encoded tokens (B, 2 + P, D), and which patches are real (B, P); None without `lengths`."""
        x = self._checked(x).transpose(-1, -2)
        short = self.v.patch[1] - x.shape[-1]
        columns = None
        if lengths is not None or short > 0:
            lengths = torch.as_tensor(x.shape[-1] if lengths is None else lengths, device=x.device)
            if lengths.ndim == 0:
                lengths = lengths.expand(len(x))
            if lengths.shape != x.shape[:1]:
                raise ValueError(
                    f"lengths {tuple(lengths.shape)}: expected ({len(x)},), the frames of each item"
                )
            columns = self.v.columns_of(lengths).clamp(min=1)  # a clip shorter than a patch is one, padded
            beyond = torch.arange(x.shape[-1], device=x.device) >= lengths[:, None]
            x = x.masked_fill(beyond[:, None, None], 0)
        if short > 0:
            x = nn.functional.pad(x, (0, short))
        patches = self.v.embed(x)
        real = None if columns is None else self.v.real(columns, patches.shape[2]).flatten(1)
        return self.v.encode(patches, columns), real

    def _checked(self, x: Tensor) -> Tensor:
        """(B, C, N, F)."""
        x = x[:, None] if x.ndim == 3 else x
        if x.ndim != 4 or x.shape[1] != self.planes or x.shape[-1] != self.mels:
            planes = "" if self.planes == 1 else f"{self.planes} planes, "
            raise ValueError(
                f"expected spectrograms (B, {planes}N, {self.mels} mel bands), got shape {tuple(x.shape)}"
            )
        if not 1 <= x.shape[2] <= self.frames:
            raise ValueError(
                f"{x.shape[2]} frames; this AST takes 1 to {self.frames}: cut them, or build it for more"
            )
        return x.to(self.v.pos_embed.dtype)
