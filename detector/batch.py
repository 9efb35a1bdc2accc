"""Many recordings at once: files on all cores, and a whole partition of a corpus into `scores.tsv`, resumable."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from detector.score import Judgement, load
from remasc import Corpus, Recording
from remasc.atomic import write_text
from remasc.parallel import checked_workers, ordered, tracked
from remasc.protocol import partitions, write_protocol
from remasc.schema import name_of
from remasc.shards import sealed, unsealed

COLUMNS = ("trial", "score", "llr", "label", "flag")
CONDITIONS = ("array", "environment", "position", "source_recorder", "playback_device", "speaker")
CHUNK = 8
FEW = 24  # below this many files a second process costs more than it saves


@functools.lru_cache(maxsize=2)
def _worker_detector(name: str):
    loaded = load(name)
    if "torch" in sys.modules:  # an exported detector does without it
        sys.modules["torch"].set_num_threads(1)
    return loaded


def _judge_chunk(name: str, chunk: Sequence[tuple[str, str, str | None]], options: dict) -> list[Judgement]:
    detector = _worker_detector(name)
    return [detector.judge_file(path, array, trial=trial, **options) for trial, path, array in chunk]


def judge_all(
    detector: str,
    jobs: Sequence[tuple[str, str, str | None]],
    *,
    workers: int | None = None,
    options: dict | None = None,
) -> Iterator[Judgement]:
    """Judge (trial, path, array name or file) jobs, in order, on `workers` processes (default: all cores)."""
    workers = min(checked_workers(workers), max(1, len(jobs) // FEW))
    if workers == 1:
        loaded = load(detector)
        for trial, path, array in jobs:
            yield loaded.judge_file(path, array, trial=trial, **(options or {}))
        return
    chunks = [(detector, jobs[i : i + CHUNK], options or {}) for i in range(0, len(jobs), CHUNK)]
    for judgements in ordered(_judge_chunk, chunks, workers):
        yield from judgements


def score_corpus(
    detector: str,
    corpus: Corpus,
    out: Path,
    *,
    split: str = "eval",
    arrays: Iterable[str] | None = None,
    dev_share: float | None = None,
    seed: int | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Score every trial of one partition exactly once; returns the path of `out/scores.tsv`.

    The corpus is parted as for the detector's training (its `protocol_seed` and `dev_share`), unless these are
    given as `seed` and `dev_share`: dev must be the trials it did not train on.

    Beside it stands protocol.tsv with the trials and their conditions. Scores are appended to a partial file as
    they come, so that an interrupted run goes on where it stopped; the final file appears whole, in the
    protocol's order. Raises ValueError where a trial's file is missing or cannot be scored.
    """
    training = load(detector).config.get("training") or {}
    dev_share = float(training.get("dev_share", 0.2)) if dev_share is None else dev_share
    if seed is None:  # detectors from before `protocol_seed` drew dev with the seed of their training
        seed = int(training.get("protocol_seed", training.get("seed", 0)))
    parts = partitions(corpus, dev_share=dev_share, seed=seed)
    if split not in parts:
        raise ValueError(f"unknown split {split!r}; expected one of {', '.join(parts)}")
    trained_on = load(detector).specification
    chosen = arrays or (None if trained_on.num_mics is None else trained_on.arrays)
    part = parts[split] if chosen is None else parts[split].filter(array=list(chosen))
    trials = list(part.trials())
    _refuse_incomplete(trials, split, corpus)
    if (out / "model.safetensors").exists():
        raise ValueError(f"{out}: is a detector's own folder; give another --out, such as {out / split}")
    out.mkdir(parents=True, exist_ok=True)
    key = {"detector": _fingerprint(detector), "protocol": _protocol_hash(out, split, part)}
    if (out / "scores.tsv").exists():
        if _scored(out) == key:
            return out / "scores.tsv"
        raise ValueError(
            f"{out}: holds the scores of another detector or of other trials; give another --out or delete it"
        )
    partial = out / "scores.tsv.partial"
    done = _read_partial(partial, key)
    write_protocol(out / "protocol.tsv", {split: part})
    todo = [r for r in trials if r.trial_id not in done]
    jobs = [(r.trial_id, str(r.path), r.array) for r in todo]
    failed: list[Judgement] = []
    with partial.open("a", encoding="utf-8") as stream:
        if stream.tell() == 0:
            stream.write(sealed(key) + "\n")
        for judgement in _tracked(judge_all(detector, jobs, workers=workers), len(jobs), progress):
            if judgement.score is None:
                failed.append(judgement)
                continue
            done[judgement.trial] = judgement.as_dict()
            stream.write(sealed(judgement.as_dict()) + "\n")
            stream.flush()
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(trials)} trials could not be scored (first: {failed[0].trial}: "
            f"{failed[0].detail}); nothing was dropped and no scores.tsv was written: run `replayguard corpus "
            "check`, mend the files, and run this again to go on"
        )
    record = _record(detector, corpus, split, key)
    write_text(out / "run.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    write_text(out / "scores.tsv", _table(trials, done))
    partial.unlink()
    return out / "scores.tsv"


def _protocol_hash(out: Path, split: str, part: Corpus) -> str:
    """The hash of the protocol to come, before anything in `out` is replaced."""
    with tempfile.TemporaryDirectory(dir=out) as folder:
        return write_protocol(Path(folder) / "protocol.tsv", {split: part})


def _scored(out: Path) -> dict[str, str]:
    """Which detector and protocol the finished scores in `out` are of."""
    try:
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))["run"]
        return {"detector": run["detector sha256"], "protocol": run["protocol sha256"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _record(detector: str, corpus: Corpus, split: str, key: dict) -> dict:
    """What a report needs to say where the scores come from; the report is made from this folder alone."""
    loaded = load(detector)
    record: dict = {
        "name": f"{loaded.specification.system} ({Path(detector).name})",
        "corpus": corpus.name,
        "simulated": corpus.simulated,
        "partition": split,
        "threshold": None,
        "run": {
            "detector": Path(detector).name,  # its place on this machine says nothing elsewhere
            "detector sha256": key["detector"],
            "protocol sha256": key["protocol"],
        },
    }
    if loaded.threshold is not None:
        p_fa = loaded.run["threshold"]["p_fa"]
        origin = f"the detector's own, set for p_fa {p_fa:.1%} on the dev partition of its training corpus"
        record["threshold"] = {"score": loaded.threshold, "p_fa": p_fa, "origin": origin}
    for name in ("dev_eer", "dev_eer_shipped", "commit", "seed", "corpus"):
        if name in loaded.run:
            record["run"][f"training {name}"] = loaded.run[name]
    return record


def _refuse_incomplete(trials: list[Recording], split: str, corpus: Corpus) -> None:
    if not trials:
        raise ValueError(f"{corpus.root}: the {split} partition holds no trials to score; nothing was done")
    missing = [r for r in trials if not r.path.is_file()]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(trials)} {split} files are missing (first: {missing[0].path}); every "
            "trial must be scored: complete the copy (`replayguard corpus check` lists what it lacks)"
        )


