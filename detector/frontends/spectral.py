"""Short-time spectra and their mel bands, for any number of microphones.

Shapes: B batch, M microphones, T samples, F frequency bins, N frames, K bands.
"""

from __future__ import annotations

import torch


def stft(x: torch.Tensor, n_fft: int, hop: int, *, center: bool = True) -> torch.Tensor:
    """Centred Hann short-time Fourier transform, (..., T) -> (..., F, N) complex64, F = n_fft // 2 + 1.

    The edges are padded with zeros, not mirrored: what was not recorded must not look like speech. With `center`
    False they are not padded, and frames lie wholly within: N = (T - n_fft) // hop + 1.

    >>> stft(torch.zeros(2, 3, 1600), 512, 320).shape
    torch.Size([2, 3, 257, 6])
    """
    lead = x.shape[:-1]
    window = torch.hann_window(n_fft, device=x.device, dtype=x.dtype)
    spectrum = torch.stft(
        x.reshape(-1, x.shape[-1]), n_fft, hop, window=window, center=center, pad_mode="constant",
        return_complex=True,
    )  # fmt: skip
    return spectrum.reshape(*lead, *spectrum.shape[-2:])


def mel_bands(bands: int, n_fft: int, sample_rate: int, low: float, high: float) -> torch.Tensor:
    """Triangular mel filters (K, F), each row summing to 1; HTK mel, mel = 2595 log10(1 + f / 700).

    A narrow low band always holds its nearest bin, so no row is empty whatever `bands` is.

    >>> w = mel_bands(40, 512, 16000, 60.0, 7200.0)
    >>> w.shape, bool((w.sum(1) - 1).abs().max() < 1e-6)
    (torch.Size([40, 257]), True)
    """

    def to_mel(f: torch.Tensor) -> torch.Tensor:
        return 2595 * torch.log10(1 + f / 700)

    cpu = torch.device("cpu")  # also where a network is built without memory, on the meta device
    ends_mel = to_mel(torch.tensor([low, high], dtype=torch.float64, device=cpu)).tolist()
    edges_mel = torch.linspace(*ends_mel, bands + 2, device=cpu)
    edges = 700 * (10 ** (edges_mel.double() / 2595) - 1)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64, device=cpu) * sample_rate / n_fft
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    weights = torch.minimum(rising, falling).clamp(min=0)
    nearest = (bins[None] - centre).abs().argmin(dim=1)
    rows = torch.arange(bands, device=cpu)
    weights[rows, nearest] = weights[rows, nearest].clamp(min=1e-3)
    return (weights / weights.sum(dim=1, keepdim=True)).float()
