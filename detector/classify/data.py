"""Labelled clips: read from a CSV or a folder per class, and split without a common speaker."""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from remasc.audio import SUFFIXES, sound_files_below
from remasc.files import sound_files
from remasc.sentences import quoted

SPLITS = ("train", "dev", "eval")
SHARES = (0.6, 0.2, 0.2)
ALIASES = {"training": "train", "valid": "dev", "val": "dev", "validation": "dev", "test": "eval"}
COLUMNS = ("file", "label", "split", "speaker")
CANDIDATES = 200  # draws of speakers; the one that keeps the classes' shares best is taken


@dataclass(frozen=True)
class Clip:
    """A sound file; `label`, `split` and `speaker` are empty where they are not known. `name` is the file as the
    list has it."""

    path: Path
    name: str
    label: str = ""
    split: str = ""
    speaker: str = ""


def read_clips(source: str | Path, speaker_pattern: str = "") -> list[Clip]:
    """The clips of a CSV (file,label[,split][,speaker]; files relative to its folder) or of a folder per class.

    A folder whose folders are all named train, dev, eval (or test, valid) holds one such tree for each split.
    """
    source = Path(source)
    clips = _walked(source) if source.is_dir() else _listed(source)
    if speaker_pattern:
        clips = [_with_speaker(clip, _compiled(speaker_pattern)) for clip in clips]
    counts = Counter(clip.path for clip in clips)
    if twice := [path for path, count in counts.items() if count > 1]:
        raise ValueError(f"{source}: {twice[0]} is listed twice; expected every file once")
    if missing := [clip for clip in clips if not clip.path.is_file()]:
        raise ValueError(
            f"{source}: {len(missing)} of {len(clips)} files are not there, {missing[0].path} for one; expected "
            "paths relative to the list's folder"
        )
    return clips


def _walked(root: Path) -> list[Clip]:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    splits = {path: ALIASES.get(path.name.lower(), path.name.lower()) for path in folders}
    if folders and set(splits.values()) <= set(SPLITS):
        return [
            replace(clip, split=split, name=f"{folder.name}/{clip.name}")
            for folder, split in splits.items()
            for clip in _walked(folder)
        ]
    clips = [
        Clip(path, path.relative_to(root).as_posix(), folder.name)
        for folder in folders
        for path in sound_files_below(folder)
    ]
    if not clips:
        raise ValueError(
            f"{root}: holds no folder of sound files; expected one folder for each class, or a CSV"
        )
    return clips


def _listed(path: Path) -> list[Clip]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text; expected a CSV with the columns file,label") from None
    except FileNotFoundError:
        raise ValueError(f"{path}: not there; expected a CSV or a folder with a folder per class") from None
    first = text.split("\n", 1)[0]
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in first else ",")
    header = [name.strip().lower() for name in rows.fieldnames or []]
    if "file" not in header:
        raise ValueError(f"{path}: no column 'file' (columns: {quoted(header)}); expected file,label[,split]")
    for column in header:  # a misspelt column must not be lost among those that say nothing to us
        close = difflib.get_close_matches(column, [c for c in COLUMNS if c not in header], n=1, cutoff=0.75)
        if column not in COLUMNS and close:
            raise ValueError(f"{path}: unknown column {quoted(column)}; did you mean {close[0]!r}?")
    rows.fieldnames = header
    clips = []
    try:
        for row in rows:
            clips.append(_row(path, rows.line_num, row))
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: {error}; expected a CSV") from None
    if not clips:
        raise ValueError(f"{path}: lists no file; expected one a line below the header")
    return clips


def _row(path: Path, line: int, row: dict) -> Clip:
    values = {name: (row.get(name) or "").strip() for name in COLUMNS}
    if not values["file"] or None in row or "\0" in values["file"]:
        raise ValueError(f"{path}, line {line}: expected one value for each column, the file's first of all")
    for name in ("label", "speaker"):
        if len(values[name]) > 200 or not (values[name].isprintable()):
            raise ValueError(f"{path}, line {line}: {name} {quoted(values[name])}; expected a printable name")
    split = ALIASES.get(values["split"].lower(), values["split"].lower())
    if split and split not in SPLITS:
        raise ValueError(
            f"{path}, line {line}: split {quoted(values['split'])}; expected {', '.join(SPLITS)}"
        )
    name = values["file"]
    return Clip(path.parent / name, name, values["label"], split, values["speaker"])


def _compiled(pattern: str) -> re.Pattern:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"speaker pattern {quoted(pattern)}: {error}; expected a regular expression"
        ) from None
    if compiled.groups < 1:
        raise ValueError(f"speaker pattern {quoted(pattern)}: no group; put the speaker in parentheses")
    return compiled


def _with_speaker(clip: Clip, pattern: re.Pattern) -> Clip:
    found = pattern.search(clip.path.name)
    if not found or not found[1]:
        raise ValueError(f"{clip.path}: its name holds no speaker by the pattern {quoted(pattern.pattern)}")
    return replace(clip, speaker=found[1])


