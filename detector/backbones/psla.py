"""PSLA of arXiv 2102.01243: EfficientNet, mean over frequency, attention pooling over time.

Shapes: B batch, C planes, N frames, 128 mel bands, D features, N' = N / 32 frames of features, H heads,
K classes. The convolutions are timm's, with the padding and under the names of the published model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.backbones.convolutions import learn_fast, pad_as_for
from detector.published.weights import misfit, published_tensors
from remasc.sentences import quoted

LEAST = 32  # frames and bands that EfficientNet makes one of
PICTURES = {"b0": 224, "b1": 240, "b2": 260}  # the size each variant was made for, in pixels
FLOOR = 1e-7  # of the attention
CERTAIN = 1e-6  # scores are kept so far from 0 and 1 before they become log odds
DROP_PATH = 0.2
# How fast batch statistics follow: published 0.01, which needs a few hundred steps before they fit the weights
STATISTICS = 0.1
# timm's names of a block's parts and the published ones: without and with an expansion in front
SEPARABLE = {
    "conv_dw": "_depthwise_conv",
    "bn1": "_bn1",
    "conv_pw": "_project_conv",
    "bn2": "_bn2",
}
INVERTED = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}
SQUEEZE = {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
ENDS = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}


class PSLA(nn.Module):
    """A classifier of log mel spectrograms: (B, N, 128), or (B, C, N, 128) with planes, -> class scores (B, K).

    `heads`: 4 (or more) for several attention heads, 1 for one, 0 for the plain mean over time. The scores are
    the published ones: sigmoids pooled over time, and with several heads summed by the heads' learnt weights,
    which begin at 1 / heads; they are no logits.
    """

    def __init__(self, num_classes: int, variant: str = "b0", heads: int = 4, planes: int = 1) -> None:
        super().__init__()
        whole = all(isinstance(n, Integral) for n in (num_classes, heads, planes))
        if (
            variant not in tuple(PICTURES)
            or not whole
            or num_classes < 1
            or not 0 <= heads <= 64
            or planes < 1
        ):
            raise ValueError(
                f"PSLA({quoted(num_classes)}, variant={quoted(variant)}, heads={quoted(heads)}, "
                f"planes={quoted(planes)}): expected at least one class and plane, a variant of "
                f"{', '.join(PICTURES)}, and 0 to 64 heads"
            )
        import timm  # takes seconds

        self.planes = planes
        self.effnet = timm.create_model(
            f"tf_efficientnet_{variant}",
            in_chans=planes,
            num_classes=0,
            drop_path_rate=DROP_PATH,
            bn_momentum=STATISTICS,
        )
        pad_as_for(self.effnet, PICTURES[variant])
        learn_fast(self.effnet)
        self.attention = _Attention(self.effnet.num_features, num_classes, heads)

    def embed(self, x: Tensor) -> Tensor:
        """Spectrograms (B, N, 128) or (B, C, N, 128) -> features (B, D, N')."""
        x = x[:, None] if x.ndim == 3 else x
        if x.ndim != 4 or x.shape[1] != self.planes or min(x.shape[2:]) < LEAST:
            raise ValueError(
                f"expected spectrograms (B, {self.planes}, frames, bands) of at least {LEAST} x {LEAST}, got shape "
                f"{tuple(x.shape)}; pad shorter ones"
            )
        return self.effnet.forward_features(x.mT.to(self.effnet.conv_stem.weight.dtype)).mean(dim=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.embed(x))

    def logits(self, x: Tensor) -> Tensor:
        """The log odds (B, K) of the scores.

        Where the heads' weights add up to more than 1, of the scores as shares of that. Scores above 1 cut to 1,
        as published, have no gradient: who is sure and wrong stays so, and training unlearns what it knew.
        """
        scores = self(x).float()
        if self.attention.heads > 1:
            scores = scores / self.attention.head_weight.float().abs().sum().clamp(min=1)
        return scores.clamp(CERTAIN, 1 - CERTAIN).logit()

    def load_published(self, source: Mapping[str, Tensor] | str | Path) -> PSLA:
        """Load a published state dict (names of efficientnet_pytorch under `effnet.`, prefixes `module.` or
        not), or the `.pth` or `.safetensors` file that holds one. Returns self.

        Raises ValueError, in one sentence, on anything that does not fit.
        """
        tensors, name = published_tensors(source)
        ours = self.state_dict()
        names = {published_name(key, ours): key for key in ours}
        tensors = {key: value for key, value in tensors.items() if not key.startswith("effnet._fc.")}
        if fault := misfit(tensors, {published: ours[key] for published, key in names.items()}):
            raise ValueError(f"{name} does not fit this PSLA: {fault}; check classes, variant and heads")
        self.load_state_dict({names[key]: value for key, value in tensors.items()})
        return self


def published_name(key: str, known: Mapping[str, Any]) -> str:
    """The published name of a parameter; `known` are all of the model's own names.

    >>> published_name("effnet.blocks.1.0.bn3.bias", ["effnet.blocks.0.0.bn1.bias", "effnet.blocks.1.0.bn3.bias"])
    'effnet._blocks.1._bn2.bias'
    """
    if not key.startswith("effnet."):
        return key
    block = re.match(r"effnet\.blocks\.(\d+)\.(\d+)\.(.+)\.(\w+)$", key)
    if block is None:
        part, end = key.removeprefix("effnet.").rsplit(".", 1)
        return f"effnet.{ENDS[part]}.{end}"
    places = {
        tuple(map(int, m.groups()))
        for m in (re.match(r"effnet\.blocks\.(\d+)\.(\d+)\.", k) for k in known)
        if m
    }
    stage, index, part, end = int(block[1]), int(block[2]), block[3], block[4]
    parts = (SEPARABLE if stage == 0 else INVERTED) | SQUEEZE
    return f"effnet._blocks.{sorted(places).index((stage, index))}.{parts[part]}.{end}"


class _Attention(nn.Module):
    """Features (B, D, N') -> scores (B, K): sigmoid scores weighted over time by the normalised sigmoid attention
    of each head."""

    def __init__(self, features: int, classes: int, heads: int) -> None:
        super().__init__()
        self.heads = heads

        def convolution() -> nn.Module:
            # the published names have a number where there is more than one head
            if heads <= 1:
                return nn.Conv2d(features, classes, 1)
            return nn.ModuleList(nn.Conv2d(features, classes, 1) for _ in range(heads))

        if heads > 1:
            self.head_weight = nn.Parameter(torch.full((heads,), 1 / heads))
        if heads > 0:
            self.att = convolution()
        self.cla = convolution()

    def forward(self, x: Tensor) -> Tensor:
        scores = _all(self.cla, x)  # (B, H, K, N')
        if self.heads == 0:
            return scores.mean(dim=-1)[:, 0]
        weight = _all(self.att, x).clamp(FLOOR, 1 - FLOOR)
        pooled = (weight / weight.sum(dim=-1, keepdim=True) * scores).sum(dim=-1)
        if self.heads == 1:
            return pooled[:, 0]
        return torch.einsum("bhk,h->bk", pooled, self.head_weight.to(pooled.dtype))


def _all(convolutions: nn.Module, x: Tensor) -> Tensor:
    """The sigmoid answers (B, H, K, N') of all heads at once."""
    heads = list(convolutions) if isinstance(convolutions, nn.ModuleList) else [convolutions]
    weight = torch.cat([head.weight[..., 0] for head in heads])
    y = F.conv1d(x, weight, torch.cat([head.bias for head in heads])).unflatten(1, (len(heads), -1))
    return (y.float() if y.dtype.itemsize < 4 else y).sigmoid()  # half precision would lose the floor
