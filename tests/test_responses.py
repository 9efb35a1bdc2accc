"""Laws of the comparison of room responses: what is measured, and what a folder of measured responses may hold."""

import json

import numpy as np
import pytest

from eval.benchmarks import responses as compared
from eval.benchmarks.response_figures import differences, draw, table
from eval.benchmarks.responses import describe, even_room, full_order, mean_of, measured_rows, place
from remasc.audio import write_wav
from remasc.simulate import scene_rng
from remasc.simulate.rooms import PRE, responses
from remasc.simulate.scenes import CONTENT_RATE

pytest.importorskip("pyroomacoustics")
DIMS = (4.0, 5.0, 2.6)
PAIR = np.array([[-0.04, 0.0, 0.0], [0.04, 0.0, 0.0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two responses as somebody would have measured them: later, of another level, at another rate in name only."""
    root, plan = tmp_path_factory.mktemp("measured"), {}
    for rt60 in (0.3, 0.5):
        rng = scene_rng("measured-by", f"{rt60}")
        room = even_room(rt60, DIMS)
        mics, emitter = place(room, 1.5, PAIR, rng)
        heard = responses(room, [emitter], mics, CONTENT_RATE, rng)[0]
        heard = np.pad(heard, ((0, 0), (700, 0))) * 0.4 / np.abs(heard).max()
        write_wav(root / f"{rt60}.wav", heard.astype(np.float32), CONTENT_RATE, "FLOAT")
        plan[f"{rt60}.wav"] = {"rt60": rt60, "distance": 1.5, "dims": DIMS, "positions": PAIR.tolist()}
    (root / "measured.json").write_text(json.dumps(plan))
    return root


def test_measured_responses_are_read_beside_a_simulated_one_of_the_same_room(folder):
    for row in measured_rows(folder):
        assert row["full"]["t20"] == pytest.approx(row["rt60"], rel=0.15)
        assert row["simulator"]["t20"] == pytest.approx(row["rt60"], rel=0.15)
        for key, near in (("drr_db", 2.5), ("c50_db", 2.5)):
            assert row["full"][key] == pytest.approx(row["simulator"][key], abs=near)
        assert len(row["full"]["coherence"]) == 65


def test_the_full_image_method_has_the_same_direct_sound_at_the_same_time():
    room = even_room(0.2, (2.0, 2.4, 2.0))
    rng = scene_rng("responses", "direct")
    mics, emitter = place(room, 1.0, PAIR, rng)
    both = [f(room, [emitter], mics, CONTENT_RATE, rng)[0] for f in (responses, full_order)]
    first = PRE + round(np.linalg.norm(emitter.position - mics[0]) / room.speed_of_sound * CONTENT_RATE)
    ours, theirs = (np.square(h[0, first - 2 : first + 3]).sum() for h in both)
    assert ours == pytest.approx(theirs, rel=0.2)
    assert (np.abs(both[1][0, : first - 12]) < 0.15 * np.abs(both[1][0]).max()).all()


def test_places_are_as_far_apart_as_asked_or_refused_in_a_sentence():
    room = even_room(0.4, DIMS)
    mics, emitter = place(room, 2.0, PAIR, scene_rng("responses", "place"))
    assert np.linalg.norm(emitter.position - mics.mean(axis=0)) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="does not fit"):
        place(room, 9.0, PAIR, scene_rng("responses", "place"))


def test_table_and_figure_hold_every_row():
    room, rng = even_room(0.3, DIMS), scene_rng("responses", "table")
    mics, emitter = place(room, 1.0, PAIR, rng)
    heard = responses(room, [emitter], mics, CONTENT_RATE, rng)[0]
    figures = mean_of([describe(heard, PRE + 1.0 / 343.0 * CONTENT_RATE, mics)])
    rows = [{"rt60": 0.3, "distance": d, "simulator": figures, "full": figures} for d in (1.0, 2.5)]
    lines = table(rows, "full image method")
    assert len(lines) == 6
    assert f"{figures['t20']:.2f} / {figures['t20']:.2f}" in lines[-1]
    assert "+0.0 % (+0.0 to +0.0)" in differences(rows)
    assert draw(rows, rows[:1])[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("plan", "match"),
    [
        (None, "not readable"),
        ("[1]", "not readable"),
        ("{}", "names no file"),
        ('{"0.3.wav": {"rt60": 0.3}}', "not readable"),
        ('{"0.3.wav": {"rt60": -1, "distance": 1}}', "above zero"),
        ('{"0.3.wav": {"rt60": 0.3, "distance": 1, "positions": [[0, 0, 0]]}}', "2 channels"),
        ('{"0.3.wav": {"rt60": 0.3, "distance": 1, "dims": [1, 2]}}', "dims"),
        ('{"none.wav": {"rt60": 0.3, "distance": 1}}', "none.wav"),
    ],
)
def test_folders_that_cannot_be_compared_are_refused_in_a_sentence(folder, tmp_path, plan, match):
    (tmp_path / "0.3.wav").write_bytes((folder / "0.3.wav").read_bytes())
    if plan is not None:
        (tmp_path / compared.PLAN).write_text(plan)
    with pytest.raises((ValueError, OSError), match=match) as error:
        measured_rows(tmp_path)
    assert "\n" not in str(error.value)
