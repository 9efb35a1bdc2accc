"""A copy of ReMASC (or a corpus simulated in its layout) as a frozen sequence of `Recording`.

ROOT/core/{meta.csv,data/}, ROOT/eval/{...} and perhaps ROOT/complete/{...}, the union of the two; or meta.csv
and data/ in ROOT itself. Sound files are never opened here, and need not exist.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar, overload

from remasc.schema import (
    Environment,
    Label,
    PlaybackDevice,
    Recording,
    RecordingDevice,
    SourceRecorder,
    SpeechType,
    name_of,
)
from remasc.sentences import is_name, reason

COLUMNS = (
    "file id",
    "speech type",
    "speaker",
    "environment",
    "position",
    "source recorder",
    "playback device",
    "recording device",
    "seconds",
)
Code = TypeVar("Code", bound=IntEnum)


class Corpus(Sequence[Recording]):
    """Recordings in the order of meta.csv (core before eval). Filters and slices give a `Corpus` again."""

    __slots__ = ("card", "recordings", "root")

    def __init__(self, recordings: Iterable[Recording], root: str | Path, card: dict | None = None) -> None:
        self.recordings = tuple(recordings)
        self.root = Path(root)
        self.card = {} if card is None else card  # what corpus.json says; {} for ReMASC itself

    @classmethod
    def from_meta(cls, root: str | Path) -> Corpus:
        """Read the meta.csv files below `root`. A malformed row is a ValueError naming file and line."""
        root = Path(root)
        recordings: list[Recording] = []
        for subset in _subsets(root):
            recordings += read_meta(root / subset / "meta.csv", subset)
        return cls(recordings, root, _card(root))

    @property
    def simulated(self) -> bool | None:
        """What corpus.json says; None where there is none: a folder does not prove what it holds."""
        return self.card["simulated"] is True if "simulated" in self.card else None

    @property
    def name(self) -> str:
        """The name that corpus.json gives, else the folder's."""
        return str(self.card.get("name", self.root.resolve().name))

    def __len__(self) -> int:
        return len(self.recordings)

    def __iter__(self) -> Iterator[Recording]:
        return iter(self.recordings)

    @overload
    def __getitem__(self, index: int) -> Recording: ...
    @overload
    def __getitem__(self, index: slice) -> Corpus: ...
    def __getitem__(self, index: int | slice) -> Recording | Corpus:
        if isinstance(index, slice):
            return self.replace(self.recordings[index])
        return self.recordings[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Corpus) and self.recordings == other.recordings

    def __hash__(self) -> int:
        return hash(self.recordings)

    def __repr__(self) -> str:
        kind = "simulated, " if self.simulated else ""
        return f"<Corpus {self.name}: {kind}{len(self)} recordings in {self.root}>"

    def replace(self, recordings: Iterable[Recording]) -> Corpus:
        """The same corpus holding only these recordings."""
        return Corpus(recordings, self.root, self.card)

    def trials(self) -> Corpus:
        """Without the source recordings, which are never scored."""
        return self.replace(r for r in self.recordings if r.is_trial)

    def filter(self, **conditions: Any) -> Corpus:
        """The recordings that meet all conditions, each a value or a collection of values.

        subset, array, environment, position, source_recorder, playback_device, speaker, label: enums, their
        codes, or their words as tables print them ("indoor-1", "stereo-speaker", "-" or None for not
        applicable). An unknown condition or word is a ValueError with the close matches.
        """
        kept: Iterable[Recording] = self.recordings
        for key, wanted in conditions.items():
            if key not in _CONDITIONS:
                raise ValueError(f"unknown condition {key!r}{_near(key, _CONDITIONS)}")
            get, parse = _CONDITIONS[key]
            values = frozenset(parse(key, value) for value in _as_collection(wanted))
            kept = [r for r in kept if get(r) in values]
        return self.replace(kept)


