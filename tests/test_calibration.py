import numpy as np
import pytest

from detector.calibration import Calibration, probability, threshold_at
from eval.metrics import cllr, min_cllr


@pytest.mark.parametrize("seed", range(4))
def test_gaussian_scores_get_their_known_llr(seed):
    g = np.random.default_rng(seed)
    # equal variances: llr = (m1 - m0) / s^2 * (x - (m1 + m0) / 2) = 2 x - 3 for means 2, 1 and sd 0.7071
    genuine, replay = g.normal(2, 0.5**0.5, 20000), g.normal(1, 0.5**0.5, 30000)
    fitted = Calibration.fit(genuine, replay)
    assert fitted.slope == pytest.approx(2, abs=0.1), seed
    assert fitted.offset == pytest.approx(-3, abs=0.15), seed


def test_calibrated_llrs_cost_little_more_than_the_best():
    g = np.random.default_rng(0)
    genuine, replay = 30 * g.normal(1, 1, 3000) + 100, 30 * g.normal(-1, 1.5, 3000) + 100
    fitted = Calibration.fit(genuine, replay)
    assert cllr(fitted.llr(genuine), fitted.llr(replay)) < min_cllr(genuine, replay) + 0.05


def test_separable_scores_stay_finite_and_reversed_ones_say_nothing():
    fitted = Calibration.fit(np.array([1.0, 2.0, 3.0]), np.array([-1.0, -2.0]))
    assert np.isfinite([fitted.slope, fitted.offset]).all()
    assert fitted.slope > 0
    assert Calibration.fit(np.array([-1.0, -2.0]), np.array([1.0, 2.0])) == Calibration(0.0, 0.0)


@pytest.mark.parametrize("p_fa", [0.0, 0.01, 0.05, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_threshold_keeps_its_promise_and_is_the_smallest(p_fa, seed):
    replay = np.random.default_rng(seed).normal(size=137).round(1)  # with ties
    threshold = threshold_at(replay, p_fa)
    assert (replay >= threshold).mean() <= p_fa
    lower = np.nextafter(threshold, -np.inf)
    assert (replay >= lower).mean() > p_fa


def test_probability_is_the_posterior():
    assert probability(0.0) == 0.5
    assert probability(0.0, 0.9) == pytest.approx(0.9)
    assert probability(np.log(3), 0.5) == pytest.approx(0.75)
    assert probability(-2000.0) == 0.0
    with pytest.raises(ValueError, match="prior"):
        probability(1.0, 1.0)
