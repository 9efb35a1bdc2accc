"""Which trial belongs to train, dev and eval; every partition disjoint in speakers.

ReMASC has no dev set: one is cut from core by speaker, seeded. A simulated corpus brings its own partition
(ROOT/partitions.tsv), which then rules. Nothing here depends on the order of rows or on NumPy's generators:
the draw is a hash of seed and speaker, so a protocol is the same everywhere.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remasc.atomic import write_text
from remasc.corpus import Corpus
from remasc.schema import Environment, Label, Recording, name_of
from remasc.sentences import quoted

PARTITIONS = ("train", "dev", "eval")
TEXT_TO_SPEECH = 0  # the speaker id of synthetic speech: a voice, but nobody's
CANDIDATES = 300
DEVICES = ("playback_device", "source_recorder")  # what genuine trials have none of


def partitions(corpus: Corpus, *, dev_share: float = 0.2, seed: int = 0) -> dict[str, Corpus]:
    """The trials of a corpus as {"train", "dev", "eval"}, disjoint in speakers.

    eval is the subset of that name; dev holds about `dev_share` of the trials of core, drawn by speaker from
    `seed` so that array, environment and class keep their shares as well as whole speakers allow. Partition
    the whole corpus first and filter the parts after: then every array has the same dev speakers.
    """
    trials = corpus.trials()
    path = corpus.root / "partitions.tsv"
    assigned = _listed(trials, path) if path.is_file() else _cut(trials, dev_share, seed)
    parts = {name: trials.replace(r for r in trials if assigned[r.trial_id] == name) for name in PARTITIONS}
    _check_disjoint(parts, corpus.root)
    return parts


def held_out(parts: Mapping[str, Corpus], **conditions: Any) -> dict[str, Corpus]:
    """The protocol "held-out X": trials that meet the conditions leave train and dev, and alone stay in eval.

    `conditions` as in `Corpus.filter`. Genuine trials have no playback device or source recorder. Where one of
    these is held out they therefore stay in train and dev, also those of a place that is held out with it: the
    other devices' replays stay there too, and a place with replays alone would tell the class. Eval keeps the
    genuine trials of that place.

    Refused is what leaves train with one class of an array's recordings in an environment where it had two
    (every device of a room, say): what is fitted there would learn the place. Dropping such rooms silently
    would hold out more than was asked for. Dev fits nothing, and its few speakers lack cells anyway.
    """
    place = {k: v for k, v in conditions.items() if k not in DEVICES}
    held = {}
    for name, part in parts.items():
        met = set(part.filter(**conditions).filter(label=Label.REPLAY))
        if name == "eval" or place == conditions:
            met |= set(part.filter(**place).filter(label=Label.GENUINE))
        held[name] = part.replace(r for r in part if (r in met) == (name == "eval"))
    if "train" in parts:
        _refuse_telling_places(parts["train"], held["train"])
    return held


def _refuse_telling_places(before: Corpus, after: Corpus) -> None:
    had, has = _classes(before), _classes(after)
    for (array, environment), labels in has.items():
        if len(labels) < len(had[array, environment]):
            place = name_of(environment)
            raise ValueError(
                f"holding this out leaves train only {name_of(min(labels))} trials of {array} in {place}, so that "
                f"the place would tell the class; hold out the environment {place!r} instead, or fewer devices"
            )


def _classes(part: Corpus) -> dict[tuple[str | None, Environment], set[Label]]:
    found = defaultdict(set)
    for r in part.trials():
        found[r.array, r.environment].add(r.label)
    return found


def write_protocol(path: str | Path, parts: Mapping[str, Corpus]) -> str:
    """Write protocol.tsv: trial, partition, label and the condition columns. Returns its sha256 in hex."""
    lines = []
    for partition, corpus in parts.items():
        for r in corpus.trials():
            row = {"trial": r.trial_id, "partition": partition, "label": name_of(r.label), **r.conditions()}
            lines.append(row)
    if repeated := [trial for trial, n in Counter(row["trial"] for row in lines).items() if n > 1]:
        raise ValueError(f"{path}: trial {repeated[0]} is in two partitions; expected every trial once")
    if not lines:
        raise ValueError(f"{path}: a protocol without trials; expected at least one recording to score")
    text = "".join("\t".join(row) + "\n" for row in ([*lines[0]], *(row.values() for row in lines)))
    write_text(path, text)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _read_partitions(path: Path) -> dict[str, str]:
    """The simulator's list, trial -> partition."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason}); expected trial and partition") from None
    if not lines or lines[0].split("\t") != ["trial", "partition"]:
        raise ValueError(f"{path}, line 1: expected the header 'trial<TAB>partition'")
    listed: dict[str, str] = {}
    for number, line in enumerate(lines[1:], start=2):
        trial, _, partition = line.partition("\t")
        if partition not in PARTITIONS:
            raise ValueError(
                f"{path}, line {number}: partition {partition[:40]!r}; expected train, dev or eval"
            )
        if trial in listed:
            raise ValueError(
                f"{path}, line {number}: trial {quoted(trial)} is listed twice; expected every trial once"
            )
        listed[trial] = partition
    return listed


