import numpy as np
import pytest

from streaming import Ring


@pytest.mark.parametrize("seed", range(20))
def test_a_ring_holds_the_end_of_what_was_fed(seed):
    g = np.random.default_rng(seed)
    mics, capacity = int(g.integers(1, 8)), int(g.integers(1, 50))
    ring, whole = Ring(mics, capacity), np.zeros((mics, 0), np.float32)
    for _ in range(30):
        block = g.standard_normal((mics, int(g.integers(0, 2 * capacity)))).astype(np.float32)
        ring.feed(block)
        whole = np.concatenate([whole, block], axis=1)
        assert ring.end == whole.shape[1]
        assert ring.start == max(0, whole.shape[1] - capacity)
        np.testing.assert_array_equal(ring.read(ring.start, ring.end), whole[:, ring.start :])


def test_what_is_not_held_is_refused():
    ring = Ring(2, 10)
    ring.feed(np.zeros((2, 15)))
    for start, end in [(4, 8), (6, 16), (9, 8)]:
        with pytest.raises(ValueError, match="holds 5 to 15"):
            ring.read(start, end)
    with pytest.raises(ValueError, match="expected"):
        ring.feed(np.zeros((3, 4)))
    ring.reset()
    assert (ring.start, ring.end) == (0, 0)
