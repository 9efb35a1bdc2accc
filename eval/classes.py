"""Figures of a classifier's predictions.csv: accuracy with its interval, the confusion matrix, each class apart.

Where speakers are known the interval is a bootstrap over speakers: clips of one voice are no independent draws.
Shapes: n clips, K classes; confusion[true, predicted].
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from remasc.sentences import quoted

PREFIX = "p:"
DRAWS = 1000
Z = 1.959964


def read_predictions(path: str | Path) -> tuple[list[dict[str, str]], list[str]]:
    """The rows of a predictions.csv and its class names."""
    path = Path(path)
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or []
        classes = [name.removeprefix(PREFIX) for name in header if name.startswith(PREFIX)]
        if not {"file", "label", "predicted"} <= set(header) or len(classes) < 2:
            raise ValueError(
                f"{path}: columns {quoted(header)}; expected predictions of `replayguard classify`"
            )
        return list(reader), classes


def figures_of(rows: Sequence[dict[str, str]], classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro F1, confusion and per-class figures of the rows that have a label; ValueError where none has.

    Each rate is {"value", "low", "high"}, fractions; a class without clips has recall None.
    """
    number = {name: index for index, name in enumerate(classes)}
    rows = [row for row in rows if row["label"]]
    if not rows:
        raise ValueError("no clip has a label; there is nothing to compare the predictions with")
    if strange := [row["label"] for row in rows if row["label"] not in number]:
        raise ValueError(f"label {quoted(strange[0])} is no class of this classifier ({', '.join(classes)})")
    true = np.array([number[row["label"]] for row in rows])
    predicted = np.array([number[row["predicted"]] for row in rows])
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(confusion, (true, predicted), 1)
    speakers = [row.get("speaker", "") for row in rows]
    per_class = [_of_class(confusion, index, name) for index, name in enumerate(classes)]
    f1 = [entry["f1"] for entry in per_class if entry["clips"]]
    return {
        "clips": len(rows),
        "speakers": len(set(speakers) - {""}),
        "accuracy": _accuracy(true == predicted, speakers),
        "macro_f1": float(np.mean(f1)),
        "chance": float(np.bincount(true).max() / len(true)),
        "classes": list(classes),
        "confusion": confusion.tolist(),
        "per_class": per_class,
    }


def _accuracy(right: np.ndarray, speakers: Sequence[str]) -> dict[str, Any]:
    if all(speakers) and len(set(speakers)) > 1:
        low, high = speaker_interval(right, speakers)
        return {"value": float(right.mean()), "low": low, "high": high, "interval": "bootstrap over speakers"}
    low, high = wilson(int(right.sum()), len(right))
    return {"value": float(right.mean()), "low": low, "high": high, "interval": "Wilson"}


def speaker_interval(
    right: np.ndarray, speakers: Sequence[str], draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the share of `right` (n,), drawing whole speakers.

    Of several runs (R, n) it is that of their mean; then the runs are drawn, too, each with all its clips.
    """
    _, home = np.unique(np.asarray(speakers), return_inverse=True)
    clips, runs = np.bincount(home), np.atleast_2d(np.asarray(right, dtype=float))
    hits = np.stack([np.bincount(home, weights=run) for run in runs])  # (R, speakers)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(clips), size=(draws, len(clips)))
    if len(runs) == 1:
        found = hits[0][drawn]
    else:
        again = rng.integers(len(runs), size=(draws, len(runs)))
        found = np.take_along_axis(hits[again].mean(axis=1), drawn, axis=1)
    shares = found.sum(axis=1) / clips[drawn].sum(axis=1)
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share of independent draws; (0, 1) of none.

    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.49, 0.943]
    """
    if count == 0:
        return 0.0, 1.0
    share = hits / count
    middle = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def _of_class(confusion: np.ndarray, index: int, name: str) -> dict[str, Any]:
    hits, clips, given = confusion[index, index], confusion[index].sum(), confusion[:, index].sum()
    low, high = wilson(int(hits), int(clips))
    other = confusion[index].copy()
    other[index] = 0
    worst = int(other.argmax()) if other.any() else None
    return {
        "name": name,
        "clips": int(clips),
        "recall": float(hits / clips) if clips else None,
        "recall_low": low,
        "recall_high": high,
        "precision": float(hits / given) if given else None,
        "f1": float(2 * hits / (clips + given)) if clips + given else 0.0,
        "taken_for": None if worst is None else worst,
    }
