"""The compact detector's front end: waveforms in, planes of mel band by frame out. It has no parameters.

Shapes: B batch, M microphones, T samples, C planes, K bands, N frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from detector.frontends.spatial import (
    PLANES,
    audible,
    band_covariance,
    cell_shares,
    covariance_planes,
    smoothed,
)
from detector.frontends.spectral import mel_bands, stft

# Rough means and deviations of the planes over speech, so that training starts from inputs of order one.
SHIFT = (-6.0, -0.5, -1.2, -0.9, 0.3)
SCALE = (4.0, 0.5, 1.2, 0.8, 0.3)


class CovariancePlanes(nn.Module):
    """(B, M, T) at 16 kHz -> (B, 6, K, N) float32, N = T // 320 + 1 and at least 16 (zero padded).

    The first plane is the level, the next four the invariants of `detector.frontends.spatial`; the sixth says
    how many microphones there were (1 - 1/M, constant). The spatial planes are zero, their mean
    over speech, with one microphone and in cells without sound: padding a recording adds no evidence.
    """

    sample_rate = 16000
    n_fft = 512
    hop = 320
    bands = 40
    smooth = 5  # frames averaged into one covariance: 100 ms
    min_frames = 16
    count = len(PLANES) + 1
    version = 3  # raised whenever the same samples would give other planes

    def __init__(self) -> None:
        super().__init__()
        filters = mel_bands(self.bands, self.n_fft, self.sample_rate, 60.0, 7200.0)
        heard = filters.any(0).nonzero()[:, 0].tolist()
        self.bins = slice(heard[0], heard[-1] + 1)  # what no band hears need not be multiplied
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("shift", torch.tensor(SHIFT)[None, :, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[None, :, None, None], persistent=False)

    @classmethod
    def settings(cls) -> dict[str, object]:
        """What decides the planes: prepared ones are kept under its hash."""
        names = ("version", "sample_rate", "n_fft", "hop", "bands", "smooth", "min_frames")
        return {name: getattr(cls, name) for name in names}

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        missing = self.min_frames * self.hop - x.shape[-1]
        if missing > 0:
            x = nn.functional.pad(x, (0, missing))
        # A gain cannot change anything, but float32 must not underflow in a quiet recording. A power of two rounds
        # nothing, so that what comes later in a recording does not move the digits of what came before.
        x = x.float()
        _, exponent = torch.frexp(x.detach().abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-9))
        x = torch.ldexp(x, -exponent)
        spectrum = stft(x, self.n_fft, self.hop)[:, :, self.bins]
        return self.finished(band_covariance(spectrum, self.filters[:, self.bins], self.smooth))

    def finished(self, covariance: torch.Tensor, **known: Any) -> torch.Tensor:
        """Packed covariances (M, M, B, K, N) -> (B, 6, K, N); for `known` see `covariance_planes`."""
        planes, mics = covariance_planes(covariance, **known), len(covariance)
        heard = audible(planes[:, :1])
        planes = (planes - self.shift) / self.scale
        planes[:, 1:] *= heard if mics > 1 else 0
        return torch.cat([planes, torch.full_like(planes[:, :1], 1 - 1 / mics)], dim=1)


class Frames:
    """`CovariancePlanes` in the parts that `detector.frontends.growing` asks for; a batch of one recording."""

    def __init__(self, front: CovariancePlanes):
        self._front = front
        self.n_fft, self.hop, self.smooth = front.n_fft, front.hop, front.smooth
        self.min_frames = front.min_frames

    @torch.inference_mode()
    def covariances(self, samples: np.ndarray) -> torch.Tensor:
        front = self._front
        spectrum = stft(torch.from_numpy(samples)[None], front.n_fft, front.hop, center=False)[
            :, :, front.bins
        ]
        frames = spectrum.shape[-1]
        return band_covariance(_filled(spectrum), front.filters[:, front.bins], 1)[..., :frames]

    @torch.inference_mode()
    def smoothed(self, covariances: torch.Tensor) -> torch.Tensor:
        return smoothed(covariances, self.smooth)

    @torch.inference_mode()
    def shares(self, covariances: torch.Tensor) -> torch.Tensor:
        return torch.stack(cell_shares(_filled(covariances)))[..., : covariances.shape[-1]]

    @torch.inference_mode()
    def planes(self, covariances: torch.Tensor, shares: torch.Tensor, least: float) -> np.ndarray:
        return self._front.finished(covariances, shares=tuple(shares), least=least)[0].numpy()

    @staticmethod
    def joined(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(parts, dim=-1)

    @staticmethod
    def cut(whole: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        return whole[..., start:stop]


def _filled(x: torch.Tensor) -> torch.Tensor:
    """(..., N) with zeros up to a multiple of 16 frames: what is left over is rounded otherwise, and few frames are
    left over in a whole, but many in its parts."""
    return nn.functional.pad(x, (0, -x.shape[-1] % 16))
