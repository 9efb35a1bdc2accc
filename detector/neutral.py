"""The average command, which explanations compare with: what a group of evidence is set to when taken away.

Planes are those of `detector.frontends.planes` as a network hears them; the averages are over the recordings of a
training partition, each counting once, and both classes alike where these are balanced.
Shapes: C planes, K bands, N frames, M microphones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from detector.frontends.portable import SCALE, SHIFT, VERSION
from remasc.atomic import write_text

PATH = Path(__file__).parent / "bundled" / "neutral.json"
LEVEL, PRINCIPAL, SECOND, MATCH, SPREAD, COUNT = range(6)
DB = 10 / np.log(10)  # of a natural logarithm of power
STEADY_DB = 6.0  # with less between loud and soft frames there are no pauses to be found
REACH = 2  # frames that one covariance reaches to either side
LEAST = 5  # frames of speech or of pause, for anything to be said of them


def loudness(planes: np.ndarray) -> np.ndarray:
    """Level (N,) in dB of the frames of planes (C, K, N), all bands together; 0 = the loud frames' mean."""
    return DB * np.log(np.exp(planes[LEVEL] * SCALE[LEVEL] + SHIFT[LEVEL]).mean(axis=0))


def spoken(planes: np.ndarray) -> np.ndarray:
    """Frames (N,) bool of planes (C, K, N) that are speech; the others are pauses: below the middle of the range of
    levels, and so far from speech that no covariance holds both. Without real pauses all is speech."""
    level = loudness(planes)
    floor, peak = np.percentile(level, [10, 95])
    loud = level > (floor + peak) / 2
    speech = np.convolve(loud, np.ones(2 * REACH + 1), "same")[: len(level)] > 0.5
    few = (~speech).sum() < LEAST or speech.sum() < LEAST
    return np.ones(len(level), bool) if few or peak - floor < STEADY_DB else speech


def gap_db(planes: np.ndarray, speech: np.ndarray) -> float:
    """How far the pauses lie below the speech, by the mean levels in dB."""
    level = loudness(planes)
    return float(level[speech].mean() - level[~speech].mean())


def wander_db(planes: np.ndarray, speech: np.ndarray) -> float:
    """How much the agreement with the command's own direction varies while somebody speaks: standard deviation
    over time in dB, mean over the bands."""
    return float(DB * SCALE[MATCH] * planes[MATCH][:, speech].std(axis=1).mean())


@dataclass(frozen=True, eq=False)
class Average:
    """Of commands heard by one number of microphones: the five planes' means (5, K) in speech and in pauses, and
    the means of `gap_db` and `wander_db`; `recordings` says of how many."""

    speech: np.ndarray
    pause: np.ndarray
    gap_db: float
    wander_db: float
    recordings: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the planes to four decimals."""
        rounded = {name: np.round(getattr(self, name), 4).tolist() for name in ("speech", "pause")}
        return asdict(self) | rounded

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Average:
        planes = {name: np.array(values[name], np.float32) for name in ("speech", "pause")}
        return cls(**(values | planes))


@dataclass(frozen=True, eq=False)
class Neutral:
    """Average commands by number of microphones; `source` says of which recordings."""

    averages: dict[int, Average]
    source: str

    def of(self, mics: int) -> Average:
        """That of the nearest number of microphones, by 1 - 1/M, as the planes count them."""
        return self.averages[min(self.averages, key=lambda known: (abs(1 / known - 1 / mics), known))]

    def save(self, path: Path = PATH) -> None:
        averages = {str(mics): average.as_dict() for mics, average in sorted(self.averages.items())}
        values = {"version": VERSION, "source": self.source, "averages": averages}
        write_text(path, json.dumps(values) + "\n")


@lru_cache(maxsize=1)
def neutral(path: Path = PATH) -> Neutral:
    """The average commands that come with this version."""
    values = json.loads(path.read_text(encoding="utf-8"))
    if values["version"] != VERSION:
        raise ValueError(
            f"{path}: averages of planes of version {values['version']}, this program makes {VERSION}; learn them "
            "anew by `python -m eval.benchmarks.explanations`"
        )
    averages = {int(mics): Average.from_dict(found) for mics, found in values["averages"].items()}
    return Neutral(averages, values["source"])


def learn(planes_of: Iterable[np.ndarray], source: str) -> Neutral:
    """The averages of recordings, given by their planes (C, K, N); those without pauses tell of speech alone."""
    sums: dict[int, dict[str, list[Any]]] = {}
    for planes in planes_of:
        speech = spoken(planes)
        mics = round(1 / (1 - float(planes[COUNT].max())))
        found = sums.setdefault(mics, {"speech": [], "pause": [], "gap_db": [], "wander_db": []})
        found["speech"].append(planes[:COUNT, :, speech].mean(axis=-1, dtype=np.float64))
        found["wander_db"].append(wander_db(planes, speech))
        if not speech.all():
            found["pause"].append(planes[:COUNT, :, ~speech].mean(axis=-1, dtype=np.float64))
            found["gap_db"].append(gap_db(planes, speech))
    if not sums or not all(found["pause"] for found in sums.values()):
        raise ValueError("no recording has both speech and pauses; an average command needs some of each")
    averages = {}
    for mics, found in sums.items():
        means = {name: np.mean(rows, axis=0) for name, rows in found.items()}
        averages[mics] = Average(
            means["speech"].astype(np.float32),
            means["pause"].astype(np.float32),
            round(float(means["gap_db"]), 2),
            round(float(means["wander_db"]), 2),
            len(found["speech"]),
        )
    return Neutral(averages, source)
