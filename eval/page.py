"""The report as one HTML page that needs nothing else: styles, pictures and sounds are inside.

Everything that comes from a file or a caller is escaped; a content policy in the page forbids any request.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from eval import words
from eval.words import Row

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
LONG_TABLE = 20  # conditions; a longer breakdown is folded
SCALE = 0.5  # right end of the interval bars: an EER of 50 % is guessing


@dataclass(frozen=True)
class Clip:
    """A recording to play in the report.

    `wav` is a whole WAV file that a browser plays (PCM, one or two channels); `label` "genuine", "replay" or
    ""; `flag` says why the detector abstained, if it did.
    """

    title: str
    wav: bytes
    label: str = ""
    score: float | None = None
    llr: float | None = None
    note: str = ""
    flag: str = ""


@dataclass(frozen=True)
class Picture:
    """One plot, drawn for a light and for a dark page (PNG bytes)."""

    light: bytes
    dark: bytes
    alt: str


def page(figures: dict, *, det: Picture, histogram: Picture, clips: list[Clip], prior: float) -> str:
    """The whole document. `figures` is what metrics.json holds; `prior` turns likelihood ratios of clips into
    probabilities."""
    title = f"{figures['name']} · replayguard report" if figures["name"] else "replayguard report"
    tag = words.tag(figures)
    body = [
        _head(figures),
        _facts(figures),
        f"<h2>Curves{tag}</h2>",
        '<div class="plots">',
        _picture(det, "Every threshold at once: a curve nearer the lower left corner is better."),
        _picture(histogram, "What the detector gave to each class; the dashed line decides."),
        "</div>",
        f"<h2>All trials{tag}</h2>",
        f'<div class="card">{_rows_table(words.metric_rows(figures), "figure")}</div>',
        f"<h2>At the threshold{tag}</h2>",
        f"<p>{escape(words.threshold_words(figures))}</p>",
        f'<div class="card">{_rows_table(words.operating_rows(figures), "rate")}</div>',
        _breakdowns(figures, tag),
        _clips(clips, figures, prior) if clips else "",
        _made(figures),
    ]
    return document(title, [part for part in body if part])


def document(title: str, body: list[str]) -> str:
    """A whole page of these parts, which are HTML already, with the styles inside and no way out."""
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def _head(figures: dict) -> str:
    subject = words.subject(figures)
    parts = [
        f"<h1>{escape(figures['name'] or 'Replay detection report')}</h1>",
        f'<p class="soft">{escape(subject)}. {escape(words.READING)}</p>',
    ]
    text = escape(words.simulated_words(figures["simulated"]))
    if figures["simulated"]:
        text = text.replace("SIMULATED", '<span class="badge">SIMULATED</span>', 1)
    style = "soft" if figures["simulated"] is False else "warn"
    parts.append(f'<p class="{style}">{text}</p>')
    if figures["operating_point"]["optimistic"]:
        parts.append(f'<p class="warn">No threshold was given. {escape(words.threshold_words(figures))}</p>')
    return "\n".join(parts)


def _facts(figures: dict) -> str:
    eer, point, trials = figures["metrics"]["eer"], figures["operating_point"], figures["trials"]
    facts = [
        ("Equal error rate", eer, words.trials_words(figures)),
        ("Genuine rejected", point["bpcer"], f"BPCER at the threshold, {trials['genuine']:,} trials"),
        ("Replays accepted", point["p_fa"], f"p_fa at the threshold, {trials['replay']:,} trials"),
    ]
    if "apcer_max" in point:
        device = words.device_word(point["apcer_max"]["device"])
        facts.append(("Worst playback device", point["apcer_max"], f"APCER of {device}"))
    cards = [
        f'<div class="card"><div class="name">{name}</div><div class="big">{words.rate(entry["value"])}</div>'
        f'<div class="range">{words.interval(entry["low"], entry["high"])}</div>'
        f'<div class="soft">{escape(note)}</div></div>'
        for name, entry, note in facts
    ]
    notes = f"{words.coverage_words(figures)} {words.interval_words(figures)}"
    return f'<div class="facts">{"".join(cards)}</div>\n<p class="soft">{escape(notes)}</p>'


def _picture(picture: Picture, caption: str) -> str:
    return (
        '<figure class="card"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{_data("image/png", picture.dark)}">'
        f'<img alt="{escape(picture.alt)}" src="{_data("image/png", picture.light)}"></picture>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _rows_table(rows: list[Row], first: str) -> str:
    lines = [
        f'<tr><td>{escape(row.name)}<span class="meaning">{escape(row.meaning)}</span></td>'
        f"{_value(escape(row.value), escape(row.interval))}</tr>"
        for row in rows
    ]
    return f"<table><tr><th>{first}</th><th>value, 95 % interval</th></tr>{''.join(lines)}</table>"


def _value(value: str, interval: str) -> str:
    return f'<td class="value">{value} <span class="range">{interval}</span></td>'


def _breakdowns(figures: dict, tag: str) -> str:
    if not figures["breakdowns"]:
        return ""
    tables = [_breakdown(name, cells, tag) for name, cells in figures["breakdowns"].items()]
    scale = "The bars run from 0 to 50 % (guessing): a tick for the EER, a line for its interval."
    return f"<h2>By condition</h2>\n<p>{escape(words.POOLING)} {scale}</p>\n" + "\n".join(tables)


def _breakdown(name: str, cells: list[dict], tag: str) -> str:
    table = f'<div class="card">{_cells_table(cells)}</div>'
    heading = f"By {escape(name)}{tag}"
    if len(cells) <= LONG_TABLE:
        return f"<h3>{heading}</h3>{table}"
    return f"<details><summary>{heading}: {len(cells)} conditions</summary>{table}</details>"


def _cells_table(cells: list[dict]) -> str:
    lines = []
    for cell in cells:
        counts = f'<td class="count">{cell["genuine"]:,}</td><td class="count">{cell["replay"]:,}</td>'
        note = escape(words.cell_note(cell))
        if cell["eer"] is None:
            figure = f'<td colspan="2" class="none">{note}</td>'
        else:
            value = _value(words.rate(cell["eer"]), words.interval(cell["low"], cell["high"]))
            figure = f'{value}<td class="strip" title="{note}">{_bar(cell)}</td>'
        lines.append(f"<tr><td>{escape(cell['name'])}</td>{counts}{figure}</tr>")
    head = "<th></th><th>genuine</th><th>replay</th><th>EER, 95 % interval</th><th></th>"
    return f'<table class="cells"><tr>{head}</tr>{"".join(lines)}</table>'


def _bar(cell: dict) -> str:
    low, value, high = (100 * min(cell[key] / SCALE, 1.0) for key in ("low", "eer", "high"))
    return (
        f'<span class="bar"><i style="left:{low:.1f}%;width:{max(high - low, 0.5):.1f}%"></i>'
        f'<b style="left:{value:.1f}%"></b></span>'
    )


def _clips(clips: list[Clip], figures: dict, prior: float) -> str:
    cards = [clip_card(clip, figures["operating_point"]["threshold"], prior) for clip in clips]
    origin = f"Probability of a living person at a prior of {prior:g}." if _any_llr(clips) else ""
    heading = f"<h2>Listen{words.tag(figures)}</h2><p>{escape(words.threshold_words(figures))} {origin}</p>"
    return f'{heading}<div class="clips">{"".join(cards)}</div>'


def _any_llr(clips: list[Clip]) -> bool:
    return any(clip.llr is not None for clip in clips)


def clip_card(clip: Clip, threshold: float, prior: float) -> str:
    """A recording to play, with its truth, its score and the decision at the threshold."""
    facts = []
    if clip.score is not None:
        facts.append(("score", f"{clip.score:.3g}"))
    if clip.llr is not None:
        from detector.calibration import probability

        facts.append(("probability", words.rate(probability(clip.llr, prior))))
    decision = "undecided"
    if clip.score is not None and not clip.flag:
        decision = "genuine" if clip.score >= threshold else "replay"
    right = f" {'✓' if decision == clip.label else '✗'}" if clip.label and decision != "undecided" else ""
    reason = f" ({escape(clip.flag)})" if clip.flag else ""
    label = _chip(clip.label, clip.label) if clip.label else '<span class="soft">unknown</span>'
    rows = [("truth", label), ("decision", _chip(decision, decision + right) + reason)]
    rows += [(name, escape(value)) for name, value in facts]
    return sound_card(clip.title, clip.wav, rows, clip.note)


def sound_card(title: str, wav: bytes, rows: Iterable[tuple[str, str]], note: str = "") -> str:
    """A sound to play, with what is told of it: names and values, both HTML."""
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
    said = f'<p class="soft">{escape(note)}</p>' if note else ""
    audio = f'<audio controls preload="none" src="{_data("audio/wav", wav)}"></audio>'
    return f'<div class="card clip"><h3>{escape(title)}</h3>{audio}<dl>{listed}</dl>{said}</div>'


def _chip(kind: str, text: str) -> str:
    kind = kind if kind in ("genuine", "replay", "undecided") else "undecided"
    return f'<span class="chip {kind}">{escape(text)}</span>'


def _made(figures: dict) -> str:
    facts = [
        (f"{what} file", f"{entry['name']}, sha256 {entry['sha256']}")
        for what, entry in figures["files"].items()
    ]
    for key, value in figures["run"].items():
        facts.append((key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    listed = "".join(f"<dt>{escape(str(name))}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    return f'<h2>How this was made</h2><div class="card"><dl>{listed}</dl></div>'
