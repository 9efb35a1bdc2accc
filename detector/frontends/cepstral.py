"""Filter banks in NumPy and the cepstra made of them (MFCC, LFCC), without torch.

Shapes: F Fourier bins, K bands, N frames, C coefficients.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.fft import dct

FLOOR = 1e-10  # of the clip's strongest band: -100 dB


@lru_cache(maxsize=16)
def linear_bands(bands: int, n_fft: int, sample_rate: int, low: float, high: float) -> np.ndarray:
    """Triangular filters (K, F) evenly spaced in Hz from `low` to `high`, peak 1: the bank of LFCC.

    >>> linear_bands(20, 512, 16000, 0.0, 8000.0).shape
    (20, 257)
    """
    if not 0 <= low < high <= sample_rate / 2:
        raise ValueError(f"bands from {low:g} to {high:g} Hz do not fit a rate of {sample_rate} Hz")
    edges = np.linspace(low, high, bands + 2)
    hertz = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    weights = np.minimum((hertz - left) / (centre - left), (right - hertz) / (right - centre)).clip(0)
    weights.setflags(write=False)
    return weights


@lru_cache(maxsize=16)
def mel_bands(bands: int, n_fft: int, sample_rate: int, low: float, high: float) -> np.ndarray:
    """librosa's mel filters (K, F): Slaney's scale, each band of area one."""
    import librosa  # imported late: it is slow to import

    return librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=bands, fmin=low, fmax=high)


def cepstra(power: np.ndarray, bank: np.ndarray, count: int) -> np.ndarray:
    """Power spectra (F, N) -> cepstral coefficients 0..count-1, (C, N): orthonormal DCT-II of the natural log
    of the band energies, floored 100 dB below the strongest. A gain moves coefficient 0 alone."""
    energies = bank @ power
    return dct(np.log(np.maximum(energies, FLOOR * energies.max() + 1e-30)), axis=0, norm="ortho")[:count]
