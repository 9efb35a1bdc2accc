"""The report on a classifier: counts add up, intervals hold their value, the page needs nothing else."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from eval.classes import figures_of, read_predictions, speaker_interval, wilson
from eval.classes_page import write_report

CLASSES = ["no", "up", "<yes>"]


def rows(count=60, seed=0, right=0.7, speakers=8):
    rng = np.random.default_rng(seed)
    found = []
    for n in range(count):
        label = CLASSES[rng.integers(3)]
        predicted = label if rng.random() < right else CLASSES[rng.integers(3)]
        found.append({"file": f"{n}.wav", "split": "eval", "speaker": f"s{rng.integers(speakers)}"})
        found[-1] |= {"label": label, "predicted": predicted, "probability": "0.5"}
    return found


def test_counts_add_up():
    table = rows()
    figures = figures_of(table, CLASSES)
    confusion = np.array(figures["confusion"])
    assert confusion.sum() == len(table)
    assert figures["accuracy"]["value"] == pytest.approx(np.trace(confusion) / len(table))
    assert [entry["clips"] for entry in figures["per_class"]] == confusion.sum(1).tolist()
    for index, entry in enumerate(figures["per_class"]):
        assert entry["recall"] == pytest.approx(confusion[index, index] / confusion[index].sum())
        assert entry["precision"] == pytest.approx(confusion[index, index] / confusion[:, index].sum())
    assert figures["accuracy"]["low"] <= figures["accuracy"]["value"] <= figures["accuracy"]["high"]


def test_clips_of_one_voice_are_no_independent_draws():
    right = np.repeat(np.arange(10) % 2 == 0, 20)  # each speaker wholly right or wrong
    low, high = speaker_interval(right, [f"s{n // 20}" for n in range(200)])
    narrow = wilson(100, 200)
    assert high - low > 2 * (narrow[1] - narrow[0])


def test_runs_are_drawn_beside_speakers():
    rng = np.random.default_rng(0)
    speakers = [f"s{n // 20}" for n in range(400)]
    once = rng.random(400) < 0.5
    alike = speaker_interval(np.stack([once] * 5), speakers)
    assert alike == pytest.approx(speaker_interval(once, speakers))  # runs that agree add nothing
    apart = np.stack([rng.random(400) < share for share in (0.2, 0.35, 0.5, 0.65, 0.8)])
    low, high = speaker_interval(apart, speakers)
    assert high - low > 2 * (alike[1] - alike[0])
    assert low < apart.mean() < high


def test_wilson_holds_its_share():
    for count in (1, 7, 100):
        for hits in (0, count // 2, count):
            low, high = wilson(hits, count)
            assert 0 <= low <= hits / count <= high <= 1


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match="no class of this classifier"):
        figures_of([{"label": "maybe", "predicted": "no"}], CLASSES)
    with pytest.raises(ValueError, match="no clip has a label"):
        figures_of([{"label": "", "predicted": "no"}], CLASSES)


def test_the_page_needs_nothing_and_escapes_what_it_shows(tmp_path):
    table = rows()
    names = ["file", "split", "speaker", "label", "predicted", "probability", *(f"p:{c}" for c in CLASSES)]
    with open(tmp_path / "predictions.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="0.3")
        writer.writeheader()
        writer.writerows(table)
    curve = {"epoch": 1, "loss": 1.0, "dev_loss": 1.1, "dev_accuracy": 0.5, "best": True}
    run = {"curves": [curve], "split_by": "speaker", "parameters": 10, "trained_parameters": 10}
    run |= {"dev_accuracy": 1 / 3, "clips": {"train": 20, "dev": 4}, "members": [{"seed": 0}, {"seed": 1}]}
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    assert read_predictions(tmp_path / "predictions.csv")[1] == CLASSES
    text = write_report(tmp_path, title="a <b>").read_text(encoding="utf-8")
    assert "<yes>" not in text
    assert "&lt;yes&gt;" in text
    assert "a &lt;b&gt;" in text
    assert "default-src 'none'" in text
    for words in ("0.3333<", "train 20, dev 4<", "seed 0; seed 1<", "dev accuracy<"):
        assert words in text
    assert "http://" not in text.replace("http-equiv", "")
    assert "no speaker is in two of them" in text
    assert json.loads((tmp_path / "metrics.json").read_text())["clips"] == len(table)
    assert (tmp_path / "confusion.png").stat().st_size > 1000
