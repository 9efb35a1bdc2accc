"""What is heard when nobody speaks: hiss and hum of electronics; and what breath does: pops and breathing."""

from __future__ import annotations

import numpy as np
from scipy import fft as sfft
from scipy.ndimage import uniform_filter1d

from detector.source.cues.catalogue import listed
from detector.source.cues.clip import (
    HOP,
    LONG_FFT,
    MIN_FRAMES,
    N_FFT,
    NARROW_HZ,
    RATE,
    TOP_HZ,
    Clip,
    band,
    decibel,
)

CUES = (
    listed("noise", pause_share=("", "{:.0%} of the recording is pause"))
    + listed(
        "noise",
        reach=NARROW_HZ,
        pause_level=("dB", "the pauses lie {:.1f} dB against the speech"),
        hiss_low=("dB", "noise at {:.1f} dB goes on in the pauses (100 to 1000 Hz)"),
        hum=("dB", "mains hum in the pauses {:.1f} dB above its surroundings"),
    )
    + listed(
        "noise",
        reach=TOP_HZ,
        hiss_middle=("dB", "hiss at {:.1f} dB goes on in the pauses (1 to 4 kHz)"),
        hiss_high=("dB", "hiss at {:.1f} dB goes on in the pauses (above 4 kHz)"),
        pause_slope=("dB/octave", "the pauses' noise falls by {:+.1f} dB an octave"),
        pause_flatness=("dB", "the pauses' noise has a flatness of {:.1f} dB"),
        pause_change=("dB", "the pauses' noise varies by {:.1f} dB"),
    )
    + listed(
        "breath",
        reach=NARROW_HZ,
        pop=("dB", "puffs of air {:.1f} dB above the lows' usual level"),
        pop_share=("", "the lows peak {:.0%} of the time"),
        breathing=("dB", "breath-like sounds {:.1f} dB above the pauses' floor"),
    )
)
BANDS = {"hiss_low": (100.0, 1000.0), "hiss_middle": (1000.0, 4000.0), "hiss_high": (4000.0, 7200.0)}
LINES, ORDERS = (50.0, 60.0), (1, 2, 3, 5, 7)  # Hz of the mains; its harmonics that electronics let through
HUM_SECONDS, FADE = 0.4, 320  # of pause that the lines need; samples, twice: a fade of 40 ms


def measure(clip: Clip) -> dict[str, float]:
    values = {"hum": hum(clip.reference, clip.pause)}
    if not clip.speech.all():  # of a steady sound nobody knows what is pause
        values["pause_share"] = float(clip.pause.mean())
    if clip.speech.sum() >= MIN_FRAMES:
        values |= _pops(clip)
    return values | (_noise(clip) if clip.pause.sum() >= MIN_FRAMES else {})


def _noise(clip: Clip) -> dict[str, float]:
    """Of the pauses' mean spectrum; levels in dB against the speech's power from 100 to 3600 Hz."""
    noise = clip.power[:, clip.pause]
    mean = noise.mean(axis=1)
    whole, narrow = band(100, clip.top), band(100, NARROW_HZ)
    speech = clip.power[narrow][:, clip.speech].mean(axis=1).sum()
    hertz = np.arange(len(mean)) * RATE / N_FFT
    inside = slice(band(200, clip.top).start, whole.stop)
    density = mean[whole] + 1e-20
    octaves, level = np.log2(hertz[inside]), decibel(mean[inside])
    weight = np.sqrt(1 / hertz[inside])  # every octave counts the same
    values = {
        "pause_level": float(decibel(mean[narrow].sum() / speech)),
        "pause_slope": float(np.polyfit(octaves, level, 1, w=weight)[0]),
        "pause_flatness": float(decibel(np.exp(np.log(density).mean())) - decibel(density.mean())),
        "pause_change": float(decibel(noise[whole].sum(axis=0)).std()),
    }
    for name, (low, high) in BANDS.items():
        if clip.top >= high:
            values[name] = float(decibel(mean[band(low, high)].sum() / speech))
    breathy = decibel(noise[band(500, NARROW_HZ)].sum(axis=0))
    return values | {"breathing": float(np.subtract(*np.percentile(breathy, [95, 20])))}


def hum(x: np.ndarray, pause: np.ndarray) -> float:
    """How far the lines of 50 or 60 Hz (harmonics 1, 2, 3, 5, 7) stand above the 6 to 16 Hz beside them, mean
    over the lines in dB, whichever mains is stronger; of samples (T,) in the pauses (N,) alone, where no voice is
    taken for a line. NaN with less than 0.4 s of pause: the lines need that long.

    All pauses go into one transform, faded in and out over 40 ms: a hum goes on from pause to pause in phase.
    """
    if pause.sum() * HOP < HUM_SECONDS * RATE:
        return np.nan
    gate = np.repeat(pause, HOP)[: len(x)].astype(np.float64)
    for _ in range(2):
        gate = uniform_filter1d(gate, FADE, mode="nearest")
    size = sfft.next_fast_len(max(len(x), 2 * RATE), real=True)
    power = np.square(np.abs(sfft.rfft(x * gate, size)))
    return max(_lines(power, mains, RATE / size) for mains in LINES)


def _lines(power: np.ndarray, mains: float, step: float) -> float:
    """Mean rise in dB of a mains' lines in a spectrum of `step` Hz a bin: the highest within 2 Hz against the
    median of what lies 6 to 16 Hz away."""
    close, near, far = (round(hertz / step) for hertz in (2, 6, 16))
    rises = []
    for order in ORDERS:
        at = round(mains * order / step)
        beside = np.concatenate([power[at - far : at - near], power[at + near : at + far]])
        rises.append(decibel(power[at - close : at + close + 1].max()) - decibel(np.median(beside)))
    return float(np.mean(rises))


def _pops(clip: Clip) -> dict[str, float]:
    """Puffs of a near mouth or of wind: how the lows (20 to 90 Hz) peak above their median in what was recorded."""
    lows = decibel(clip.long_power[band(20, 90, LONG_FFT)].sum(axis=0)[clip.recorded & clip.inner])
    if len(lows) < MIN_FRAMES:
        return {}
    above = lows - np.median(lows)
    return {"pop": float(np.percentile(above, 98)), "pop_share": float((above > 10).mean())}
