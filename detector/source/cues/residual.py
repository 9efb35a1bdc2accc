"""Statistics of the residual of linear prediction: what the vocal tract does not explain."""

from __future__ import annotations

import numpy as np
from scipy import fft as sfft

from detector.source.cues.catalogue import listed
from detector.source.cues.clip import HOP, MIN_FRAMES, TOP_HZ, Clip, decibel

CUES = listed(
    "residual",
    reach=TOP_HZ,
    prediction_gain=("dB", "linear prediction explains {:.1f} dB of the speech"),
    prediction_gain_sd=("dB", "what linear prediction explains varies by {:.1f} dB"),
    residual_kurtosis=("", "the excitation's pulses have a kurtosis of {:.1f}"),
    residual_skewness=("", "the excitation leans to one side by {:+.2f}"),
    residual_flatness=("dB", "the excitation's flatness is {:.1f} dB"),
)
ORDER, SIZE = 16, 400  # 25 ms


def prediction(frames: np.ndarray, order: int = ORDER) -> np.ndarray:
    """Linear prediction filters (N, order + 1), first coefficient 1, of Hann-windowed frames (N, W), by
    Levinson's recursion on all frames at once (a millionth of white noise keeps silence solvable)."""
    spectra = sfft.rfft(frames * np.hanning(frames.shape[1]), 2 * frames.shape[1], axis=1)
    r = sfft.irfft(np.square(np.abs(spectra)), axis=1)[:, : order + 1]
    r[:, 0] = r[:, 0] * (1 + 1e-6) + 1e-20
    a = np.zeros_like(r)
    a[:, 0] = 1
    error = r[:, 0].copy()
    for i in range(1, order + 1):
        reflection = -(a[:, :i] * r[:, i:0:-1]).sum(axis=1) / error
        a[:, 1 : i + 1] += reflection[:, None] * a[:, i - 1 :: -1][:, :i]
        error *= 1 - np.square(reflection)
    return a


def residual_of(frames: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """What the filters leave of the frames, (N, W - order): only samples with a whole past."""
    order = filters.shape[1] - 1
    windows = np.lib.stride_tricks.sliding_window_view(frames, order + 1, axis=1)
    return np.einsum("nwk,nk->nw", windows, filters[:, ::-1])


def measure(clip: Clip) -> dict[str, float]:
    at = np.flatnonzero(clip.speech)[::2]  # every 20 ms
    padded = np.pad(clip.reference.astype(np.float64), SIZE // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, SIZE)[at * HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    power = np.square(frames).mean(axis=1)
    frames = frames[power > 1e-6 * power.max(initial=0.0)]
    if len(frames) < MIN_FRAMES:
        return {}
    rest = residual_of(frames, prediction(frames))
    rest -= rest.mean(axis=1, keepdims=True)
    variance = np.square(rest).mean(axis=1) + 1e-20
    gain = decibel(np.square(frames).mean(axis=1)) - decibel(variance)
    spectrum = np.square(np.abs(sfft.rfft(rest * np.hanning(rest.shape[1]), axis=1)))[:, 1:] + 1e-20
    spectrum = spectrum[:, : int(clip.top / 8000 * spectrum.shape[1])]
    flatness = decibel(np.exp(np.log(spectrum).mean(axis=1))) - decibel(spectrum.mean(axis=1))
    return {
        "prediction_gain": float(gain.mean()),
        "prediction_gain_sd": float(gain.std()),
        "residual_kurtosis": float(np.median((rest**4).mean(axis=1) / variance**2)),
        "residual_skewness": float(np.median((rest**3).mean(axis=1) / variance**1.5)),
        "residual_flatness": float(flatness.mean()),
    }
