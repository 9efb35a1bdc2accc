"""Hand-made cues: Void's 97 numbers, the balance of the lowest bass, the coherence between the words.

Shapes: M microphones, T samples, F bins, N frames. Waveforms in [-1, 1]; none of the cues knows the level.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.fft import irfft, rfft
from scipy.linalg import solve_toeplitz
from scipy.signal import find_peaks

RATE = 16000  # of Void and of the bass
TINY = 1e-30
# Void (Ahmed et al., USENIX Security 2020)
WINDOW, HOP, N_FFT, SEGMENT, LOW, PEAK_SHARE, ORDER, ESTIMATES, LPCC = 512, 128, 2048, 14, 48, 0.3, 6, 32, 12
VOID = LOW + 2 + 3 + ESTIMATES + LPCC  # 97
# The bass (Blue et al. 2018): what a voice does not make, of what it makes at its lowest. Bounds (open).
SUB_BASS_HZ, BASS_HZ, BASS_FRAME = (20.0, 60.0), (20.0, 250.0), 4096
# Coherence (Yaguchi et al. 2019). Frame, share of quiet frames and reach in time (open).
GCC_SECONDS, QUIET_SHARE, REACH_SECONDS = 0.064, 0.2, 0.001


def void_features(x: np.ndarray) -> np.ndarray:
    """(T,) at 16 kHz -> (97,): 48 low-frequency powers, 2 of linearity, 35 of peaks, 12 LPCC.

    Open in the paper, and chosen here: powers in per cent of the whole; mean and spread of the peaks are those of
    their places; the 32 values of the polynomial are its first; linearity is that of the cumulative curve
    over frequency, 0 to 1; no peak at all counts as none.
    """
    x = np.asarray(x, dtype=np.float64)
    power = _frames(x, WINDOW, HOP, N_FFT).sum(axis=0)
    segments = power[: len(power) // SEGMENT * SEGMENT].reshape(-1, SEGMENT).sum(axis=1)
    segments = segments / (segments.sum() + TINY)
    low = 100 * segments[:LOW]
    return np.concatenate([low, _linearity(np.cumsum(segments)), _peaks(low), _lpcc(x)])


def _linearity(curve: np.ndarray) -> np.ndarray:
    """Correlation of the cumulative curve with a straight line, and the quadratic coefficient of its fit."""
    line = np.linspace(0, 1, len(curve))
    spread = curve.std() * line.std()
    correlation = ((curve - curve.mean()) * (line - line.mean())).mean() / spread if spread > 0 else 0.0
    return np.array([correlation, np.polyfit(line, curve, 2)[0]])


def _peaks(low: np.ndarray) -> np.ndarray:
    """Number, mean and spread of the peaks above 0.3 of the highest; the 6th-order polynomial, 32 values."""
    found, _ = find_peaks(low)
    if len(found):
        found = found[low[found] >= PEAK_SHARE * low[found].max()]
    mean, spread = (found.mean(), found.std()) if len(found) else (0.0, 0.0)
    places = np.linspace(-1, 1, len(low))  # well conditioned; the fitted curve is the same
    fitted = np.polyval(np.polyfit(places, low, ORDER), places)[:ESTIMATES]
    return np.concatenate([[len(found), mean, spread], fitted])


def _lpcc(x: np.ndarray) -> np.ndarray:
    """(12,) cepstra of the linear prediction of order 12 over the whole clip (autocorrelation method)."""
    size = 2 ** int(np.ceil(np.log2(len(x) + LPCC + 1)))
    r = irfft(np.abs(rfft(x, size)) ** 2)[: LPCC + 1]
    if r[0] <= TINY:
        return np.zeros(LPCC)
    r[0] *= 1 + 1e-9  # a pure tone is predicted without error
    a = solve_toeplitz(r[:-1], r[1:])  # x[t] = sum a[k] x[t - 1 - k]
    c = np.zeros(LPCC)
    for n in range(1, LPCC + 1):
        c[n - 1] = a[n - 1] + sum(k / n * c[k - 1] * a[n - k - 1] for k in range(1, n))
    return c


def bass_balance(x: np.ndarray) -> np.ndarray:
    """(T,) at 16 kHz -> (1,): natural log of the share that 20 to 60 Hz have in the energy of 20 to 250 Hz."""
    power = _frames(np.asarray(x, dtype=np.float64), BASS_FRAME, BASS_FRAME // 2, BASS_FRAME).sum(axis=0)
    hertz = np.arange(len(power)) * RATE / BASS_FRAME
    low, all_of_it = (power[(hertz >= a) & (hertz <= b)].sum() for a, b in (SUB_BASS_HZ, BASS_HZ))
    return np.array([np.log((low + TINY) / (all_of_it + TINY))])


def quiet_coherence(x: np.ndarray, rate: int) -> np.ndarray:
    """(M, T) -> (1,): natural log of the peak of the cross-correlation where nobody speaks, mean over all pairs.

    Generalised cross-correlation with phase transform, averaged over the quietest fifth of the frames; the peak
    within 1 ms. Noise of its own in every microphone leaves no peak; a loudspeaker's hiss does.
    """
    x = np.asarray(x, dtype=np.float64)
    if len(x) < 2:
        raise ValueError("one channel; coherence lies between two microphones: use another system")
    size = 2 ** round(np.log2(GCC_SECONDS * rate))
    x = np.pad(x, ((0, 0), (0, max(0, size - x.shape[1]))))
    frames = np.lib.stride_tricks.sliding_window_view(x, size, axis=1)[:, :: size // 2]  # (M, N, size)
    level = np.einsum("mns,mns->n", frames, frames)
    quiet = np.argsort(level, kind="stable")[: max(1, round(QUIET_SHARE * len(level)))]
    spectra = rfft(frames[:, quiet] * np.hanning(size), axis=-1)
    spectra /= np.abs(spectra) + TINY
    reach = max(1, round(REACH_SECONDS * rate))
    near = np.r_[-reach : reach + 1]
    peaks = [
        np.abs(irfft((spectra[i] * spectra[j].conj()).mean(axis=0))[near]).max()
        for i, j in combinations(range(len(x)), 2)
    ]
    return np.array([np.log(np.mean(peaks) + TINY)])


def _frames(x: np.ndarray, window: int, hop: int, n_fft: int) -> np.ndarray:
    """Power (N, F) of Hann frames."""
    x = np.pad(x, (0, max(0, window - len(x))))
    frames = np.lib.stride_tricks.sliding_window_view(x, window)[::hop]
    return np.abs(rfft(frames * np.hanning(window), n_fft)) ** 2
