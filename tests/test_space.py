"""Laws of the benchmark that asks whether space tells anything: views, controls, knobs."""

import dataclasses
import json

import numpy as np
import pytest

from eval.benchmarks import knobs, space
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
    assert space.spectrum(planes[0]).shape == (200,)
    assert space.space(planes).shape == (480,)
    assert np.allclose(space.spectrum(planes[0] + 3.0), space.spectrum(planes[0]), atol=1e-5)
    twice = np.concatenate([planes, planes], axis=-1)
    kept = slice(0, 120)  # all but the change from frame to frame and the peaks
    assert np.allclose(space.spectrum(twice[0])[kept], space.spectrum(planes[0])[kept], atol=1e-5)


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
    (row,) = json.loads((tmp_path / "knobs.json").read_text())
    assert row["null"]
    assert row["trials"]["eval"] == [6, 6]
    assert set(row["views"]) == set(space.VIEWS)
    assert not (tmp_path / "knob-null-s0" / "corpus").exists()
    before = (tmp_path / "knob-null-s0" / "D4.json").stat().st_mtime_ns
    knobs.main(options)
    assert (tmp_path / "knob-null-s0" / "D4.json").stat().st_mtime_ns == before
    assert "null control" in " ".join(space.controls([row]))
    with pytest.raises(ValueError, match="unknown knob"):
        knobs.main(dataclasses.replace(options, knobs=("volume",)))
    with pytest.raises(ValueError, match="another recipe or size"):
        knobs.main(dataclasses.replace(options, pairs=4))


def _row(seed: int, single: float, gain: list[float]) -> dict:
    return {
        "array": "D4",
        "knob": "as it is",
        "seed": seed,
        "trials": {"eval": [100, 90]},
        "views": {view: {"eer": single, "interval": [0.2, 0.4]} for view in space.VIEWS},
        "gains": {f"{a} - {b}": {"points": gain[1], "interval": gain[::2]} for a, b in space.GAINS},
    }


def test_seeds_are_summed_without_taking_them_for_independent():
    rows = [_row(0, 0.30, [0.02, 0.04, 0.06]), _row(1, 0.34, [0.00, 0.02, 0.08])]
    found = knobs.over_seeds(rows)
    assert found["trials"] == [200, 180]
    assert found["views"]["single"] == pytest.approx((0.32, 0.02 * 2**0.5))
    mean, limits = found["gains"]["single - both"]
    assert mean == pytest.approx(0.03)
    assert limits == pytest.approx([0.01, 0.07])  # as wide as one seed's
    told = knobs.markdown(rows)
    assert "| D4 | as it is | 2 | 200 + 180 | 32.0 ± 2.8 |" in told
    assert "both against single" in told
