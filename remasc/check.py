"""Opens every file of a corpus and says what is wrong with it.

Results are kept in a state file, one JSON line per recording, appended as they come: a check that was stopped
goes on, and a file whose size or time changed since is looked at again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from remasc.arrays import ARRAYS
from remasc.atomic import write_text
from remasc.audio import audio_info, read_audio
from remasc.corpus import Corpus
from remasc.parallel import tracked, unordered
from remasc.schema import Recording

KINDS = ("missing", "unreadable", "rate", "channels", "length", "silent", "clipped", "copies")
VERSION = 1  # of the rules below: a state file of other rules is dropped
LENGTH_TOLERANCE_S = 0.05
SILENT_PEAK = 1e-4  # -80 dB of full scale
SILENT_RATIO = 1e-3  # 60 dB under the loudest channel of the same file
CLIPPED_SHARE = 1e-3  # of the samples lie flat at the peak
CLIPPED_PEAK = 0.1  # below it, equal neighbours at the peak are coarse steps, not clipping
COPY_RESIDUAL = 1e-7  # two real microphones differ by more than -70 dB, if only by their own noise
_CHUNK = 32


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one file; `kind` is one of KINDS, channels in `detail` count from 1."""

    trial: str
    path: str
    kind: str
    detail: str


@dataclass(frozen=True)
class CheckReport:
    root: str
    files: int
    reused: int  # results taken from the state file
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def counts(self) -> dict[str, int]:
        """Problems by kind, all kinds."""
        found = Counter(problem.kind for problem in self.problems)
        return {kind: found[kind] for kind in KINDS}

    def render(self, *, most: int = 20) -> str:
        """As text: counts by kind, then the first `most` problems of each kind."""
        return render_check(self, most=most)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "ok": self.ok, "counts": self.counts()}


