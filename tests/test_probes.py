"""Leak probes: they find what leaks, are silent where nothing does, and say what a corpus owes."""

import dataclasses
import importlib
import json

import numpy as np
import pytest

from eval.facts import facts_of, place_of
from eval.metrics import eer
from eval.probes import NOTHING, Verdict, band_of, classify, conclusion, probe_corpus, table
from remasc import Corpus
from remasc.audio import read_audio, write_wav
from remasc.simulate import generate, load_recipe
from tests.test_simulate_corpus import TINY, drawn, speech  # noqa: F401 (a fixture)


def columns_and_labels(leak: float, seed: int = 0) -> tuple[dict, dict]:
    rng = np.random.default_rng(seed)
    labels = {name: rng.integers(0, 2, n) for name, n in (("train", 600), ("dev", 200), ("eval", 1000))}
    columns = {k: rng.standard_normal((len(y), 3)) + leak * y[:, None] * [1, 0, 0] for k, y in labels.items()}
    return columns, labels


def eer_of(columns: dict, labels: dict) -> float:
    scores = classify(columns, labels)
    return float(eer(scores[labels["eval"] == 1], scores[labels["eval"] == 0])[0])


def test_a_leak_is_found_and_noise_is_not():
    assert eer_of(*columns_and_labels(2.0)) < 0.2
    assert eer_of(*columns_and_labels(0.0)) == pytest.approx(0.5, abs=0.06)


def test_a_constant_says_nothing():
    columns, labels = columns_and_labels(0.0)
    constant = {name: np.ones((len(rows), 2)) for name, rows in columns.items()}
    assert eer_of(constant, labels) == pytest.approx(0.5, abs=0.06)


def test_trees_find_what_no_line_divides():
    columns, labels = columns_and_labels(0.0)
    for name, y in labels.items():
        columns[name][:, 0] = np.where(y == 1, 0.1, 1.0) * columns[name][:, 0]
    assert eer_of(columns, labels) < 0.3


@pytest.mark.parametrize(("farther", "leaks"), [(False, False), (True, True)])
def test_the_negative_example_is_caught_and_the_law_of_both_classes_is_not(speech, farther, leaks):  # noqa: F811
    recipe = dataclasses.replace(
        load_recipe("negative-places"),
        replay_farther=farther,
        pairs={"train": 300, "dev": 80, "eval": 250},
        built_in_share=0.0,
    )
    scenes = drawn(recipe, "places", speech)
    chosen = {name: [s for s in scenes if s["partition"] == name] for name in recipe.pairs}
    columns = {name: np.array([place_of(s) for s in part]) for name, part in chosen.items()}
    labels = {name: np.array([int(s["label"] == "genuine") for s in part]) for name, part in chosen.items()}
    found = eer_of(columns, labels)
    assert (found < 0.42) if leaks else (0.42 < found < 0.58)


@pytest.mark.parametrize("name", ["negative-places", "small"])
def test_a_corpus_that_leaks_on_purpose_is_refused_by_the_command(
    speech,  # noqa: F811
    tmp_path,
    monkeypatch,
    capsys,
    name,
):
    """The shipped negative example at its own size, one probe fails; its honest twin passes. Nothing is rendered:
    the leak is in the places, and what would be heard is stood in for by noise."""
    from eval import probes
    from replayguard import main

    module = importlib.import_module("remasc.simulate.generate")
    monkeypatch.setattr(module, "_render_all", lambda *_: None)
    silent = np.random.default_rng(0)
    monkeypatch.setattr(
        probes,
        "_facts_of_chunk",
        lambda chunk: [(part, i, {"level": [silent.standard_normal()]}) for part, i, _ in chunk],
    )
    root = generate(name, tmp_path, speech=speech, arrays=["D4"], workers=1, progress=False)
    code = main(["corpus", "probe", str(root), "--json", "--array", "D4", "--workers", "1"])
    failed = [row["probe"] for row in json.loads(capsys.readouterr().out) if row["failed"]]
    assert (code, failed) == ((1, ["place"]) if name == "negative-places" else (0, []))


def verdict(low: float, high: float, band=NOTHING, gates: bool = True) -> Verdict:
    return Verdict("D2", "level", (low + high) / 2, low, high, band, 1000, 1000, gates)


