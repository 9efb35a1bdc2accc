"""Where the sound comes from, over time: steered response power with phase transform (SRP-PHAT).

Azimuth in degrees, positive to the array's right, at the height of the array; elevation is not looked for. An
array on a line hears front and back alike, so only the front is asked: -90 to 90 degrees.
Shapes: M microphones, T samples, F bins, N frames, A azimuths.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from remasc.arrays import MicArray
from remasc.audio import resample

RATE = 16000
SIZE, HOP = 1024, 512
BAND_HZ = (300.0, 4000.0)
STEP = 3  # degrees
SMOOTH = 5  # frames of 32 ms seen together
ACTIVE_DB = 25.0  # below the loudest frame there is no talker to be found
LEAST_CONTRAST = 0.08  # of the best azimuth over the mean of all: less is no direction
SPEED = 343.0  # of sound, m/s


@dataclass(frozen=True)
class Bearing:
    """`power` (A, N) in 0..1 at `azimuths` (A,) degrees and `times` (N,) seconds; `best` (N,) degrees, NaN where
    nobody speaks or no direction stands out."""

    azimuths: np.ndarray
    times: np.ndarray
    power: np.ndarray
    best: np.ndarray

    @property
    def typical(self) -> float | None:
        """The median direction, degrees; None where there is none."""
        return float(np.nanmedian(self.best)) if np.isfinite(self.best).any() else None


def bearing(waveform: np.ndarray, sample_rate: int, array: MicArray) -> Bearing | None:
    """Direction over time of (M, T); None where there is nothing to compare (one microphone, half a frame)."""
    x = resample(np.asarray(waveform, dtype=np.float32), sample_rate, RATE)
    if len(x) != array.num_mics or len(x) < 2 or x.shape[1] < SIZE or np.ptp(array.positions[:, 0]) == 0:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(x, SIZE, axis=-1)[:, ::HOP]
    spectrum = np.fft.rfft(frames * np.hanning(SIZE).astype(np.float32), axis=-1)  # (M, N, F)
    hertz = np.fft.rfftfreq(SIZE, 1 / RATE)
    heard = (hertz >= BAND_HZ[0]) & (hertz <= BAND_HZ[1])
    spectrum, hertz = spectrum[..., heard], hertz[heard]
    level = 10 * np.log10(np.square(np.abs(spectrum)).mean(axis=(0, 2)) + 1e-20)
    phases = spectrum / np.maximum(np.abs(spectrum), 1e-12)
    azimuths = np.arange(-90, 91, STEP)
    power = np.stack([_steered(phases, hertz, array, angle) for angle in np.radians(azimuths)])  # (A, N)
    power = _smoothed(power)
    contrast = power.max(axis=0) - power.mean(axis=0)
    clear = (level > level.max() - ACTIVE_DB) & (level > -100) & (contrast > LEAST_CONTRAST)
    best = np.where(clear, azimuths[power.argmax(axis=0)].astype(float), np.nan)
    times = (np.arange(power.shape[1]) * HOP + SIZE / 2) / RATE
    return Bearing(azimuths, times, np.clip(power, 0, 1), best)


def _steered(phases: np.ndarray, hertz: np.ndarray, array: MicArray, azimuth: float) -> np.ndarray:
    """Share (N,) of the phases that agree with a far source at `azimuth`: 1 where all do."""
    towards = np.array([np.sin(azimuth), 0.0, np.cos(azimuth)])
    delays = -array.positions @ towards / SPEED
    advance = np.exp(2j * np.pi * delays[:, None] * hertz).astype(np.complex64)
    summed = np.einsum("mf,mnf->nf", advance, phases, optimize=True)
    return np.square(np.abs(summed)).mean(axis=-1) / len(phases) ** 2


def _smoothed(power: np.ndarray) -> np.ndarray:
    """Mean over `SMOOTH` frames, of those that exist."""
    kernel = np.ones(min(SMOOTH, power.shape[1]))
    count = np.convolve(np.ones(power.shape[1]), kernel, "same")
    return np.stack([np.convolve(row, kernel, "same") for row in power]) / count
