"""Facts of a recording that no talker and no loudspeaker makes, or that a place makes: what leak probes look at.

Shapes: M microphones, T samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from remasc import Recording, read_audio
from remasc.audio import audio_info

SPEECH_ENDS_HZ = (
    7600.0  # here the simulator cuts what 16 kHz sources hold; what lies above is the microphones' own noise
)


def band_db(spectrum: np.ndarray, hertz: np.ndarray, edges: Iterable[float]) -> list[float]:
    """Mean power in dB of a power spectrum between neighbouring edges in Hz."""
    inside = [(hertz >= low) & (hertz < high) for low, high in pairwise(edges)]
    return [float(10 * np.log10(spectrum[band].sum() / max(1, band.sum()) + 1e-14)) for band in inside]


def facts_of(recording: Recording, row: int) -> dict[str, list[float]]:
    """Numbers by probe of one recording; `row` is its place in the corpus's tables."""
    waveform, rate = read_audio(recording.path)
    info = audio_info(recording.path)
    x = waveform[0].astype(np.float64)
    power = np.square(np.abs(np.fft.rfft(x * np.hanning(len(x)))))
    hertz = np.fft.rfftfreq(len(x), 1 / rate)
    first = waveform[:, : rate // 20].astype(np.float64)
    start = np.square(np.abs(np.fft.rfft(first * np.hanning(first.shape[1]), axis=1))).mean(axis=0)
    start_hertz = np.fft.rfftfreq(first.shape[1], 1 / rate)
    long_term = np.array(band_db(power, hertz, np.geomspace(60, 7400, 25)))
    return {
        "level": _level(waveform),
        "duration": _duration(x, rate),
        "clipping": _clipping(waveform),
        "silence": _silence(waveform),
        "format": [*_format(recording, info, waveform), float(row % 2), float(row % 4)],
        "above 7.5 kHz": band_db(
            power, hertz, [SPEECH_ENDS_HZ, 8000, *([10000, 14000, 20000] if rate > 16000 else [])]
        ),
        "first 50 ms": [
            *band_db(start, start_hertz, [60, 200, 500, 1000, 2000, 4000, 7400]),
            *_level(first)[:1],
        ],
        "long-term spectrum": (long_term - long_term.mean()).tolist(),
    }


def _level(waveform: np.ndarray) -> list[float]:
    rms, peak = np.sqrt(np.square(waveform, dtype=np.float64).mean()), np.abs(waveform).max()
    return [float(20 * np.log10(rms + 1e-9)), float(20 * np.log10(peak + 1e-9))]


def _duration(x: np.ndarray, rate: int) -> list[float]:
    """Seconds in all, before and after speech (25 dB below the loud frames), and the active share."""
    hop = rate // 100
    frames = x[: len(x) // hop * hop].reshape(-1, hop)
    if not len(frames):
        return [len(x) / rate, 0.0, 0.0, 1.0]
    db = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-12)
    active = np.flatnonzero(db > np.percentile(db, 95) - 25)
    return [len(x) / rate, active[0] / 100, (len(db) - 1 - active[-1]) / 100, len(active) / len(db)]


def _clipping(waveform: np.ndarray) -> list[float]:
    """Share of samples near full scale or at the file's own peak, and the channels' means."""
    magnitude, means = np.abs(waveform), waveform.mean(axis=1, dtype=np.float64)
    at_peak = (magnitude >= 0.999 * magnitude.max()).mean()
    return [
        float((magnitude > 0.99).mean()),
        float(at_peak),
        float(np.abs(means).max() * 1e6),
        float(means[0] * 1e6),
    ]


def _silence(waveform: np.ndarray) -> list[float]:
    """Share of exact zeros, the longest run of one value, and the shares at the two ends of the file."""
    same = np.diff(waveform[0]) == 0
    edges = np.flatnonzero(np.diff(np.concatenate([[0], same.astype(np.int8), [0]])))
    longest = int((edges[1::2] - edges[::2]).max()) if len(edges) else 0
    zeros = (waveform == 0).mean(axis=0)
    return [float(zeros.mean()), float(longest), float(zeros[:100].mean()), float(zeros[-100:].mean())]


def _format(recording: Recording, info: Any, waveform: np.ndarray) -> list[float]:
    """Bytes beyond the samples, lowest bits, and what the file's name says as a number."""
    bits = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32}.get(info.subtype, 32)
    extra = recording.path.stat().st_size - waveform.size * bits // 8
    steps = np.rint(waveform[0].astype(np.float64) * 2.0 ** (min(bits, 24) - 1)).astype(np.int64)
    number = int("".join(c for c in recording.file_id if c.isdigit()) or 0)
    scene = number // 10  # the last digit is the recording device in ReMASC's ids
    ids = [scene % 2, scene % 3, scene % 10, scene % 1_000_000]
    return [
        float(extra),
        float((steps & 1).mean()),
        float((steps & 3 == 0).mean()),
        info.frames % 441,
        *map(float, ids),
    ]


def place_of(scene: dict) -> list[float]:
    """Where the source truly is, from the stand: azimuth (sine, cosine), elevation, distance, height, facing."""
    stand, forward = np.array(scene["stand"]), np.array(scene["forward"])
    away = np.array(scene["source"]) - stand
    right = np.array([forward[1], -forward[0], 0.0])
    flat = np.hypot(away @ right, away @ forward) + 1e-9
    facing = np.array(scene["facing"])
    back = -away / np.linalg.norm(away)
    return [
        away @ right / flat,
        away @ forward / flat,
        away[2] / np.linalg.norm(away),
        float(np.linalg.norm(away)),
        scene["source"][2],
        float(facing @ back),
        facing[2],
    ]
