"""The cues of many recordings as one table, and what the replay detector hears in them; measured once and kept.

Cues and hearings lie in files of their own, the former by the cues' version, the latter by the detector's weights:
for another detector the cues are not measured again.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.source.cues import NAMES, VERSION, cues_of
from remasc import Label, Recording, get_array, read_audio
from remasc.parallel import checked_workers, tracked, unordered
from remasc.schema import SourceRecorder, name_of
from remasc.shards import sealed, unsealed

CHUNK = 8


@dataclass(frozen=True, eq=False)
class CueTable:
    """`values` (n, C) float32 in the order of `names`; `genuine` (n,) bool; `family` (n,) the playback device's
    word, "human" where there is none; `synthetic` (n,) bool, whether the voice was synthesised."""

    recordings: tuple[Recording, ...]
    values: np.ndarray
    names: tuple[str, ...] = NAMES

    def __len__(self) -> int:
        return len(self.recordings)

    @property
    def genuine(self) -> np.ndarray:
        return np.array([r.label is Label.GENUINE for r in self.recordings], bool)

    @property
    def family(self) -> np.ndarray:
        return np.array(
            ["human" if r.label is Label.GENUINE else name_of(r.playback_device) for r in self.recordings]
        )

    @property
    def synthetic(self) -> np.ndarray:
        return np.array([r.source_recorder is SourceRecorder.TTS for r in self.recordings], bool)

    def columns(self, names: Sequence[str]) -> np.ndarray:
        """Some of the cues, (n, len(names))."""
        place = {name: i for i, name in enumerate(self.names)}
        return self.values[:, [place[name] for name in names]]


@dataclass(frozen=True, eq=False)
class Embeddings:
    """What a replay detector says of recordings: `values` (n, D) its embeddings, `llr` (n,) its calibrated ratios,
    `fingerprint` of its weights."""

    values: np.ndarray
    llr: np.ndarray
    fingerprint: str


def measure_table(
    recordings: Sequence[Recording],
    folder: str | Path,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> CueTable:
    """The table of the recordings, each measured once: what `folder` holds is not measured again."""
    path = Path(folder) / f"cues-v{VERSION}.jsonl"
    rows = _measured(recordings, path, _cues, len(NAMES), "measuring cues", workers, progress)
    return CueTable(tuple(recordings), rows.astype(np.float32))


def measure_embeddings(
    recordings: Sequence[Recording],
    detector: str,
    folder: str | Path,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> Embeddings:
    """Embeddings and ratios of a replay detector by name or folder; it must be calibrated."""
    from detector.source.backbone import backbone, fingerprint

    loaded = backbone(detector)
    if loaded.calibration is None:
        raise ValueError(
            f"the detector {detector!r} was never calibrated; its scores cannot be joined with others"
        )
    mark, width = fingerprint(loaded), loaded.network.head.in_features
    path = Path(folder) / f"heard-{mark[:16]}.jsonl"
    jobs = functools.partial(_heard, detector)
    rows = _measured(recordings, path, jobs, width + 1, "asking the replay detector", workers, progress)
    return Embeddings(rows[:, 1:].astype(np.float32), loaded.calibration.llr(rows[:, 0]), mark)


def _measured(
    recordings: Sequence[Recording],
    path: Path,
    measure: Callable[[Sequence[Recording]], list[tuple[str, list[float | None]]]],
    width: int,
    what: str,
    workers: int | None,
    progress: bool,
) -> np.ndarray:
    """Rows (n, width) of the recordings, NaN where None. The file at `path` keeps them as they come; every line
    carries a checksum, and one that is torn, damaged or of another recording of that name is measured again."""
    kept = _kept(path, width)
    marks = {r.trial_id: mark_of(r.path) for r in recordings}
    found = {trial: kept[trial, mark] for trial, mark in marks.items() if (trial, mark) in kept}
    todo = [r for r in recordings if r.trial_id not in found]
    path.parent.mkdir(parents=True, exist_ok=True)
    jobs = [(todo[i : i + CHUNK],) for i in range(0, len(todo), CHUNK)]
    workers = min(checked_workers(workers), max(1, len(jobs)))
    with path.open("a", encoding="utf-8") as stream:
        done = ((len(rows), rows) for rows in unordered(measure, jobs, workers))
        for rows in tracked(done, what, len(recordings), len(recordings) - len(todo), progress):
            for trial, values in rows:
                found[trial] = values
                stream.write(sealed({"trial": trial, "of": marks[trial], "values": values}) + "\n")
            stream.flush()
    rows = np.array([found[r.trial_id] for r in recordings], dtype=np.float64)  # None becomes NaN
    return rows.reshape(len(recordings), width)


def mark_of(path: Path) -> str:
    """What tells a sound file from another of the same name in another corpus: its size and how it begins."""
    with path.open("rb") as stream:
        told = stream.read(1 << 16)
    return hashlib.sha256(b"%d " % path.stat().st_size + told).hexdigest()[:16]


def _cues(recordings: Sequence[Recording]) -> list[tuple[str, list[float | None]]]:
    from threadpoolctl import threadpool_limits

    rows = []
    with threadpool_limits(1):
        for recording in recordings:
            waveform, sample_rate = read_audio(recording.path)
            cues = cues_of(waveform, sample_rate, recording.array)
            rows.append((recording.trial_id, [None if np.isnan(v) else float(v) for v in cues.values()]))
    return rows


@functools.lru_cache(maxsize=1)
def _detector(name: str):
    import torch

    from detector.source.backbone import backbone

    torch.set_num_threads(1)
    return backbone(name)


def _heard(name: str, recordings: Sequence[Recording]) -> list[tuple[str, list[float | None]]]:
    from detector.source.backbone import heard

    rows = []
    for recording in recordings:
        waveform, sample_rate = read_audio(recording.path)
        embedding, score = heard(_detector(name), waveform, sample_rate, get_array(recording.array))
        rows.append((recording.trial_id, [score, *map(float, embedding)]))
    return rows


def _kept(path: Path, width: int) -> dict[tuple[str, str], list[float | None]]:
    """The sound lines of an earlier measurement, by trial and mark of its file. Those that are not stay where they
    are and are not believed; a line that was torn is ended, so that the next one stands alone."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    if text and not text.endswith("\n"):
        with path.open("a", encoding="utf-8") as stream:
            stream.write("\n")
    found = {}
    for line in filter(None, text.split("\n")):
        try:
            row = unsealed(line)
        except (ValueError, RecursionError):
            continue
        if len(row.get("values", ())) == width:
            found[row["trial"], row.get("of", "")] = row["values"]
    return found
