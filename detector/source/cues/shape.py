"""The long-term spectrum of the speech: peaks and ripple (resonances), band edges and roll-off of the chain."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy.signal import find_peaks

from detector.source.cues.catalogue import listed
from detector.source.cues.clip import LONG_FFT, MIN_FRAMES, RATE, TOP_HZ, VOICE_HZ, Clip, band, decibel

CUES = (
    listed(
        "peaks",
        reach=TOP_HZ,
        peak_count=("", "{:.0f} strong peaks in the spectrum"),
        peak_middle=("Hz", "strong peaks around {:.0f} Hz"),
        peak_width=("Hz", "strong peaks spread over {:.0f} Hz"),
        resonances=("", "{:.0f} resonances of 3 dB or more"),
        resonance_height=("dB", "strongest resonance {:.1f} dB high"),
        ripple=("dB", "spectrum ripples by {:.1f} dB"),
    )
    + listed(
        "edges",
        reach=VOICE_HZ,
        lower_edge=("Hz", "no energy below {:.0f} Hz"),
        lower_slope=("dB/octave", "{:+.1f} dB an octave from 80 to 300 Hz"),
        middle_slope=("dB/octave", "{:+.1f} dB an octave from 300 to 3000 Hz"),
    )
    + listed(
        "edges",
        reach=TOP_HZ,
        upper_edge=("Hz", "no energy above {:.0f} Hz"),
        upper_slope=("dB/octave", "{:+.1f} dB an octave above 3 kHz"),
        rolloff_85=("Hz", "85 % of the power below {:.0f} Hz"),
        rolloff_95=("Hz", "95 % of the power below {:.0f} Hz"),
    )
)
PER_OCTAVE = 12
STRONG = 0.3  # of the largest: Void's peaks
EMPTY_DB = 60.0  # below the strongest there is no voice band: a tone has no edges
EDGE_DB = 20.0  # below the middle of the voice band: the edge of what a chain lets through
MIDDLE_HZ = (300.0, VOICE_HZ)
LOWEST_HZ = 50.0


def measure(clip: Clip) -> dict[str, float]:
    if clip.speech.sum() < MIN_FRAMES:
        return {}
    hertz, level = octave_levels(clip.speech_power, LOWEST_HZ, clip.top)
    return _peaks(hertz, level) | band_edges(hertz, level) | _slopes(clip, hertz, level) | _rolloff(clip)


def octave_levels(power: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Power density of (1025,) in twelfths of an octave from `low` to `high` Hz: centres (K,) and dB (K,)."""
    weights, centres = _octaves(low, high)
    return centres, decibel(weights @ power)


@lru_cache(maxsize=8)
def _octaves(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Means over a sixth of an octave (at least over the two nearest bins) at every twelfth."""
    centres = low * 2 ** (np.arange(int(np.log2(high / low) * PER_OCTAVE) + 1) / PER_OCTAVE)
    hertz = np.arange(LONG_FFT // 2 + 1) * RATE / LONG_FFT
    half = np.maximum(centres * (2 ** (1 / 12) - 1), RATE / LONG_FFT)[:, None]
    weights = np.maximum(1 - np.abs(hertz - centres[:, None]) / half, 0)
    return weights / weights.sum(axis=1, keepdims=True), centres


def _peaks(hertz: np.ndarray, level: np.ndarray) -> dict[str, float]:
    """Void's strong peaks (above 0.3 of the largest) and resonances (3 dB above both sides)."""
    power = 10 ** ((level - level.max()) / 10)
    strong, _ = find_peaks(np.pad(power, 1), height=STRONG)
    found, facts = find_peaks(np.pad(level, 1, constant_values=level.min() - 1), prominence=3.0)
    wide = np.ones(PER_OCTAVE + 1) / (PER_OCTAVE + 1)
    inside = slice(PER_OCTAVE // 2, -(PER_OCTAVE // 2))
    values = {
        "peak_count": float(len(strong)),
        "resonances": float(len(found)),
        "ripple": float((level - np.convolve(level, wide, "same"))[inside].std()),
    }
    if len(strong):
        values |= {
            "peak_middle": float(hertz[strong - 1].mean()),
            "peak_width": float(hertz[strong - 1].std()),
        }
    inner = facts["prominences"][level[found - 1] < level.max()]  # the largest has no side to rise from
    if len(inner):
        values["resonance_height"] = float(inner.max())
    return values


def band_edges(hertz: np.ndarray, level: np.ndarray) -> dict[str, float]:
    """Where the level (K,) lies, and stays, 20 dB below its median between 300 and 3000 Hz; an edge that is not
    within the recording's band is undefined."""
    middle = np.median(level[(hertz >= MIDDLE_HZ[0]) & (hertz <= MIDDLE_HZ[1])])
    if middle < level.max() - EMPTY_DB:
        return {}
    inside = np.flatnonzero(level > middle - EDGE_DB)
    values = {}
    if inside[0] > 0:
        values["lower_edge"] = float(hertz[inside[0]])
    if inside[-1] < len(level) - 1:
        values["upper_edge"] = float(hertz[inside[-1]])
    return values


def _slopes(clip: Clip, hertz: np.ndarray, level: np.ndarray) -> dict[str, float]:
    """Lines through the level; in the middle through the density of three wide bands, because narrow ones of a
    voice lie between its harmonics."""
    values = {}
    if clip.top >= VOICE_HZ:
        edges = np.geomspace(*MIDDLE_HZ, 4)
        density = [clip.speech_power[band(a, b, LONG_FFT)].mean() for a, b in pairwise(edges)]
        octaves = np.log2(edges[:-1] + np.diff(edges) / 2)
        values["middle_slope"] = float(np.polyfit(octaves, decibel(np.array(density)), 1)[0])
    for name, low, high in (("lower_slope", 80.0, 300.0), ("upper_slope", VOICE_HZ, 7000.0)):
        part = (hertz >= low) & (hertz <= high)
        if hertz[-1] >= 0.95 * high:
            values[name] = float(np.polyfit(np.log2(hertz[part]), level[part], 1)[0])
    return values


def _rolloff(clip: Clip) -> dict[str, float]:
    """Of the whole band from 50 Hz up."""
    inside = band(LOWEST_HZ, clip.top, LONG_FFT)
    curve = np.cumsum(clip.speech_power[inside])
    hertz = (inside.start + np.arange(len(curve))) * RATE / LONG_FFT
    return {
        f"rolloff_{share}": float(hertz[np.searchsorted(curve, share / 100 * curve[-1])])
        for share in (85, 95)
    }