def default_state(corpus: Corpus) -> Path:
    """Where results are kept: the user's cache folder, because a corpus is often on a read-only disk."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = hashlib.sha256(str(corpus.root.resolve()).encode()).hexdigest()[:16]
    return base / "replayguard" / f"check-{place}.jsonl"


def check(
    corpus: Corpus,
    *,
    state: str | Path | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> CheckReport:
    """Open every file of `corpus` on `workers` processes (None: all) and report what is wrong.

    `state` is the file of partial results (None: `default_state`).
    """
    path = default_state(corpus) if state is None else Path(state)
    keys = {r.trial_id: _key(r) for r in corpus}
    results = _load_state(path, keys)
    todo = [r for r in corpus if r.trial_id not in results]
    reused = len(results)
    jobs = [(todo[start : start + _CHUNK],) for start in range(0, len(todo), _CHUNK)]
    path.parent.mkdir(parents=True, exist_ok=True)
    _rewrite_state(path, keys, results)
    with open(path, "a", encoding="utf-8") as out:
        finished = unordered(_check_files, jobs, workers)
        for chunk in tracked(finished, "checking files", len(corpus), reused, progress):
            results.update(chunk)
            out.writelines(_state_line(trial, keys[trial], found) for trial, found in chunk.items())
            out.flush()
    problems = tuple(
        Problem(r.trial_id, str(r.path), kind, detail) for r in corpus for kind, detail in results[r.trial_id]
    )
    return CheckReport(str(corpus.root), len(corpus), reused, problems)


def render_check(report: CheckReport, *, most: int = 20) -> str:
    """The report as text: counts by kind, then the first `most` problems of each kind."""
    if report.ok:
        return f"{report.root}: all {report.files:,} files are as meta.csv says\n"
    wrong = len({problem.trial for problem in report.problems})
    lines = [f"{report.root}: {wrong:,} of {report.files:,} files have problems"]
    for kind, count in report.counts().items():
        if count:
            lines.append(f"{kind}: {count:,}")
            shown = [problem for problem in report.problems if problem.kind == kind][:most]
            lines += [f"  {problem.path}: {problem.detail}" for problem in shown]
            if count > most:
                lines.append(f"  ... and {count - most:,} more")
    return "\n".join(lines) + "\n"


def check_recording(recording: Recording) -> list[tuple[str, str]]:
    """What is wrong with one file, as (kind, detail). Source recordings have no expected rate or channels."""
    if not recording.path.exists():
        return [("missing", "no such file")]
    try:
        seconds = audio_info(recording.path).seconds
        waveform, rate = read_audio(recording.path)
    except (ValueError, OSError) as error:
        return [("unreadable", str(error).removeprefix(f"{recording.path}: "))]
    found = []
    array = ARRAYS.get(recording.array or "")
    if array is not None and rate != array.sample_rate:
        found.append(("rate", f"{rate} Hz; {array.name} records at {array.sample_rate}"))
    if array is not None and len(waveform) != array.num_mics:
        found.append(("channels", f"{len(waveform)} channels; {array.name} has {array.num_mics}"))
    if abs(seconds - recording.seconds) > LENGTH_TOLERANCE_S:
        found.append(("length", f"{seconds:.3f} s; meta.csv says {recording.seconds:.3f}"))
    return found + _check_samples(waveform)


def _check_samples(waveform: np.ndarray) -> list[tuple[str, str]]:
    """Silent and clipped channels and copies, of a waveform (M, T)."""
    peaks = np.abs(waveform).max(axis=1)
    silent = peaks < max(SILENT_PEAK, SILENT_RATIO * peaks.max())
    clipped = (peaks >= CLIPPED_PEAK) & (_flat_share(waveform, peaks) > CLIPPED_SHARE)
    found = [
        (kind, f"channel {', '.join(str(channel + 1) for channel in np.flatnonzero(which))}")
        for kind, which in (("silent", silent), ("clipped", clipped))
        if which.any()
    ]
    heard = np.flatnonzero(~silent)
    copies = [(i, j) for i, j in combinations(heard, 2) if _is_copy(waveform[i], waveform[j])]
    if copies:
        found.append(("copies", "channels " + ", ".join(f"{i + 1} and {j + 1}" for i, j in copies)))
    return found


def _flat_share(waveform: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """(M,): the share of samples at the peak whose predecessor is there too. A lone peak is no clipping."""
    at_peak = np.abs(waveform) >= peaks[:, None] * (1 - 1e-4)
    return (at_peak[:, 1:] & at_peak[:, :-1]).mean(axis=1) if waveform.shape[1] > 1 else np.zeros(len(peaks))


def _is_copy(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal but for a factor: the part of the one that the other does not explain is under COPY_RESIDUAL."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    power = (one @ one) * (other @ other)
    return power > 0 and 1 - (one @ other) ** 2 / power < COPY_RESIDUAL


def _check_files(recordings: Sequence[Recording]) -> tuple[int, dict[str, list[tuple[str, str]]]]:
    return len(recordings), {r.trial_id: check_recording(r) for r in recordings}


def _key(recording: Recording) -> list[Any]:
    """A result holds as long as this is the same: the file, and what meta.csv says about it."""
    try:
        found = recording.path.stat()
        file = [found.st_size, found.st_mtime_ns]
    except OSError:
        file = []
    return [*file, recording.array, recording.seconds]


def _state_line(trial: str, key: list[Any], found: Iterable[tuple[str, str]]) -> str:
    return json.dumps({"v": VERSION, "trial": trial, "key": key, "problems": list(found)}) + "\n"


def _load_state(path: Path, keys: dict[str, list[Any]]) -> dict[str, list[tuple[str, str]]]:
    """The results that still hold. A line that a killed run left half written is skipped."""
    results: dict[str, list[tuple[str, str]]] = {}
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return results
    for line in lines:
        try:
            entry = json.loads(line)
            problems = [(str(kind), str(detail)) for kind, detail in entry["problems"]]
            holds = entry["v"] == VERSION and keys.get(entry["trial"]) == entry["key"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if holds and all(kind in KINDS for kind, _ in problems):
            results[entry["trial"]] = problems
    return results


def _rewrite_state(path: Path, keys: dict[str, list[Any]], results: dict[str, list[tuple[str, str]]]) -> None:
    """Without the lines that no longer hold, so that the file does not grow from check to check."""
    write_text(path, "".join(_state_line(trial, keys[trial], found) for trial, found in results.items()))
