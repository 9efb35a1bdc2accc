"""Known values; intervals that hold them; what the victim got wrong anyhow is no success."""

import numpy as np
import pytest

from streaming.attack.measures import detection, gained, mean_of, share_of, success


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
    assert detection(np.arange(3.0), np.array([-np.inf])) is None
