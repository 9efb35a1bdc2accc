"""Fundamental frequency and its micro-variation: pYIN (Mauch and Dixon 2014, librosa), jitter and shimmer.

Jitter and shimmer compare each glottal cycle with the one before it ("local", as Praat defines them, whose limits
for what is still a neighbouring cycle are used too: periods within a factor 1.3, amplitudes within 1.6).
"""

from __future__ import annotations

import warnings

import numpy as np

from detector.source.cues.catalogue import listed
from detector.source.cues.clip import HOP, RATE, Clip

CUES = listed(
    "pitch",
    voiced_share=("", "{:.0%} of the speech is voiced"),
    f0_median=("Hz", "voice at {:.0f} Hz"),
    f0_spread=("semitones", "pitch varies by {:.1f} semitones"),
    f0_range=("semitones", "pitch covers {:.1f} semitones"),
    f0_slope=("semitones/s", "pitch moves by {:+.1f} semitones a second"),
    jitter=("%", "period changes by {:.2f} % from cycle to cycle (jitter)"),
    shimmer=("%", "amplitude changes by {:.1f} % from cycle to cycle (shimmer)"),
)
LOWEST, HIGHEST = 65.0, 420.0  # Hz
FRAME = 768  # 48 ms, three periods of the lowest voice
MIN_VOICED = 8  # frames


def pitch_track(clip: Clip) -> np.ndarray:
    """F0 (N,) in Hz, NaN where not voiced, one value every 10 ms.

    pYIN on the reference channel between 60 and 900 Hz (rooms and noise hide the rest), in quarter semitones,
    with a prior on the aperiodicity threshold (mean 0.2) for voices heard from across a room.
    """
    if len(clip.reference) < FRAME:
        return np.full(len(clip.level), np.nan)
    import librosa

    with warnings.catch_warnings(action="ignore"):
        f0, _, _ = librosa.pyin(
            clip.low,
            fmin=LOWEST,
            fmax=HIGHEST,
            sr=RATE,
            frame_length=FRAME,
            hop_length=HOP,
            resolution=0.25,
            beta_parameters=(2, 8),
        )
    return f0[: len(clip.level)]


def cycles(x: np.ndarray, f0: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each voiced stretch the times (samples, interpolated) and heights of its cycles' peaks.

    A peak is the highest sample within a quarter period around one period after the last one, of the side to which
    the waveform leans: a microphone wired the other way round has the same cycles.
    """
    voiced = np.isfinite(f0)
    leaning = (x[: len(f0) * HOP] ** 3) @ np.repeat(voiced, HOP)[: len(x)]
    x = x if leaning >= 0 else -x
    edges = np.flatnonzero(np.diff(np.concatenate([[0], voiced.astype(int), [0]])))
    found = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        if last - first < 3:
            continue
        stop = min(last * HOP, len(x) - 1)
        period = RATE / f0[first]
        at = _highest(x, first * HOP, first * HOP + period, stop)
        times, heights = [], []
        while at is not None:
            time, height = _vertex(x, at)
            times.append(time)
            heights.append(height)
            period = RATE / f0[min(at // HOP, last - 1)]
            at = _highest(x, at + 0.75 * period, at + 1.25 * period, stop)
        found.append((np.array(times), np.array(heights)))
    return found


def _highest(x: np.ndarray, first: float, last: float, stop: int) -> int | None:
    first, last = max(1, round(first)), round(last) + 1
    return None if last > stop else first + int(np.argmax(x[first:last]))


def _vertex(x: np.ndarray, at: int) -> tuple[float, float]:
    """The vertex of the parabola through a sample and its neighbours: time and height."""
    before, here, after = x[at - 1 : at + 2]
    bend = before - 2 * here + after
    shift = 0.0 if bend >= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
    return at + shift, float(here - 0.25 * (before - after) * shift)


def perturbation(stretches: list[np.ndarray], limit: float) -> float:
    """Mean |difference of neighbours| over mean, in percent; neighbours more than a factor `limit` apart are
    not counted. NaN with fewer than eight differences."""
    pairs = [np.stack([s[:-1], s[1:]]) for s in stretches if len(s) > 1]
    if not pairs:
        return np.nan
    before, after = np.concatenate(pairs, axis=1)
    kept = (np.minimum(before, after) > 0) & (np.maximum(before, after) < limit * np.minimum(before, after))
    if kept.sum() < 8:
        return np.nan
    before, after = before[kept], after[kept]
    return float(100 * np.abs(after - before).mean() / ((before + after) / 2).mean())


def measure(clip: Clip, f0: np.ndarray) -> dict[str, float]:
    """The cues of this group; `f0` (N,) is `pitch_track`'s."""
    voiced = np.isfinite(f0)
    values = {"voiced_share": float(voiced[clip.speech].mean())}
    if voiced.sum() < MIN_VOICED:
        return values
    semitones = 12 * np.log2(f0[voiced] / np.median(f0[voiced]))
    low, high = np.percentile(semitones, [5, 95])
    seconds = np.flatnonzero(voiced) * HOP / RATE
    marks = cycles(clip.low, f0)
    return values | {
        "f0_median": float(np.median(f0[voiced])),
        "f0_spread": float(semitones.std()),
        "f0_range": float(high - low),
        "f0_slope": float(np.polyfit(seconds, semitones, 1)[0]),
        "jitter": perturbation([np.diff(times) for times, _ in marks], 1.3),
        "shimmer": perturbation([heights for _, heights in marks], 1.6),
    }
