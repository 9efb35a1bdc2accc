"""What the two classes of a simulated corpus follow: levels, lengths, places and rooms, as drawn and as measured.

Drawn laws are those of every scene; measured ones come from the plan's responses and the sound files of some pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from remasc import Recording, read_audio
from remasc.identity import scene_rng
from remasc.simulate.measures import scene_measures

SAMPLE = 40  # scenes of each class whose responses and files are looked at
CLASSES = ("genuine", "replay")
_DRAWN: dict[str, tuple[str, Callable[[dict], Any]]] = {
    "level": ("dBFS", lambda s: s["level_dbfs"]),
    "speech-active SNR": ("dB", lambda s: s["noise"]["snr_db"]),
    "seconds": ("s", lambda s: s["seconds"]),
    "silence before": ("s", lambda s: s["lead"]),
    "silence after": ("s", lambda s: s["trail"]),
    "distance": ("m", lambda s: s["distance"]),
    "height of the source": ("m", lambda s: s["source"][2]),
    "RT60 at 1 kHz": ("s", lambda s: None if s["room"]["kind"] == "outdoor" else s["room"]["rt60"][3]),
}
_MEASURED = {
    "T20 measured, 500 to 1000 Hz": ("s", "rt60"),
    "direct to reverberant, of what speaks": ("dB", "drr_db"),
    "clarity C50": ("dB", "c50_db"),
    "level of the file": ("dBFS", "level"),
    "bandwidth, 99 % of the power": ("Hz", "bandwidth"),
}


@dataclass(frozen=True)
class Law:
    """One law: name, unit, the values of each class, and whether some scenes were measured."""

    name: str
    unit: str
    values: dict[str, np.ndarray]
    measured: bool = False


def laws_of(corpus_name: str, scenes: Sequence[dict], files: dict[str, list[Recording]]) -> list[Law]:
    """Every law of a corpus's scenes; `files` are its recordings by scene, of which the first is looked at."""
    parts = {label: [s for s in scenes if s["label"] == label] for label in CLASSES}
    found = [
        Law(name, unit, {label: _numbers(map(value, part)) for label, part in parts.items()})
        for name, (unit, value) in _DRAWN.items()
    ]
    rows = {label: [_measures(corpus_name, s, files) for s in _some(part)] for label, part in parts.items()}
    for name, (unit, key) in _MEASURED.items():
        values = {label: _numbers(row.get(key) for row in part) for label, part in rows.items()}
        found.append(Law(name, unit, values, measured=True))
    return found


def _numbers(values: Any) -> np.ndarray:
    return np.array([v for v in values if v is not None and np.isfinite(v)], float)


def _some(scenes: list[dict]) -> list[dict]:
    """The same pairs of either class, where each has as many scenes."""
    chosen = scene_rng("card", "some").permutation(len(scenes))[:SAMPLE]
    return [scenes[i] for i in sorted(chosen)]


def _measures(corpus_name: str, scene: dict, files: dict[str, list[Recording]]) -> dict[str, float]:
    found = scene_measures(scene, corpus_name)
    for recording in files.get(scene["scene_id"], [])[:1]:
        found |= {"level": file_level(recording), "bandwidth": bandwidth(recording)}
    return found


def file_level(recording: Recording) -> float:
    """The root mean square of all its samples, dB of full scale."""
    waveform, _ = read_audio(recording.path)
    return float(10 * np.log10(np.square(waveform, dtype=np.float64).mean() + 1e-20))


def bandwidth(recording: Recording) -> float:
    """Frequency in Hz below which 99 % of the first channel's power lies."""
    waveform, rate = read_audio(recording.path)
    power = np.cumsum(np.square(np.abs(np.fft.rfft(waveform[0]))))
    return float(np.searchsorted(power, 0.99 * power[-1]) * rate / waveform.shape[1])


def laws_table(laws: Sequence[Law]) -> list[str]:
    """Markdown: median and 5 to 95 % range of each class."""
    lines = ["| law | unit | genuine | replay |", "|---|---|---|---|"]
    for law in laws:
        counts = " + ".join(str(len(law.values[label])) for label in CLASSES)
        of = f" ({counts} scenes)" if law.measured else ""
        cells = " | ".join(_range(law.values[label]) for label in CLASSES)
        lines.append(f"| {law.name}{of} | {law.unit} | {cells} |")
    return lines


def _range(values: np.ndarray) -> str:
    if not len(values):
        return "-"
    low, middle, high = np.percentile(values, [5, 50, 95])
    return f"{_digits(middle)} [{_digits(low)}, {_digits(high)}]"


def _digits(value: float) -> str:
    """Three digits that count, never as a power of ten: 2,900 rather than 2.9e+03."""
    return f"{float(f'{value:.3g}'):,g}"
