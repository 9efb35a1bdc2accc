"""How sound dies away and how it is modulated: two rooms in a row decay in two steps and fill the gaps."""

from __future__ import annotations

import numpy as np
from scipy import fft as sfft

from detector.source.cues.catalogue import listed
from detector.source.cues.clip import DEEPEST_DB, HIGH_HZ, HOP, RATE, TOP_HZ, Clip, band, decibel

CUES = (
    listed(
        "decay",
        decay_low=("s", "sound below 1 kHz dies away like a room of {:.2f} s"),
        decay_middle=("s", "sound from 1 to 3 kHz dies away like a room of {:.2f} s"),
        decay_bend=("", "late decay {:.2f} times as steep as the early one"),
    )
    + listed(
        "decay",
        reach=HIGH_HZ,
        decay_high=("s", "sound above 3 kHz dies away like a room of {:.2f} s"),
        decay_ratio=("", "highs die away {:.2f} times as long as the lows"),
    )
    + listed(
        "modulation",
        reach=TOP_HZ,  # they are means over all bands
        modulation_2=("dB", "syllables (1 to 4 Hz) {:.1f} dB of the modulation"),
        modulation_6=("dB", "syllables (4 to 8 Hz) {:.1f} dB of the modulation"),
        modulation_12=("dB", "fast changes (8 to 16 Hz) {:.1f} dB of the modulation"),
        modulation_24=("dB", "faster changes (16 to 32 Hz) {:.1f} dB of the modulation"),
        modulation_depth=("", "the envelope is modulated by {:.2f}"),
        modulation_depth_high=("", "the envelope above 3 kHz is modulated by {:.2f}"),
    )
)
BANDS = {"low": (250.0, 1000.0), "middle": (1000.0, 3000.0), "high": (3000.0, 7200.0)}
SHARES = {"modulation_2": (1, 4), "modulation_6": (4, 8), "modulation_12": (8, 16), "modulation_24": (16, 32)}
FALL_DB, FRAMES = 8.0, 6  # a decay falls by so much within at least so many frames
SMOOTH = 5  # frames: noise that dies away falls unevenly, and only its mean falls by the room's rate
ABOVE_FLOOR = 4.0  # dB: what is nearer to the floor is floor
EMPTY = 1e-7  # of the power (-70 dB): a band with less holds rounding and what leaks into it
FRAME_RATE = RATE // HOP


def measure(clip: Clip) -> dict[str, float]:
    values, bends = {}, []
    for name, power in band_powers(clip).items():
        times, bend = decays(decibel(np.convolve(power, np.ones(SMOOTH) / SMOOTH, "same")))
        bends += bend
        if times:
            values[f"decay_{name}"] = float(np.median(times))
    if bends:
        values["decay_bend"] = float(np.median(bends))
    if {"decay_low", "decay_high"} <= values.keys():
        values["decay_ratio"] = values["decay_high"] / values["decay_low"]
    return values | modulation(clip)


def band_powers(clip: Clip) -> dict[str, np.ndarray]:
    """Power (N,) in the bands that the recording reaches and in which there is anything, by name."""
    found, whole = {}, np.percentile(clip.power.sum(axis=0), 75)
    for name, (low, high) in BANDS.items():
        power = clip.power[band(low, min(high, clip.top))].sum(axis=0)
        if clip.top >= min(high, HIGH_HZ) and np.percentile(power, 75) > EMPTY * whole:
            found[name] = power
    return found


def decays(level: np.ndarray) -> tuple[list[float], list[float]]:
    """Free decays in a level (N,) in dB, a value every 10 ms: each as the seconds to fall by 60 dB, and how many
    times steeper its second half is than its first. A frame that rises by less than 1 dB does not end a decay; what
    lies 75 dB below the loud frames was not recorded, and nothing decays into it.
    """
    floor, peak = np.percentile(level, [5, 95])
    floor = max(floor, peak - DEEPEST_DB) + ABOVE_FLOOR
    times, bends, start = [], [], 0
    for n in range(1, len(level) + 1):
        if n < len(level) and level[n] < level[n - 1] + 1.0 and level[n] > floor:
            continue
        run = level[start:n]
        peak = int(run.argmax())
        run = run[peak:]
        if len(run) >= FRAMES and run[0] - run[-1] >= FALL_DB:
            slope = _slope(run)
            times.append(-60 / slope / FRAME_RATE)
            half = len(run) // 2
            early, late = _slope(run[: half + 1]), _slope(run[half:])
            if early < -10 / FRAME_RATE:
                bends.append(float(np.clip(late / early, -1, 5)))
        start = n
    return times, bends


def _slope(run: np.ndarray) -> float:
    """dB a frame, least squares."""
    place = np.arange(len(run)) - (len(run) - 1) / 2
    return float(place @ run / (place @ place))


def modulation(clip: Clip) -> dict[str, float]:
    """Spectrum of the envelopes of the bands (32 ms frames every 10 ms): shares in dB of the power from 1 to
    32 Hz, mean over the bands; and the depth, deviation over mean. Undefined below one second."""
    frames = clip.power.shape[1]
    if frames < FRAME_RATE:
        return {}
    spectra, depths = [], {}
    for name, power in band_powers(clip).items():
        envelope = np.sqrt(power)
        envelope = envelope / max(envelope.mean(), 1e-12)
        depths[name] = float(envelope.std())
        moved = (envelope - envelope.mean()) * np.hanning(frames)
        spectra.append(np.square(np.abs(sfft.rfft(moved, max(1024, frames)))))
    if not spectra:
        return {}
    hertz = sfft.rfftfreq(max(1024, frames), 1 / FRAME_RATE)
    power = np.mean([s / max(s[(hertz >= 1) & (hertz < 32)].sum(), 1e-12) for s in spectra], axis=0)
    values = {
        name: float(decibel(power[(hertz >= low) & (hertz < high)].sum()))
        for name, (low, high) in SHARES.items()
    }
    values["modulation_depth"] = float(np.mean(list(depths.values())))
    if "high" in depths:
        values["modulation_depth_high"] = depths["high"]
    return values
