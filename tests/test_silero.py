"""Another voice activity detector behind the same two verbs; torch's threads stay as they were."""

import numpy as np
import pytest

pytest.importorskip("silero_vad", reason="silero-vad (the extra vad) is not installed")

import torch

from remasc.resampling import resample
from streaming import StreamingDetector
from streaming.silero import DELAY, RATE, SileroVad
from tests.test_online import Cheap, bursts, fed


@pytest.fixture(scope="module")
def vad():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    one = SileroVad(44100)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    return one


def vowel(seconds, rate, seed=0):
    """(2, T): something voiced, with formants and a pitch that moves, between two pauses of faint noise."""
    t = np.arange(round(seconds * rate)) / rate
    pitch = 120 + 20 * np.sin(2 * np.pi * 3 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = np.zeros_like(t)
    for harmonic in range(1, 30):
        f = harmonic * pitch
        gain = sum(
            np.exp(-(((f - formant) / width) ** 2))
            for formant, width in ((650, 120), (1100, 150), (2500, 250))
        )
        sound += gain * np.sin(harmonic * phase)
    sound *= (t > 0.5) & (t < seconds - 0.5) & (np.sin(2 * np.pi * 2 * t) > -0.6)
    g = np.random.default_rng(seed)
    return (0.1 * sound + 1e-3 * g.standard_normal((2, len(t)))).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_depends_on_the_blocks(vad, seed):
    x = vowel(2.0, 44100, seed)
    x = x[:, : x.shape[1] // vad.frame * vad.frame]
    vad.reset()
    whole = vad.feed(x)
    vad.reset()
    g, parts, here = np.random.default_rng(seed), [], 0
    while here < x.shape[1]:
        size = int(g.integers(1, 8)) * vad.frame
        parts.append(vad.feed(x[:, here : here + size]))
        here += size
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_noise_is_no_speech(vad):
    vad.reset()
    x = np.random.default_rng(0).normal(0, 0.03, (2, 100 * vad.frame)).astype(np.float32)
    assert vad.feed(x).mean() < 0.1


def test_what_it_hears_is_the_resampled_sound(vad):
    vad.reset()
    x = vowel(0.5, 44100)[0]
    x = x[: len(x) // vad.frame * vad.frame]
    heard = np.concatenate([vad._at_16k(frame) for frame in x.reshape(-1, vad.frame)])
    expected = resample(x[None], 44100, RATE)[0]
    np.testing.assert_allclose(heard[DELAY + 50 : -50], expected[50 : len(heard) - 50 - DELAY], atol=2e-4)


@pytest.mark.parametrize(
    ("rate", "seconds"), [(8000, 0.02), (16000, 0.02), (44100, 0.02), (48000, 0.02), (11025, 0.04)]
)
def test_frames_are_whole_at_every_usual_rate(rate, seconds):
    vad = SileroVad(rate)
    assert vad.frame / rate == pytest.approx(seconds)
    assert vad.frame * RATE % rate == 0
    assert len(vad.feed(np.zeros((1, 5 * vad.frame), np.float32))) == 5


def test_a_rate_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="--vad energy"):
        SileroVad(44099)


def test_it_finds_commands_for_the_stream():
    """With it the stream keeps its laws; noise bursts, which energy takes for commands, are none to it."""
    x = bursts(1.0, 1.0)
    assert [
        d for d in fed(StreamingDetector(Cheap(), None, 16000, vad=SileroVad(16000)), x, [160]) if d.final
    ] == []
