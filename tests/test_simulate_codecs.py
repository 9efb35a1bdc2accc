"""Real codecs in memory: in place, worse when stronger, the same every time."""

import numpy as np
import pytest

from remasc.simulate import scene_rng
from remasc.simulate.codecs import CODECS, coded, lag

RATE = 16000


def voice(seconds: float = 2.0) -> np.ndarray:
    """A gliding harmonic tone with pauses."""
    t = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 0.7 * t)) / RATE
    tone = sum(np.sin(h * phase) / h for h in range(1, 40))
    return (tone * (np.sin(2 * np.pi * 1.5 * t) > -0.5)).astype(np.float32)


def error_db(x: np.ndarray, y: np.ndarray) -> float:
    return float(10 * np.log10(np.square(x - y).sum() / np.square(x).sum()))


@pytest.mark.parametrize("name", CODECS)
def test_coded_stays_in_place_and_loses_more_when_stronger(name):
    x = np.pad(voice(), (3000, 5001))
    low, high = CODECS[name][2]
    mild, strong = coded(x, RATE, name, low), coded(x, RATE, name, high)
    assert mild.shape == strong.shape == x.shape
    assert mild.dtype == np.float32
    assert error_db(x, mild) < -12
    assert error_db(x, strong) > error_db(x, mild) + 2
    assert abs(lag(strong, x, 500)) <= 1
    assert np.array_equal(mild, coded(x, RATE, name, low))


def test_lag_finds_the_delay():
    x = scene_rng("codecs", "lag").standard_normal(4000)
    assert lag(np.pad(x, (37, 0)), x, 100) == 37
    assert lag(x[20:], x, 100) == -20


def test_unknown_codec_is_one_sentence():
    with pytest.raises(ValueError, match="expected one of mp3, opus, vorbis"):
        coded(voice(), RATE, "aac", 0.5)
