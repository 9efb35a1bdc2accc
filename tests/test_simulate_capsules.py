"""Laws of microphone tolerances: small, as described, causal, and the same for the same name."""

import numpy as np
from scipy import fft as sfft

from remasc.simulate import scene_rng
from remasc.simulate.capsules import GAIN_DB, capsule_response, draw_capsules, tolerances

F = np.linspace(0, 8000, 4001)


def drawn(seed: str = "a", count: int = 400) -> np.ndarray:
    return draw_capsules(scene_rng("capsules", seed), count, F)


def at(frequency: float) -> int:
    return int(np.argmin(np.abs(F - frequency)))


def test_gains_differ_by_a_decibel_and_hardly_with_frequency():
    level = 20 * np.log10(np.abs(drawn()))
    assert np.abs(level[:, at(1000)]).max() < GAIN_DB + 0.02
    assert np.ptp(level[:, at(1000)]) > 1.8 * GAIN_DB  # they do differ
    assert np.abs(level[:, at(7000)] - level[:, at(1000)]).max() < 0.5
    assert np.abs(level[:, at(100)] - level[:, at(1000)]).max() < 0.5


def test_phases_differ_by_degrees_in_the_bass_and_by_less_above():
    phase = np.degrees(np.angle(drawn()))
    spread = {f: np.abs(phase[:, at(f)]).max() for f in (100, 200, 1000, 7000)}
    assert 3.0 < spread[100] < 6.0
    assert 1.5 < spread[200] < 3.0
    assert spread[1000] < 1.0
    assert 0.3 < spread[7000] < 2.0


def test_phase_of_the_corner_is_that_of_a_first_order_high_pass():
    one = np.array([40.0]), np.array([1e9]), np.array([0.3])
    found = capsule_response(F[1:], *one)[0]
    assert np.allclose(np.angle(found), np.arctan(40.0 / F[1:]), atol=1e-4)
    assert np.allclose(np.abs(found), F[1:] / np.hypot(F[1:], 40.0), atol=1e-6)


def test_nothing_comes_before_the_sound():
    """The energy of a tolerance's impulse response lies after time zero."""
    spectra = (
        drawn(count=20) * np.cos(np.pi / 2 * F / F[-1]) ** 2
    )  # a soft end of the band rings for samples only
    taps = sfft.irfft(spectra)
    middle = taps.shape[1] // 2
    late, early = taps[:, 10:middle], taps[:, middle:-10]
    assert (np.square(early).sum(axis=1) < 1e-4 * np.square(late).sum(axis=1)).all()


def test_names_decide_and_silence_at_zero_hertz_stays_finite():
    assert np.array_equal(drawn("a"), drawn("a"))
    assert not np.allclose(drawn("a"), drawn("b"))
    assert np.isfinite(drawn()).all()


def test_an_array_is_itself_whatever_stands_beside_it():
    """Displacements within half a millimetre; the reference perfect; D2's own with or without D4."""
    moved, heard = tolerances({"scene_id": "scene"}, "corpus", ("D4", "D2"), F)
    alone_moved, alone = tolerances({"scene_id": "scene"}, "corpus", ("D2",), F)
    assert moved.shape == (12, 3)
    assert heard.shape == (12, len(F))
    assert np.abs(moved).max() <= 5e-4
    assert not moved[0].any()
    assert (heard[0] == 1).all()
    assert np.array_equal(moved[-4:], alone_moved[1:])
    assert np.array_equal(heard[-4:], alone[1:])
