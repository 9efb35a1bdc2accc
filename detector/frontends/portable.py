"""The compact detector's planes in NumPy alone, for machines without torch: `CovariancePlanes` for one recording.

The same numbers as `detector.frontends.planes`, which trains and defines them, but for the last digits of float32.
Here the microphones lie innermost, as NumPy's matrix product wants them.
Shapes: M microphones, T samples, F bins, N frames, K bands.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

VERSION = 3  # of the planes; others are refused
SHIFT = (-6.0, -0.5, -1.2, -0.9, 0.3)
SCALE = (4.0, 0.5, 1.2, 0.8, 0.3)
BAND_HZ = (60.0, 7200.0)
EPS, FLOOR = 1e-10, 1e-7
BLOCK = 50_000  # complex numbers worked on at once: what the caches hold
SQUARINGS = 5


@dataclass(frozen=True)
class PlaneSettings:
    """What decides the planes, as `CovariancePlanes.settings` says it."""

    version: int
    sample_rate: int
    n_fft: int
    hop: int
    bands: int
    smooth: int
    min_frames: int

    def __post_init__(self) -> None:
        limits = {"sample_rate": (8000, 192000), "n_fft": (16, 8192), "hop": (1, 8192), "bands": (1, 256),
                  "smooth": (1, 99), "min_frames": (1, 1000)}  # fmt: skip
        whole = all(type(value) is int for value in vars(self).values())
        if not whole or not all(low <= getattr(self, name) <= high for name, (low, high) in limits.items()):
            raise ValueError("the settings of the planes are not plausible; export the detector anew")
        if self.version != VERSION:
            raise ValueError(
                f"the detector hears planes of version {self.version}, this program makes {VERSION}; export the "
                "detector anew"
            )


def planes(x: np.ndarray, settings: PlaneSettings) -> np.ndarray:
    """Waveforms (M, T) float32 at the settings' rate -> planes (6, K, N) float32."""
    mics = len(x)
    missing = settings.min_frames * settings.hop - x.shape[1]
    x = np.pad(x, ((0, 0), (0, max(0, missing)))).astype(np.float32)
    x /= max(float(np.abs(x).max()), 1e-9)
    filters, first, last = _bands(settings)
    covariance = _covariance(_stft(x, settings)[:, first:last], filters, settings.smooth)
    made = _planes(covariance)
    heard = _audible(made[:1])
    made = (made - np.array(SHIFT, np.float32)[:, None, None]) / np.array(SCALE, np.float32)[:, None, None]
    made[1:] *= heard if mics > 1 else 0
    return np.concatenate([made, np.full_like(made[:1], 1 - 1 / mics)])


def mel_bands(bands: int, n_fft: int, sample_rate: int, low: float, high: float) -> np.ndarray:
    """Triangular mel filters (K, F), rows summing to 1; as `detector.frontends.spectral.mel_bands`."""
    ends = 2595 * np.log10(1 + np.array([low, high]) / 700)
    edges = 700 * (10 ** (np.linspace(*ends, bands + 2) / 2595) - 1)
    bins = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    weights = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clip(min=0)
    rows, nearest = np.arange(bands), np.abs(bins - centre).argmin(axis=1)
    weights[rows, nearest] = weights[rows, nearest].clip(min=1e-3)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=4)
def _bands(settings: PlaneSettings) -> tuple[np.ndarray, int, int]:
    """The filters over the bins that any of them hears, and those bins' range."""
    filters = mel_bands(settings.bands, settings.n_fft, settings.sample_rate, *BAND_HZ)
    heard = np.flatnonzero(filters.any(axis=0))
    return np.ascontiguousarray(filters[:, heard[0] : heard[-1] + 1]), int(heard[0]), int(heard[-1]) + 1


