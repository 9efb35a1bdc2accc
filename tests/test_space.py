"""Laws of the benchmark that asks whether space tells anything: views, controls, knobs."""

import dataclasses
import json

import numpy as np
import pytest

from eval.benchmarks import knobs, space, space_facts
from tests.test_simulate_corpus import TINY, speech  # noqa: F401


def test_strongest_finds_what_is_there_and_nothing_where_nothing_is():
    rng = np.random.default_rng(0)
    labels = {name: rng.integers(0, 2, 400) for name in ("train", "dev", "eval")}
    noise = {name: rng.standard_normal((400, 6)) for name in labels}
    told = {name: rows + 1.2 * labels[name][:, None] for name, rows in noise.items()}

    def error(columns):
        scores = space.strongest(columns, labels).scores
        return space.eer(scores[labels["eval"] == 1], scores[labels["eval"] == 0])[0]

    assert error(told) < 0.15
    assert 0.4 < error(noise) < 0.6
    assert 0.4 < error({name: np.ones((400, 3)) for name in labels}) < 0.6


def test_views_of_planes_have_no_level_and_no_length():
    rng = np.random.default_rng(1)
    planes = rng.standard_normal((6, 40, 90)).astype(np.float32)
    assert space_facts.spectrum(planes[0]).shape == (200,)
    assert space_facts.space(planes).shape == (480,)
    assert np.allclose(space_facts.spectrum(planes[0] + 3.0), space_facts.spectrum(planes[0]), atol=1e-5)
    twice = np.concatenate([planes, planes], axis=-1)
    kept = slice(0, 120)  # all but the change from frame to frame and the peaks
    assert np.allclose(space_facts.spectrum(twice[0])[kept], space_facts.spectrum(planes[0])[kept], atol=1e-5)


def test_every_knob_is_a_recipe_and_turns_something():
    options = knobs.Knobs(speech=None, out=None)
    recipes = {knob: recipe for knob in knobs.KNOBS for recipe in [knobs.recipe_of(options, knob)]}
    told = {json.dumps({**r.to_dict(), "name": ""}, sort_keys=True) for r in recipes.values()}
    assert len(told) == len(knobs.KNOBS)


@pytest.mark.slow
def test_a_small_corpus_is_compared_and_remembered(speech, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(knobs, "load_recipe", lambda name: dataclasses.replace(TINY, rooms=TINY.rooms))
    options = knobs.Knobs(speech, tmp_path, array=("D4",), knobs=("null",), seeds=(0,), pairs=8, workers=1)
    knobs.main(options)
    (row,) = json.loads((tmp_path / "knobs.json").read_text())["corpora"]
    assert row["null"]
    assert row["trials"]["eval"] == [6, 6]
    assert set(row["views"]) == set(space.VIEWS)
    assert not (tmp_path / "knob-null-s0" / "corpus").exists()
    before = (tmp_path / "knob-null-s0" / "D4.json").stat().st_mtime_ns
    knobs.main(options)
    assert (tmp_path / "knob-null-s0" / "D4.json").stat().st_mtime_ns == before
    told = (tmp_path / "knob-null-s0" / "D4.json").read_bytes()
    (tmp_path / "knob-null-s0" / "D4.json").unlink()
    monkeypatch.setattr(knobs, "generate", None)  # what was heard is enough
    knobs.main(options)
    assert (tmp_path / "knob-null-s0" / "D4.json").read_bytes() == told
    assert "null control" in " ".join(space.controls([row]))
    with pytest.raises(ValueError, match="unknown knob"):
        knobs.main(dataclasses.replace(options, knobs=("volume",)))
    with pytest.raises(ValueError, match="another recipe or size"):
        knobs.main(dataclasses.replace(options, pairs=4))


def _trials(seed: int, apart: float) -> space.Trials:
    """Twenty voices of both classes, the views alike but for `both`, whose classes stand further apart."""
    rng = np.random.default_rng(seed)
    truth = np.arange(400) % 2 == 1
    voice = np.array([f"voice {n % 20}" for n in np.arange(400) // 2])
    noise = rng.standard_normal(400)
    scores = {view: noise + truth * (2 * apart if view == "both" else apart) for view in space.VIEWS}
    return space.Trials(truth, voice, scores, np.stack([np.arange(400.0), noise, np.zeros(400)], axis=1))


def test_thirds_are_those_of_all_corpora_with_their_intervals():
    one, other = _trials(0, 0.6), _trials(1, 1.4)
    rows = space.thirds([one, other])
    assert sum(row["trials"] for row in rows[:3]) == 800  # scenes numbered alike in both
    assert max(row["trials"] for row in rows[:3]) <= 270
    whole = rows[-1]  # a knob that all have alike: its thirds are everything
    assert whole["views"] == space.figures_of([one, other])["views"]
    assert {tuple(sorted(row)) for row in rows} == {
        tuple(sorted(("knob", "from", "to", "trials", "views", "gains", "drawn")))
    }
    assert [row["knob"] for row in rows].count(list(space.KNOBS)[2]) == 1
    few = one.where(np.arange(400) < 120)
    assert [row["knob"] for row in space.thirds([few])] == [list(space.KNOBS)[2]]


def test_figures_of_one_corpus_and_of_several():
    one, other = _trials(0, 0.6), _trials(1, 1.4)
    alone = [space.figures_of([each]) for each in (one, other)]
    together = space.figures_of([one, other])
    for view in space.VIEWS:
        each = [found["views"][view]["eer"] for found in alone]
        assert together["views"][view]["eer"] == pytest.approx(np.mean(each))
    assert together["drawn"] == "voices"
    gain = together["gains"]["single - both"]
    assert gain["points"] > 0.1
    assert gain["interval"][0] > 0
    assert together["gains"]["single - dummy"] == {"points": 0.0, "interval": [0.0, 0.0]}  # the same draws
    # a corpus told twice tells nothing more, for its voices are drawn in both at once
    assert space.figures_of([one, one]) == space.figures_of([one])


def test_knobs_are_summed_over_seeds():
    trials = [_trials(0, 0.6), _trials(1, 1.4)]
    rows = [
        {"array": "D4", "knob": "as it is", "null": False, "seed": seed, "trials": {"eval": [200, 200]}}
        | space.figures_of([each])
        for seed, each in enumerate(trials)
    ]
    summed = knobs.over_seeds(rows, trials)
    assert summed["trials"]["eval"] == [400, 400]
    each = [row["views"]["both"]["eer"] for row in rows]
    assert summed["views"]["both"]["deviation"] == pytest.approx(np.std(each, ddof=1))
    assert knobs.over_seeds(rows[:1], trials[:1])["views"]["both"]["deviation"] is None
    told = knobs.markdown({"over seeds": [summed], "corpora": rows})
    assert f"| D4 | as it is | 2 | 400 + 400 | {100 * summed['views']['single']['eer']:.1f} ± " in told
    assert "as it is D4: dummy gains at most 0.0 points (holds)." in told
