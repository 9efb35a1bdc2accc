"""The score file: one line per trial, every trial once, read strictly and written whole.

`scores.tsv` is UTF-8, tab separated, with a header. Columns, in any order: `trial`, `score` (higher = more
genuine), and where there are any `llr` (calibrated natural-log likelihood ratio), `label`
(`genuine`, `replay`, or empty where unknown), `flag` (empty, or why the detector abstained; the score is
kept), then condition columns (`array environment position source_recorder playback_device speaker`).
A `protocol.tsv` beside it (`trial partition label` + conditions) says which trials must be there.

For the ASVspoof 5 evaluation package, `replayguard evaluate scores.tsv --asvspoof` (`asvspoof_format` here)
writes the two files it takes: `python evaluation.py --m t1 --cm cm_scores.tsv --cm_key cm_keys.tsv`.
"""

from __future__ import annotations

import difflib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from remasc.atomic import write_text
from remasc.sentences import quoted

COLUMNS = ("trial", "score", "llr", "label", "flag")
CONDITIONS = ("array", "environment", "position", "source_recorder", "playback_device", "speaker")
LABELS = ("genuine", "replay")
UNKNOWN_CONDITION = "-"
MAX_WORD = 1000  # a column is as wide as its longest word, so one absurd word must not fill the memory


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scored trials as columns of equal length (n,); lists are accepted and become arrays.

    `score` float64; `llr` float64, NaN where not calibrated; `label` "genuine", "replay" or "";
    `flag` "" or the reason of abstaining; `conditions` name -> (n,) words, "-" where unknown.
    """

    trial: np.ndarray
    score: np.ndarray
    llr: np.ndarray = field(default_factory=lambda: np.empty(0))
    label: np.ndarray = field(default_factory=lambda: np.empty(0, "U1"))
    flag: np.ndarray = field(default_factory=lambda: np.empty(0, "U1"))
    conditions: dict[str, np.ndarray] = field(default_factory=dict)
    partition: str = ""  # "train", "dev", "eval"; "" where no protocol says

    def __post_init__(self) -> None:
        n = len(self.trial)
        columns = {
            "trial": np.asarray(self.trial, dtype=np.str_),
            "score": np.asarray(self.score, dtype=np.float64),
            "llr": np.asarray(self.llr, dtype=np.float64) if len(self.llr) else np.full(n, np.nan),
            "label": np.asarray(self.label, dtype=np.str_) if len(self.label) else np.full(n, "", "U7"),
            "flag": np.asarray(self.flag, dtype=np.str_) if len(self.flag) else np.full(n, "", "U1"),
        }
        conditions = {name: np.asarray(words, dtype=np.str_) for name, words in self.conditions.items()}
        for name, column in {**columns, **conditions}.items():
            if column.shape != (n,):
                raise ValueError(
                    f"column {name!r} has shape {column.shape}; expected one entry per trial ({n},)"
                )
        for name, column in columns.items():
            object.__setattr__(self, name, column)
        object.__setattr__(self, "conditions", conditions)

    def __len__(self) -> int:
        return len(self.trial)

    @property
    def genuine(self) -> np.ndarray:
        """Mask (n,) of the trials labelled genuine."""
        return self.label == "genuine"

    @property
    def replay(self) -> np.ndarray:
        """Mask (n,) of the trials labelled replay."""
        return self.label == "replay"

    @property
    def abstained(self) -> np.ndarray:
        """Mask (n,) of the trials on which the detector did not decide."""
        return self.flag != ""

    @property
    def calibrated(self) -> bool:
        """Whether every labelled trial has a likelihood ratio, as `cllr` and `act_dcf` need it."""
        return bool(np.isfinite(self.llr[self.label != ""]).all()) and bool((self.label != "").any())

    def select(self, mask: np.ndarray) -> ScoreTable:
        """The trials where `mask` (n,) is true."""
        columns = (getattr(self, name)[mask] for name in COLUMNS)
        conditions = {name: words[mask] for name, words in self.conditions.items()}
        return ScoreTable(*columns, conditions=conditions, partition=self.partition)


def read_scores(
    path: str | Path, *, protocol: str | Path | None = None, partition: str = "eval"
) -> ScoreTable:
    """Read a score file, joined with its protocol: the one given, or a `protocol.tsv` beside it.

    With a protocol, every trial of its `partition` must be scored exactly once and nothing else; labels and
    conditions come from the protocol and must not contradict the score file. Raises ValueError (file, line,
    fact, way out) on anything that is not a score file.
    """
    path = Path(path)
    header, lines, rows = _read_tsv(path, required=("trial", "score"))
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    first_line: dict[str, int] = {}
    for line, trial in zip(lines, columns["trial"], strict=True):
        if not trial:
            raise ValueError(f"{path}, line {line}: the trial name is empty; every line names its trial")
        if trial in first_line:
            raise ValueError(
                f"{path}, line {line}: trial {quoted(trial)} was already scored in line {first_line[trial]}; "
                "every trial is scored exactly once, so score into a new file"
            )
        first_line[trial] = line
    labels = columns.get("label", [""] * len(rows))
    for line, label in zip(lines, labels, strict=True):
        _check_label(f"{path}, line {line}", label)
    table = ScoreTable(
        trial=np.array(columns["trial"], dtype=np.str_),
        score=_numbers(path, lines, "score", columns["score"], may_be_empty=False),
        llr=_numbers(path, lines, "llr", columns.get("llr", [""] * len(rows)), may_be_empty=True),
        label=np.array(labels, dtype=np.str_),
        flag=np.array(columns.get("flag", [""] * len(rows)), dtype=np.str_),
        conditions={
            name: [word or UNKNOWN_CONDITION for word in words]
            for name, words in columns.items()
            if name not in COLUMNS
        },
    )
    if protocol is None and (path.parent / "protocol.tsv").is_file():
        protocol = path.parent / "protocol.tsv"
    return table if protocol is None else _join(path, table, lines, Path(protocol), partition)


def _read_tsv(path: Path, required: tuple[str, ...]) -> tuple[list[str], list[int], list[list[str]]]:
    """Header, line numbers (from 1) and rows of a tab-separated file; blank lines are passed over."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not UTF-8 text (byte {error.start}); expected a tab-separated file"
        ) from None
    if "\0" in text:
        raise ValueError(f"{path}: holds NUL bytes; expected tab-separated UTF-8 text, so write it anew")
    # split by hand: splitlines() would also break at characters that may stand inside a word
    split = [(i, line.removesuffix("\r").split("\t")) for i, line in enumerate(text.split("\n"), start=1)]
    split = [(i, words) for i, words in split if words != [""]]
    header = [word.strip() for word in split[0][1]] if split else []
    for name in required:
        if name not in header:
            close = difflib.get_close_matches(name, [word for word in header if len(word) < 40], n=1)
            found = (
                f"found {', '.join(repr(word[:20]) for word in header[:8])}"
                if header
                else "the file is empty"
            )
            hint = f"; rename {close[0]!r}" if close else ""
            raise ValueError(
                f"{path}, line 1: no column {name!r} ({found}); expected a tab-separated header with "
                f"{' and '.join(required)}{hint}"
            )
    if len(set(header)) < len(header) or "" in header:
        raise ValueError(f"{path}, line 1: a column is named twice or not at all; name each column once")
    if len(split) == 1:
        raise ValueError(f"{path}: a header and no trials; score some recordings into it first")
    for line, words in split[1:]:
        if len(words) != len(header):
            raise ValueError(
                f"{path}, line {line}: {len(words)} columns; expected {len(header)} as in the header, "
                "separated by single tabs"
            )
        if max(map(len, words)) > MAX_WORD:
            raise ValueError(f"{path}, line {line}: a word of over {MAX_WORD} characters; shorten it")
    return header, [i for i, _ in split[1:]], [[w.strip() for w in words] for _, words in split[1:]]


