"""M-ALRAD of arXiv 2502.13473 at its published size: a learnt beamformer in front of a convolutional recurrent
network.

Shapes: B batch, M microphones, T samples, F bins, N frames. Waveforms (B, M, T) float32 in [-1, 1].
Complex STFT -> a complex weight per channel, bin and frame -> weighted sum -> log power, sine and cosine of the
phase, times a heat map -> three convolutions along frequency -> two bidirectional GRUs -> last frame ->
[genuine, replay].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.published.network import PublishedNetwork

POOLS = (8, 8, 4)  # of frequency, after each of the three convolutions
FLOOR = 1e-6
ORTHOGONALITY = SPARSITY = 1e-6  # weights of the two terms of the loss that bind the beamformer


class MALRAD(PublishedNetwork):
    """A replay detector for one array: (B, M, T) at `sample_rate` -> score (B,), higher = more genuine.

    The STFT has 2048 samples every 1024 at 44.1 kHz and 1024 every 512 at 16 kHz (here: at any rate below
    32 kHz). Names and sizes of the parameters are the published ones; 347,805 parameters with 4 channels at
    44.1 kHz.

    While training, `logits` leaves the two terms that bind the beamformer in `penalty`, to be added to the loss;
    what each is exactly the paper leaves open (see `_penalty`).

    >>> sum(p.numel() for p in MALRAD(4, 44100).parameters())
    347805
    """

    def __init__(self, channels: int, sample_rate: int) -> None:
        super().__init__(channels, sample_rate)
        self.n_fft = 2048 if self.sample_rate >= 32000 else 1024
        self.hop = self.n_fft // 2
        self.bm_weights = _Estimator(self.channels)
        self.heatmap = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ELU(),
            nn.Conv2d(16, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ELU(),
            nn.Conv2d(64, 3, 1),
        )
        bands = self.n_fft // 2 + 1
        for number, (width, wider, pool) in enumerate(zip((3, 32, 64), (32, 64, 128), POOLS, strict=True), 1):
            setattr(self, f"conv{number}", nn.Conv2d(width, wider, (3, 1), padding=(1, 0)))
            setattr(self, f"bn{number}", nn.BatchNorm2d(wider))
            bands //= pool
        self.gru1 = nn.GRU(128 * bands, 64, batch_first=True, bidirectional=True)
        self.gru2 = nn.GRU(128, 64, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(128, 2)
        self.penalty: Tensor | None = None

    def spectra(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared windows (B, M, T) -> real and imaginary parts (B, M, F, N), Hann window, centred frames."""
        wanted = f"a prepared window (B, {self.channels}, more than {self.hop} samples)"
        x = self._real(x, wanted)
        if x.shape[-1] <= self.hop:
            raise ValueError(f"expected {wanted}, got shape {tuple(x.shape)}; `prepare` makes one")
        x = x if x.dtype == torch.float64 else x.float()  # there is no FFT of half precision on the CPU
        window = torch.hann_window(self.n_fft, dtype=x.dtype, device=x.device)
        s = torch.stft(x.flatten(0, 1), self.n_fft, self.hop, window=window, return_complex=True)
        s = s.unflatten(0, x.shape[:2])
        return s.real, s.imag

    def beamform(self, real: Tensor, imag: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spectra (B, M, F, N) -> the weighted sum's real and imaginary part (B, F, N), and the weights
        (B, 2M, F, N), real parts first."""
        dtype = self.fc.weight.dtype
        planes = torch.stack([real, imag], dim=2).flatten(
            1, 2
        )  # real and imaginary part of one channel side by side
        weights = self.bm_weights(planes.to(dtype)).to(real.dtype)
        a, b = weights.chunk(2, dim=1)
        return (a * real - b * imag).sum(dim=1), (a * imag + b * real).sum(dim=1), weights

    def features(self, real: Tensor, imag: Tensor) -> Tensor:
        """The beam (B, F, N) -> log power, sine and cosine of the phase (B, 3, F, N). Zero has the phase 0."""
        power = real.square() + imag.square()
        there = power > 0
        scale = torch.where(there, power, torch.ones_like(power)).rsqrt()  # no gradient is lost at zero
        cosine = torch.where(there, real * scale, torch.ones_like(real))
        return torch.stack([torch.log(power + FLOOR), imag * scale, cosine], dim=1)

    def embed(self, x: Tensor) -> Tensor:
        """Prepared windows (B, channels, T) -> the last frame of the second GRU (B, 128)."""
        return self._embed(x)[0]

    def _embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`embed`, and the beamformer's weights."""
        real, imag, weights = self.beamform(*self.spectra(x))
        h = self.features(real, imag).to(self.fc.weight.dtype)
        h = h * self.heatmap(h).sigmoid()
        for number, pool in enumerate(POOLS, 1):
            h = F.elu(getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(h)))
            h = F.max_pool2d(h, (pool, 1)) + F.avg_pool2d(h, (pool, 1))
        h = h.permute(0, 3, 2, 1).flatten(2)  # (B, N, bands * 128)
        for gru in (self.gru1, self.gru2):
            h = gru(h)[0]
        return h[:, -1], weights

    def logits(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Prepared windows (B, channels, T) -> (B, 2) in the published order [genuine, replay].

        `lengths` is accepted for the common interface and unused: prepared windows are all one second.
        """
        h, weights = self._embed(x)
        self.penalty = _penalty(weights) if self.training else None
        return self.fc(h)


class _Estimator(nn.Module):
    """Planes (B, 2M, F, N) -> the beamformer's weights, of the same shape. A room of its own for its names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.param_estimator = nn.Sequential(
            nn.Conv2d(2 * channels, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ELU(),
            nn.Conv2d(64, 2 * channels, 3, padding=1),
        )

    def forward(self, planes: Tensor) -> Tensor:
        return self.param_estimator(planes)


def _penalty(weights: Tensor) -> Tensor:
    """Of the weights (B, 2M, F, N): the squared distance of the channels' Gram matrix, averaged over bins and
    frames, from the identity, and the sum of all magnitudes; each mean over the batch times 1e-6. Scalar."""
    a, b = (part.flatten(2) for part in weights.chunk(2, dim=1))  # (B, M, F * N)
    real = (a @ a.mT + b @ b.mT) / a.shape[-1]
    imag = (b @ a.mT - a @ b.mT) / a.shape[-1]
    apart = (real - torch.eye(a.shape[1], dtype=a.dtype, device=a.device)).square() + imag.square()
    # the square root has no slope at zero without a floor
    magnitude = (a.square() + b.square() + 1e-12).sqrt()
    return ORTHOGONALITY * apart.sum(dim=(1, 2)).mean() + SPARSITY * magnitude.sum(dim=(1, 2)).mean()