def test_a_probe_fails_where_its_whole_interval_is_outside():
    assert verdict(0.30, 0.44).failed
    assert not verdict(0.30, 0.46).failed
    assert verdict(0.56, 0.60).failed
    assert not verdict(0.30, 0.44, gates=False).failed
    few = dataclasses.replace(verdict(0.0, 0.0), genuine=2, replay=2)  # two of two, by chance
    assert not few.failed
    assert "Too few trials" in conclusion([few])
    assert "level on D2" in conclusion([verdict(0.30, 0.44)])
    assert "No probe failed" in conclusion([verdict(0.46, 0.52)])
    assert "**failed**" in table([verdict(0.30, 0.44)])


def test_what_a_corpus_owes():
    assert band_of("level", {}) == NOTHING
    assert band_of("long-term spectrum", {"protocol": "open"})[0] == 0.40
    assert band_of("long-term spectrum", {"protocol": "closed"})[0] == 0.30
    assert band_of("first 50 ms", {"device_noise": False}) == NOTHING
    assert band_of("first 50 ms", {"device_noise": True})[0] == 0.35
    assert band_of("long-term spectrum", {"null": True}) == NOTHING


@pytest.fixture(scope="module")
def corpus_root(speech, tmp_path_factory):  # noqa: F811
    recipe = dataclasses.replace(TINY, pairs={"train": 16, "dev": 8, "eval": 16})
    out = tmp_path_factory.mktemp("probed") / "corpus"
    return generate(recipe, out, speech=speech, arrays=["D4"], workers=1, progress=False)


def test_a_small_corpus_passes_and_a_louder_class_fails(corpus_root):
    assert not [v for v in probe_corpus(corpus_root, workers=1, progress=False) if v.failed]
    for recording in Corpus.from_meta(corpus_root):
        if recording.label == 1:
            waveform, rate = read_audio(recording.path)
            write_wav(recording.path, waveform * 0.05, rate)
    failed = {v.probe for v in probe_corpus(corpus_root, workers=1, progress=False) if v.failed}
    assert "level" in failed


def test_facts_are_finite_numbers_of_one_size(corpus_root):
    rows = [facts_of(recording, row) for row, recording in enumerate(Corpus.from_meta(corpus_root))]
    for name in rows[0]:
        assert len({len(facts[name]) for facts in rows}) == 1, name
        assert np.isfinite([facts[name] for facts in rows]).all(), name


def test_unknown_arrays_and_missing_classes_are_one_sentence(corpus_root, speech, tmp_path):  # noqa: F811
    with pytest.raises(ValueError, match="holds no recordings of D1"):
        probe_corpus(corpus_root, arrays=["D1"], progress=False)
    recipe = dataclasses.replace(TINY, pairs={"eval": 2})
    alone = generate(recipe, tmp_path / "eval", speech=speech, arrays=["D4"], workers=1, progress=False)
    with pytest.raises(ValueError, match="train partition holds one class or none"):
        probe_corpus(alone, progress=False)


def test_arrays_that_every_scene_has_of_its_own_are_probed_together(speech, tmp_path):  # noqa: F811
    """Whatever their rates: what all of them hold is compared."""
    recipe = dataclasses.replace(TINY, pairs={"train": 4, "dev": 4, "eval": 4}, random_arrays=True)
    root = generate(recipe, tmp_path / "own", speech=speech, workers=1, progress=False)
    assert len({read_audio(r.path)[1] for r in Corpus.from_meta(root)}) > 1
    verdicts = probe_corpus(root, workers=1, progress=False)
    assert {v.array for v in verdicts} == {"RANDOM"}
    assert {v.probe for v in verdicts} >= {"level", "above 7.5 kHz", "place"}
    assert "Too few trials" in conclusion(verdicts)


def test_the_command_prints_a_table_or_json(corpus_root, capsys):
    from replayguard import main

    code = main(["corpus", "probe", str(corpus_root), "--json", "--workers", "1"])
    rows = json.loads(capsys.readouterr().out)
    assert code == int(any(row["failed"] for row in rows))
    assert {row["probe"] for row in rows} >= {"level", "duration", "place", "format", "first 50 ms"}


def test_a_corpus_after_the_real_list_is_reported_and_does_not_gate(corpus_root):
    card = corpus_root / "corpus.json"
    before = card.read_text()
    facts = json.loads(before)
    facts["recipe"]["template"] = "exact"
    card.write_text(json.dumps(facts))
    try:
        verdicts = probe_corpus(corpus_root, workers=1, progress=False)
        assert not any(verdict.gates for verdict in verdicts)
        assert "Reported only" in conclusion(verdicts)
    finally:
        card.write_text(before)
