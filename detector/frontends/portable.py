"""The compact detector's planes in NumPy alone, for machines without torch: `CovariancePlanes` for one recording.

The same numbers as `detector.frontends.planes`, which trains and defines them, but for the last digits of float32.
Its matrix product wants the microphones innermost, so they lie so where matrices are squared.
Shapes: M microphones, T samples, F bins, N frames, K bands.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from detector.frontends.growing import GrowingPlanes

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
    x = np.asarray(x, np.float32)
    return GrowingPlanes(Frames(settings), len(x)).heard(x, x[:, :0])


class Frames:
    """The planes in the parts that `detector.frontends.growing` asks for.

    Covariances are packed, (M, M, K, N) float32: Re R_ij in row i of column j >= i, Im R_ij in row j, column i < j.
    """

    def __init__(self, settings: PlaneSettings):
        self._settings = settings
        self.n_fft, self.hop, self.smooth = settings.n_fft, settings.hop, settings.smooth
        self.min_frames = settings.min_frames

    def covariances(self, samples: np.ndarray) -> np.ndarray:
        filters, first, last = _bands(self._settings)
        return _covariance(_stft(samples, self._settings)[..., first:last], filters)

    def smoothed(self, covariances: np.ndarray) -> np.ndarray:
        return _smoothed(covariances, self.smooth)

    def shares(self, covariances: np.ndarray) -> np.ndarray:
        return _shares(covariances)

    def planes(self, covariances: np.ndarray, shares: np.ndarray, least: float) -> np.ndarray:
        made, mics = _planes(covariances, shares, least), len(covariances)
        heard = _audible(made[:1])
        made = (made - np.array(SHIFT, np.float32)[:, None, None]) / np.array(SCALE, np.float32)[
            :, None, None
        ]
        made[1:] *= heard if mics > 1 else 0
        return np.concatenate([made, np.full_like(made[:1], 1 - 1 / mics)])

    @staticmethod
    def joined(parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts, axis=-1)

    @staticmethod
    def cut(whole: np.ndarray, start: int, stop: int) -> np.ndarray:
        return whole[..., start:stop]


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
    """Hann spectra (M, N, F) complex64 of the frames that lie wholly within (M, t)."""
    window = np.hanning(settings.n_fft + 1)[:-1].astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(x, settings.n_fft, axis=-1)[:, :: settings.hop]
    return np.fft.rfft(frames * window, axis=-1).astype(np.complex64, copy=False)


def _covariance(spectrum: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Each band's `sum w x x^H`: (M, N, F) -> packed (M, M, K, N).

    Each frame is a product of its own: BLAS rounds a row by what stands beside it, and an export of 8 bits turns
    the last digit into another score.
    """
    mics, frames, _ = spectrum.shape
    real, imag = np.ascontiguousarray(spectrum.real), np.ascontiguousarray(spectrum.imag)
    packed = np.empty((mics, mics, len(filters), frames), np.float32)
    for i in range(mics):
        outer = real[i] * real[i:] + imag[i] * imag[i:]
        crossed = imag[i] * real[i + 1 :] - real[i] * imag[i + 1 :]
        packed[i, i:] = (outer[..., None, :] @ filters.T)[..., 0, :].swapaxes(1, 2)
        packed[i + 1 :, i] = (crossed[..., None, :] @ filters.T)[..., 0, :].swapaxes(1, 2)
    return packed


def _unpacked(packed: np.ndarray) -> np.ndarray:
    """Packed (M, M, ...) -> Hermitian (..., M, M) complex64, the microphones innermost."""
    mics = len(packed)
    whole = np.empty((*packed.shape[2:], mics, mics), np.complex64)
    for i in range(mics):
        whole[..., i, i] = packed[i, i]
        for j in range(i + 1, mics):
            whole.real[..., i, j] = whole.real[..., j, i] = packed[i, j]
            whole.imag[..., i, j], whole.imag[..., j, i] = packed[j, i], -packed[j, i]
    return whole


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


def _planes(covariance: np.ndarray, shares: np.ndarray, least: float) -> np.ndarray:
    """Packed (M, M, K, N), its `_shares` -> (5, K, N) float32: level, principal, second, match, spread."""
    mics, frames = len(covariance), covariance.shape[-1]
    power = np.einsum("iikn->ikn", covariance).clip(min=0)
    trace = power.sum(axis=0)
    level = _relative_level(trace / np.float32(mics), np.float32(least))
    if mics == 1:
        return np.stack([level, *[np.zeros_like(level)] * 4])
    floor = np.float32(EPS * float(trace.max()) + least)
    owned = trace / (trace + floor)
    first = (owned * shares[0]).clip(1 / mics, 1)
    # what is left is orthogonal to the principal direction
    rest = np.sqrt((owned**2 * shares[1] + (first - owned * shares[0]) ** 2).clip(min=1e-8))
    whole = np.einsum("ijkn,kn->ijk", covariance, _audible(level) / (trace + floor)) / np.float32(frames)
    vector = _principal(_unpacked(whole)).T  # (M, K)
    along = np.zeros_like(trace)
    for i in range(mics):
        along += np.abs(vector[i, :, None]) ** 2 * covariance[i, i]
        for j in range(i + 1, mics):
            product = 2 * vector[i].conj() * vector[j]  # v^H R v, of R_ij and R_ji
            along += product.real[:, None] * covariance[i, j] - product.imag[:, None] * covariance[j, i]
    match = (along / (trace + floor)).clip(1e-4, 1)
    log_power = np.log(power + floor / np.float32(mics))
    made = [level, np.log(first), np.log(rest / first), np.log(match), log_power.std(axis=0, ddof=1)]
    return np.stack(made).astype(np.float32)


def _shares(covariance: np.ndarray) -> np.ndarray:
    """Of each cell's trace: the principal eigenvalue's share, and what it leaves, squared; packed -> (2, K, N)."""
    mics, frames = len(covariance), covariance.shape[-1]
    shares = np.empty((2, *covariance.shape[2:]), np.float32)
    step = max(4, BLOCK // (mics**2 * covariance.shape[2]))
    for start in range(0, frames, step):
        some = slice(start, start + step)
        normed = _unpacked(covariance[..., some])
        normed *= (1 / np.einsum("...ii->...", normed).real.clip(min=1e-37))[..., None, None]
        vector = _principal(normed)
        first = _quadratic(vector, normed)
        left = normed - first[..., None, None] * (vector[..., :, None] * vector[..., None, :].conj())
        shares[0, :, some] = first
        shares[1, :, some] = np.einsum("...ij,...ij->...", left, left.conj()).real
    return shares


def _principal(covariance: np.ndarray) -> np.ndarray:
    """The longest column of R^(2^`SQUARINGS`), as a unit vector: (..., M, M) -> (..., M)."""
    power = covariance
    for turn in range(SQUARINGS):
        if turn % 2 == 0:  # a trace of 1 becomes M^-3 at least in two turns: no digit is lost
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


def _relative_level(power: np.ndarray, least: np.float32) -> np.ndarray:
    """Log power (K, N) over the mean of the loudest tenth of the frames, floored."""
    frames = power.sum(axis=0)
    loud = np.sort(frames)[-max(1, len(frames) // 10) :].mean() / len(power)
    return np.log(power / max(loud, least) + np.float32(FLOOR))