def _fingerprint(detector: str) -> str:
    """Changes whenever the detector's weights or calibration do."""
    loaded = load(detector)
    digest = hashlib.sha256(json.dumps([loaded.config, loaded.run], sort_keys=True, default=str).encode())
    for name, content in loaded.weights():
        digest.update(name.encode() + content)
    return digest.hexdigest()


def _read_partial(path: Path, key: dict) -> dict[str, dict]:
    """Judgements of an interrupted run by trial. Every line carries a checksum: one that is torn or damaged is
    dropped from the file, and its trial is scored again."""
    if not path.exists():
        return {}
    lines = path.read_bytes().split(b"\n")
    if len(lines) == 1:  # killed within the first line
        path.unlink()
        return {}
    if _unsealed(lines[0]) != key:
        raise ValueError(
            f"{path} was begun with another detector or other trials, or is damaged; give another --out or "
            "delete it"
        )
    rows = [row for row in map(_unsealed, lines[1:]) if row is not None and {"trial", "score"} <= set(row)]
    write_text(path, "".join(sealed(row) + "\n" for row in (key, *rows)))
    return {row["trial"]: row for row in rows}


def _unsealed(line: bytes) -> dict | None:
    try:
        return unsealed(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def _tracked(judgements: Iterator[Judgement], total: int, progress: bool) -> Iterable[Judgement]:
    if not progress:
        return judgements
    return tracked(((1, judgement) for judgement in judgements), "scoring", total, 0, True)


def _flag(row: dict) -> str:
    """Why the detector abstained; a detector without a threshold decides nothing, but abstains from nothing."""
    return "" if row["reason"] == "no-threshold" else row["reason"]


def _table(trials: list[Recording], done: dict[str, dict]) -> str:
    lines = ["\t".join(COLUMNS + CONDITIONS)]
    for recording in trials:
        row = done[recording.trial_id]
        conditions = recording.conditions()
        llr = "" if row["llr"] is None else repr(row["llr"])
        values = [recording.trial_id, repr(row["score"]), llr, name_of(recording.label), _flag(row)]
        lines.append("\t".join(values + [conditions[name] for name in CONDITIONS]))
    return "\n".join(lines) + "\n"
