"""What a loudspeaker adds when it is driven hard: harmonics, intermodulation, compression.

Of a voice, whose partials are harmonics anyway, distortion shows in what becomes of them when it gets loud.
Intermodulation of second order is heard below the voice, where the squared envelope falls; with a second sound it
falls between the harmonics.
"""

from __future__ import annotations

import numpy as np
from scipy import fft as sfft
from scipy.signal import butter, sosfiltfilt

from detector.source.cues.catalogue import listed
from detector.source.cues.clip import HOP, MIN_FRAMES, RATE, TOP_HZ, Clip, decibel
from detector.source.cues.harmonicity import SIZE, voiced_frames

CUES = listed(
    "distortion",
    harmonics=("dB", "harmonics 2 to 5 lie {:.1f} dB against the first"),
    harmonics_rise=("dB", "upper harmonics rise by {:+.1f} dB when it gets loud"),
    thd_loud=("%", "harmonics 2 to 5 have {:.0f} % of the first when it is loud"),
    intermodulation_loud=("dB", "between the harmonics {:.1f} dB against them when it is loud"),
    between_harmonics=("dB", "between the harmonics {:.1f} dB against them"),
    between_rise=("dB", "between the harmonics {:+.1f} dB when it gets loud"),
    squared_envelope=("", "the lows follow the squared voice with a correlation of {:.2f}"),
    skewness=("", "the waveform leans to one side by {:+.2f}"),
    level_range=("dB", "the speech's level covers {:.1f} dB"),
) + listed(
    "distortion",
    reach=TOP_HZ,
    crest=("dB", "peaks {:.1f} dB above the mean level"),
    saturation=("%", "{:.2f} % of the samples lie at the peak"),
)
ORDERS = 5
MIN_VOICED = 9


def harmonic_powers(
    frames: np.ndarray, f0: np.ndarray, orders: int = ORDERS
) -> tuple[np.ndarray, np.ndarray]:
    """Power of harmonics 1..orders and midway after each, both (V, orders), of frames (V, 1024) with f0 (V,) Hz.

    Read from a Hann window's spectrum, padded to 4096: the highest of the bins within 6 % of f0.
    """
    power = np.square(np.abs(sfft.rfft(frames * np.hanning(SIZE), 4 * SIZE, axis=1)))
    step = 4 * SIZE / RATE
    at = f0[:, None] * np.arange(1, orders + 1)
    return _highest_near(power, at * step, f0 * step), _highest_near(
        power, (at + f0[:, None] / 2) * step, f0 * step
    )


def _highest_near(power: np.ndarray, place: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Maximum over +-6 % of the spacing around places (V, K) given in bins."""
    offsets = np.linspace(-0.06, 0.06, 5)[:, None, None] * spacing[:, None]
    bins = np.clip(np.round(place + offsets).astype(int), 0, power.shape[1] - 1)
    return power[np.arange(len(power))[:, None], bins].max(axis=0)


def harmonic_distortion(frames: np.ndarray, f0: np.ndarray) -> np.ndarray:
    """Ratio (V,) of the amplitude of harmonics 2 to 5 to the first: the THD where the source is a pure tone."""
    return distortion_of(harmonic_powers(frames, f0)[0])


def distortion_of(harmonics: np.ndarray) -> np.ndarray:
    """The same of the harmonics' powers (V, K)."""
    return np.sqrt(harmonics[:, 1:].sum(axis=1) / np.maximum(harmonics[:, 0], 1e-20))


def squared_envelope(x: np.ndarray) -> float:
    """Correlation of the lows of (T,) (15 to 70 Hz) with those of its squared voice (above 200 Hz).

    An even distortion leaves the one in the other (Roy et al. 2018); a linear chain does not. The first and last
    0.1 s, where the filters settle, do not count; undefined below half a second.
    """
    if len(x) < 0.5 * RATE:
        return np.nan
    inner = slice(RATE // 10, -(RATE // 10), 64)
    lows = sosfiltfilt(_LOWS, x)[inner]
    squared = sosfiltfilt(_LOWS, np.square(sosfiltfilt(_VOICE, x)))[inner]
    if min(lows.std(), squared.std()) < 1e-9:
        return np.nan
    return float(np.corrcoef(lows, squared)[0, 1])


def measure(clip: Clip, f0: np.ndarray) -> dict[str, float]:
    if clip.speech.sum() < MIN_FRAMES:
        return {}
    at = np.flatnonzero(clip.speech)
    samples = np.unique((at[:, None] * HOP + np.arange(HOP)).clip(max=len(clip.reference) - 1))
    spoken = clip.reference[samples].astype(np.float64)
    spoken -= spoken.mean()
    rms = np.sqrt(np.square(spoken).mean()) + 1e-12
    top = np.percentile(np.abs(spoken), 99.9)
    low, high = np.percentile(clip.level[clip.speech], [10, 95])
    values = {
        "squared_envelope": squared_envelope(clip.reference),
        "crest": float(20 * np.log10(top / rms)),
        "skewness": float((spoken**3).mean() / rms**3),
        "saturation": float(100 * (np.abs(spoken) > 0.98 * np.abs(spoken).max()).mean()),
        "level_range": float(high - low),
    }
    return values | (_of_voice(clip, f0) if np.isfinite(f0).sum() >= MIN_VOICED else {})


def _of_voice(clip: Clip, f0: np.ndarray) -> dict[str, float]:
    frames, lags = voiced_frames(clip.reference, f0)
    harmonics, between = harmonic_powers(frames, RATE / lags)
    upper = decibel(harmonics[:, 1:].sum(axis=1)) - decibel(harmonics[:, 0])
    gaps = decibel(between.sum(axis=1)) - decibel(harmonics.sum(axis=1))
    order = np.argsort(clip.level[np.isfinite(f0)], kind="stable")
    soft, loud = order[: len(order) // 3], order[-(len(order) // 3) :]
    return {
        "thd_loud": float(100 * np.median(distortion_of(harmonics[loud]))),
        "intermodulation_loud": float(gaps[loud].mean()),
        "harmonics": float(upper.mean()),
        "harmonics_rise": float(upper[loud].mean() - upper[soft].mean()),
        "between_harmonics": float(gaps.mean()),
        "between_rise": float(gaps[loud].mean() - gaps[soft].mean()),
    }


_LOWS = butter(2, [15.0, 70.0], "bandpass", fs=RATE, output="sos")
_VOICE = butter(2, 200.0, "highpass", fs=RATE, output="sos")
