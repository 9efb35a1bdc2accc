"""Transformer weights of four origins, brought to the published names of AST and to the sizes at hand.

Origins: the published AST and SSAST `.pth` (names `v.*`), timm's distilled DeiT of ImageNet (the same names
without `v.`), and the AST of the `transformers` library.
Shapes: D embedding, R x S patch grid, C planes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.backbones.transformer import SIZES, TOKENS
from detector.published.weights import published_tensors

IMAGENET_HEADS = (
    "v.head.",
    "v.head_dist.",
)  # 1000 classes of pictures, kept in the published files, never used
PRETRAINING = ("mask_embed", "cpredlayer.", "gpredlayer.", "p_input_")  # what SSAST adds to AST
AUDIOSET_GRID = (12, 101)  # of 128 mel bands x 1024 frames at stride 10
SPEECH_COMMANDS_GRID, SPEECH_COMMANDS_CLASSES = (12, 12), 35  # of 128 frames
PUBLISHED_MELS = 128


@dataclass(frozen=True)
class Source:
    """Weights under the published names; `timm` where they came under those of timm. `known` is their patch grid
    where it is on record."""

    tensors: dict[str, Tensor]
    name: str
    timm: bool = False
    known: tuple[int, int] | None = None

    @property
    def picture(self) -> bool:
        """Whether they see colours: a DeiT of ImageNet, whose positions are those of a square."""
        return self.timm and self.filter().shape[1] > 1

    @property
    def pretrained(self) -> bool:
        """Whether it comes from self-supervised pretraining."""
        return "mask_embed" in self.tensors

    def filter(self) -> Tensor:
        """The patch filter (D, C, patch bands, patch frames)."""
        weight = self.tensors.get("v.patch_embed.proj.weight")
        if weight is None or weight.ndim != 4:
            raise ValueError(
                f"{self.name}: holds no patch filter (v.patch_embed.proj.weight); expected weights of AST, SSAST "
                "or a distilled DeiT, as published, of timm or of transformers"
            )
        return weight

    def size(self) -> str:
        """ "tiny", "small" or "base", by the embedding's width."""
        dim = len(self.filter())
        for size, (width, _) in SIZES.items():
            if width == dim:
                return size
        raise ValueError(f"{self.name}: embeds into {dim} dimensions; expected 192, 384 or 768")

    def pretraining_input(self) -> tuple[int, int]:
        """(mel bands, frames) that SSAST was pretrained on; without a record of them, 128 bands."""
        patch = self.filter().shape[2:]
        count = self.positions().shape[0]
        recorded = [self.tensors.get(f"p_input_{axis}dim") for axis in "ft"]
        if all(value is not None and value.numel() == 1 for value in recorded):
            mels, frames = (int(value) for value in recorded)
            if (mels // patch[0]) * (frames // patch[1]) == count:
                return mels, frames
        rows = max(1, PUBLISHED_MELS // patch[0])
        if count % rows:
            raise ValueError(
                f"{self.name}: {count} positions are no grid of {rows} rows; expected p_input_fdim"
            )
        return PUBLISHED_MELS, count // rows * patch[1]

    def positions(self) -> Tensor:
        """Position embeddings of the patches (P, D)."""
        value = self.tensors.get("v.pos_embed")
        if value is None or value.ndim != 3 or value.shape[1] <= TOKENS:
            raise ValueError(
                f"{self.name}: holds no position embeddings (v.pos_embed); expected (1, 2 + P, D)"
            )
        return value[0, TOKENS:]

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """The patch grid of its positions, for a network with a grid of `rows` x `columns`.

        A picture's is square, SSAST's is on record. AST files do not say theirs: it is the network's own, or
        AudioSet's or Speech Commands', or has the network's number of rows, or the 12 rows of 128 bands at stride
        10. Under timm's names a grey DeiT is square, too.
        """
        if self.known is not None:
            return self.known
        count = self.positions().shape[0]
        side = math.isqrt(count)
        square = side * side == count
        if self.picture:
            if square:
                return side, side
            raise ValueError(f"{self.name}: {count} positions are no square; expected a distilled DeiT's")
        if self.pretrained:
            mels, frames = self.pretraining_input()
            patch = self.filter().shape[2:]
            return mels // patch[0], frames // patch[1]
        for height, width in ((rows, columns), AUDIOSET_GRID):
            if count == height * width:
                return height, width
        if square and (self.timm or ((side, side) == SPEECH_COMMANDS_GRID and self._of_speech_commands())):
            return side, side
        for height in (rows, AUDIOSET_GRID[0]):
            if count % height == 0:
                return height, count // height
        raise ValueError(
            f"{self.name}: {count} positions are no grid of {rows} or 12 rows; load into the size they come from"
        )

    def _of_speech_commands(self) -> bool:
        head = self.tensors.get("mlp_head.1.weight")
        return head is not None and len(head) == SPEECH_COMMANDS_CLASSES


def read_source(source: Any) -> Source:
    """Weights of any of the four origins; ValueError, in one sentence, where it is none."""
    tensors, name = published_tensors(source)
    timm = False
    if any(".attention.attention.query." in key for key in tensors):
        tensors = _from_transformers(tensors, name)
    elif "patch_embed.proj.weight" in tensors and not any(key.startswith("v.") for key in tensors):
        timm = True
        tensors = {
            key if key.startswith("mlp_head.") else f"v.{key}": value for key, value in tensors.items()
        }
    tensors = {key: value for key, value in tensors.items() if not key.startswith(IMAGENET_HEADS)}
    return Source(tensors, name, timm)


def fitted(source: Source, rows: int, columns: int, planes: int) -> dict[str, Tensor]:
    """The source's tensors with the patch filter and the positions of a network of this grid and planes."""
    tensors = dict(source.tensors)
    weight, positions = source.filter(), source.positions()
    if source.picture or weight.shape[1] != planes:  # a spectrogram is a grey picture: the sum over colours
        weight = F.pad(
            weight.sum(dim=1, keepdim=True), (0, 0, 0, 0, 0, planes - 1)
        )  # further planes start at 0
    grid = positions.T.unflatten(1, source.grid(rows, columns))
    patches = resampled_positions(grid, rows, columns).flatten(1).T
    tensors["v.patch_embed.proj.weight"] = weight
    tensors["v.pos_embed"] = torch.cat([source.tensors["v.pos_embed"][:, :TOKENS], patches[None]], dim=1)
    return tensors


def resampled_positions(grid: Tensor, rows: int, columns: int) -> Tensor:
    """(D, R, S) -> (D, rows, columns) as published: each axis is cut from its middle where it is long enough,
    else stretched bilinearly.

    >>> resampled_positions(torch.zeros(192, 14, 14), 12, 101).shape
    torch.Size([192, 12, 101])
    """
    for axis, length in ((2, columns), (1, rows)):
        there = grid.shape[axis]
        if length <= there:
            grid = grid.narrow(axis, there // 2 - length // 2, length)
        else:
            shape = (grid.shape[1], length) if axis == 2 else (length, grid.shape[2])
            grid = F.interpolate(grid[None].float(), shape, mode="bilinear")[0]
    return grid


TRANSFORMERS = (  # names of the transformers library -> published names, in this order
    (r"^(audio_spectrogram_transformer|model)\.", ""),
    (r"^embeddings\.cls_token$", "v.cls_token"),
    (r"^embeddings\.distillation_token$", "v.dist_token"),
    (r"^embeddings\.position_embeddings$", "v.pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "v.patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.", r"v.blocks.\1."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(\d)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"^layernorm\.", "v.norm."),
    (r"^classifier\.layernorm\.", "mlp_head.0."),
    (r"^classifier\.dense\.", "mlp_head.1."),
)


def _from_transformers(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Names of the transformers library -> published ones; query, key and value become one matrix."""
    renamed = {}
    for key, value in tensors.items():
        for pattern, replacement in TRANSFORMERS:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    for key in [key for key in renamed if ".attn.query." in key]:
        parts = [renamed.pop(key.replace("query", part), None) for part in ("query", "key", "value")]
        if any(part is None for part in parts):
            raise ValueError(f"{name}: {key} comes without its key or value; expected all three")
        renamed[key.replace("query", "qkv")] = torch.cat(parts)
    return renamed