def _numbers(path: Path, lines: list[int], name: str, words: list[str], may_be_empty: bool) -> np.ndarray:
    values = np.full(len(words), np.nan)
    for i, word in enumerate(words):
        if may_be_empty and not word:
            continue
        # float() also takes "1_000" and digits of other scripts: no score writer means those
        if word.isascii() and "_" not in word:
            with suppress(ValueError):
                values[i] = float(word)
        if not np.isfinite(values[i]):
            fact = f"the {name} is {quoted(word)}" if word else f"the {name} is missing"
            raise ValueError(
                f"{path}, line {lines[i]}: {fact}; expected a finite number, so score this trial again "
                "(an abstained trial keeps its score and says why in the column 'flag')"
            )
    return values


def _check_label(where: str, label: str) -> None:
    if label and label not in LABELS:
        hint = {"bonafide": "genuine", "bona-fide": "genuine", "spoof": "replay"}.get(label.lower())
        way_out = f"write {hint!r}" if hint else "leave it empty where the class is not known"
        raise ValueError(
            f"{where}: unknown label {quoted(label)}; expected 'genuine' or 'replay', so {way_out}"
        )


def _join(path: Path, table: ScoreTable, lines: list[int], protocol: Path, partition: str) -> ScoreTable:
    """`table` with labels and conditions of the protocol, checked to hold its partition exactly."""
    header, protocol_lines, rows = _read_tsv(protocol, required=("trial",))
    listed: dict[str, dict[str, str]] = {}
    for line, row in zip(protocol_lines, rows, strict=True):
        entry = dict(zip(header, row, strict=True))
        if entry["trial"] in listed:
            raise ValueError(
                f"{protocol}, line {line}: trial {quoted(entry['trial'])} is listed twice; list it once"
            )
        _check_label(f"{protocol}, line {line}", entry.get("label", ""))
        listed[entry["trial"]] = entry
    wanted = {trial for trial, entry in listed.items() if entry.get("partition", partition) == partition}
    if not wanted:
        known = sorted({quoted(entry["partition"][:20])[1:-1] for entry in listed.values()})[:6]
        raise ValueError(f"{protocol}: no trial in partition {quoted(partition)}; it has {', '.join(known)}")
    for line, trial in zip(lines, table.trial.tolist(), strict=True):
        if trial not in wanted:
            fact = (
                f"belongs to partition {quoted(listed[trial]['partition'])}"
                if trial in listed
                else "is not listed"
            )
            raise ValueError(
                f"{path}, line {line}: trial {quoted(trial)} {fact} in {protocol}; expected the trials of "
                f"partition {partition!r}, so give the protocol and partition these scores were made from"
            )
    if missing := wanted.difference(table.trial.tolist()):
        raise ValueError(
            f"{path}: {len(missing)} of the {len(wanted)} trials of partition {partition!r} in {protocol} "
            f"have no score (the first: {quoted(min(missing))}); every trial is scored once, so resume the scoring"
        )
    names = [name for name in header if name not in ("trial", "partition", "label")]
    columns = {name: [listed[trial].get(name, "") for trial in table.trial] for name in ("label", *names)}
    label = _agree(path, lines, "label", table.label, columns["label"], empty="", protocol=protocol)
    conditions = dict(table.conditions)
    for name in names:
        own = conditions.get(name, np.full(len(table), UNKNOWN_CONDITION))
        conditions[name] = _agree(path, lines, name, own, columns[name], UNKNOWN_CONDITION, protocol)
    return ScoreTable(table.trial, table.score, table.llr, label, table.flag, conditions, partition)


