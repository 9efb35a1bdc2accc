"""One uploaded recording, as the page shows it: verdict in words, reasons, spectrogram, direction, cues.

Shapes: M microphones, T samples. Pictures are bytes, row by row from the top, 0 dark to 255 bright, as base64.
"""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detector import quality
from remasc import MicArray, audio, read_audio
from streaming.web.bearing import bearing

if TYPE_CHECKING:
    from detector.score import Detector, Judgement
    from detector.source.model import SourceModel

MOST_SAMPLES = 2**25  # frames x channels that one analysis may hold: 128 MiB
COLUMNS, ROWS = 480, 128
RANGE_DB = 70.0
VERDICTS = {
    "genuine": "This sounds like a living person.",
    "replay": "This sounds like a playback device.",
    "doubtful": "Not accepted: this may be a playback device.",
    "undecided": "Not accepted: this cannot be judged.",
}


def analyse(
    path: Path,
    detector: Detector,
    array: MicArray | None,
    threshold: float | None,
    second: SourceModel | None = None,
) -> dict[str, Any]:
    """Everything the page says of a recording; what cannot be read is undecided, and the sentence says why."""
    try:
        info = audio.audio_info(path)
        seconds = min(info.seconds, quality.MAX_SECONDS + 1)
        if seconds * info.sample_rate * info.channels > MOST_SAMPLES:
            raise ValueError(
                f"{path}: {info.channels} channels at {info.sample_rate} Hz are too much for this page; cut the "
                "recording, or use `replayguard score`"
            )
        waveform, rate = read_audio(path, seconds=seconds)
        judged = detector.judge(waveform, rate, array, threshold=threshold)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        sentence = str(getattr(error, "strerror", None) or error).replace(str(path), "the recording")
        return _nothing(sentence)
    return verdict(judged, detector, threshold) | {
        "seconds": round(info.seconds, 3),
        "sample_rate": rate,
        "channels": len(waveform),
        "levels": _levels(waveform),
        "spectrogram": spectrogram(waveform[0], rate),
        "direction": direction(waveform, rate, array),
        "cues": cues(waveform, rate, array, second),
    }


def verdict(judged: Judgement, detector: Detector, threshold: float | None) -> dict[str, Any]:
    """The judgement and what it is compared with, in words and numbers."""
    limit = detector.threshold if threshold is None else threshold
    doubtful = judged.decision == "replay" and (judged.llr or 0.0) > 0
    return {
        "decision": judged.decision,
        "accepted": judged.accepted,
        "words": VERDICTS["doubtful" if doubtful else judged.decision],
        "because": _because(judged, limit, doubtful),
        "score": judged.score,
        "llr": judged.llr,
        "probability": judged.probability,
        "threshold": limit,
        "reason": judged.reason,
    }


def _nothing(sentence: str) -> dict[str, Any]:
    """Of a file that could not be judged at all."""
    empty = dict.fromkeys(("score", "llr", "probability", "threshold", "spectrogram", "direction"))
    return empty | {
        "decision": "undecided", "accepted": False, "words": VERDICTS["undecided"], "because": sentence,
        "reason": "unreadable", "levels": [], "cues": None,
    }  # fmt: skip


def _because(judged: Judgement, limit: float | None, doubtful: bool) -> str:
    if judged.reason:
        sentence = judged.detail or quality.REASONS[judged.reason]
        return f"{sentence[:1].upper()}{sentence[1:]}."
    side = "at or above" if judged.accepted else "below"
    sentence = f"The score {judged.score:+.2f} lies {side} the threshold {limit:+.2f}."
    if judged.llr is None:
        return sentence
    times, who = math.exp(min(abs(judged.llr), 50.0)), "a person" if judged.llr >= 0 else "a playback device"
    likely = f"{times:.1f}" if times < 10 else f"{times:.0f}" if times < 1000 else "over 1000"
    evidence = f"Such a sound is {likely} times as likely from {who} as from the other"
    return f"{sentence} {evidence}{', which the threshold takes for too little' if doubtful else ''}."


def _levels(waveform: np.ndarray) -> list[float]:
    """Level of each microphone in dB of full scale."""
    power = np.square(waveform, dtype=np.float64).mean(axis=1)
    return [round(float(level), 1) for level in 10 * np.log10(power + 1e-12)]


def spectrogram(channel: np.ndarray, sample_rate: int) -> dict[str, Any] | None:
    """Picture of one channel (T,) up to 8 kHz, at most `COLUMNS` x `ROWS`; from the loudest point 70 dB down."""
    x = audio.resample(channel[None], sample_rate, 16000)[0]
    size = 512
    if len(x) < size:
        return None
    hop = max(128, math.ceil((len(x) - size) / (COLUMNS - 1)))
    frames = np.lib.stride_tricks.sliding_window_view(x, size)[::hop]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(size), axis=-1)))[:, 1:]
    power = power.reshape(len(power), ROWS, -1).max(axis=-1).T[::-1]
    level = 10 * np.log10(power / max(power.max(), 1e-20) + 1e-12)
    return _picture(1 + level / RANGE_DB) | {"hertz": [0, 8000], "range_db": RANGE_DB}


def direction(waveform: np.ndarray, sample_rate: int, array: MicArray | None) -> dict[str, Any] | None:
    """Picture and course of the direction; None where the array is not known or cannot tell."""
    found = None if array is None else bearing(waveform, sample_rate, array)
    if found is None:
        return None
    low, high = found.power.min(axis=0), found.power.max(axis=0)
    picture = _picture(((found.power - low) / np.maximum(high - low, 1e-9))[::-1])
    best = [None if math.isnan(angle) else angle for angle in found.best.tolist()]
    return picture | {"times": found.times.round(3).tolist(), "best": best, "typical": found.typical}


def cues(
    waveform: np.ndarray, sample_rate: int, array: MicArray | None, second: SourceModel | None
) -> dict[str, Any] | None:
    """What a second opinion makes of the recording, by acoustic cues that a person can check; None without one.

    It explains, it decides nothing: `reasons` are sentences, each with whom it speaks for.
    """
    if second is None:
        return None
    try:
        found = second.judge(waveform, sample_rate, array)
    except (ValueError, RuntimeError) as error:
        return {"words": f"No second opinion: {error}.", "reasons": []}
    said = {"human": "a person", "device": "a playback device"}.get(found.decision, "no decision")
    chance = "" if found.probability is None else f", chance of a person {found.probability:.0%} (even prior)"
    reasons = found.explanation.reasons if found.explanation else ()
    told = [
        {"sentence": one.sentence, "speaks_for": "genuine" if one.part > 0 else "replay"} for one in reasons
    ]
    return {"words": f"By these cues alone: {said}{chance}.", "reasons": told}


def _picture(values: np.ndarray) -> dict[str, Any]:
    pixels = np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
    height, width = pixels.shape
    return {"width": width, "height": height, "pixels": base64.b64encode(pixels.tobytes()).decode("ascii")}
