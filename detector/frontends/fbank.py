"""The Kaldi filter bank that AST, SSAST and PSLA hear, batched and on any device, fixed or trainable.

Equal to `torchaudio.compliance.kaldi.fbank(htk_compat=True, use_energy=False, window_type="hanning", dither=0)`.
Shapes: T samples, N frames, W samples of a frame, K mel bands, E Fourier bins. Waveforms in [-1, 1].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FRAME_SECONDS, HOP_SECONDS = 0.025, 0.010
PREEMPHASIS = 0.97
LOWEST = 20.0  # Hz, the lower edge of the lowest band
AUDIOSET_MEAN, AUDIOSET_DEVIATION = -4.2677393, 4.5689974  # of log mel energies, as published
FLOOR = torch.finfo(torch.float32).eps


class FilterBank(nn.Module):
    """Waveforms (..., T) -> natural log mel energies (..., N, K), N = 1 + (T - W) // hop.

    A frame is 25 ms every 10 ms, freed of its own mean, pre-emphasised, Hann windowed, padded to a power of
    two. `trainable` makes the mel weights and the linear map from a frame to its Fourier bins parameters that
    start at these values (frames are then transformed by matrix products, not by FFT).

    >>> FilterBank(128)(torch.zeros(2, 3, 16000)).shape
    torch.Size([2, 3, 98, 128])
    """

    def __init__(self, mels: int = 128, sample_rate: int = 16000, trainable: bool = False):
        super().__init__()
        if mels < 4 or sample_rate < 1000:
            raise ValueError(
                f"filter bank of {mels} bands at {sample_rate} Hz: expected at least 4 and 1000 Hz"
            )
        self.mels, self.sample_rate, self.trainable = mels, sample_rate, trainable
        self.frame, self.hop = int(sample_rate * FRAME_SECONDS), int(sample_rate * HOP_SECONDS)
        self.padded = 1 << (self.frame - 1).bit_length()
        weights = mel_weights(mels, self.padded, sample_rate)
        self.register_buffer("window", torch.hann_window(self.frame, periodic=False), persistent=False)
        if trainable:
            basis = torch.view_as_real(self._spectrum(torch.eye(self.frame, dtype=torch.float64)))
            self.basis = nn.Parameter(basis.flatten(1).float())  # (W, 2 E), real and imaginary in turn
            self.weights = nn.Parameter(weights)
        else:
            self.register_buffer("weights", weights, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] < self.frame:
            raise ValueError(
                f"{x.shape[-1]} samples hold no frame of {self.frame} (25 ms at {self.sample_rate} Hz); pad it"
            )
        frames = x.to(self.weights.dtype).unfold(-1, self.frame, self.hop)
        if self.trainable:
            spectrum = (frames @ self.basis).unflatten(-1, (-1, 2))
        else:
            spectrum = torch.view_as_real(self._spectrum(frames))
        power = spectrum.square().sum(dim=-1)
        return (power @ self.weights.T).clamp(min=FLOOR).log()

    def count(self, samples):
        """Frames of so many samples; a number or a tensor of them."""
        return (samples - self.frame) // self.hop + 1

    def _spectrum(self, frames: Tensor) -> Tensor:
        """Frames (..., W) -> Fourier bins (..., E) complex: a linear map."""
        frames = frames - frames.mean(dim=-1, keepdim=True)
        before = torch.cat(
            [frames[..., :1], frames[..., :-1]], dim=-1
        )  # the first sample is its own predecessor
        return torch.fft.rfft((frames - PREEMPHASIS * before) * self.window.to(frames.dtype), self.padded)


def mel_weights(mels: int, padded: int, sample_rate: int) -> Tensor:
    """Triangles in mel from 20 Hz to half the rate, peak 1: (K, E); mel = 1127 ln(1 + f / 700).

    Computed in float32 as Kaldi does: the lowest bands of 128 hold one bin at most, near their edge, where
    more exact weights would be another bank. A band that holds no bin has no energy, as published.
    """
    low, high = _mel(torch.tensor([LOWEST, sample_rate / 2], dtype=torch.float64)).tolist()
    step = (high - low) / (mels + 1)
    band = torch.arange(mels)[:, None]
    left, centre, right = low + band * step, low + (band + 1.0) * step, low + (band + 2.0) * step
    bins = _mel(sample_rate / padded * torch.arange(padded // 2, dtype=torch.float32))
    weights = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)
    return F.pad(weights, (0, 1))  # the bin at half the rate belongs to no band


def _mel(frequency: Tensor) -> Tensor:
    return 1127.0 * (1.0 + frequency / 700.0).log()


def fit_frames(x: Tensor, frames: int) -> Tensor:
    """(..., N, K) -> (..., frames, K): cut at the end, or padded with zeros, before the normalisation."""
    return F.pad(x[..., :frames, :], (0, 0, 0, max(0, frames - x.shape[-2])))


def normalised(x: Tensor, mean: float = AUDIOSET_MEAN, deviation: float = AUDIOSET_DEVIATION) -> Tensor:
    """Log mel energies as the published networks take them: (x - mean) / (2 deviation)."""
    if not deviation > 0 or not math.isfinite(mean):
        raise ValueError(f"mean {mean} and deviation {deviation}: expected a number and one above zero")
    return (x - mean) / (2 * deviation)
