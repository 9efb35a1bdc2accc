"""What a classifier says of sound files, and the table of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from remasc.atomic import write_text
from remasc.sentences import quoted

FIXED = ("file", "split", "speaker", "label", "predicted", "probability")
PREFIX = "p:"  # of the columns with each class's probability


@dataclass(frozen=True)
class Prediction:
    """Probabilities (K,) of one file; `label` is its true class where that is known. A file that could not be read
    has the sentence why as its `fault`, and NaN."""

    file: str
    probabilities: np.ndarray
    label: str = ""
    split: str = ""
    speaker: str = ""
    fault: str = ""


def write_predictions(path: Path, rows: Sequence[Prediction], classes: Sequence[str]) -> None:
    """predictions.csv: file, split, speaker, label, predicted, probability, and `p:CLASS` for each class.

    A file that could not be read has no row.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*FIXED, *(PREFIX + name for name in classes)))
    for row in rows:
        if row.fault:
            continue
        best = int(np.argmax(row.probabilities))
        numbers = [f"{p:.6g}" for p in row.probabilities]
        facts = (row.file, row.split, row.speaker, row.label, classes[best], numbers[best])
        writer.writerow((*facts, *numbers))
    write_text(path, out.getvalue())


def predict_files(
    folder: str | Path | Sequence[str | Path],
    paths: Sequence[str | Path],
    *,
    base: str | Path | None = None,
    batch_size: int = 32,
    device: str = "auto",
    progress: bool = False,
) -> tuple[list[Prediction], tuple[str, ...]]:
    """(predictions in the order of the files, class names) of one classifier, or of the mean of several.

    A file is heard from its beginning, as many frames as the classifier takes. One that cannot be read stops no
    other: its prediction has a `fault`.
    """
    from detector.classify.config import DEVICES, check_word
    from detector.classify.fitting import all_logits
    from detector.classify.progress import Progress
    from detector.classify.sound import Readable
    from detector.classify.store import load_classifier
    from detector.team import pick_device

    folders = [folder] if isinstance(folder, str | Path) else list(folder)
    if not folders or not paths:
        raise ValueError("nothing to classify; give a classifier's folder and at least one sound file")
    if type(batch_size) is not int or batch_size < 1:
        raise ValueError(f"batch size is {quoted(batch_size)}; expected a whole number from 1")
    check_word("device", device, DEVICES)
    where, waveforms = pick_device(device), Readable([Path(path) for path in paths])
    total, classes = 0.0, ()
    with Progress(progress, "classifying") as bar:
        bar.start(len(paths) * len(folders))
        for number, place in enumerate(folders):
            network = load_classifier(place, base=base).network.to(where)
            if classes and network.architecture.classes != classes:
                raise ValueError(
                    f"{place}: knows other classes than {folders[0]}; only the same can be averaged"
                )
            classes = network.architecture.classes
            seen = number * len(paths)
            tell = lambda done, seen=seen: bar.step(seen + done)  # noqa: E731
            logits = all_logits(network, waveforms, batch_size, where, tell=tell)
            total = total + network.probabilities(logits).double().numpy()
    found = total / len(folders)
    found[list(waveforms.faults)] = np.nan
    rows = [
        Prediction(str(path), row, fault=waveforms.faults.get(number, ""))
        for number, (path, row) in enumerate(zip(paths, found, strict=True))
    ]
    return rows, classes