def read_meta(path: Path, subset: str = "") -> list[Recording]:
    """The rows of one meta.csv. Blank lines are skipped; anything else that is no row is a ValueError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason}); expected ReMASC's meta.csv") from None
    folder = path.parent / "data"
    recordings, lines_of = [], {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            recording = _recording(line, folder, subset)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        first = lines_of.setdefault(recording.file_id, number)
        if first != number:
            raise ValueError(
                f"{path}, line {number}: file id {recording.file_id} stands in line {first} already; "
                "expected every file once"
            )
        recordings.append(recording)
    if not recordings:
        raise ValueError(f"{path}: holds no rows; expected ReMASC's meta.csv of {len(COLUMNS)} columns")
    return recordings


def _recording(line: str, folder: Path, subset: str) -> Recording:
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != len(COLUMNS):
        raise ValueError(f"{len(cells)} columns; expected {len(COLUMNS)} ({', '.join(COLUMNS)})")
    file_id = cells[0]
    if not (file_id.isascii() and file_id.isdigit() and len(file_id) <= 32):
        raise ValueError(f"file id {file_id[:40]!r}; expected digits")
    recording = Recording(
        file_id,
        _code(SpeechType, cells, 1),
        _integer(cells, 2),
        _code(Environment, cells, 3),
        _integer(cells, 4),
        _optional(SourceRecorder, cells, 5),
        _optional(PlaybackDevice, cells, 6),
        _optional(RecordingDevice, cells, 7),
        _seconds(cells[8]),
        folder / (file_id + ".wav"),
        subset,
    )
    if recording.is_trial and recording.recording_device is None:
        raise ValueError("recording device -1 on a genuine or replayed row; expected 1 to 4")
    if recording.speaker < 0 or recording.position < -1:
        raise ValueError(
            f"speaker {recording.speaker}, position {recording.position}; expected 0 or more, and -1 or more"
        )
    return recording


# Codes come from a few words, so a dictionary of them is ten times faster than calling the enum.
_KNOWN = {
    enum: {str(member.value): member for member in enum}
    for enum in (SpeechType, Environment, SourceRecorder, PlaybackDevice, RecordingDevice)
}


def _code(enum: type[Code], cells: list[str], column: int) -> Code:
    member = _KNOWN[enum].get(cells[column])
    if member is None:
        raise ValueError(
            f"{COLUMNS[column]} {cells[column][:40]!r}; expected {', '.join(_KNOWN[enum])}"
            + (" or -1" if column >= 5 else "")
        )
    return member


def _optional(enum: type[Code], cells: list[str], column: int) -> Code | None:
    return None if cells[column] == "-1" else _code(enum, cells, column)


def _integer(cells: list[str], column: int) -> int:
    try:
        if len(cells[column]) > 9 or not cells[column].isascii() or "_" in cells[column]:
            raise ValueError  # int() also takes "1_0" and digits of other scripts
        return int(cells[column])
    except ValueError:
        raise ValueError(f"{COLUMNS[column]} {cells[column][:40]!r}; expected an integer") from None


def _seconds(cell: str) -> float:
    try:
        seconds = float(cell) if cell.isascii() and "_" not in cell else math.nan
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < 86400:
        raise ValueError(f"seconds {cell[:40]!r}; expected a number from 0 to 86400")
    return seconds


def _subsets(root: Path) -> list[str]:
    """Core and eval where they are there; else their union complete/; else the root itself."""
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected a copy of ReMASC, see data/README.md")
    if found := [name for name in ("core", "eval") if (root / name / "meta.csv").is_file()]:
        return found
    for name in ("complete", ""):
        if (root / name / "meta.csv").is_file():
            return [name]
    if (root / "plan.json").is_file():
        raise ValueError(
            f"{root}: an interrupted simulation; run the same `replayguard simulate` again to end it"
        )
    raise ValueError(
        f"{root}: neither core/meta.csv, eval/meta.csv, complete/meta.csv nor meta.csv is there; "
        "expected the root of a ReMASC copy, see data/README.md"
    )


def _card(root: Path) -> dict:
    path = root / "corpus.json"
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not readable as JSON ({reason(error)}); expected the card of a corpus"
        ) from None
    if not isinstance(card, dict) or not isinstance(card.get("simulated", False), bool):
        raise ValueError(f'{path}: expected a JSON object in which "simulated" is true or false')
    if not is_name(card.get("name", "ReMASC")):
        raise ValueError(f'{path}: the "name" of a corpus is one line of at most 200 printable characters')
    return card


def _as_collection(wanted: Any) -> Iterable[Any]:
    if isinstance(wanted, Collection) and not isinstance(wanted, str):
        return wanted
    return (wanted,)


def _near(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, known := list(known), n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(known)}"


def _parse_enum(enum: type[Code]) -> Callable[[str, Any], Code | None]:
    words = {name_of(member): member for member in enum}

    def parse(key: str, value: Any) -> Code | None:
        if value is None or value == "-":
            return None
        if isinstance(value, str):
            word = value.strip().lower().replace("_", "-")
            if word not in words:
                raise ValueError(f"unknown {key} {value!r}{_near(word, words)}")
            return words[word]
        try:
            return enum(value)
        except ValueError:
            raise ValueError(f"unknown {key} {value!r}; known: {', '.join(words)}") from None

    return parse


def _parse_array(key: str, value: Any) -> str | None:
    if value is None or value == "-":
        return None
    word = str(getattr(value, "name", value)).upper()  # of a RecordingDevice or a MicArray, or the word
    if word not in RecordingDevice.__members__:
        raise ValueError(f"unknown {key} {value!r}{_near(word, RecordingDevice.__members__)}")
    return word


def _parse_integer(key: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ValueError(f"{key} {value!r}; expected an integer") from None


def _parse_subset(key: str, value: Any) -> str:
    if value not in ("core", "eval", "complete", ""):
        raise ValueError(f"unknown {key} {value!r}; known: core, eval, complete")
    return value


_CONDITIONS: dict[str, tuple[Callable[[Recording], Any], Callable[[str, Any], Any]]] = {
    "subset": (lambda r: r.subset, _parse_subset),
    "array": (lambda r: r.array, _parse_array),
    "environment": (lambda r: r.environment, _parse_enum(Environment)),
    "position": (lambda r: r.position, _parse_integer),
    "source_recorder": (lambda r: r.source_recorder, _parse_enum(SourceRecorder)),
    "playback_device": (lambda r: r.playback_device, _parse_enum(PlaybackDevice)),
    "speaker": (lambda r: r.speaker, _parse_integer),
    "label": (lambda r: r.label, _parse_enum(Label)),
}
