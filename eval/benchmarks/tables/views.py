"""Parts of a corpus as corpora of their own: the rows of meta.csv that are left, and the sounds where they are.

So a training on some environments, or without a device, is an ordinary training on an ordinary corpus. The
partition of every trial is written down beside it (partitions.tsv), as it was in the whole corpus.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from detector.rundir import fingerprint
from eval.benchmarks.tables.conditions import Conditions, words
from eval.benchmarks.tables.options import Options
from remasc import Corpus, Label, Recording
from remasc.atomic import write_text
from remasc.audio import audio_info, read_audio, write_wav
from remasc.protocol import PARTITIONS, held_out, partitions
from remasc.schema import name_of

PER_GROUP = {"train": 4, "dev": 3, "eval": 15}  # of --quick: trials of each array, environment and class


def train_and_dev(
    whole: Mapping[str, Corpus],
    *,
    array: str = "all",
    only: Conditions = (),
    without: Conditions = (),
    target: str = "",
    minutes: float = 0.0,
) -> dict[str, Corpus]:
    """What a training of this array (or of all) is left with of the partitions `whole`; ValueError where a class is
    missing or a place would tell it."""
    if array != "all":
        whole = {name: part.filter(array=array) for name, part in whole.items()}
    parts = {name: whole[name].filter(**dict(only)) for name in ("train", "dev")}
    if without:
        parts = held_out(parts, **dict(without))
    if minutes:
        added = some_minutes(whole["train"], target, minutes)
        parts["train"] = whole["train"].replace([*parts["train"], *added])
    of = "" if array == "all" else f" of {array}"
    for name, part in parts.items():
        both_classes(part, f"{name}{of}{_said(only, without)}")
    return parts


def _said(only: Conditions, without: Conditions) -> str:
    return (f" with {words(only)}" if only else "") + (f" without {words(without)}" if without else "")


def some_minutes(part: Corpus, array: str, minutes: float) -> list[Recording]:
    """So many minutes of an array's recordings: the two classes in turn, each in an order of its own."""
    order = [
        sorted(
            (r for r in part.filter(array=array, label=label)),
            key=lambda r: hashlib.sha256(r.trial_id.encode()).digest(),
        )
        for label in Label
    ]
    taken, seconds = [], 0.0
    for pair in zip(*order, strict=False):
        if seconds >= 60 * minutes:
            break
        taken += pair
        seconds += sum(r.seconds for r in pair)
    return taken


def tested(
    whole: Mapping[str, Corpus], split: str, array: str, only: Conditions, without: Conditions
) -> list[str]:
    """The trials of a test, of the partitions `whole`; ValueError where a class is missing."""
    part = whole[split].filter(array=array)
    part = held_out({"eval": part}, **dict(without))["eval"] if without else part
    part = part.filter(**dict(only))
    both_classes(part, f"{split} of {array}{_said(only, ())}{_said(without, ())}")
    return [r.trial_id for r in part]


def stamp(corpus: Corpus) -> str:
    """Changes with the trials, their partition, and their files' sizes and times."""
    told = {name: fingerprint(part) for name, part in partitions(corpus).items()}
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def same_recordings(corpus: Corpus, runs: Path) -> None:
    """ValueError where the runs in a folder heard other recordings than the corpus now holds, under whatever name:
    what is finished is only looked up, and would pass for a result on these."""
    path, found = runs / "recordings.json", stamp(corpus)
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) != {"recordings": found}:
            raise ValueError(
                f"{runs}: holds runs on other recordings (their trials, partitions, sizes or times were not those "
                f"of {corpus.root} now); give another --out, or delete this folder to train anew"
            )
        return
    runs.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"recordings": found}) + "\n")


def both_classes(part: Corpus, what: str) -> None:
    counts = Counter(r.label for r in part.trials())
    if missing := [name_of(label) for label in Label if not counts[label]]:
        raise ValueError(f"{what} holds no {' and no '.join(missing)} trial")


def corpora_of(options: Options) -> tuple[Corpus, ...]:
    """The corpora of a benchmark; with --quick a few trials of each."""
    corpora = tuple(Corpus.from_meta(root) for root in options.corpus)
    if not options.quick:
        return corpora
    shrunk = options.folder / "corpora"
    return tuple(
        Corpus.from_meta(quick(corpus, shrunk / f"{corpus.root.resolve().name}-quick")) for corpus in corpora
    )


def quick(corpus: Corpus, folder: Path) -> Path:
    """A few trials of each kind, for a smoke test, as a corpus that says what it is."""
    few = {name: _first_of_each(part, PER_GROUP[name]) for name, part in partitions(corpus).items()}
    return write_view(folder, corpus, few, name=f"{corpus.name} (QUICK, not a result)")


def _first_of_each(part: Corpus, count: int) -> Corpus:
    kept, seen = set(), Counter()
    for r in sorted(part, key=lambda r: hashlib.sha256(r.trial_id.encode()).digest()):
        group = (r.array, r.environment, r.label)
        seen[group] += 1
        if seen[group] <= count:
            kept.add(r)
    return part.replace(r for r in part if r in kept)


def beginnings(folder: Path, corpus: Corpus, split: str, array: str, seconds: float) -> Corpus:
    """The trials of a partition and array, each cut after its first seconds: a corpus with sounds of its own."""
    part = partitions(corpus)[split].filter(array=array).trials()
    cut = Corpus.from_meta(write_view(folder, corpus, {split: list(part)}))
    for data in {r.path.parent for r in cut}:
        data.unlink()  # the link to the whole ones
        data.mkdir()
    for whole, begun in zip(part, cut, strict=True):
        waveform, rate = read_audio(whole.path, seconds=seconds)
        write_wav(begun.path, waveform, rate, audio_info(whole.path).subtype)
    return cut


def write_view(
    folder: Path, corpus: Corpus, parts: Mapping[str, Sequence[Recording]], *, name: str = ""
) -> Path:
    """A corpus in `folder` of these trials alone; written anew each time, with the same content. Returns it."""
    partition = {r.trial_id: name for name in PARTITIONS for r in parts.get(name, ())}
    for subset in sorted({r.subset for part in parts.values() for r in part}):
        source, place = corpus.root / subset, folder / subset
        place.mkdir(parents=True, exist_ok=True)
        lines = (source / "meta.csv").read_text(encoding="utf-8-sig").splitlines()
        prefix = f"{subset}/" if subset else ""
        kept = [line for line in lines if prefix + line.split(",")[0].strip() in partition]
        write_text(place / "meta.csv", "\n".join(kept) + "\n")
        _link(place / "data", (source / "data").resolve())
    card = {key: value for key, value in corpus.card.items() if key != "name"}
    write_text(folder / "corpus.json", json.dumps({"name": name or corpus.name} | card, indent=1) + "\n")
    listed = "".join(f"{trial}\t{part}\n" for trial, part in partition.items())
    write_text(folder / "partitions.tsv", "trial\tpartition\n" + listed)
    return folder


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and Path(os.readlink(link)) == target:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target, target_is_directory=True)
