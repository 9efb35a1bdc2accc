"""The counts of a corpus by type, array, environment, device and speaker, and what stands out in them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from remasc.corpus import Corpus
from remasc.schema import Label, Recording, SourceRecorder, SpeechType, name_of

SHORT_S = 1.0
WIDTH = 108


@dataclass(frozen=True)
class SubsetSummary:
    """One subset ("core", "eval", or "all" where meta.csv lies in the root); counts are rows of meta.csv.

    The tables by array and by environment are word -> {"genuine": count, "replay": count}.
    """

    subset: str
    rows: int
    by_type: dict[str, int]  # source, genuine, replay
    by_array: dict[str, dict[str, int]]
    by_environment: dict[str, dict[str, int]]
    replays_by_recorder: dict[str, int]
    replays_by_device: dict[str, int]
    speakers: tuple[int, ...]  # of the trials; 0 = text to speech
    short_trials: int  # shorter than SHORT_S
    longest_trial_s: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class CorpusSummary:
    name: str
    root: str
    simulated: bool
    subsets: tuple[SubsetSummary, ...]
    shared_speakers: tuple[int, ...]  # in more than one subset; text to speech is nobody's voice
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def summarize(corpus: Corpus) -> CorpusSummary:
    """Count a corpus. No sound file is opened."""
    rows_of: dict[str, list[Recording]] = {}
    for r in corpus:
        rows_of.setdefault(r.subset or "all", []).append(r)
    subsets = tuple(_summarize_subset(name, rows) for name, rows in rows_of.items())
    seen = Counter(speaker for subset in subsets for speaker in subset.speakers if speaker)
    shared = tuple(sorted(speaker for speaker, times in seen.items() if times > 1))
    notes = tuple(_notes_across(subsets, shared))
    return CorpusSummary(corpus.name, str(corpus.root), corpus.simulated, subsets, shared, notes)


def render_summary(summary: CorpusSummary) -> str:
    """The summary as text tables, `WIDTH` columns wide."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, highlight=False)
    rows = sum(subset.rows for subset in summary.subsets)
    kind = "simulated corpus" if summary.simulated else "corpus"
    console.print(f"{summary.name}: {kind} of {rows:,} recordings in {summary.root}", soft_wrap=True)
    for table in _tables(summary.subsets):
        console.print(table)
    for note in (*summary.notes, *(f"{s.subset}: {note}" for s in summary.subsets for note in s.notes)):
        console.print(f"- {note}")
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    return "\n".join(lines).rstrip() + "\n"


def _summarize_subset(name: str, rows: list[Recording]) -> SubsetSummary:
    trials = [r for r in rows if r.is_trial]
    replays = [r for r in trials if r.label is Label.REPLAY]
    types = Counter(r.speech_type for r in rows)
    return SubsetSummary(
        subset=name,
        rows=len(rows),
        by_type={name_of(kind): types[kind] for kind in SpeechType},
        by_array=_by_class(trials, lambda r: r.array or "-"),
        by_environment=_by_class(trials, lambda r: r.environment),
        replays_by_recorder=_count(replays, lambda r: r.source_recorder),
        replays_by_device=_count(replays, lambda r: r.playback_device),
        speakers=tuple(sorted({r.speaker for r in trials})),
        short_trials=sum(r.seconds < SHORT_S for r in trials),
        longest_trial_s=max((r.seconds for r in trials), default=0.0),
        notes=tuple(_notes_within(trials)),
    )


def _word(code: Any) -> str:
    return code if isinstance(code, str) else name_of(code)


def _count(rows: Sequence[Recording], key: Callable[[Recording], Any]) -> dict[str, int]:
    """In the order of the codes; not applicable (None) last."""
    counts = Counter(key(r) for r in rows)
    return {_word(code): counts[code] for code in sorted(counts, key=lambda code: (code is None, code or 0))}


def _by_class(trials: Sequence[Recording], key: Callable[[Recording], Any]) -> dict[str, dict[str, int]]:
    counts = {
        name_of(label): _count([r for r in trials if r.label is label], key)
        for label in (Label.GENUINE, Label.REPLAY)
    }
    return {word: {label: counts[label].get(word, 0) for label in counts} for word in _count(trials, key)}


