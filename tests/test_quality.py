"""Reasons why a recording cannot be judged; what they lead to stands in test_score.py."""

import tracemalloc

import numpy as np
import pytest

from detector import quality


def talk(mics: int, seconds: float = 1.0, rate: int = 16000) -> np.ndarray:
    return np.random.default_rng(mics).normal(0, 0.05, (mics, round(seconds * rate))).astype(np.float32)


@pytest.mark.parametrize("mics", [1, 2, 7])
def test_the_order_of_microphones_decides_nothing(mics):
    gated = talk(mics)
    gated[:, 9000:] = 0
    one_dead = talk(mics)
    one_dead[-1] = 0.2
    low = np.cumsum(talk(mics), axis=1)
    for waveform in (talk(mics), gated, one_dead, low / np.abs(low).max() / 2):
        assert quality.fault(waveform, 16000) == quality.fault(waveform[::-1], 16000)
    assert quality.fault(talk(mics), 16000) is None
    assert quality.fault(gated, 16000) == "gated"


def test_a_gate_counts_where_it_is_on_all_channels():
    """A moment is gated where the mean over the channels is."""
    waveform = talk(3)
    waveform[:2, 9000:] = 0
    assert quality.fault(waveform, 16000) is None


def test_many_channels_take_the_memory_of_one():
    waveform = talk(16, seconds=10)
    tracemalloc.start()
    assert quality.fault(waveform, 16000) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < waveform.nbytes  # at once it took six times as much


def test_a_copy_is_one_also_where_its_zeros_have_another_sign():
    """Whatever mixes channels adds them to +0."""
    x = np.round(talk(2) * 40) / 40
    x[0][x[0] == 0] *= -1
    x[1] = x[0] + np.float32(0)
    assert np.signbit(x[0] * (x[0] == 0)).any()
    assert quality.fault(x, 16000) == "copied-channels"
