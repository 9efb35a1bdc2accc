"""Reasons why a recording cannot be judged. Fail closed: what cannot be judged is never accepted.

Waveforms are (M, T) float32, full scale = 1.
"""

from __future__ import annotations

import numpy as np

MIN_SECONDS = 0.3
MAX_SECONDS = 30.0
FRAME_SECONDS = 0.02
SILENT_DBFS = -70.0  # below every microphone's own noise when someone speaks
ACTIVE_DB = 40.0  # speech is what lies so near to the loudest frame
FLOOR_DB = 70.0  # no room and no microphone is so much quieter than the voice it hears
MIN_RATE = 14400  # the detectors listen up to 7.2 kHz
BAND_HZ, BAND_DB = (6000.0, 7000.0), 75.0
CLIPPED_LEVEL, CLIPPED_SHARE = 0.999, 0.005

REASONS = {
    "channels": "the number of channels is not that of the array",
    "too-short": f"shorter than {MIN_SECONDS:g} s",
    "too-long": f"longer than {MAX_SECONDS:g} s, which is no single command; only the first part was scored",
    "narrow-band": "nothing is left above 6 kHz (a low sample rate or a low-pass), where the detector listens too",
    "silent": f"less than {MIN_SECONDS:g} s rise above {SILENT_DBFS:g} dBFS",
    "no-speech": f"less than {MIN_SECONDS:g} s lie within {ACTIVE_DB:g} dB of the loudest moment: a click",
    "gated": f"moments of digital silence, or {FLOOR_DB:g} dB below the loudest: padded or gated, not as recorded",
    "dead-channel": "a channel holds one constant value",
    "copied-channels": "two channels are the same signal, so the array is not what it claims to be",
    "unreadable": "the file cannot be read or scored",
    "no-threshold": "the detector has no threshold; give one",
    "clipped": f"more than {CLIPPED_SHARE:.1%} of a channel's samples are at full scale",
}


def fault(waveform: np.ndarray, sample_rate: int, num_mics: int | None = None) -> str | None:
    """The first word of `REASONS` that applies, or None. `num_mics` is what the array should have."""
    mics, samples = waveform.shape
    if num_mics is not None and mics != num_mics:
        return "channels"
    if samples < MIN_SECONDS * sample_rate:
        return "too-short"
    if (np.ptp(waveform, axis=1) == 0).any():
        return "silent" if np.abs(waveform).max() < 10 ** (SILENT_DBFS / 20) else "dead-channel"
    if len({hash(channel.tobytes()) for channel in waveform}) < mics:
        return "copied-channels"
    if any((np.abs(channel) >= CLIPPED_LEVEL).mean() > CLIPPED_SHARE for channel in waveform):
        return "clipped"
    return _fault_of_frames(waveform, sample_rate) or (
        "too-long" if samples > MAX_SECONDS * sample_rate else None
    )


def _fault_of_frames(waveform: np.ndarray, sample_rate: int) -> str | None:
    """What the course of the level and the spectrum give away, over frames of 20 ms and all channels."""
    mics, size = len(waveform), int(FRAME_SECONDS * sample_rate)
    power, spectrum, constant = 0.0, 0.0, True
    for channel in waveform:  # one at a time: 30 s of many channels would take their own size several times
        frames = channel[: len(channel) // size * size].reshape(-1, size)
        moving = frames - frames.mean(axis=1, keepdims=True)  # a constant is no sound
        power += np.square(moving, dtype=np.float64).mean(axis=1) / mics  # per frame
        spectrum += np.square(np.abs(np.fft.rfft(moving * np.hanning(size), axis=1))).mean(axis=0) / mics
        constant &= np.ptp(frames, axis=1) == 0
    level = 10 * np.log10(power + 1e-30)
    needed = MIN_SECONDS / FRAME_SECONDS
    if (level > SILENT_DBFS).sum() < needed:
        return "silent"
    if (level > level.max() - ACTIVE_DB).sum() < needed:
        return "no-speech"
    if (level < level.max() - FLOOR_DB).any() or constant.any():
        return "gated"
    if sample_rate < MIN_RATE:
        return "narrow-band"
    hertz = np.fft.rfftfreq(size, 1 / sample_rate)
    top = spectrum[(hertz >= BAND_HZ[0]) & (hertz < BAND_HZ[1])].mean()
    return "narrow-band" if 10 * np.log10(spectrum.max() / (top + 1e-30)) > BAND_DB else None