def _notes_within(trials: Sequence[Recording]) -> Iterator[str]:
    """Conditions that hold one class only, and facts of the rows that give the class away."""
    cells = Counter((r.array, r.environment, r.label) for r in trials)
    for array, environment in sorted({(a or "-", e) for a, e, _ in cells}):
        genuine, replays = cells[array, environment, Label.GENUINE], cells[array, environment, Label.REPLAY]
        if not genuine or not replays:
            lacking, count, other = (
                ("genuine", replays, "replays") if replays else ("replay", genuine, "genuine")
            )
            yield f"{array} has no {lacking} trial in {name_of(environment)} ({count:,} {other})"
    for environment in sorted({r.environment for r in trials}):
        here = [r for r in trials if r.environment is environment]
        genuine, replay = (
            {r.position for r in here if r.label is label} for label in (Label.GENUINE, Label.REPLAY)
        )
        if genuine and replay and not genuine & replay:
            yield (
                f"{name_of(environment)}: genuine trials have the positions {_span(genuine)}, replays "
                f"{_span(replay)}: that column alone tells the class there, so it must not be an input"
            )
    if odd := sum(r.label is Label.GENUINE and r.source_recorder is not None for r in trials):
        yield f"{odd:,} genuine rows carry a source recorder, as published"


def _notes_across(subsets: Sequence[SubsetSummary], shared: Sequence[int]) -> Iterator[str]:
    if len(subsets) > 1:
        names = " and ".join(subset.subset for subset in subsets)
        yield (
            f"speakers {', '.join(map(str, shared))} are in both {names}: results will not hold for new ones"
            if shared
            else f"the speakers of {names} are disjoint"
        )
    speech = name_of(SourceRecorder.TTS)
    tts = {subset.subset: subset.replays_by_recorder.get(speech, 0) for subset in subsets}
    for subset in subsets:
        if count := tts[subset.subset]:
            without = [name for name, other in tts.items() if not other]
            ending = f"; {' and '.join(without)} holds none" if without else ""
            yield (
                f"{count:,} of the {subset.by_type['replay']:,} {subset.subset} replays are text to "
                f"speech{ending}"
            )


def _span(codes: set[int]) -> str:
    words = [str(code) for code in sorted(codes)]
    return ", ".join(words) if len(words) <= 4 else f"{words[0]} to {words[-1]}"


def _tables(subsets: Sequence[SubsetSummary]) -> Iterator[Any]:
    from rich import box
    from rich.table import Table

    def table(title: str, *columns: str) -> Table:
        made = Table(
            title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False
        )
        made.add_column(columns[0])
        for column in columns[1:]:
            made.add_column(column, justify="right")
        return made

    rows = table("Rows", "subset", "rows", *subsets[0].by_type, "speakers", "< 1 s", "longest")
    for s in subsets:
        counts = (s.rows, *s.by_type.values(), len(s.speakers), s.short_trials)
        rows.add_row(s.subset, *(f"{count:,}" for count in counts), f"{s.longest_trial_s:.4f} s")
    yield rows
    for title, of in (
        ("Genuine / replayed by array", "by_array"),
        ("Genuine / replayed by environment", "by_environment"),
    ):
        pairs = table(title, "", *(s.subset for s in subsets))
        for word in _words(getattr(s, of) for s in subsets):
            cells = (getattr(s, of).get(word, {"genuine": 0, "replay": 0}) for s in subsets)
            pairs.add_row(word, *(f"{cell['genuine']:,} / {cell['replay']:,}" for cell in cells))
        yield pairs
    for title, of in (
        ("Replays by source recorder", "replays_by_recorder"),
        ("Replays by playback device", "replays_by_device"),
    ):
        counts = table(title, "", *(s.subset for s in subsets))
        for word in _words(getattr(s, of) for s in subsets):
            counts.add_row(word, *(f"{getattr(s, of).get(word, 0):,}" for s in subsets))
        yield counts


def _words(tables: Any) -> list[str]:
    """Every row's word once, in the order of first sight."""
    return list(dict.fromkeys(word for table in tables for word in table))
