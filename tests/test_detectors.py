"""The benchmark of all detectors: the same trials for all, goes on where it stopped, says what it is."""

from __future__ import annotations

import json

import numpy as np
import pytest

from eval.benchmarks import detectors
from eval.benchmarks.detectors import Cell, Detectors, cells, run
from eval.benchmarks.detectors_table import figures_of, markdown, mean_eer
from eval.metrics import bootstrap_interval, eer
from eval.scores import ScoreTable
from tests.tiny_corpus import make_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpora") / "tiny", clips=64, seconds=0.5).root


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    bench = Detectors((corpus,), out, systems=("void", "sub-bass"), arrays=("D4",), seeds=(0, 1), split="dev")
    run(bench)
    return bench


def table(seed: int, shift: float = 1.0) -> ScoreTable:
    rng = np.random.default_rng(seed)
    label = np.where(np.arange(240) % 2, "genuine", "replay")
    score = rng.standard_normal(240) + shift * (label == "genuine")
    return ScoreTable(trial=np.arange(240).astype(str), score=score, label=label)


def test_every_system_is_scored_on_the_same_trials(finished):
    record = json.loads((finished.out / "table.json").read_text())
    assert {entry["system"] for entry in record["figures"]} == {"void", "sub-bass"}
    assert len({entry["protocol_sha256"] for entry in record["figures"]}) == 1
    assert record["benchmark"] == {"split": "dev", "scale": 1.0, "cells": 2, "finished": 2}
    for entry in record["figures"]:
        assert entry["low"] <= entry["eer"] <= entry["high"]
        assert entry["real_time_factor"] > 0
        assert entry["parameters"] > 0
    assert (finished.out / "table.md").read_text() == markdown(record)
    assert "optimistic" in markdown(record)


def test_a_finished_benchmark_is_left_as_it_is_and_an_interrupted_one_goes_on(finished, monkeypatch):
    before = {
        path: path.stat().st_mtime_ns for path in finished.out.rglob("*.json") if path.parent != finished.out
    }
    text = (finished.out / "table.md").read_text()
    (finished.out / "table.md").unlink()
    run(finished)
    assert (finished.out / "table.md").read_text() == text
    assert {path: path.stat().st_mtime_ns for path in before} == before

    more = Detectors(**{**vars(finished), "systems": ("void", "sub-bass", "lfcc-gmm")})
    whole = detectors._row

    def stopped(bench, cell):
        if cell.system == "lfcc-gmm":
            raise KeyboardInterrupt
        return whole(bench, cell)

    monkeypatch.setattr(detectors, "_row", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(more)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_cells_come_seed_by_seed_and_what_draws_nothing_once(corpus, tmp_path):
    bench = Detectors((corpus,), tmp_path, systems=("nn-single", "void"), arrays=("D1", "D2"), seeds=(3, 4))
    assert [(c.array, c.system, c.seed) for c in cells(bench)] == [
        ("D1", "nn-single", 3),
        ("D1", "void", 3),
        ("D2", "nn-single", 3),
        ("D2", "void", 3),
        ("D1", "nn-single", 4),
        ("D2", "nn-single", 4),
    ]


def test_each_system_has_its_own_schedule_and_one_network_for_all_is_trained_once(corpus, tmp_path):
    bench = Detectors((corpus,), tmp_path)
    network, mixture = (Cell(corpus, "D4", name, 0).training(bench) for name in ("malrad", "lfcc-gmm"))
    assert (network.epochs, network.batch_size, network.patience) == (100, 8, 15)
    assert mixture.epochs == 100
    one, other = (Cell(corpus, array, "compact", 0).training(bench) for array in ("D1", "D4"))
    assert one == other
    assert one.array == "all"
    short = Detectors((corpus,), tmp_path, scale=0.05)
    assert Cell(corpus, "D4", "malrad", 0).training(short).epochs == 5


def test_the_interval_of_one_seed_is_the_bootstraps_and_equal_seeds_change_nothing():
    one = table(0)
    rates, low, high, drawn = mean_eer([one], n=200)
    genuine, replay = one.score[one.genuine], one.score[one.replay]
    assert rates == [eer(genuine, replay)[0]]
    assert (low, high) == pytest.approx(bootstrap_interval(genuine, replay, eer, n=200))
    assert drawn == "trials"
    assert mean_eer([one, one], n=200)[1:] == (low, high, drawn)
    rates, low, high, _ = mean_eer([one, table(1, shift=2.0)], n=200)
    assert low < np.mean(rates) < high


def test_other_trials_are_refused(finished):
    record = json.loads((finished.out / "table.json").read_text())
    rows = []
    for entry in record["figures"]:
        folder = finished.out / "tiny" / f"{entry['system']}-D4-seed0" / "dev-D4"
        rows.append(
            {**entry, "seed": 0, "scores": str(folder / "scores.tsv"), "speed": 0.1, **entry["runs"][0]}
        )
    assert len(figures_of(rows, "dev")) == 2
    with pytest.raises(ValueError, match="different trials"):
        figures_of([rows[0], {**rows[1], "protocol_sha256": "other"}], "dev")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"systems": ("viod",)}, "unknown system 'viod'"),
        ({"arrays": ("D9",)}, "unknown array 'D9'"),
        ({"split": "train"}, "expected dev or eval"),
        ({"scale": 2.0}, "expected above 0"),
        ({"seeds": ()}, "at least one"),
    ],
)
def test_errors_name_the_fact_and_the_way_out(corpus, tmp_path, values, says):
    with pytest.raises(ValueError, match=says):
        Detectors((corpus,), tmp_path, **values)


def test_less_than_the_whole_schedule_is_said(finished):
    record = json.loads((finished.out / "table.json").read_text())
    record["benchmark"]["scale"] = 0.1
    assert "UNDERTRAINED" in markdown(record)
    record["benchmark"]["split"] = "eval"
    assert "optimistic" not in markdown(record)


def test_conditions_are_averaged_over_what_is_finished_on_all_of_them(finished):
    record = json.loads((finished.out / "table.json").read_text())
    void, bass = sorted(record["figures"], key=lambda entry: entry["system"], reverse=True)
    other = {**void, "corpus": "held-out", "eer": void["eer"] + 0.2}
    text = markdown(record | {"figures": [void, bass, other]})
    means = text.split("## All conditions")[1]
    assert f"| void | **{100 * (void['eer'] + 0.1):.1f} %** |" in means
    assert "sub-bass" not in means
