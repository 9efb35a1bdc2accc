"""The cues of many recordings as one table, measured once and kept: (n recordings, C cues), NaN where undefined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.source.cues import NAMES, VERSION, cues_of
from remasc import Label, Recording, read_audio
from remasc.atomic import write_text
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


def measure_table(
    recordings: Sequence[Recording],
    folder: str | Path,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> CueTable:
    """The table of the recordings, each measured once: what `folder` holds is not measured again.

    Every line of the kept file carries a checksum; one that is torn or damaged is measured again.
    """
    path = Path(folder) / f"cues-v{VERSION}.jsonl"
    found = _kept(path)
    todo = [r for r in recordings if r.trial_id not in found]
    path.parent.mkdir(parents=True, exist_ok=True)
    jobs = [(todo[i : i + CHUNK],) for i in range(0, len(todo), CHUNK)]
    workers = min(checked_workers(workers), max(1, len(jobs)))
    with path.open("a", encoding="utf-8") as stream:
        done = ((len(rows), rows) for rows in unordered(_measure, jobs, workers))
        for rows in tracked(done, "measuring cues", len(recordings), len(recordings) - len(todo), progress):
            for trial, values in rows:
                found[trial] = values
                stream.write(sealed({"trial": trial, "values": values}) + "\n")
            stream.flush()
    values = np.array([found[r.trial_id] for r in recordings], dtype=np.float32)  # None becomes NaN
    return CueTable(tuple(recordings), values.reshape(len(recordings), len(NAMES)))


def _measure(recordings: Sequence[Recording]) -> list[tuple[str, list[float | None]]]:
    from threadpoolctl import threadpool_limits

    rows = []
    with threadpool_limits(1):
        for recording in recordings:
            waveform, sample_rate = read_audio(recording.path)
            cues = cues_of(waveform, sample_rate, recording.array)
            rows.append((recording.trial_id, [None if np.isnan(v) else float(v) for v in cues.values()]))
    return rows


def _kept(path: Path) -> dict[str, list[float | None]]:
    """Sound lines of an earlier measurement; where some were not, the file is written anew without them."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for line in filter(None, lines):
        try:
            row = unsealed(line)
        except (ValueError, RecursionError):
            continue
        if row is not None and len(row.get("values", ())) == len(NAMES):
            rows.append(row)
    if len(rows) != len(lines) - 1:
        write_text(path, "".join(sealed(row) + "\n" for row in rows))
    return {row["trial"]: row["values"] for row in rows}