def split_clips(clips: Sequence[Clip], seed: int = 0) -> dict[str, list[Clip]]:
    """The labelled clips as {"train", "dev", "eval"}: as given, else 60 : 20 : 20, disjoint in speakers.

    Where no clip has a speaker the files are dealt class by class: nothing then says that speakers are disjoint.
    The draw is a hash of seed and name, so it does not depend on the order of the list.
    """
    clips = [clip for clip in clips if clip.label]
    if not clips:
        raise ValueError("no clip has a label; expected a column 'label' or a folder for each class")
    given = {bool(clip.split) for clip in clips}
    if given == {True, False}:
        unsplit = next(clip for clip in clips if not clip.split)
        raise ValueError(f"{unsplit.name} has no split, others have one; give a split for all or for none")
    if given == {False}:
        clips = _dealt(clips, seed)
    parts = {split: [clip for clip in clips if clip.split == split] for split in SPLITS}
    learnt = {clip.label for clip in parts["train"]}
    if len(learnt) < 2:
        there = f"the class {quoted(*learnt)} alone" if learnt else "no labelled clip"
        raise ValueError(f"train holds {there}; expected at least 2 classes, with clips of each")
    for split in ("dev", "eval"):
        if strange := sorted({clip.label for clip in parts[split]} - learnt):
            raise ValueError(
                f"class {quoted(strange[0])} is in {split} but not in train; nothing could learn it"
            )
    return parts


def shared_speakers(parts: dict[str, list[Clip]]) -> int:
    """How many speakers are in more than one split."""
    homes = defaultdict(set)
    for split, clips in parts.items():
        for clip in clips:
            homes[clip.speaker].add(split)
    return sum(len(splits) > 1 for speaker, splits in homes.items() if speaker)


def fewer(clips: Sequence[Clip], share: float, seed: int = 0) -> list[Clip]:
    """`share` of each class, at least one clip, drawn by a hash of seed and name; a smaller share lies within a
    larger one."""
    kept = set()
    for label in {clip.label for clip in clips}:
        own = sorted((c for c in clips if c.label == label), key=lambda c: _hash(f"{seed}:label:{c.name}"))
        kept |= set(own[: max(1, round(share * len(own)))])
    return [clip for clip in clips if clip in kept]


def table(parts: dict[str, list[Clip]]) -> str:
    """The splits as a CSV that `read_clips` takes back; its hash is whose run it is."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for split in SPLITS:
        for clip in sorted(parts[split], key=lambda clip: clip.name):
            writer.writerow((clip.name, clip.label, split, clip.speaker))
    return out.getvalue()


def _dealt(clips: Sequence[Clip], seed: int) -> list[Clip]:
    speakers = {clip.speaker for clip in clips}
    if speakers == {""}:
        return _dealt_by_class(clips, seed)
    if "" in speakers:
        unknown = next(clip for clip in clips if not clip.speaker)
        raise ValueError(
            f"{unknown.name} has no speaker, others have one; name all of them, or give the splits"
        )
    if len(speakers) < len(SPLITS):
        raise ValueError(f"{len(speakers)} speakers cannot be dealt to {len(SPLITS)} splits; give the splits")
    best, least = {}, float("inf")
    totals = Counter(clip.label for clip in clips)
    for candidate in range(CANDIDATES):
        home = _homes(clips, f"{seed}:{candidate}")
        found = Counter((home[clip.speaker], clip.label) for clip in clips)
        distance = sum(
            abs(found[split, label] - share * total)
            for split, share in zip(SPLITS, SHARES, strict=True)
            for label, total in totals.items()
        )
        if distance < least:
            best, least = home, distance
    return [replace(clip, split=best[clip.speaker]) for clip in clips]


def _homes(clips: Iterable[Clip], key: str) -> dict[str, str]:
    """Speakers in the order of their hash fill train, then dev, then eval; none stays empty."""
    counts = Counter(clip.speaker for clip in clips)
    order = sorted(counts, key=lambda speaker: _hash(f"{key}:{speaker}"))
    home, done, total = {}, 0, counts.total()
    for place, speaker in enumerate(order):
        left = len(order) - place
        middle = (done + counts[speaker] / 2) / total
        wanted = 0 if middle < SHARES[0] else 1 if middle < SHARES[0] + SHARES[1] else 2
        latest = 2 if not home else min(2, 1 + SPLITS.index(home[order[place - 1]]))
        number = min(max(wanted, 3 - left), latest if home else 0)
        home[speaker], done = SPLITS[number], done + counts[speaker]
    return home


def _dealt_by_class(clips: Sequence[Clip], seed: int) -> list[Clip]:
    dealt = {}
    for label in {clip.label for clip in clips}:
        own = sorted((c for c in clips if c.label == label), key=lambda c: _hash(f"{seed}:{c.name}"))
        for place, clip in enumerate(own):
            at = (place + 0.5) / len(own)
            dealt[clip] = "train" if at < SHARES[0] else "dev" if at < SHARES[0] + SHARES[1] else "eval"
    return [replace(clip, split=dealt[clip]) for clip in clips]


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8")).digest()


def unheard(sources: Iterable[Path], speaker_pattern: str = "", seed: int = 0) -> list[Path]:
    """Sound files that pretraining may hear: all but the dev and eval clips of lists and of folders per class.

    A list without labels and splits, a folder without folders per class, and a sound file are taken whole. A
    file that is a dev or eval clip of one source is left out of all.
    """
    found: dict[Path, None] = {}
    kept_back: set[Path] = set()
    for source in map(Path, sources):
        if source.is_dir() and not any(path.is_dir() for path in source.iterdir()):
            found.update(dict.fromkeys(sound_files([str(source)])))
            continue
        if source.is_file() and source.suffix.lower() in SUFFIXES:
            found[source] = None
            continue
        clips = read_clips(source, speaker_pattern)
        if any(clip.label for clip in clips) and not all(clip.split for clip in clips if clip.label):
            parts = split_clips(clips, seed)
            clips = [clip for clip in clips if not clip.label] + [c for part in parts.values() for c in part]
        kept_back |= {clip.path.resolve() for clip in clips if clip.split in ("dev", "eval")}
        found.update(dict.fromkeys(clip.path for clip in clips))
    paths = [path for path in found if path.resolve() not in kept_back]
    if not paths:
        raise ValueError("no clip is left to learn from; expected sound besides the clips of dev and eval")
    return paths
