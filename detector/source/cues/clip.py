"""A recording as all cues hear it: trimmed, at 16 kHz, scaled, with its frames of speech and of pause.

Trimming takes away what was not recorded (digital silence at the ends), the mean is taken out, scaling makes the
peak one: gain, offset and silence around change nothing.

Shapes: M microphones, T samples, F Fourier bins, N frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import fft as sfft
from scipy.signal import butter, sosfiltfilt

from remasc.arrays import MicArray
from remasc.resampling import resample

RATE = 16000
HOP = 160  # 10 ms
N_FFT, LONG_FFT = 512, 2048  # 32 ms; 128 ms where the lows are asked for
TOP_HZ = 7200.0  # nothing is read above: speech at 16 kHz ends there
HIGH_HZ = 6000.0  # a recording that goes so far has what is told of the highs
NARROW_HZ = 3600.0  # a recording at 8 kHz reaches so far: what is to mean the same there is read no higher
VOICE_HZ = 3000.0  # and what is told against the voice, or of its band, needs so much
NOTHING = 1e-4  # of the peak (-80 dB): what moves less than this at an end was not recorded
FLAT = 16  # samples that stand still: noise hardly ever does
SPEECH_HZ = (200.0, NARROW_HZ)  # where the voice is told from the pause
DEEPEST_DB = 75.0  # below the loud frames nothing was recorded
STEADY_DB = 6.0  # with less between loud and soft frames there are no pauses to be found
MIN_SECONDS, MAX_SECONDS = 0.1, 30.0
MIN_FRAMES = 5  # of speech or of pause, for anything to be said of them


@dataclass(frozen=True, eq=False)
class Clip:
    """`waveform` (M, T) float32 at 16 kHz with peak 1; `top` Hz is as far up as the recording reaches;
    `array` is None where the geometry is unknown. Channel 1 is the reference of every single-channel cue."""

    waveform: np.ndarray
    top: float
    array: MicArray | None = None

    @property
    def reference(self) -> np.ndarray:
        return self.waveform[0]

    @property
    def seconds(self) -> float:
        return self.waveform.shape[1] / RATE

    @cached_property
    def spectrum(self) -> np.ndarray:
        """Hann spectra (M, F, N) complex64 of 32 ms every 10 ms, N = T // 160 + 1, centred."""
        return np.stack([frames_of(channel, N_FFT, HOP) for channel in self.waveform])

    @cached_property
    def power(self) -> np.ndarray:
        """|spectrum|^2 of the reference channel, (F, N)."""
        return np.square(np.abs(self.spectrum[0])).astype(np.float64)

    @cached_property
    def long_power(self) -> np.ndarray:
        """Power (1025, N) of the reference in frames of 128 ms every 10 ms: 7.8 Hz a bin."""
        return np.square(np.abs(frames_of(self.reference, LONG_FFT, HOP))).astype(np.float64)

    @cached_property
    def inner(self) -> np.ndarray:
        """Frames (N,) whose 128 ms lie within the recording: where it is cut off, the cut is heard in the lows. All
        of a recording that has hardly any."""
        inside = np.zeros(len(self.level), bool)
        inside[LONG_FFT // 2 // HOP + 1 : -(LONG_FFT // 2 // HOP + 1)] = True
        return inside if inside.sum() >= 2 * MIN_FRAMES else np.ones_like(inside)

    @cached_property
    def low(self) -> np.ndarray:
        """The reference (T,) between 60 and 900 Hz, where pitch is; silence lies before and after."""
        return sosfiltfilt(_LOW, np.pad(self.reference, RATE // 10), padtype=None)[RATE // 10 : -(RATE // 10)]

    @cached_property
    def level(self) -> np.ndarray:
        """Level of the frames (N,) in dB, between 200 and 3600 Hz."""
        inside = band(SPEECH_HZ[0], min(SPEECH_HZ[1], self.top))
        return decibel(self.power[inside].sum(axis=0))

    @cached_property
    def speech(self) -> np.ndarray:
        """Frames (N,) in the upper half of the level range (in dB); all of a steady sound."""
        floor, peak = self._range
        if peak - floor < STEADY_DB:
            return np.ones(len(self.level), bool)
        return self.level > (floor + peak) / 2

    @cached_property
    def recorded(self) -> np.ndarray:
        """Frames (N,) less than 75 dB below the loud ones: digital silence inside is no pause of a room."""
        return self.level > self._range[1] - DEEPEST_DB

    @cached_property
    def pause(self) -> np.ndarray:
        """Frames (N,) near the floor and at least 40 ms away from speech; none of a steady sound."""
        floor, peak = self._range
        if peak - floor < STEADY_DB:
            return np.zeros(len(self.level), bool)
        near = np.convolve(self.speech, np.ones(9), "same") > 0.5
        low = self.level < floor + max(3.0, 0.2 * (peak - floor))
        return low & ~near & self.recorded

    @cached_property
    def _range(self) -> tuple[float, float]:
        floor, peak = np.percentile(self.level, [10, 95])
        return float(max(floor, peak - DEEPEST_DB)), float(peak)

    @cached_property
    def speech_power(self) -> np.ndarray:
        """Mean power spectrum (1025,) of the speech, less that of the pauses where there are any."""
        spoken = self.speech & self.inner
        return less_noise(self.long_power, spoken if spoken.sum() >= MIN_FRAMES else self.speech, self.pause)


def less_noise(power: np.ndarray, speech: np.ndarray, pause: np.ndarray) -> np.ndarray:
    """Mean over the speech frames of (F, N) less the pauses' mean, at least a hundredth of the former."""
    heard = power[:, speech].mean(axis=1)
    if pause.sum() < MIN_FRAMES:
        return heard
    return np.maximum(heard - power[:, pause].mean(axis=1), 0.01 * heard)


def hear(waveform: np.ndarray, sample_rate: int, array: MicArray | None = None) -> Clip | None:
    """The clip of (M, T) samples at `sample_rate` Hz, or None where nothing is left to hear: silence (also of
    channel 1 alone, which most cues are read from), or less than 0.1 s. The first 30 s are heard."""
    waveform = np.atleast_2d(np.asarray(waveform, np.float32))[:, : int(MAX_SECONDS * sample_rate)]
    waveform = trimmed(waveform)
    if waveform.shape[1] < MIN_SECONDS * sample_rate:
        return None
    waveform = waveform - waveform.mean(axis=1, keepdims=True, dtype=np.float64)
    peak = np.abs(waveform).max()
    if not 1e-7 < peak < np.inf or np.abs(waveform[0]).max() < NOTHING * peak:
        return None
    waveform = np.asarray(resample((waveform / peak).astype(np.float32), sample_rate, RATE), np.float32)
    return Clip(waveform, min(TOP_HZ, 0.45 * sample_rate), array)


def trimmed(waveform: np.ndarray) -> np.ndarray:
    """(M, T) without the ends where no channel moves away from its first (last) value by more than 80 dB below the
    peak, for 16 samples or more. So padding is known also where it, or the recording, stands beside zero."""
    if not waveform.size:
        return waveform
    limit = NOTHING * np.ptp(waveform, axis=1).max() / 2
    still = [_still(waveform, limit), _still(waveform[:, ::-1], limit)]
    return waveform[:, still[0] : max(still[0], waveform.shape[1] - still[1])]


def _still(waveform: np.ndarray, limit: float) -> int:
    moved = (np.abs(waveform - waveform[:, :1]) > limit).any(axis=0)
    first = int(moved.argmax()) if moved.any() else len(moved)
    return first if first >= FLAT else 0


def frames_of(x: np.ndarray, size: int, hop: int) -> np.ndarray:
    """Centred Hann spectra (F, N) complex64 of (T,), N = T // hop + 1; the ends are padded with zeros."""
    padded = np.pad(x, size // 2)
    starts = np.arange(len(x) // hop + 1) * hop
    view = np.lib.stride_tricks.sliding_window_view(padded, size)[starts]
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    return sfft.rfft(view * window, axis=1).T


def band(low: float, high: float, size: int = N_FFT) -> slice:
    """Bins of a transform of `size` from `low` up to, not including, `high` Hz; at least one."""
    first = int(np.ceil(low * size / RATE))
    return slice(first, max(first + 1, int(np.ceil(high * size / RATE))))


def decibel(power: np.ndarray | float) -> np.ndarray | float:
    """10 log10, finite also of zero."""
    return 10 * np.log10(np.maximum(power, 1e-20))


_LOW = butter(4, [60.0, 900.0], "bandpass", fs=RATE, output="sos")
