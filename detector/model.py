"""Our compact detector: one set of weights for 1 to 16 microphones in any order and any geometry.

Spectrum and space meet in planes of 40 mel bands by 20 ms frames (`detector.frontends`): the level, and four
invariants of the microphones' covariance. A small CNN reads them together, and attentive statistics pool the
whole command, however long. Nothing in it knows which array it hears, except how many microphones there are.

Shapes: B batch, M microphones, T samples, C planes, K bands, N frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from detector.backbones.frames import frames_backbone
from detector.examples import PlaneExamples
from detector.frontends.planes import SCALE, CovariancePlanes
from detector.pooling import AttentiveStatistics
from remasc import Recording

EDGE = {"widths": [8, 12, 16, 20], "embedding": 24}  # the CNN of the edge variant: at most 20,000 parameters


class CompactDetector(nn.Module):
    """Waveforms at 16 kHz with any number of microphones -> score, higher = more genuine.

    With one microphone the spatial planes are zero and the spectrum decides alone. `backbone` is "cnn", "ast" or
    "psla"; widths and embedding are of the first.
    """

    sample_rate = CovariancePlanes.sample_rate
    max_mics = 16
    bfloat16_on_cpu = True

    def __init__(
        self, widths: tuple[int, ...] = (32, 48, 64, 96), embedding: int = 96, backbone: str = "cnn"
    ):
        super().__init__()
        self.arguments = {"widths": list(widths), "embedding": embedding}  # builds this network again
        if backbone != "cnn":
            self.arguments = {"backbone": backbone}
        self.front = CovariancePlanes()
        self.backbone, dim = frames_backbone(
            backbone, self.front.count, self.front.bands, tuple(widths), embedding
        )
        self.pooling = AttentiveStatistics(dim)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(2 * dim, 2)

    @classmethod
    def build_examples(cls, recordings: Sequence[Recording], folder: Path, **options) -> PlaneExamples:
        """The recordings' planes, prepared once and kept in `folder`."""
        return PlaneExamples.build(recordings, folder, **options)

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        """Planes (B, 6, K, N) of waveforms (B, M, T) at 16 kHz; see `CovariancePlanes`."""
        return self.front(x)

    def embed(self, planes: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Planes (B, 6, K, N) with real `lengths` (B,) in frames -> embeddings (B, 2 D)."""
        if lengths is None:
            lengths = torch.full((len(planes),), planes.shape[-1], device=planes.device)
        return self.pooling(*self.backbone(planes, lengths))

    def logits(self, planes: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """(B, 2) in the order [genuine, replay], as the published networks give it."""
        return self.head(self.dropout(self.embed(planes, lengths)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Waveforms (B, M, T) at 16 kHz -> scores (B,)."""
        logits = self.logits(self.prepare(x))
        return logits[:, 0] - logits[:, 1]

    def augment(
        self, planes: torch.Tensor, lengths: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Training only: what must not matter is varied, the same for all microphones.

        A crop of random length (0.5 s to what three quarters of the items last; a shorter item is heard whole), a
        smooth random equaliser on the level, and a masked band range. One item of eight has no spatial planes, so
        that single-channel input is understood by the same weights; another of eight has no level, so that space is
        learnt although the spectrum is learnt sooner.
        """
        planes, lengths = random_crop(planes, lengths, 25, generator)
        planes[:, 0] += random_equaliser(len(planes), planes.shape[2], generator)[..., None] / SCALE[0]
        for item in range(len(planes)):
            width = int(torch.randint(0, 7, (), generator=generator))
            start = int(torch.randint(0, planes.shape[2] - width, (), generator=generator))
            planes[item, :5, start : start + width] = 0
            hidden = torch.rand((), generator=generator)
            if hidden < 0.125:
                planes[item, 1:] = 0
            elif hidden < 0.25:
                planes[item, 0] = 0
        return planes, lengths


def random_crop(
    planes: torch.Tensor, lengths: torch.Tensor, shortest: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops of one random length for the batch, each item at its own place within its real frames, and their
    lengths (B,); an item that has fewer frames is kept whole and padded with zeros."""
    longest = int(torch.quantile(lengths.float(), 0.75))
    frames = int(torch.randint(min(shortest, longest), longest + 1, (), generator=generator))
    kept = lengths.clamp(max=frames)
    starts = (torch.rand(len(planes), generator=generator) * (lengths - kept + 1).cpu()).long()
    out = planes.new_zeros(*planes.shape[:-1], frames)
    for crop, item, start, count in zip(out, planes, starts.tolist(), kept.tolist(), strict=True):
        crop[..., :count] = item[..., start : start + count]
    return out, kept


def random_equaliser(count: int, bands: int, generator: torch.Generator) -> torch.Tensor:
    """Smooth gain curves (count, K) in natural log of power: a tilt and five cosines, about 3 dB rms in all."""
    position = torch.linspace(0, 1, bands)
    shapes = torch.stack([torch.cos(torch.pi * order * position) for order in range(1, 7)])
    amounts = torch.randn(count, 6, generator=generator) * torch.tensor([0.6, 0.5, 0.4, 0.3, 0.3, 0.2])
    return amounts @ shapes