def _stft(x: np.ndarray, settings: PlaneSettings) -> np.ndarray:
    """Centred Hann spectra (M, F, N) complex64, padded with zeros."""
    size, half = settings.n_fft, settings.n_fft // 2
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    padded = np.pad(x, ((0, 0), (half, half)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size, axis=-1)[:, :: settings.hop]
    return np.fft.rfft(frames * window, axis=-1).astype(np.complex64).swapaxes(1, 2)


def _covariance(spectrum: np.ndarray, filters: np.ndarray, smooth: int) -> np.ndarray:
    """Mean over `smooth` frames of each band's `sum w x x^H`: (M, F, N) -> (K, N, M, M) complex64."""
    mics, _, frames = spectrum.shape
    real, imag = np.ascontiguousarray(spectrum.real), np.ascontiguousarray(spectrum.imag)
    covariance = np.zeros((len(filters), frames, mics, mics), np.complex64)
    for i in range(mics):
        parts = np.stack([real[i] * real[i:] + imag[i] * imag[i:], imag[i] * real[i:] - real[i] * imag[i:]])
        banded = _smoothed(filters @ parts, smooth)  # (2, M - i, K, N)
        row = (banded[0] + 1j * banded[1]).transpose(1, 2, 0)
        covariance[:, :, i, i:] = row
        covariance[:, :, i:, i] = row.conj()
        covariance[:, :, i, i] = banded[0, 0]
    return covariance


def _smoothed(x: np.ndarray, width: int) -> np.ndarray:
    """Mean of (..., N) over `width` neighbouring frames, of those that exist."""
    frames, total = x.shape[-1], x.copy()
    count = np.ones(frames, np.float32)
    for shift in range(1, min(width // 2, frames - 1) + 1):
        total[..., shift:] += x[..., :-shift]
        total[..., :-shift] += x[..., shift:]
        count[shift:] += 1
        count[:-shift] += 1
    return total / count


def _planes(covariance: np.ndarray) -> np.ndarray:
    """(K, N, M, M) -> (5, K, N) float32: level, principal, second, match, spread."""
    mics = covariance.shape[-1]
    power = np.einsum("knii->kni", covariance).real.clip(min=0)
    trace = power.sum(axis=-1)
    level = _relative_level(trace / mics)
    if mics == 1:
        return np.stack([level, *[np.zeros_like(level)] * 4])
    floor = EPS * trace.max() + 1e-20
    normed = covariance * (1 / (trace + floor))[..., None, None]
    cells, step = normed.reshape(-1, mics, mics), max(64, BLOCK // mics**2)
    shares = [_shares(cells[start : start + step]) for start in range(0, len(cells), step)]
    first, rest = (np.concatenate(parts).reshape(trace.shape) for parts in zip(*shares, strict=True))
    whole = (normed * _audible(level)[..., None, None]).mean(axis=1, keepdims=True)
    match = _quadratic(_principal(whole), normed).clip(1e-4, 1)
    log_power = np.log(power + floor / mics)
    made = [level, np.log(first), np.log(rest / first), np.log(match), log_power.std(axis=-1, ddof=1)]
    return np.stack(made).astype(np.float32)


def _shares(normed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The principal eigenvalue, and the norm of what it leaves, of matrices of trace 1."""
    vector = _principal(normed)
    first = _quadratic(vector, normed).clip(1 / normed.shape[-1], 1)
    left = normed - first[..., None, None] * (vector[..., :, None] * vector[..., None, :].conj())
    norm = np.einsum("...ij,...ij->...", left, left.conj()).real
    return first, np.sqrt(norm.clip(min=1e-8))


def _principal(covariance: np.ndarray) -> np.ndarray:
    """The longest column of R^(2^`SQUARINGS`), as a unit vector: (..., M, M) -> (..., M)."""
    power = covariance
    for _ in range(SQUARINGS):
        power = power * (1 / np.einsum("...ii->...", power).real.clip(min=EPS))[..., None, None]
        power = power @ power
    lengths = np.einsum("...ij,...ij->...j", power, power.conj()).real
    column = lengths.argmax(axis=-1)[..., None]
    vector = np.take_along_axis(power, column[..., None], axis=-1)[..., 0]
    return vector / np.sqrt(np.take_along_axis(lengths, column, axis=-1).clip(min=EPS * EPS))


def _quadratic(vector: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`v^H R v`, real."""
    return (vector.conj() * (matrix @ vector[..., None])[..., 0]).sum(axis=-1).real


def _audible(level: np.ndarray) -> np.ndarray:
    """How much of a cell is sound and not floor, 0..1."""
    return (1 - np.float32(FLOOR) * np.exp(-level)).clip(min=0)


def _relative_level(power: np.ndarray) -> np.ndarray:
    """Log power (K, N) over the mean of the loudest tenth of the frames, floored."""
    frames = power.sum(axis=0)
    loud = np.sort(frames)[-max(1, len(frames) // 10) :].mean() / len(power)
    return np.log(power / max(loud, 1e-20) + np.float32(FLOOR))
