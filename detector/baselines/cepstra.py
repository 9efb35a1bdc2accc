"""Cepstra of the ASVspoof baselines, of one channel at 16 kHz: a few numbers for each frame.

Shapes: T samples, N frames, K bins, C cepstra (with the 0th). Waveforms (T,), full scale = 1.
LFCC (19 + 0th) and CQCC (29 + 0th), each with deltas and double deltas: 60 and 90 columns.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.fft import dct, ifft, rfft
from scipy.interpolate import CubicSpline

RATE = 16000
EPS = float(np.finfo(np.float64).eps)  # below every microphone's noise; keeps log of digital silence finite

# LFCC as in ASVspoof 2019: Sahidullah et al. 2015, "A comparison of features for synthetic speech detection"
PRE_EMPHASIS, FRAME, HOP, N_FFT, FILTERS, LFCC = 0.97, 320, 160, 512, 20, 20
# CQCC as in ASVspoof 2017: Todisco et al. 2017, "Constant Q cepstral coefficients", Computer Speech & Language 45
BINS_PER_OCTAVE, OCTAVES, FMAX, RESAMPLING, CQCC = 96, 9, RATE / 2, 16, 30
FMIN = FMAX / 2**OCTAVES  # 15.6 Hz
# A bin is SPREAD * (f + 228.7 Hz) wide: Schoerkhuber et al. 2014 (AES 53), whose transform CQCC is defined on
SPREAD = 2 ** (1 / BINS_PER_OCTAVE) - 2 ** (-1 / BINS_PER_OCTAVE)
GAMMA = 228.7 * SPREAD


def lfcc(x: np.ndarray) -> np.ndarray:
    """(T,) at 16 kHz -> (N, 60): frames of 20 ms every 10 ms, the first 20 cepstra of 20 linear filters.

    >>> lfcc(np.random.default_rng(0).standard_normal(16000)).shape
    (99, 60)
    """
    x = np.asarray(x, dtype=np.float64)
    x = np.append(x[:1], x[1:] - PRE_EMPHASIS * x[:-1])
    x = np.pad(x, (0, max(0, FRAME - len(x))))
    frames = np.lib.stride_tricks.sliding_window_view(x, FRAME)[::HOP]
    power = np.abs(rfft(frames * np.hamming(FRAME), N_FFT)) ** 2
    return with_deltas(dct(np.log10(power @ _filters().T + EPS), norm="ortho")[:, :LFCC])


@lru_cache(maxsize=1)
def _filters() -> np.ndarray:
    """(20, 257) triangles, evenly spaced from 0 to 8 kHz, each from its left neighbour's centre to its right's."""
    edges = np.linspace(0, N_FFT / 2, FILTERS + 2)
    bins = np.arange(N_FFT // 2 + 1)
    return np.array([np.interp(bins, edges[i : i + 3], [0, 1, 0]) for i in range(FILTERS)])


def cqcc(x: np.ndarray) -> np.ndarray:
    """(T,) at 16 kHz -> (N, 90), a frame every 8.4 ms: log power of the constant-Q bins, resampled to a linear
    frequency axis (a step of FMIN / 16), cosine transform, first 30.

    >>> cqcc(np.random.default_rng(0).standard_normal(16000)).shape
    (119, 90)
    """
    power = np.abs(constant_q(x)) ** 2  # (K, N)
    return with_deltas((_cepstral_matrix() @ np.log(power + EPS)).T)


def constant_q(x: np.ndarray) -> np.ndarray:
    """(T,) -> complex (864, N): 96 bins an octave from 15.6 Hz to 8 kHz, a sine of amplitude A has |.| = A/2.

    One FFT of the clip; each bin is a Hann window of its bandwidth cut from the spectrum, back in time at one
    frame rate for all, that of the widest (119 Hz). As in the toolbox, the clip is taken as periodic.
    """
    x = np.asarray(x, dtype=np.float64)
    x = np.pad(x, (0, max(0, FRAME - len(x))))
    size = len(x)
    spectrum = rfft(x)
    frequency = FMIN * 2 ** (np.arange(BINS_PER_OCTAVE * OCTAVES) / BINS_PER_OCTAVE)
    position = frequency * size / RATE  # in bins of the spectrum
    width = np.maximum(4, (SPREAD * frequency + GAMMA) * size / RATE)
    count = int(np.ceil(width.max()))
    index = np.round(position).astype(int)[:, None] + np.arange(count) - count // 2  # (K, N)
    distance = (index - position[:, None]) / width[:, None]
    inside = (np.abs(distance) < 0.5) & (index >= 0) & (index < len(spectrum))
    window = np.where(inside, 0.5 + 0.5 * np.cos(2 * np.pi * distance), 0)
    taken = spectrum[np.clip(index, 0, len(spectrum) - 1)] * window
    return ifft(taken, axis=-1) * (count / size)


@lru_cache(maxsize=1)
def _cepstral_matrix() -> np.ndarray:
    """(30, 864): the spline onto a linear axis and the cosine transform are linear, so they are one matrix."""
    frequency = FMIN * 2 ** (np.arange(BINS_PER_OCTAVE * OCTAVES) / BINS_PER_OCTAVE)
    linear = np.arange(frequency[0], frequency[-1], FMIN / RESAMPLING)
    resampled = CubicSpline(frequency, np.eye(len(frequency)))(linear)
    return dct(resampled, axis=0, norm="ortho")[:CQCC].copy()


def with_deltas(static: np.ndarray) -> np.ndarray:
    """(N, C) -> (N, 3C): the cepstra, the differences of their neighbours in time, and the differences of these."""
    delta = _difference(static)
    return np.concatenate([static, delta, _difference(delta)], axis=1)


def _difference(values: np.ndarray) -> np.ndarray:
    padded = np.pad(values, ((1, 1), (0, 0)), mode="edge")
    return padded[2:] - padded[:-2]
