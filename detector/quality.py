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
    faults = Faults(len(waveform), sample_rate)
    faults.feed(waveform)
    return faults.first(num_mics)


class Faults:
    """`fault` of a recording that becomes longer: what was looked at once is not looked at again.

    What the course of the level and the spectrum give away is told from frames of 20 ms and all channels.
    """

    def __init__(self, mics: int, sample_rate: int):
        self.sample_rate, self.samples = sample_rate, 0
        self._size = int(FRAME_SECONDS * sample_rate)
        self._window = np.hanning(self._size)
        self._low, self._high = np.full(mics, np.inf), np.full(mics, -np.inf)
        self._clipped = np.zeros(mics, np.int64)
        self._same = [0] * mics  # one number for all samples of a channel
        self._begun = np.zeros((mics, 0), np.float32)  # what does not fill a frame
        self._power: list[np.ndarray] = []  # per frame
        self._spectrum = np.zeros(self._size // 2 + 1)
        self._constant = False  # in some frame no channel moved

    def feed(self, waveform: np.ndarray) -> None:
        """The next samples (M, t)."""
        if not waveform.shape[1]:
            return
        self.samples += waveform.shape[1]
        self._low = np.minimum(self._low, waveform.min(axis=1))
        self._high = np.maximum(self._high, waveform.max(axis=1))
        self._clipped += [(np.abs(channel) >= CLIPPED_LEVEL).sum() for channel in waveform]
        plain = (channel + np.float32(0) for channel in waveform)  # a zero has two signs and is one sound
        self._same = [hash((known, one.tobytes())) for known, one in zip(self._same, plain, strict=True)]
        begun = np.concatenate([self._begun, waveform], axis=1) if self._begun.shape[1] else waveform
        whole = begun.shape[1] // self._size * self._size
        self._begun = begun[:, whole:].copy()
        self._take(begun[:, :whole].reshape(len(begun), -1, self._size))

    def _take(self, frames: np.ndarray) -> None:
        power, constant = np.zeros(frames.shape[1]), np.ones(frames.shape[1], bool)
        for channel in frames:  # one at a time: 30 s of many channels would take their own size several times
            moving = channel - channel.mean(axis=1, keepdims=True)  # a constant is no sound
            power += np.square(moving, dtype=np.float64).mean(axis=1) / len(frames)
            spectrum = np.fft.rfft(moving * self._window, axis=1)
            self._spectrum += (spectrum.real**2 + spectrum.imag**2).sum(axis=0)
            constant &= np.ptp(channel, axis=1) == 0
        self._power.append(power)
        self._constant |= bool(constant.any())

    def first(self, num_mics: int | None = None) -> str | None:
        """As `fault`, of all that was fed."""
        mics = len(self._low)
        if num_mics is not None and mics != num_mics:
            return "channels"
        if self.samples < MIN_SECONDS * self.sample_rate:
            return "too-short"
        if (self._low == self._high).any():
            peak = max(-self._low.min(), self._high.max())
            return "silent" if peak < 10 ** (SILENT_DBFS / 20) else "dead-channel"
        if len(set(self._same)) < mics:
            return "copied-channels"
        if (self._clipped > CLIPPED_SHARE * self.samples).any():
            return "clipped"
        return self._of_frames() or ("too-long" if self.samples > MAX_SECONDS * self.sample_rate else None)

    def _of_frames(self) -> str | None:
        level = 10 * np.log10(np.concatenate(self._power) + 1e-30)
        needed = MIN_SECONDS / FRAME_SECONDS
        if (level > SILENT_DBFS).sum() < needed:
            return "silent"
        if (level > level.max() - ACTIVE_DB).sum() < needed:
            return "no-speech"
        if (level < level.max() - FLOOR_DB).any() or self._constant:
            return "gated"
        if self.sample_rate < MIN_RATE:
            return "narrow-band"
        hertz = np.fft.rfftfreq(self._size, 1 / self.sample_rate)
        spectrum = self._spectrum / (len(level) * len(self._low))
        top = spectrum[(hertz >= BAND_HZ[0]) & (hertz < BAND_HZ[1])].mean()
        return "narrow-band" if 10 * np.log10(spectrum.max() / (top + 1e-30)) > BAND_DB else None
