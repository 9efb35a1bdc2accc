"""A classifier of sound: filter bank and backbone in one network, and the mean of several.

Shapes: B batch, T samples at 16 kHz, N frames of 10 ms, F mel bands, K classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.backbones import AST, PSLA
from detector.backbones.psla import CERTAIN, LEAST
from detector.frontends.fbank import AUDIOSET_DEVIATION, AUDIOSET_MEAN, FilterBank, normalised
from remasc.sentences import is_name, quoted

BACKBONES = ("ast", "psla")


@dataclass(frozen=True)
class Architecture:
    """What a classifier is, apart from its weights; saved in its config.json."""

    classes: tuple[str, ...]
    backbone: str = "ast"
    size: str = "tiny"
    variant: str = "b0"
    heads: int = 4
    stride: tuple[int, int] = (10, 10)
    patch: tuple[int, int] = (16, 16)
    pooling: str = "tokens"
    frames: int = 100
    mels: int = 128
    frontend: str = "fixed"
    mean: float = AUDIOSET_MEAN
    deviation: float = AUDIOSET_DEVIATION
    loss: str = "ce"
    members: int = 1

    def __post_init__(self) -> None:
        for name in ("classes", "stride", "patch"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple):
                raise ValueError(f"architecture: {name} is {quoted(value)}; expected a list")
            object.__setattr__(self, name, tuple(value))
        if (
            len(self.classes) < 2
            or not all(map(is_name, self.classes))
            or len(set(self.classes)) < len(self.classes)
        ):
            raise ValueError(
                f"architecture: classes {quoted(self.classes)}; expected at least two different names"
            )
        if self.backbone not in BACKBONES or self.loss not in ("ce", "bce"):
            raise ValueError(
                f"architecture: backbone {quoted(self.backbone)}, loss {quoted(self.loss)}; expected "
                f"{' or '.join(BACKBONES)}, and ce or bce"
            )
        if type(self.members) is not int or not 1 <= self.members <= 64:
            raise ValueError(f"architecture: members is {quoted(self.members)}; expected 1 to 64")
        if type(self.frames) is not int or not 1 <= self.frames <= 10**5:
            raise ValueError(f"architecture: frames is {quoted(self.frames)}; expected 1 to 100000")

    def as_dict(self) -> dict[str, object]:
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: object) -> Architecture:
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or not {"classes", "backbone"} <= set(values) <= known:
            raise ValueError(f"architecture: expected a table with the keys {', '.join(sorted(known))}")
        return cls(**values)


class Classifier(nn.Module):
    """Waveforms (B, T) at 16 kHz -> class logits (B, K); nothing of a clip is stored between."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.front = FilterBank(a.mels, trainable=a.frontend == "trainable")
        self.backbone: nn.Module
        if a.backbone == "ast":
            self.backbone = AST(
                len(a.classes), a.frames, a.mels, a.size, a.stride, patch=a.patch, pooling=a.pooling
            )
        else:
            self.backbone = PSLA(len(a.classes), a.variant, a.heads)

    @property
    def samples(self) -> int:
        """Samples that fill the network's frames."""
        return self.front.frame + (self.architecture.frames - 1) * self.front.hop

    def spectrograms(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, T), real samples (B,) -> normalised log mel (B, N, F), zero beyond the real frames (B,)."""
        lengths = torch.full((len(x),), x.shape[-1]) if lengths is None else lengths
        with torch.autocast(x.device.type, enabled=False):  # energies span more than half precision does
            spectra = normalised(self.front(x.float()), self.architecture.mean, self.architecture.deviation)
        frames = self.front.count(lengths).clamp(1, spectra.shape[1]).to(x.device)
        beyond = torch.arange(spectra.shape[1], device=x.device) >= frames[:, None]
        return spectra.masked_fill(beyond[..., None], 0), frames

    def logits(self, spectra: Tensor, frames: Tensor | None = None) -> Tensor:
        """(B, N, F) -> (B, K). PSLA's pooled scores come as their log odds."""
        if self.architecture.backbone == "psla":
            short = max(0, LEAST - spectra.shape[1])
            spectra = F.pad(spectra, (0, 0, 0, short))
            return self.backbone.logits(spectra)
        if frames is not None:  # a mask costs time: it is for clips that lack a column of patches
            v = self.backbone.v
            if bool((v.columns_of(frames) == v.columns_of(spectra.shape[1])).all()):
                frames = None
        return self.backbone(spectra, frames)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.logits(*self.spectrograms(x, lengths))

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, K): of one class each (softmax), or of each class by itself, by the loss it was trained with."""
        return logits.softmax(dim=-1) if self.architecture.loss == "ce" else logits.sigmoid()


class Ensemble(nn.Module):
    """Classifiers of one architecture; their mean probability decides."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        single = replace(architecture, members=1)
        self.members = nn.ModuleList(Classifier(single) for _ in range(architecture.members))

    @property
    def samples(self) -> int:
        return self.members[0].samples

    @property
    def front(self) -> FilterBank:
        return self.members[0].front

    def spectrograms(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Of the fixed front end, which all members share."""
        return self.members[0].spectrograms(x, lengths)

    def logits(self, spectra: Tensor, frames: Tensor | None = None) -> Tensor:
        return self._joined([member.logits(spectra, frames) for member in self.members])

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self._joined([member(x, lengths) for member in self.members])

    def probabilities(self, logits: Tensor) -> Tensor:
        return self.members[0].probabilities(logits)

    def _joined(self, logits: list[Tensor]) -> Tensor:
        """Logits of the mean probability."""
        mean = torch.stack([self.probabilities(one.float()) for one in logits]).mean(dim=0)
        if self.architecture.loss == "ce":
            return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
        return mean.clamp(CERTAIN, 1 - CERTAIN).logit()


def build(architecture: Architecture) -> Classifier | Ensemble:
    return Classifier(architecture) if architecture.members == 1 else Ensemble(architecture)
