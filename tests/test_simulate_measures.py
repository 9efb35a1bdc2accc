"""Laws of room measures: on responses whose decay, clarity and direct share are known."""

import time

import numpy as np
import pytest

from remasc.simulate import Recipe, scene_rng
from remasc.simulate.measures import (
    clarity,
    decay_curve,
    direct_to_reverberant,
    reverberation_time,
    scene_measures,
)
from remasc.simulate.scenes import cast_of, draw_scenes
from remasc.simulate.speech import scan_speech
from tests.test_simulate_corpus import NO_NOISE, speech  # noqa: F401 (a fixture)

RATE = 16000


def decaying(rt60: float, direct: float = 0.0, seconds: float = 2.0) -> np.ndarray:
    """Noise (4, L) that falls by 60 dB in `rt60` seconds, of energy one, behind a direct sound at sample 200."""
    t = np.arange(int(seconds * RATE)) / RATE
    noise = scene_rng("measures", f"{rt60}").standard_normal((4, len(t))) * 10 ** (-3 * t / rt60)
    noise /= np.sqrt(np.square(noise).sum(axis=1, keepdims=True))
    out = np.concatenate([np.zeros((4, 260)), noise], axis=1)
    out[:, 200] = direct
    return out


@pytest.mark.parametrize("rt60", [0.08, 0.3, 1.0])
def test_decay_is_the_one_put_in(rt60):
    assert reverberation_time(decaying(rt60), RATE) == pytest.approx(rt60, rel=0.08)
    curve = decay_curve(decaying(rt60), RATE)
    assert curve[0] == 0
    assert (np.diff(curve) <= 1e-9).all()


def test_a_direct_sound_alone_has_no_decay():
    for length in (50, 4000):
        assert np.isnan(reverberation_time(np.eye(1, length)[0], RATE))


@pytest.mark.parametrize("level_db", [-6.0, 0.0, 10.0])
def test_direct_share_is_the_one_put_in(level_db):
    response = decaying(0.5, 10 ** (level_db / 20))
    assert direct_to_reverberant(response, RATE, 200) == pytest.approx(level_db, abs=0.05)


def test_clarity_of_an_exponential_is_its_closed_form():
    """Of a decay that begins with the direct sound: exp(13.8 * 0.05 / T) - 1."""
    for rt60 in (0.2, 0.6):
        found = clarity(decaying(rt60), RATE, 260)
        assert found == pytest.approx(10 * np.log10(10 ** (6 * 0.05 / rt60) - 1), abs=0.6)


def test_scenes_measure_what_was_asked_and_quickly(speech):  # noqa: F811
    """Both classes; RT60 as drawn at 500 to 1000 Hz, give or take what one place differs from the room's mean."""
    recipe = Recipe("measures", pairs={"eval": 16})
    scenes = draw_scenes(recipe, "measures", cast_of(recipe, speech, scan_speech(speech), NO_NOISE)[0])
    start = time.process_time()
    found = [(scene, scene_measures(scene, "measures")) for scene in scenes]
    assert time.process_time() - start < 0.1 * len(scenes)
    ratios = []
    for scene, measured in found:
        assert -20 < measured["drr_db"] < 30
        if scene["room"]["kind"] == "outdoor":
            assert np.isnan(measured["rt60"])
        else:
            ratios.append(measured["rt60"] / np.mean(scene["room"]["rt60"][2:4]))
    assert np.median(ratios) == pytest.approx(1, abs=0.1)
    assert scene_measures(scenes[0], "measures") == found[0][1] or np.isnan(found[0][1]["rt60"])