def _agree(path, lines, name: str, own, theirs: list[str], empty: str, protocol: Path) -> np.ndarray:
    """The words of the protocol where it has one, else the score file's; a contradiction is an error."""
    merged = []
    for line, mine, other in zip(lines, own.tolist(), theirs, strict=True):
        if mine != empty and other not in ("", empty, mine):
            raise ValueError(
                f"{path}, line {line}: {quoted(name)[1:-1]} is {quoted(mine)}, and {quoted(other)} in "
                f"{protocol}; they must agree, so "
                "give the protocol these scores were made from"
            )
        merged.append(mine if other in ("", empty) else other)
    return np.array(merged, dtype=np.str_)


def write_scores(path: str | Path, table: ScoreTable) -> None:
    """Write `scores.tsv` whole (temporary name, then renamed); what is read back is equal bit for bit."""
    header = [*COLUMNS, *table.conditions]
    columns = [
        table.trial.tolist(),
        [repr(score) for score in table.score.tolist()],
        ["" if np.isnan(llr) else repr(llr) for llr in table.llr.tolist()],
        table.label.tolist(),
        table.flag.tolist(),
        *(words.tolist() for words in table.conditions.values()),
    ]
    rows = [header, *map(list, zip(*columns, strict=True))]
    for row in rows:
        if bad := [word for word in row if set(word) & set("\t\n\r\0") or word != word.strip()]:
            raise ValueError(
                f"{path}: {bad[0]!r} starts or ends with a space or holds a tab or a line break, which a score "
                "file cannot keep; rename it"
            )
    write_text(path, "".join("\t".join(row) + "\n" for row in rows))


def asvspoof_format(table: ScoreTable) -> tuple[str, str]:
    """The texts of the ASVspoof 5 score file and key file (`filename cm-score`, `filename cm-label`).

    Their tools need a label for every trial and know no abstaining: every score is written.
    """
    if (table.label == "").any():
        raise ValueError(
            "some trials have no label; the ASVspoof tools need one for each, so give the protocol"
        )
    words = {"genuine": "bonafide", "replay": "spoof"}
    scores = (f"{trial}\t{score!r}\n" for trial, score in zip(table.trial, table.score.tolist(), strict=True))
    keys = (
        f"{trial}\t{words[label]}\n" for trial, label in zip(table.trial, table.label.tolist(), strict=True)
    )
    return "filename\tcm-score\n" + "".join(scores), "filename\tcm-label\n" + "".join(keys)
