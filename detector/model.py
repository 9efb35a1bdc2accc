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

from detector.backbones.cnn import CNN
from detector.examples import PlaneExamples
from detector.frontends.spatial import PLANES, band_covariance, covariance_planes
from detector.frontends.spectral import mel_bands, stft
from detector.pooling import AttentiveStatistics
from remasc import Recording

# Rough means and deviations of the planes over speech, so that training starts from inputs of order one.
PLANE_SHIFT = (-6.0, -0.5, -1.2, -0.9, 0.3)
PLANE_SCALE = (4.0, 0.5, 1.2, 0.8, 0.3)


class CompactDetector(nn.Module):
    """Waveforms at 16 kHz with any number of microphones -> score, higher = more genuine.

    The first plane is spectral, the other four spatial; a sixth says how many microphones there were
    (1 - 1/M, constant). With one microphone the spatial planes are zero and the spectrum decides alone.
    """

    sample_rate = 16000
    n_fft = 512
    hop = 320
    bands = 40
    smooth = 5  # frames averaged into one covariance: 100 ms
    min_frames = 16
    max_mics = 16

    def __init__(self, widths: tuple[int, ...] = (32, 48, 64, 96), embedding: int = 96):
        super().__init__()
        self.arguments = {"widths": list(widths), "embedding": embedding}  # builds this network again
        filters = mel_bands(self.bands, self.n_fft, self.sample_rate, 60.0, 7200.0)
        self.register_buffer("filters", filters, persistent=False)
        shape = (1, len(PLANES), 1, 1)
        self.register_buffer("shift", torch.tensor(PLANE_SHIFT).reshape(shape), persistent=False)
        self.register_buffer("scale", torch.tensor(PLANE_SCALE).reshape(shape), persistent=False)
        self.backbone = CNN(len(PLANES) + 1, self.bands, tuple(widths), embedding)
        self.pooling = AttentiveStatistics(embedding)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(2 * embedding, 2)

    @classmethod
    def front_end(cls) -> dict[str, object]:
        """The settings that decide what `prepare` gives: prepared planes are kept under their hash."""
        return {
            "planes": 1,
            "sample_rate": cls.sample_rate,
            "n_fft": cls.n_fft,
            "hop": cls.hop,
            "bands": cls.bands,
            "smooth": cls.smooth,
        }

    @classmethod
    def build_examples(cls, recordings: Sequence[Recording], folder: Path, **options) -> PlaneExamples:
        """The recordings' planes, prepared once and kept in `folder`."""
        return PlaneExamples.build(recordings, folder, cls, **options)

    @torch.no_grad()
    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        """Planes (B, 6, K, N) of waveforms (B, M, T); N = T // 320 + 1, at least 16 (zero padded).

        Computed in float32 and without gradient: the front end has no parameters.
        """
        missing = self.min_frames * self.hop - x.shape[-1]
        if missing > 0:
            x = nn.functional.pad(x, (0, missing))
        # A gain cannot change anything, but float32 must not underflow in a quiet recording.
        x = x.float() / x.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-9)
        covariance = band_covariance(stft(x, self.n_fft, self.hop), self.filters, self.smooth)
        planes = (covariance_planes(covariance) - self.shift) / self.scale
        mics = x.shape[1]
        if mics == 1:
            planes[:, 1:] = 0
        return torch.cat([planes, torch.full_like(planes[:, :1], 1 - 1 / mics)], dim=1)

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

        A crop of random length (0.5 s to the shortest item's whole; simulation.md reports crops as the
        strongest single measure), a smooth random equaliser on the level, a masked band range, and in one item
        of eight no spatial planes, so that single-channel input is understood by the same weights.
        """
        planes = random_crop(planes, lengths, 25, generator)
        planes[:, 0] += random_equaliser(len(planes), self.bands, generator)[..., None] / PLANE_SCALE[0]
        for item in range(len(planes)):
            width = int(torch.randint(0, 7, (), generator=generator))
            start = int(torch.randint(0, self.bands - width, (), generator=generator))
            planes[item, :5, start : start + width] = 0
            if torch.rand((), generator=generator) < 0.125:
                planes[item, 1:] = 0
        return planes, torch.full_like(lengths, planes.shape[-1])


def random_crop(
    planes: torch.Tensor, lengths: torch.Tensor, shortest: int, generator: torch.Generator
) -> torch.Tensor:
    """Crops of one random length for the batch, each item at its own place within its real frames."""
    longest = int(lengths.min())
    frames = int(torch.randint(min(shortest, longest), longest + 1, (), generator=generator))
    starts = (torch.rand(len(planes), generator=generator) * (lengths.cpu() - frames + 1)).long()
    return torch.stack(
        [p[..., s : s + frames] for p, s in zip(planes, starts.tolist(), strict=True)]
    ).contiguous()


def random_equaliser(count: int, bands: int, generator: torch.Generator) -> torch.Tensor:
    """Smooth gain curves (count, K) in natural log of power: a tilt and five cosines, about 3 dB rms in all."""
    position = torch.linspace(0, 1, bands)
    shapes = torch.stack([torch.cos(torch.pi * order * position) for order in range(1, 7)])
    amounts = torch.randn(count, 6, generator=generator) * torch.tensor([0.6, 0.5, 0.4, 0.3, 0.3, 0.2])
    return amounts @ shapes
