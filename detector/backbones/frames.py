"""Backbones by name for the replay detector: planes of frequency and time in, one vector per stretch of time out.

All take spectral and spatial planes beside each other, any number of them. AST and PSLA keep their published sizes;
what is behind them (pooling over the whole command, head) is the detector's.
Shapes: B batch, C planes, K bands, N frames, D embedding, N' stretches of time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.backbones.ast import AST, PATCH
from detector.backbones.cnn import CNN, frame_mask
from detector.backbones.psla import PSLA
from detector.backbones.transformer import TOKENS
from remasc.sentences import quoted

BACKBONES = ("cnn", "ast", "psla")
STRIDE = 10
WINDOW_COLUMNS = 20  # of patches that an AST sees at once: 4.1 s of 20 ms frames


class ASTFrames(nn.Module):
    """AST (tiny): planes (B, C, K, N), lengths (B,) -> (B, 192, N'), lengths; a vector for each column of patches.

    A long command is heard in windows of 20 columns that follow each other without a seam, so that no position
    occurs that training did not know. N >= 16. What lies beyond an item's length has no influence.
    """

    def __init__(self, planes: int, bands: int, size: str = "tiny") -> None:
        super().__init__()
        self.window = PATCH[1] + (WINDOW_COLUMNS - 1) * STRIDE
        self.hop = WINDOW_COLUMNS * STRIDE
        self.ast = AST(1, self.window, bands, size, STRIDE, planes=planes, pooling="mean")
        self.ast.mlp_head = nn.Identity()  # the detector has its own
        self.dim = self.ast.v.dim

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        columns = self.ast.v.columns_of(lengths).clamp(min=1)
        across = max(1, self.ast.v.columns_of(x.shape[-1]))
        count = -(-across // WINDOW_COLUMNS)
        if count > 1:
            missing = max(0, (count - 1) * self.hop + self.window - x.shape[-1])
            x = F.pad(x, (0, missing)).unfold(-1, self.window, self.hop)[..., :count, :]
            x = x.permute(0, 3, 1, 2, 4).flatten(0, 1)
            starts = torch.arange(count, device=lengths.device) * self.hop
            lengths = (lengths[:, None] - starts).clamp(0, self.window).flatten()
        tokens, _ = self.ast.tokens(x.mT, lengths)
        frames = tokens[:, TOKENS:].unflatten(1, (self.ast.v.rows, -1)).mean(dim=1)  # over frequency
        return frames.reshape(len(columns), -1, self.dim)[:, :across].mT, columns


class PSLAFrames(nn.Module):
    """EfficientNet of PSLA (B0): planes (B, C, K, N), lengths (B,) -> (B, 1280, N'), lengths; N' about N / 32.

    Its convolutions know no lengths. In use, items of each length are heard by themselves, so that a result does
    not depend on the batch; training, whose batch norm couples the batch anyway, pads with zeros.
    """

    SHRINKS = 32

    def __init__(self, planes: int, variant: str = "b0") -> None:
        super().__init__()
        self.psla = PSLA(1, variant, heads=0, planes=planes)
        self.psla.attention = nn.Identity()  # the detector has its own
        self.dim = self.psla.effnet.num_features

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if self.training or bool((lengths == x.shape[-1]).all()):
            found = self._embed(x * frame_mask(lengths, x.shape[-1])[:, None, None])
            return found, (lengths // self.SHRINKS).clamp(1, found.shape[-1])
        parts: list[tuple[Tensor, Tensor]] = []
        for length in lengths.unique().tolist():
            items = (lengths == length).nonzero()[:, 0]
            parts.append((items, self._embed(x[items][..., :length])))
        most = max(found.shape[-1] for _, found in parts)
        out = x.new_zeros(len(x), self.dim, most, dtype=parts[0][1].dtype)
        shrunk = torch.zeros_like(lengths)
        for items, found in parts:
            out[items, :, : found.shape[-1]] = found
            shrunk[items] = found.shape[-1]
        return out, shrunk

    def _embed(self, x: Tensor) -> Tensor:
        """(B, C, K, N) -> (B, D, N'), N' about N / 32; less than 32 frames are padded to one of N'."""
        return self.psla.embed(F.pad(x, (0, max(0, self.SHRINKS - x.shape[-1]))).mT)


def frames_backbone(
    name: str, planes: int, bands: int, widths: tuple[int, ...], embedding: int
) -> tuple[nn.Module, int]:
    """The backbone of that name and its D; `widths` and `embedding` are of the CNN, the others have their own."""
    if name == "cnn":
        return CNN(planes, bands, widths, embedding), embedding
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {quoted(name)}; expected one of {', '.join(BACKBONES)}")
    backbone = ASTFrames(planes, bands) if name == "ast" else PSLAFrames(planes)
    return backbone, backbone.dim
