"""The lows: sub-bass balance (Blue et al. 2018), the low-band power pattern and the linearity of the cumulative
power (Void, Ahmed et al. 2020)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from detector.source.cues.catalogue import Cue, listed
from detector.source.cues.clip import LONG_FFT, MIN_FRAMES, TOP_HZ, VOICE_HZ, Clip, band, decibel

EDGES = (60, 90, 130, 180, 260, 370, 530, 750, 1000)  # Hz
REFERENCE_HZ = (300.0, VOICE_HZ)
CUES = (
    listed(
        "lows",
        reach=VOICE_HZ,
        sub_bass=("dB", "sub-bass (20 to 80 Hz) {:.1f} dB against the voice"),
        sub_bass_above_pause=("dB", "sub-bass rises by {:.1f} dB with the voice"),
    )
    + listed(
        "lows",
        reach=TOP_HZ,
        void_line=("", "cumulative power correlates {:.3f} with a line"),
        void_bend=("", "cumulative power bends by {:.2f}"),
    )
    + tuple(
        Cue(
            f"low_{a}",
            "lows",
            "dB",
            f"power from {a} to {b} Hz {{:.1f}} dB against the voice",
            reach=VOICE_HZ,
        )
        for a, b in pairwise(EDGES)
    )
)
SEGMENT = 14  # bins of one value of Void's cumulative curve, as published


def measure(clip: Clip) -> dict[str, float]:
    if clip.speech.sum() < MIN_FRAMES:
        return {}
    power = clip.speech_power
    voice = power[band(*REFERENCE_HZ, LONG_FFT)].sum()
    values = {
        "sub_bass": float(decibel(power[band(20, 80, LONG_FFT)].sum() / voice)),
        "void_line": cumulative_line(power[: band(0, clip.top, LONG_FFT).stop])[0],
        "void_bend": cumulative_line(power[: band(0, clip.top, LONG_FFT).stop])[1],
    }
    for low, high in pairwise(EDGES):
        values[f"low_{low}"] = float(decibel(power[band(low, high, LONG_FFT)].sum() / voice))
    if clip.pause.sum() >= MIN_FRAMES:
        lows = clip.long_power[band(20, 80, LONG_FFT)].sum(axis=0)
        values["sub_bass_above_pause"] = float(
            decibel(lows[clip.speech].mean()) - decibel(lows[clip.pause].mean())
        )
    return values


def cumulative_line(power: np.ndarray) -> tuple[float, float]:
    """Correlation of the cumulative power of (F,) with a straight line, and the quadratic coefficient of its fit
    over 0..1. Evenly spread power gives (1, 0); power that lies low bends it down (negative).

    >>> [round(value, 6) + 0.0 for value in cumulative_line(np.ones(140))]
    [1.0, 0.0]
    """
    segments = power[: len(power) // SEGMENT * SEGMENT].reshape(-1, SEGMENT).sum(axis=1)
    curve = np.cumsum(segments) / max(segments.sum(), 1e-30)
    place = np.linspace(0, 1, len(curve))
    line = float(np.corrcoef(place, curve)[0, 1]) if np.ptp(curve) > 0 else np.nan
    return line, float(np.polyfit(place, curve, 2)[0])
