"""Tones keep amplitude, frequency and phase at every rate, and nothing takes long."""

import math
import time

import numpy as np
import pytest

from remasc.resampling import ratio, resample


def noise(mics: int = 2, samples: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (mics, samples)).astype(np.float32)


@pytest.mark.parametrize(("one", "other"), [(44100, 16000), (16000, 44100), (48000, 16000), (8000, 16000)])
def test_resampling_keeps_tones_and_their_phase_on_every_microphone(one, other):
    frequency, shift = 700.0, np.array([0.0, 1e-4, -2.3e-4])

    def tone(rate: int, samples: int) -> np.ndarray:
        return np.sin(2 * np.pi * frequency * (np.arange(samples) / rate - shift[:, None])).astype(np.float32)

    resampled = resample(tone(one, one), one, other)
    assert resampled.shape == (3, -(-one * other // one))
    assert resampled.dtype == np.float32
    inner = slice(other // 10, -other // 10)
    assert np.abs(resampled - tone(other, other))[:, inner].max() < 2e-3


def test_resampling_is_flat_up_to_its_edge():
    tone = np.sin(2 * np.pi * 7100 * np.arange(44100) / 44100)[None].astype(np.float32)
    assert np.abs(resample(tone, 44100, 16000)[:, 1000:-1000]).max() == pytest.approx(1, abs=5e-3)


def test_resampling_removes_what_the_lower_rate_cannot_hold():
    high = np.sin(2 * np.pi * 9000 * np.arange(44100) / 44100)[None].astype(np.float32)
    assert np.abs(resample(high, 44100, 16000)[:, 1000:-1000]).max() < 1e-3


def test_the_nearest_ratio_is_exact_or_within_its_bound():
    """Over ratios of every kind: usual rates, odd ones, neighbours of simple ones."""
    rates = {
        4001,
        8000,
        11025,
        16001,
        22254,
        44056,
        44100,
        44101,
        47952,
        48000,
        95999,
        192001,
        377777,
        383999,
    }
    rates |= set(np.random.default_rng(3).integers(4000, 384001, 200).tolist())
    for one in rates:
        for other in (8000, 16000, 44100, 48000, 384000):
            up, down = ratio(one, other)
            assert max(up, down) <= 20_000
            common = math.gcd(one, other)
            if max(one, other) <= 20_000 * common:
                assert (up, down) == (other // common, one // common)
            assert abs(up * one / (down * other) - 1) <= 25.001e-6, (one, other)
            assert ratio(other, one) == (down, up)
    for one, other in ((0, 16000), (16000, -1), (16000, float("nan"))):
        with pytest.raises(ValueError, match="positive sample rates"):
            ratio(one, other)


@pytest.mark.parametrize("rate", [383999, 377777, 96001, 44101, 22254, 16001])
def test_odd_rates_keep_amplitude_and_frequency(rate):
    """Half a second: a tone at 0.88 of the lower Nyquist frequency, measured by its rotating phase."""
    frequency, seconds = 0.88 * min(rate, 16000) / 2, 0.5
    tone = np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)[None].astype(np.float32)
    started = time.process_time()
    resampled = resample(tone, rate, 16000)[0]
    assert time.process_time() - started < 1.0  # without the bound 1 to 4 s for the first of them
    assert abs(len(resampled) - 16000 * seconds) <= 2
    at = np.arange(200, len(resampled) - 200)
    beat = (resampled[at] * np.exp(-2j * np.pi * frequency * at / 16000)).reshape(-1, 200)
    beat = (
        (beat * np.hanning(200)).sum(axis=1) / np.hanning(200).sum() * 2
    )  # amplitude and phase, 12.5 ms each
    assert np.abs(beat) == pytest.approx(np.ones(len(beat)), abs=2e-3)
    drift = np.diff(np.unwrap(np.angle(beat))).mean() / (2 * np.pi * 200 / 16000)
    assert abs(drift / frequency) <= 25e-6


def test_an_approximated_ratio_is_as_good_as_the_exact_one():
    """5901/16265 for 16000/44101, against the same filter at the ratio itself."""
    from scipy.signal import firwin, resample_poly

    rate, to_rate = 44101, 16000
    sound = resample(noise(2, 4000, seed=4), 16000, 44100)[:, : rate // 10]
    exact_filter = firwin(64 * rate + 1, 0.95 / rate, window=("kaiser", 6.0)).astype(np.float32)
    exact = resample_poly(sound, to_rate, rate, axis=-1, window=exact_filter)
    near = resample(sound, rate, to_rate)
    samples = min(exact.shape[1], near.shape[1])
    error = np.square(near[:, :samples] - exact[:, :samples]).sum() / np.square(exact).sum()
    assert 10 * np.log10(error) < -80, 10 * np.log10(error)


def test_equal_rates_change_nothing_and_batches_are_microphones_in_turn():
    waveform = noise(3, 500)
    assert resample(waveform, 16000, 16000) is waveform
    batch = np.stack([waveform, waveform[::-1]])
    assert np.array_equal(resample(batch, 44100, 16000)[1], resample(waveform[::-1].copy(), 44100, 16000))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (44100, 16000),
        (48000, 16000),
        (16000, 44100),
        (8000, 16000),
        (44101, 16000),
        (383999, 16000),
        (16000, 8000),
    ],
)
@pytest.mark.parametrize("samples", [1, 7, 1000, 50_000])
def test_resampling_is_polyphase_filtering(one, other, samples):
    """Against SciPy, with the filter as SciPy designs it."""
    from scipy.signal import firwin, resample_poly

    up, down = ratio(one, other)
    widest = max(up, down)
    taps = firwin(64 * widest + 1, 0.95 / widest, window=("kaiser", 6.0))
    x = noise(samples=samples)
    want = resample_poly(x.astype(np.float64), up, down, axis=-1, window=taps)
    got = resample(x, one, other)
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-6


def test_long_recordings_are_resampled_in_pieces(monkeypatch):
    whole = resample(noise(samples=30_000), 44100, 16000)
    monkeypatch.setattr("remasc.resampling.ROWS", 32)
    assert np.array_equal(resample(noise(samples=30_000), 44100, 16000), whole)


def test_resampling_needs_numpy_alone():
    import subprocess
    import sys

    code = "import sys, numpy; from remasc.resampling import resample; resample(numpy.zeros((1, 99)), 3, 2); "
    code += "print([m for m in ('scipy', 'torch') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
