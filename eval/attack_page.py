"""The robustness of a detector as one HTML page: the table, and attacked recordings to listen to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from eval.page import Clip, clip_card, document
from remasc.atomic import write_text
from remasc.audio import write_wav
from streaming.attack.table import HEAD, cells, facts

PURPOSE = (
    "This measures one's own detector, on recordings at hand. Nothing here is aimed at anybody else's product or "
    "service."
)


def attack_clip(
    folder: Path, title: str, waveform: np.ndarray, rate: int, score: float | None, note: str, label: str
) -> Clip:
    """Channel 1 of a recording (M, T), kept as a sound file in `folder`, ready for the page."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() or c in "-." else "_" for c in title)
    path = folder / f"{name}.wav"
    write_wav(path, waveform[:1], rate)
    return Clip(title=title, wav=path.read_bytes(), label=label, score=score, note=note)


def write_page(path: Path, record: Mapping[str, Any], clips: Sequence[Clip]) -> Path:
    """The page of a measurement's record (`streaming.attack.run`)."""
    title = f"Robustness of {record['victim']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(PURPOSE)}</p>',
        *(f"<p>{escape(fact)}</p>" for fact in facts(record)),
        "<h2>Attacks</h2>",
        f'<div class="card">{_table(record)}</div>',
    ]
    if clips:
        limit = float("-inf") if record.get("threshold") is None else record["threshold"]
        cards = "".join(clip_card(clip, limit, 0.5) for clip in clips)
        body += [
            "<h2>Listen</h2>",
            "<p>Channel 1 as the array heard it: the command alone, then with each attack on top.</p>",
            f'<div class="clips">{cards}</div>',
        ]
    write_text(path, document(title, body))
    return path


def _table(record: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{escape(word)}</th>" for word in HEAD)
    lines = []
    for line in record["lines"]:
        first, *rest = cells(line)
        row = "".join(f'<td class="value">{_value(word)}</td>' for word in rest)
        lines.append(f"<tr><td>{escape(first)}</td>{row}</tr>")
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _value(word: str) -> str:
    """A value, its interval below it in small print."""
    value, _, interval = word.partition(" (")
    small = f'<span class="meaning">{escape(interval.rstrip(")"))}</span>' if interval else ""
    return escape(value) + small
