"""The report on a classifier: one HTML page with its accuracy, confusion matrix, classes and training curve."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from eval import words
from eval.classes import figures_of, read_predictions
from eval.page import Picture, _picture, document
from eval.plots import _dress, _figure, _legend, _png
from remasc.atomic import whole_file, write_text

PAGE, FIGURES, CONFUSION = "report.html", "metrics.json", "confusion.png"
SPLIT_WORDS = {
    "given": "Splits were given with the clips.",
    "speaker": "Splits were drawn 60 : 20 : 20; no speaker is in two of them.",
    "file": "Splits were drawn 60 : 20 : 20 clip by clip: without speakers, one voice may be in several.",
}


def write_report(folder: str | Path, *, title: str = "", split: str | None = None) -> Path:
    """report.html, metrics.json and confusion.png beside a predictions.csv; the page's path.

    `split` is the one that is reported (default: eval, else dev, else all that has a label); what run.json and
    log.jsonl beside it say comes along.
    """
    folder = Path(folder)
    rows, classes = read_predictions(folder / "predictions.csv")
    there = [name for name in ("eval", "dev") if any(row["split"] == name for row in rows)]
    split = split or (there[0] if there else "")
    figures = figures_of([row for row in rows if row["split"] == split], classes) | {"split": split}
    run = json.loads((folder / "run.json").read_text("utf-8")) if (folder / "run.json").exists() else {}
    matrix = [confusion_png(figures, dark=dark) for dark in (False, True)]
    curves = [learning_png(run["curves"], dark=dark) for dark in (False, True)] if run.get("curves") else None
    write_text(folder / FIGURES, json.dumps(figures, indent=1) + "\n")
    with whole_file(folder / CONFUSION) as temporary:
        temporary.write_bytes(matrix[0])
    page = classes_page(figures, run, Picture(*matrix, "confusion matrix"), curves, title or folder.name)
    write_text(folder / PAGE, page)
    return folder / PAGE


def classes_page(
    figures: dict[str, Any], run: dict[str, Any], matrix: Picture, curves: list[bytes] | None, title: str
) -> str:
    """The whole document; needs nothing else."""
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(_subject(figures, run))}</p>',
        _facts(figures, run),
        "<h2>Confusion matrix</h2>",
        _picture(
            matrix,
            "Rows are the true classes; a number is the count of clips, the colour its share of the row.",
        ),
        "<h2>Each class</h2>",
        f'<div class="card">{_classes_table(figures)}</div>',
    ]
    if curves:
        picture = Picture(*curves, "loss and accuracy by epoch")
        body += ["<h2>Training</h2>", _picture(picture, "The dot marks the epoch that dev chose.")]
    if run:
        body.append(_made(run))
    return document(title, body)


def _subject(figures: dict[str, Any], run: dict[str, Any]) -> str:
    of = f"{figures['clips']:,} clips of {len(figures['classes'])} classes"
    of += f" by {figures['speakers']} speakers" if figures["speakers"] else ""
    text = f"{figures['split']}: {of}. " if figures["split"] else f"{of}. "
    text += SPLIT_WORDS.get(run.get("split_by", ""), "")
    if run.get("speakers_shared"):
        text += (
            f" {run['speakers_shared']} speakers are in more than one split: the figures flatter new voices."
        )
    return text


def _facts(figures: dict[str, Any], run: dict[str, Any]) -> str:
    accuracy = figures["accuracy"]
    chance = f"always the commonest class: {words.rate(figures['chance'])}"
    cards = [
        (
            "Accuracy",
            words.rate(accuracy["value"]),
            words.interval(accuracy["low"], accuracy["high"]),
            chance,
        ),
        ("Macro F1", words.rate(figures["macro_f1"]), "", "mean over the classes"),
    ]
    if run.get("trained_parameters"):
        whole = run["parameters"]
        note = "all are trained" if whole == run["trained_parameters"] else f"trained, of {whole:,}"
        cards.append(("Parameters", f"{run['trained_parameters']:,}", "", note))
    boxes = "".join(
        f'<div class="card"><div class="name">{name}</div><div class="big">{value}</div>'
        f'<div class="range">{span}</div><div class="soft">{escape(note)}</div></div>'
        for name, value, span, note in cards
    )
    note = f"Interval: 95 %, {accuracy['interval']}."
    return f'<div class="facts">{boxes}</div>\n<p class="soft">{escape(note)}</p>'


def _classes_table(figures: dict[str, Any]) -> str:
    lines = []
    for entry in figures["per_class"]:
        other = entry["taken_for"]
        taken = "" if other is None else figures["classes"][other]
        recall = "–" if entry["recall"] is None else words.rate(entry["recall"])
        span = words.interval(entry["recall_low"], entry["recall_high"]) if entry["clips"] else ""
        precision = "–" if entry["precision"] is None else words.rate(entry["precision"])
        lines.append(
            f"<tr><td>{escape(entry['name'])}</td><td>{entry['clips']:,}</td>"
            f'<td class="value">{recall} <span class="range">{span}</span></td><td>{precision}</td>'
            f"<td>{words.rate(entry['f1'])}</td><td>{escape(taken)}</td></tr>"
        )
    head = "<th>class</th><th>clips</th><th>recall, 95 %</th><th>precision</th><th>F1</th><th>most taken for</th>"
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _made(run: dict[str, Any]) -> str:
    skipped = ("curves", "checksums", "environment", "splits")
    facts = [(key, value) for key, value in run.items() if key not in skipped]
    listed = "".join(
        f"<dt>{escape(str(name).replace('_', ' '))}</dt><dd>{escape(_said(value))}</dd>"
        for name, value in facts
    )
    return f'<h2>How this was made</h2><div class="card"><dl>{listed}</dl></div>'


def _said(value: Any) -> str:
    """A value of run.json for a reader.

    >>> _said({"train": 921, "dev": 0.33333333})
    'train 921, dev 0.3333'
    """
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(part)}" for name, part in value.items())
    if isinstance(value, list):
        return "; ".join(map(_said, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def confusion_png(figures: dict[str, Any], *, dark: bool = False) -> bytes:
    """The confusion matrix, each row as shares of its class."""
    counts, classes = np.array(figures["confusion"]), figures["classes"]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(12.0, max(6.4, 2.4 + 0.42 * len(classes)))
    figure, axes, _ = _figure(size, size * 0.8, dark)
    axes.imshow(share, cmap="Blues" if not dark else "magma", vmin=0, vmax=1)
    if len(classes) <= 30:  # more than that nobody reads
        for (row, column), count in np.ndenumerate(counts):
            if count:
                bright = share[row, column] > 0.5
                ink = ("white" if bright else "black") if not dark else ("black" if bright else "white")
                axes.text(column, row, str(count), ha="center", va="center", color=ink, fontsize=8)
    if len(classes) <= 60:
        axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
        axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true")
    return _png(figure)


def learning_png(history: list[dict[str, Any]], *, dark: bool = False) -> bytes:
    """Loss and dev accuracy by epoch."""
    figure, axes, colour = _figure(8.6, 3.4, dark)
    figure.delaxes(axes)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    left.plot(epochs, [row["loss"] for row in history], color=colour["genuine"], label="train")
    dev = [row for row in history if "dev_accuracy" in row]
    if dev:
        left.plot(
            [r["epoch"] for r in dev], [r["dev_loss"] for r in dev], color=colour["replay"], label="dev"
        )
        right.plot([r["epoch"] for r in dev], [100 * r["dev_accuracy"] for r in dev], color=colour["replay"])
        chosen = [row for row in dev if row["best"]][-1]
        right.plot([chosen["epoch"]], [100 * chosen["dev_accuracy"]], "o", color=colour["replay"])
    for side, label in ((left, "loss"), (right, "dev accuracy (%)")):
        _dress(side, colour)
        side.set(xlabel="epoch", ylabel=label)
        side.grid(color=colour["grid"], linewidth=0.7)
    _legend(left, colour, "lower left")
    return _png(figure)
