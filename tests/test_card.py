"""A corpus's card says what is in it, by class, and keeps what the probes found."""

import dataclasses

import numpy as np
import pytest

from eval.card import PICTURES, keep_verdicts, recordings_of, write_card
from eval.card_laws import CLASSES, Law, bandwidth, file_level, laws_of, laws_table
from eval.probes import NOTHING, Verdict
from remasc import Corpus
from remasc.audio import write_wav
from remasc.simulate import generate
from remasc.simulate.layout import read_scenes
from tests.test_simulate_corpus import TINY, speech  # noqa: F401 (a fixture)


@pytest.fixture(scope="module")
def corpus_root(speech, tmp_path_factory):  # noqa: F811
    recipe = dataclasses.replace(TINY, pairs={"train": 4, "dev": 4, "eval": 4})
    out = tmp_path_factory.mktemp("carded") / "corpus"
    return generate(recipe, out, speech=speech, arrays=["D2", "D4"], workers=1, progress=False)


def test_the_card_counts_names_its_sources_and_shows_pictures(corpus_root):
    card = write_card(corpus_root)
    text = card.read_text()
    assert "(simulated)" in text.splitlines()[0]
    assert "| train | D2 | 4 | 4 |" in text
    assert "- speech: made up (" in text
    assert "Not probed yet" in text
    for name in PICTURES:
        assert f"({name})" in text
        assert (card.parent / name).read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in card.parent.iterdir()} == {"card.md", *PICTURES}
    for law in ("level", "SNR", "RT60", "T20", "direct to reverberant", "distance", "bandwidth"):
        (row, *_) = [line for line in text.splitlines() if line.startswith("| ") and law in line]
        assert row.count("[") == 2, row  # a range of each class


def test_laws_are_what_scenes_say_and_files_hold(corpus_root):
    """As many values as scenes of a class; a file's level is the drawn one, give or take its microphones' gains."""
    corpus, scenes = Corpus.from_meta(corpus_root), read_scenes(corpus_root)
    files = recordings_of(corpus, scenes)
    laws = {law.name: law for law in laws_of(corpus.name, scenes, files)}
    for label in CLASSES:
        drawn = [scene["level_dbfs"] for scene in scenes if scene["label"] == label]
        assert laws["level"].values[label].tolist() == drawn
        assert np.allclose(laws["level of the file"].values[label], drawn, atol=4.5)
        outdoors = sum(scene["label"] == label and scene["environment"] == 1 for scene in scenes)
        assert len(laws["RT60 at 1 kHz"].values[label]) == len(drawn) - outdoors


def test_what_the_probes_found_joins_the_card(corpus_root, monkeypatch):
    for picture in ("laws", "plans", "spectrograms", "devices"):  # drawn once, in the test before
        monkeypatch.setattr(f"eval.card.card_figures.{picture}", lambda *_: b"\x89PNG")
    keep_verdicts(corpus_root, [Verdict("D2", "level", 0.3, 0.25, 0.35, NOTHING, 1000, 1000, True)])
    text = (corpus_root / "card" / "card.md").read_text()
    assert "30.0 [25.0, 35.0] **failed**" in text
    assert "1 of 1 probes failed: level on D2" in text
    scenes = corpus_root / "scenes.jsonl"
    before = scenes.read_text()
    scenes.write_text(before + before.splitlines()[0] + "\n")  # another corpus now
    assert "Not probed yet" in write_card(corpus_root).read_text()
    scenes.write_text(before)
    (corpus_root / "probes.json").write_text("[1]")
    assert "Not probed yet" in write_card(corpus_root).read_text()


def test_bandwidth_is_where_the_power_ends(corpus_root, tmp_path):
    recording = Corpus.from_meta(corpus_root)[0]
    t = np.arange(16000) / 16000
    path = tmp_path / "tone.wav"
    write_wav(path, 0.1 * np.sin(2 * np.pi * 1234 * t)[None].astype(np.float32), 16000)
    tone = dataclasses.replace(recording, path=path)
    assert bandwidth(tone) == pytest.approx(1234, abs=2)
    assert file_level(tone) == pytest.approx(-23.01, abs=0.01)


def test_a_range_is_read_without_powers_of_ten():
    law = Law("bandwidth", "Hz", {"genuine": np.full(3, 2897.4), "replay": np.full(3, -0.8013)})
    assert laws_table([law])[-1] == "| bandwidth | Hz | 2,900 [2,900, 2,900] | -0.801 [-0.801, -0.801] |"


def test_a_corpus_that_was_not_simulated_has_no_card(tmp_path):
    (tmp_path / "meta.csv").write_text("1000002, 2, 2, 1, -1, 1, -1, 2, 2.2\n")
    with pytest.raises(ValueError, match=r"has no scenes\.jsonl"):
        write_card(tmp_path)
    keep_verdicts(tmp_path, [])
    assert [p.name for p in tmp_path.iterdir()] == ["meta.csv"]