def _listed(trials: Corpus, path: Path) -> dict[str, str]:
    listed = _read_partitions(path)
    for r in trials:
        if r.trial_id not in listed:
            raise ValueError(f"{path}: trial {r.trial_id} of meta.csv is not listed; expected every trial")
    return listed


def _cut(trials: Corpus, dev_share: float, seed: int) -> dict[str, str]:
    if not 0 < dev_share < 1:
        raise ValueError(f"dev_share is {dev_share}; expected a share between 0 and 1")
    pool = [r for r in trials if r.subset != "eval"]
    dev_speakers = _draw_speakers(pool, dev_share, seed) if pool else frozenset()
    return {
        r.trial_id: "eval" if r.subset == "eval" else "dev" if r.speaker in dev_speakers else "train"
        for r in trials
    }


def _draw_speakers(pool: list[Recording], share: float, seed: int) -> frozenset[int]:
    """Of `CANDIDATES` seeded draws of speakers, the one that keeps the shares of all conditions best."""
    cells: dict[int, Counter] = defaultdict(Counter)
    for r in pool:
        cells[r.speaker][r.array, r.environment, r.label] += 1
    if len(cells) < 2:
        raise ValueError(
            "core holds trials of one speaker only, so no dev set without its speakers can be cut; "
            "list the partitions in partitions.tsv beside core/"
        )
    total: Counter = sum(cells.values(), Counter())
    target = {cell: share * count for cell, count in total.items()}
    best, best_distance = frozenset(), float("inf")
    for candidate in range(CANDIDATES):
        chosen, counts = _take(cells, sum(target.values()), f"{seed}:{candidate}")
        distance = sum(abs(counts[cell] - wanted) for cell, wanted in target.items())
        if distance < best_distance:
            best, best_distance = chosen, distance
    return best


def _take(cells: Mapping[int, Counter], wanted: float, key: str) -> tuple[frozenset[int], Counter]:
    """Speakers in the order of their hash until about `wanted` trials are together; never all of them."""
    order = sorted(cells, key=lambda speaker: hashlib.sha256(f"{key}:{speaker}".encode()).digest())
    chosen, counts = {order[0]}, Counter(cells[order[0]])
    for speaker in order[1:-1]:
        size = cells[speaker].total()
        if counts.total() + size / 2 > wanted:
            continue
        chosen.add(speaker)
        counts.update(cells[speaker])
    return frozenset(chosen), counts


def _check_disjoint(parts: Mapping[str, Corpus], root: Path) -> None:
    speakers = {name: {r.speaker for r in part} - {TEXT_TO_SPEECH} for name, part in parts.items()}
    for one, other in (("train", "dev"), ("train", "eval"), ("dev", "eval")):
        if shared := sorted(speakers[one] & speakers[other]):
            raise ValueError(
                f"{root}: speaker {shared[0]} is in both {one} and {other}; expected partitions without a "
                "common speaker, or the result would not hold for a new one"
            )
