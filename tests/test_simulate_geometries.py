"""Laws of random arrays: buildable, of all kinds and sizes, and the same for the same generator."""

import numpy as np
import pytest

from remasc.simulate import scene_rng
from remasc.simulate.geometries import DEVICE_M, MOST, SPACING_M, random_array


def drawn(microphones: int, count: int = 60) -> list:
    return [random_array(scene_rng("arrays", f"{microphones}-{k}"), microphones) for k in range(count)]


def distances(array) -> np.ndarray:
    return np.linalg.norm(array.positions[:, None] - array.positions[None], axis=-1)


@pytest.mark.parametrize("microphones", range(1, MOST + 1))
def test_every_array_can_be_built(microphones):
    """No two microphones nearer than a centimetre or farther apart than the largest device; around its middle."""
    for array in drawn(microphones):
        assert array.num_mics == microphones
        assert np.abs(array.positions.mean(axis=0)).max() < 1e-5
        if microphones > 1:
            apart = distances(array)
            assert apart[~np.eye(microphones, dtype=bool)].min() > SPACING_M - 3e-5
            assert DEVICE_M[0] * 0.3 < apart.max() < DEVICE_M[1] + 3e-5


def test_lines_circles_and_scatters_upright_and_lying_small_and_large():
    arrays = drawn(6, 200)
    kinds = [array.name.split("-")[1] for array in arrays]
    assert {kinds.count(kind) > 40 for kind in ("line", "circle", "scatter")} == {True}
    upright = [not array.positions[:, 2].any() for array in arrays]
    assert 0.5 < np.mean(upright) < 0.8  # lines, and half of the rest
    sizes = np.array([distances(array).max() for array in arrays])
    assert (sizes < 0.08).mean() > 0.15
    assert (sizes > 0.16).mean() > 0.15


def test_a_circle_is_round_and_a_line_straight():
    for array in drawn(7, 100):
        away = np.linalg.norm(array.positions, axis=1)
        if "circle" in array.name:
            ring = away[:-1] if away[-1] < 1e-4 else away
            assert np.ptp(ring) < 5e-5
        elif "line" in array.name:
            assert np.linalg.svd(array.positions, compute_uv=False)[1] < 1e-4


def test_the_generator_decides():
    assert random_array(scene_rng("a", "b"), 5) == random_array(scene_rng("a", "b"), 5)
    assert len({array.name for array in drawn(5)}) == 60


@pytest.mark.parametrize("microphones", [0, 17])
def test_other_counts_are_refused_in_a_sentence(microphones):
    with pytest.raises(ValueError, match="1 to 16"):
        random_array(scene_rng("a", "b"), microphones)
