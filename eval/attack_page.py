"""The robustness of a detector as one HTML page: the table, and attacked recordings to listen to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from eval.page import document, sound_card
from remasc.atomic import write_text
from remasc.audio import write_wav
from streaming.attack.campaign import Row
from streaming.attack.table import facts, shown

PURPOSE = (
    "This measures one's own detector, on recordings at hand. Nothing here is aimed at anybody else's product or "
    "service."
)


@dataclass(frozen=True)
class Example:
    """An attacked recording to listen to, and what came of it."""

    title: str
    wav: bytes
    row: Row


def attack_example(folder: Path, title: str, waveform: np.ndarray, rate: int, row: Row) -> Example:
    """Channel 1 of a recording (M, T), kept as a sound file in `folder`, ready for the page."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() or c in "-." else "_" for c in title)
    path = folder / f"{name}.wav"
    write_wav(path, waveform[:1], rate)
    return Example(title, path.read_bytes(), row)


def write_page(path: Path, record: Mapping[str, Any], examples: Sequence[Example]) -> Path:
    """The page of a measurement's record (`streaming.attack.run`)."""
    title = f"Robustness of {record['victim']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(PURPOSE)}</p>',
        *(f"<p>{escape(fact)}</p>" for fact in facts(record)),
        "<h2>Attacks</h2>",
        f'<div class="card">{_table(record)}</div>',
    ]
    if examples:
        body += [
            "<h2>Listen</h2>",
            "<p>Channel 1 as the array heard it: the command alone, then with each attack on top.</p>",
            f'<div class="clips">{"".join(map(_card, examples))}</div>',
        ]
    write_text(path, document(title, body))
    return path


def _card(example: Example) -> str:
    """A recording to play, what the victim said of it, and how sure of the truth it still was."""
    row = example.row
    said = {0.0: ("replay", "wrong"), 1.0: ("genuine", "right")}  # the chips' colours: red and green
    colour, word = said.get(row.right, ("undecided", f"right in {100 * row.right:.0f} % of its answers"))
    rows = [
        ("the victim was", f'<span class="chip {colour}">{word}</span>'),
        ("sure of the truth", f"{100 * row.p_true:.1f} % (alone {100 * row.p_before:.1f} %)"),
        ("pulses", str(len(row.starts))),
    ]
    return sound_card(example.title, example.wav, rows)


def _table(record: Mapping[str, Any]) -> str:
    head, rows = shown(record["lines"])
    lines = ["".join(f"<th>{escape(word)}</th>" for word in head)]
    for first, *rest in rows:
        values = "".join(f'<td class="value">{_value(word)}</td>' for word in rest)
        lines.append(f"<td>{escape(first)}</td>{values}")
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _value(word: str) -> str:
    """A value, its interval below it in small print."""
    value, _, interval = word.partition(" (")
    small = f'<span class="meaning">{escape(interval.rstrip(")"))}</span>' if interval else ""
    return escape(value) + small
