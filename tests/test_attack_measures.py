"""Known values; intervals that hold them; what the victim got wrong anyhow is no success."""

import numpy as np
import pytest

from streaming.attack.measures import detection, gained, mean_of, ratio, share_of, success


def test_success_counts_what_the_victim_had_right():
    found = success([True, True, True, True, False, False], [0, 1, 1, 0.5, 0, 0])
    assert found.value == pytest.approx(1.5 / 4)
    assert found.low < found.value < found.high
    assert success([False], [0]) is None


def test_wilsons_interval_is_the_known_one():
    found = share_of([1] * 8 + [0] * 2)  # 8 of 10: 0.490 to 0.943
    assert (found.low, found.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert share_of([0] * 10).low == 0
    assert share_of([0] * 10).high == pytest.approx(0.2775, abs=1e-4)


def test_an_interval_over_speakers_is_wider_where_their_clips_agree():
    """Ten speakers whose ten clips all do the same are ten clips; where speakers are alike they are a hundred."""
    speakers = [str(k) for k in range(10) for _ in range(10)]
    alike = [1.0] * 70 + [0.0] * 30
    apart = ([1.0] * 7 + [0.0] * 3) * 10
    clustered, plain = share_of(alike, speakers), share_of(alike)
    assert share_of(apart, speakers) == plain
    ten = share_of([1.0] * 7 + [0.0] * 3)
    assert clustered.value == plain.value
    assert clustered.low < plain.low < plain.high < clustered.high
    assert (clustered.low, clustered.high) == (
        pytest.approx(ten.low, abs=0.03),
        pytest.approx(ten.high, abs=0.03),
    )
    assert share_of(alike, ["one"] * 100) == plain  # too few to make an interval of
    wide, narrow = mean_of(alike, speakers), mean_of(alike)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_a_ratio_is_paired():
    rng = np.random.default_rng(0)
    one = (rng.random(300) < 0.4).astype(float)
    found = ratio(0.5 * one, one)
    assert (found.value, found.low, found.high) == (pytest.approx(0.5),) * 3
    assert ratio(one, np.zeros(300)) is None
    other = ratio(rng.random(300) < 0.1, one)
    assert other.low < 0.25 < other.high < 0.5


def test_gained_is_one_for_the_expert_and_nothing_for_random():
    rng = np.random.default_rng(0)
    random, expert = rng.random(200) < 0.1, rng.random(200) < 0.8
    assert gained(expert, random, expert).value == 1
    assert gained(random, random, expert).value == 0
    half = gained((random * 1.0 + expert * 1.0) / 2, random, expert)
    assert half.value == pytest.approx(0.5)
    assert half.low == pytest.approx(0.5)
    assert gained(expert, expert, random) is None  # no room: nothing to reach


def test_the_interval_of_gained_covers_noise():
    rng = np.random.default_rng(1)
    found = gained(rng.random(60) < 0.4, rng.random(60) < 0.1, rng.random(60) < 0.7)
    assert found.low < 0.5 < found.high
    assert found.low > 0


def test_mean_and_detection():
    found = mean_of([0.1, 0.2, 0.3])
    assert found.value == pytest.approx(0.2)
    assert 0.1 <= found.low <= found.high <= 0.3
    clean = detection(np.arange(5.0) + 10, np.arange(5.0))
    attacked = detection(np.arange(5.0) + 10, np.arange(5.0) + 12)
    assert clean.value == 0 < attacked.value
    assert detection(np.arange(3.0), np.array([-np.inf, -np.inf])).value == 0  # what has no score is rejected
    assert detection(np.arange(3.0), np.array([])) is None
