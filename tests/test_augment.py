"""Laws of handling: finite, the same draw for all microphones, the same every time, most recordings untouched."""

import numpy as np
import pytest

from detector.augment import KINDS, SHARE, handled, padded
from remasc.identity import scene_rng

RATE = 16000


def recording(mics: int = 3, seconds: float = 1.5) -> np.ndarray:
    rng = scene_rng("augment", "recording")
    voice = np.sin(2 * np.pi * 200 * np.arange(int(seconds * RATE)) / RATE) * 0.1
    voice[: RATE // 3] *= 0.01
    return (voice + 1e-3 * rng.standard_normal((mics, len(voice)))).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("rate", [16000, 44100])
def test_each_kind_keeps_what_lies_between_microphones(kind, rate):
    """Equal channels stay equal (but for padding's own noise); samples stay finite and no louder."""
    x = np.repeat(recording(1), 3, axis=0)
    for seed in range(8):
        y = kind(x, rate, np.random.default_rng(seed))
        assert y.dtype == np.float32
        assert y.shape[0] == 3
        assert y.shape[1] >= x.shape[1]
        assert np.isfinite(y).all()
        assert np.abs(y).max() < 2 * np.abs(x).max()
        if kind is not padded and "stepped" not in kind.__name__:
            assert np.array_equal(y[0], y[1])
        assert kind(x[:, :100], rate, np.random.default_rng(seed)).shape[1] >= 100
        assert np.isfinite(kind(np.zeros_like(x), rate, np.random.default_rng(seed))).all()


def test_a_share_of_the_trials_is_handled_and_always_alike():
    x = recording()
    changed = [not np.array_equal(handled(x, RATE, f"core/{n}"), x) for n in range(300)]
    assert np.mean(changed) == pytest.approx(SHARE, abs=0.08)
    one = changed.index(True)
    assert np.array_equal(handled(x, RATE, f"core/{one}"), handled(x, RATE, f"core/{one}"))
