"""Delays between microphones, from the phase of what they hear (GCC-PHAT), never beyond what sound can take.

Shapes: M microphones, T samples, P pairs (i < j), F bins, N frames, L lags. Seconds, `delay[i, j] = t_i - t_j` as
in `remasc.arrays.tdoa`. Source: Knapp and Carter 1976, The generalized correlation method for estimation of time
delay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SPEED_OF_SOUND = 343.0
BAND_HZ = (200.0, 7000.0)  # speech
FRAME_SECONDS = 0.064
ACTIVE_DB = 25.0  # frames so near to the loudest are listened to
LAG_SECONDS = 2e-6  # step of the search, before a parabola through the peak
SLACK_SECONDS = 3e-5  # beyond the geometry: a source that is near, positions that are rounded


@dataclass(frozen=True)
class Delays:
    """Of one stretch: `pairs` (P, 2); `delay` (P,) seconds; `peak` (P,) the correlation there, -1 to 1, negative
    where the two are of opposite polarity; `onsets` (M,) arrival times in seconds, mean 0, by least squares;
    `closure` the root mean square of what the pairs and the onsets disagree by, in seconds."""

    pairs: np.ndarray
    delay: np.ndarray
    peak: np.ndarray
    onsets: np.ndarray
    closure: float


def pairs_of(count: int) -> np.ndarray:
    """(P, 2) with i < j.

    >>> pairs_of(3).tolist()
    [[0, 1], [0, 2], [1, 2]]
    """
    return np.stack(np.triu_indices(count, 1), axis=1)


def aperture(positions: np.ndarray) -> float:
    """The largest distance between two microphones, positions (M, 3), in metres."""
    return float(np.linalg.norm(positions[:, None] - positions[None], axis=-1).max())


def measure(waveform: np.ndarray, sample_rate: int, longest: float) -> Delays | None:
    """Delays of (M, T) samples, none larger than `longest` seconds; None where nothing is to be heard."""
    phases, hertz = _phases(waveform, sample_rate)
    if phases is None:
        return None
    pairs = pairs_of(len(waveform))
    lags = np.arange(-longest, longest + LAG_SECONDS, LAG_SECONDS)
    correlation = np.real(phases @ np.exp(2j * np.pi * hertz[:, None] * lags)) / len(hertz)  # (P, L)
    place = np.abs(correlation).argmax(axis=1)
    rows = np.arange(len(pairs))
    peak = correlation[rows, place]
    delay = lags[place] + LAG_SECONDS * _vertex(np.abs(correlation), rows, place)
    onsets = _onsets(pairs, delay, np.abs(peak), len(waveform))
    misfit = delay - (onsets[pairs[:, 0]] - onsets[pairs[:, 1]])
    return Delays(pairs, delay, peak, onsets, float(np.sqrt(np.mean(misfit**2))))


def coarse(waveform: np.ndarray, sample_rate: int, longest: float) -> tuple[np.ndarray, np.ndarray]:
    """Delays (P,) to the sample, as far as `longest` seconds, of all that was heard, and their peaks (P,).

    For what is no sound in air: buffers, converters, a channel that comes late. The peak of channels that hear
    nothing in common is about 4 / sqrt(band x time).
    """
    samples = waveform.shape[1]
    size = 1 << (samples + int(longest * sample_rate)).bit_length()
    hertz = np.fft.rfftfreq(size, 1 / sample_rate)
    inside = (hertz >= BAND_HZ[0]) & (hertz <= min(BAND_HZ[1], 0.45 * sample_rate))
    spectra = np.fft.rfft(waveform, size, axis=1)
    spectra = np.where(inside, spectra / np.maximum(np.abs(spectra), 1e-20), 0)
    reach = int(longest * sample_rate)
    delays, peaks = [], []
    for i, j in pairs_of(len(waveform)):
        correlation = np.fft.irfft(spectra[i] * np.conj(spectra[j]), size) * size / (2 * inside.sum())
        near = np.concatenate([correlation[-reach:], correlation[: reach + 1]])
        place = int(np.abs(near).argmax())
        delays.append((place - reach) / sample_rate)
        peaks.append(near[place])
    return np.array(delays), np.array(peaks)


def azimuth(onsets: np.ndarray, positions: np.ndarray) -> float | None:
    """Where a far source stands, in radians to the array's right, from onsets (M,) and positions (M, 3).

    Sound comes from the side where z is positive. None for an array that cannot tell right from left, and where
    the onsets are not those of one far source.
    """
    towards, left_over = direction(onsets, positions)
    spread = np.ptp(positions[:, 0])
    if spread < 0.01 or left_over > SLACK_SECONDS:
        return None
    x, y = towards[:2]
    return float(np.arctan2(x, np.sqrt(max(1 - x * x - y * y, 0.0)))) if abs(x) <= 1.1 else None


def direction(onsets: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, float]:
    """(3,) vector towards the source, of length 1 or less where the array does not see all of it, and the root
    mean square of what it leaves unexplained, in seconds. onsets = -positions @ towards / c."""
    centred = positions - positions.mean(axis=0)
    towards = -SPEED_OF_SOUND * np.linalg.pinv(centred, rcond=1e-3) @ onsets
    misfit = onsets - onsets.mean() + centred @ towards / SPEED_OF_SOUND
    return towards, float(np.sqrt(np.mean(misfit**2)))


def _phases(waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray | None, np.ndarray]:
    """Mean cross phases (P, F) over the active frames, and the bins in Hz."""
    size = 1 << round(np.log2(FRAME_SECONDS * sample_rate))
    hertz = np.fft.rfftfreq(size, 1 / sample_rate)
    inside = np.flatnonzero((hertz >= BAND_HZ[0]) & (hertz <= min(BAND_HZ[1], 0.45 * sample_rate)))
    count = (waveform.shape[1] - size) // (size // 2) + 1
    if count < 2:
        return None, hertz[inside]
    frames = np.lib.stride_tricks.sliding_window_view(waveform, size, axis=1)[:, :: size // 2]
    spectra = np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=-1)[..., inside]  # (M, N, F)
    power = np.square(np.abs(spectra)).sum(axis=(0, 2))
    active = power > power.max() * 10 ** (-ACTIVE_DB / 10)
    if power.max() <= 1e-12 or active.sum() < 2:
        return None, hertz[inside]
    spectra = spectra[:, active]
    spectra = spectra / np.maximum(np.abs(spectra), 1e-20)
    i, j = pairs_of(len(waveform)).T
    phases = np.stack([(spectra[a] * np.conj(spectra[b])).mean(axis=0) for a, b in zip(i, j, strict=True)])
    return phases, hertz[inside]


def _vertex(values: np.ndarray, rows: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Where between its neighbours a parabola through a peak has its top, in steps, -0.5 to 0.5."""
    inner = np.clip(place, 1, values.shape[1] - 2)
    before, here, after = (values[rows, inner + step] for step in (-1, 0, 1))
    bend = before - 2 * here + after
    top = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1), 0.0)
    return np.where(inner == place, np.clip(top, -0.5, 0.5), 0.0)


def _onsets(pairs: np.ndarray, delay: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    """Arrival times (M,) whose differences are the delays, weighted least squares, mean 0."""
    design = np.zeros((len(pairs) + 1, count))
    rows = np.arange(len(pairs))
    design[rows, pairs[:, 0]], design[rows, pairs[:, 1]] = weight, -weight
    design[-1] = 1.0
    return np.linalg.lstsq(design, np.append(weight * delay, 0.0), rcond=None)[0]
