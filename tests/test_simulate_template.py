"""A corpus after a real meta.csv: exact keeps every condition, matched unties class from place and length."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from remasc import ARRAYS, Corpus, Label, read_audio
from remasc.identity import position_of
from remasc.protocol import partitions
from remasc.simulate import generate, load_recipe
from remasc.simulate.scenes import cast_of
from remasc.simulate.speech import scan_speech
from remasc.simulate.template import dealt_anew, draw_rows, template_rows
from tests.test_simulate_corpus import NO_NOISE, speech  # noqa: F401 (a fixture)

ROWS = {
    "core": [
        "1000001, 1, 2, 1, -1, 1, -1, -1, 3.0",
        "1000002, 2, 2, 1, -1, 1, -1, 2, 2.2",
        "1000003, 2, 3, 2, 35, -1, -1, 4, 1.7",
        "1000004, 3, 3, 2, 11, 2, 3, 4, 2.9",
        "1000005, 3, 4, 1, 2, 1, 1, 2, 2.5",
        "1000006, 2, 5, 4, 23, -1, -1, 1, 0.6",
        "1000007, 3, 5, 4, 0, 2, 5, 1, 5.5",
    ],
    "eval": [
        "2000001, 2, 41, 3, -1, -1, -1, 3, 2.0",
        "2000002, 3, 0, 3, -1, 3, 4, 3, 1.5",
        "2000003, 3, 42, 4, 4, 1, 2, 3, 2.4",
    ],
}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = tmp_path_factory.mktemp("template")
    for subset, rows in ROWS.items():
        (root / subset).mkdir()
        (root / subset / "meta.csv").write_text("\n".join(rows) + "\n")
    return root


def test_exact_keeps_ids_conditions_and_lengths(speech, template, tmp_path):  # noqa: F811
    root = generate("remasc-sim", tmp_path, speech=speech, template=template, workers=1, progress=False)
    wanted = {r.trial_id: r for r in Corpus.from_meta(template).trials()}
    made = {r.trial_id: r for r in Corpus.from_meta(root)}
    assert made.keys() == wanted.keys()
    for trial, recording in made.items():
        assert recording.conditions() == wanted[trial].conditions()
        assert recording.label == wanted[trial].label
        waveform, rate = read_audio(recording.path)
        assert waveform.shape[1] / rate == pytest.approx(wanted[trial].seconds, abs=2e-4)
        assert np.abs(waveform).max() > 0.001
    parts = partitions(Corpus.from_meta(root))
    assert {r.subset for r in parts["eval"]} == {"eval"}
    assert not {r.speaker for r in parts["train"]} & {r.speaker for r in parts["dev"]}


def test_a_template_is_asked_for_and_only_where_it_is_meant(speech, template, tmp_path):  # noqa: F811
    with pytest.raises(ValueError, match="give --template"):
        generate("remasc-sim", tmp_path, speech=speech, progress=False)
    with pytest.raises(ValueError, match="follows no template"):
        generate("small", tmp_path, speech=speech, template=template, progress=False)
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        generate("remasc-sim", tmp_path, speech=speech, template=template, scale=2, progress=False)
    with pytest.raises(ValueError, match="both core"):
        template_rows(template / "core", 1.0)
    places = {r.trial_id: position_of(r.trial_id) for r in Corpus.from_meta(template).trials()}
    least = (
        max(min(p for trial, p in places.items() if trial[:4] == half) for half in ("core", "eval")) + 1e-9
    )
    absent = [name for name in ARRAYS if name not in {r.array for r in template_rows(template, least)}]
    with pytest.raises(ValueError, match=f"holds none of {absent[0]}; raise --scale"):
        generate(
            "remasc-sim", tmp_path / "none", speech=speech, template=template, scale=least, arrays=absent[:1],
            progress=False,
        )  # fmt: skip
    assert not (tmp_path / "none").exists()


def test_a_template_may_be_named_by_one_of_its_tables(speech, template, tmp_path, monkeypatch):  # noqa: F811
    wanted = {r.trial_id for r in Corpus.from_meta(template).trials()}
    monkeypatch.chdir(template / "eval")
    for number, path in enumerate((template / "core" / "meta.csv", Path("meta.csv"))):
        out = tmp_path / str(number)
        generate("remasc-sim", out, speech=speech, template=path, arrays=["D4"], workers=1, progress=False)
        made = {r.trial_id for r in Corpus.from_meta(out)}
        assert made == {"core/1000003", "core/1000004"} <= wanted
    with pytest.raises(ValueError, match="no such folder"):
        generate(
            "remasc-sim", tmp_path / "x", speech=speech, template=template / "core/data.csv", progress=False
        )


def shared() -> Path:
    if "REPLAYGUARD_SHARED" not in os.environ:
        pytest.skip("needs ReMASC's meta.csv from REPLAYGUARD_SHARED")
    return Path(os.environ["REPLAYGUARD_SHARED"]) / "data" / "remasc"


def test_matched_deals_everything_once_and_unties_class_from_place_and_length():
    rows = template_rows(shared(), 1.0)
    dealt = dealt_anew(rows, "matched")
    assert Counter(r.trial_id for r in dealt) == Counter(r.trial_id for r in rows)
    for where, what in zip(rows, dealt, strict=True):
        assert (where.subset, where.array) == (what.subset, what.array)
        if what.playback_device == 5:
            assert where.environment == 4
    for array in ("D1", "D2", "D3", "D4"):
        pairs = [
            (where, what)
            for where, what in zip(rows, dealt, strict=True)
            if where.array == array and where.subset == "eval" and what.playback_device != 5
        ]
        for environment in (1, 2, 3):
            here = [what.label is Label.GENUINE for where, what in pairs if where.environment == environment]
            overall = np.mean([what.label is Label.GENUINE for _, what in pairs])
            assert np.mean(here) == pytest.approx(overall, abs=0.06)
        lengths = [[where.seconds for where, what in pairs if what.label is label] for label in Label]
        assert abs(np.mean(lengths[0]) - np.mean(lengths[1])) < 0.12


def test_a_share_of_the_real_list_is_drawn(speech):  # noqa: F811
    rows = template_rows(shared(), 0.01)
    assert 200 < len(rows) < 700
    for name in ("remasc-sim", "remasc-sim-matched"):
        recipe = load_recipe(name)
        casts, _ = cast_of(recipe, speech, scan_speech(speech), NO_NOISE)
        scenes = draw_rows(recipe, name, casts, rows)
        for row, scene in zip(rows, scenes, strict=True):
            assert scene["seconds"] == pytest.approx(row.seconds, abs=1e-4)
            assert scene["environment"] == row.environment
            assert min(scene["lead"], scene["trail"]) >= 0
