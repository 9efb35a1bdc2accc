"""The compact detector's front end: waveforms in, planes of mel band by frame out. It has no parameters.

Shapes: B batch, M microphones, T samples, C planes, K bands, N frames.
"""

from __future__ import annotations

import torch
from torch import nn

from detector.frontends.spatial import PLANES, audible, band_covariance, covariance_planes
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
        # A gain cannot change anything, but float32 must not underflow in a quiet recording.
        x = x.float() / x.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-9)
        spectrum = stft(x, self.n_fft, self.hop)[:, :, self.bins]
        planes = covariance_planes(band_covariance(spectrum, self.filters[:, self.bins], self.smooth))
        heard = audible(planes[:, :1])
        planes = (planes - self.shift) / self.scale
        mics = x.shape[1]
        planes[:, 1:] *= heard if mics > 1 else 0
        return torch.cat([planes, torch.full_like(planes[:, :1], 1 - 1 / mics)], dim=1)
