"""How harmonic the voice is: harmonics-to-noise ratio (Boersma 1993) in bands, cepstral peak prominence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft as sfft

from detector.source.cues.catalogue import listed
from detector.source.cues.clip import HOP, NARROW_HZ, RATE, TOP_HZ, Clip, decibel

CUES = listed(
    "harmonicity",
    reach=TOP_HZ,
    hnr=("dB", "harmonics {:.1f} dB above the noise between them"),
    hnr_sd=("dB", "harmonics-to-noise ratio varies by {:.1f} dB"),
    cpp=("dB", "the pitch stands out by {:.1f} dB in the cepstrum"),
) + listed(
    "harmonicity",
    reach=NARROW_HZ,
    hnr_low=("dB", "harmonics below 1.5 kHz {:.1f} dB above the noise between them"),
    hnr_high=("dB", "harmonics from 1.5 to 3.6 kHz {:.1f} dB above the noise between them"),
)
SIZE = 1024  # 64 ms
FINER = 2  # the autocorrelation is interpolated so many times: the highs turn fast
MOST = 40.0  # dB: beyond it the window decides and not the voice
MIN_VOICED = 8


def voiced_frames(x: np.ndarray, f0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames (V, 1024) centred on the voiced frames of `f0` (N,), unwindowed, and their lags (V,) in samples."""
    at = np.flatnonzero(np.isfinite(f0))
    padded = np.pad(x, SIZE // 2)
    return np.lib.stride_tricks.sliding_window_view(padded, SIZE)[at * HOP], RATE / f0[at]


def harmonics_to_noise(
    frames: np.ndarray, lags: np.ndarray, bands: Sequence[tuple[float, float]]
) -> np.ndarray:
    """Ratios (len(bands), V) in dB within bands of Hz: 10 log10 r / (1 - r) of the autocorrelation r at the period.

    The autocorrelation is divided by the window's own, so that a periodic sound gives 1; capped at +-40 dB.
    """
    window = np.hanning(SIZE)
    frames = (frames - frames.mean(axis=1, keepdims=True)).astype(np.float32)
    spectra = sfft.rfft(frames * window.astype(np.float32), 2 * SIZE, axis=1)
    hertz = sfft.rfftfreq(2 * SIZE, 1 / RATE)
    power = np.square(np.abs(spectra))
    own = sfft.irfft(np.square(np.abs(sfft.rfft(window, 2 * SIZE))), FINER * 2 * SIZE)
    lags = FINER * lags
    longest = int(lags.max() * 1.1) + 2
    best = []
    for low, high in bands:
        inside = power * ((hertz >= low) & (hertz < high))
        correlation = sfft.irfft(inside, FINER * 2 * SIZE, axis=1)[:, : longest + 1]
        correlation = correlation / np.maximum(correlation[:, :1], 1e-20) * (own[0] / own[: longest + 1])
        best.append(_peak_near(correlation, lags))
    share = np.clip(best, 10 ** (-MOST / 10), 1 - 10 ** (-MOST / 10))
    return decibel(share / (1 - share))


def _peak_near(correlation: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """The highest value (V,) within 6 % of each lag, between samples by a parabola."""
    near = np.abs(np.arange(correlation.shape[1]) / lags[:, None] - 1) < 0.06
    near[:, [0, -1]] = False
    at = np.where(near, correlation, -np.inf).argmax(axis=1)
    rows = np.arange(len(lags))
    before, here, after = (correlation[rows, np.clip(at + step, 0, None)] for step in (-1, 0, 1))
    bend = before - 2 * here + after
    shift = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1), 0)
    return here - 0.25 * (before - after) * np.clip(shift, -0.5, 0.5)


def peak_prominence(frames: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """Cepstral peak prominence (V,) in dB: the cepstrum (of the spectrum in dB) at the period above its trend
    (Hillenbrand 1994; the trend is a straight line from 1 ms to 20 ms)."""
    level = decibel(np.square(np.abs(sfft.rfft(frames * np.hanning(SIZE), axis=1))))
    cepstrum = np.abs(sfft.irfft(level, axis=1))[:, : SIZE // 2]
    cepstrum = decibel(np.square(cepstrum))
    quefrency = np.arange(16, 320)
    slope, offset = np.polyfit(quefrency, cepstrum[:, quefrency].T, 1)
    near = np.abs(np.arange(cepstrum.shape[1]) / lags[:, None] - 1) < 0.06
    at = np.where(near, cepstrum, -np.inf).argmax(axis=1)
    return cepstrum[np.arange(len(lags)), at] - (slope * at + offset)


def measure(clip: Clip, f0: np.ndarray) -> dict[str, float]:
    if np.isfinite(f0).sum() < MIN_VOICED:
        return {}
    frames, lags = voiced_frames(clip.reference, f0)
    bands = ((60.0, clip.top), (60.0, 1500.0), (1500.0, NARROW_HZ))
    whole, low, high = harmonics_to_noise(frames, lags, bands)
    return {
        "hnr": float(whole.mean()),
        "hnr_sd": float(whole.std()),
        "hnr_low": float(low.mean()),
        "hnr_high": float(high.mean()),
        "cpp": float(peak_prominence(frames, lags).mean()),
    }
