"""Reasons why a recording cannot be judged. Fail closed: what cannot be judged is never accepted.

Waveforms are (M, T) float32, full scale = 1.
"""

from __future__ import annotations

import numpy as np

MIN_SECONDS = 0.3
MAX_SECONDS = 30.0
SILENT_PEAK = 10 ** (-70 / 20)  # below every microphone's own noise when someone speaks
CLIPPED_LEVEL, CLIPPED_SHARE = 0.999, 0.005

REASONS = {
    "channels": "the number of channels is not that of the array",
    "too-short": f"shorter than {MIN_SECONDS:g} s",
    "too-long": f"longer than {MAX_SECONDS:g} s, which is no single command; only the first part was scored",
    "silent": "no channel rises above -70 dBFS",
    "dead-channel": "a channel holds one constant value",
    "copied-channels": "two channels are the same signal, so the array is not what it claims to be",
    "clipped": f"more than {CLIPPED_SHARE:.1%} of a channel's samples are at full scale",
}


def fault(waveform: np.ndarray, sample_rate: int, num_mics: int | None = None) -> str | None:
    """The first key of `REASONS` that applies, or None. `num_mics` is what the array should have."""
    mics, samples = waveform.shape
    if num_mics is not None and mics != num_mics:
        return "channels"
    if samples < MIN_SECONDS * sample_rate:
        return "too-short"
    peaks = np.abs(waveform).max(axis=1)
    if peaks.max() < SILENT_PEAK:
        return "silent"
    if (np.ptp(waveform, axis=1) == 0).any():
        return "dead-channel"
    if len({channel.tobytes() for channel in waveform}) < mics:
        return "copied-channels"
    if ((np.abs(waveform) >= CLIPPED_LEVEL).mean(axis=1) > CLIPPED_SHARE).any():
        return "clipped"
    return "too-long" if samples > MAX_SECONDS * sample_rate else None
