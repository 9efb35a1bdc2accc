"""Laws of the human talker: where the head goes, and that it is heard to go there without a click."""

import numpy as np
import pytest
from scipy import fft as sfft
from scipy import signal

from remasc.simulate.rooms import Room, responses, transfer
from remasc.simulate.talkers import SWAY_LIMIT, course, fades, head_path

pytest.importorskip("pyroomacoustics")
RATE = 16000
OPEN = Room("open", "outdoor", (40, 40, 20), ((1.0,) * 7,) * 6, (0.5,) * 7, 20.0, tail_db=-120.0)
MIC = np.array([20.0, 20.0, 1.5])
LENGTH, FIRST, LAST = 2 * RATE, 4000, 26000
SWAYS = [(0.03, 0.01, 0.0), (0.012, -0.004, 0.003), (0.004, 0.0, 0.0), (0.0, 0.0, 0.0)]


def path_of(sway: tuple, turn: float = 0.1) -> list:
    return head_path(MIC + [1.0, 0.0, 0.0], np.array([-1.0, 0.0, 0.0]), np.array(sway), turn)


def heard(x: np.ndarray, path: list) -> np.ndarray:
    """What a microphone in the open, a metre away, hears of a moving mouth that says `x` (N,)."""
    taps = responses(OPEN, path, MIC[None], RATE, np.random.default_rng(0), centre=MIC)[:, 0]
    weights = fades(LENGTH, FIRST, LAST, len(path))
    spectra = [transfer(h, LENGTH) * sfft.rfft(x * w) for h, w in zip(taps, weights, strict=True)]
    return sfft.irfft(sum(spectra), LENGTH)


def delays(path: list) -> np.ndarray:
    """Samples of delay (N,) that the geometry gives along the way."""
    ends = path[0].position, path[-1].position
    where = ends[0] + course(LENGTH, FIRST, LAST)[:, None] * (ends[1] - ends[0])
    return np.linalg.norm(where - MIC, axis=1) / OPEN.speed_of_sound * RATE


@pytest.mark.parametrize("seed", range(5))
def test_frames_lie_closely_along_the_sway_and_no_head_goes_farther_than_heads_go(seed):
    rng = np.random.default_rng(seed)
    position, sway, turn = rng.normal(0, 1, 3), rng.normal(0, 0.012, 3), rng.uniform(-0.12, 0.12)
    path = head_path(position, np.array([1.0, 0.0, 0.0]), sway, turn)
    places = np.array([emitter.position for emitter in path])
    assert np.linalg.norm(np.diff(places, axis=0), axis=1).max() <= 0.005 + 1e-9
    way = places[-1] - places[0]
    assert np.linalg.norm(way) == pytest.approx(min(np.linalg.norm(sway), SWAY_LIMIT))
    assert way @ sway == pytest.approx(np.linalg.norm(way) * np.linalg.norm(sway))
    assert (places[0] + places[-1]) / 2 == pytest.approx(position)
    angles = [np.arctan2(emitter.facing[1], emitter.facing[0]) for emitter in path]
    assert angles[-1] - angles[0] == pytest.approx(turn)


def test_who_neither_sways_nor_turns_is_one_source_that_says_all():
    assert len(path_of((0.0, 0.0, 0.0), 0.0)) == 1
    assert (fades(100, 10, 90, 1) == 1).all()


def test_weights_sum_to_one():
    for frames in (1, 2, 5):
        assert fades(LENGTH, FIRST, LAST, frames).sum(axis=0) == pytest.approx(np.ones(LENGTH), abs=1e-6)


def test_a_head_sways_slowly_and_without_jerks():
    """Speed begins and ends at zero, and 99 % of what moves lies below 1.6 Hz in 1 s, 0.4 Hz in 4 s."""
    for seconds in (1.0, 4.0):
        way = course(12 * RATE, 4 * RATE, round((4 + seconds) * RATE))
        assert way[0] == 0
        assert way[-1] == 1
        speed = np.diff(way) * RATE
        assert speed.max() < 1.6 / seconds
        assert np.abs(np.diff(speed)).max() * RATE < 5.0 / seconds**2
        power = np.square(np.abs(sfft.rfft(speed)))
        assert power[sfft.rfftfreq(len(speed), 1 / RATE) > 1.6 / seconds].sum() < 1e-2 * power.sum()


@pytest.mark.parametrize("sway", SWAYS)
def test_the_delay_follows_the_path(sway):
    """Within 0.05 sample at every moment: phase slope of short pieces of noise between 300 and 6000 Hz."""
    path, rng = path_of(sway), np.random.default_rng(1)
    x = rng.standard_normal(LENGTH).astype(np.float32)
    y, expected = heard(x, path), delays(path)
    f = sfft.rfftfreq(LENGTH, 1 / RATE)
    kept = (f > 300) & (f < 6000)
    for start in range(FIRST, LAST - 2000, 2000):
        late = expected[start + 1000]
        window = np.zeros(LENGTH)
        window[start : start + 2000] = np.hanning(2000)
        said, came = sfft.rfft(x * window), sfft.rfft(y * np.roll(window, round(late)))
        phase = np.angle(came * said.conj() * np.exp(2j * np.pi * f * late / RATE))[kept]
        weight = np.abs(said[kept]) ** 2 * f[kept]
        error = -(weight * phase).sum() / (weight * 2 * np.pi * f[kept] / RATE).sum()
        assert abs(error) < 0.05, (start, error)


@pytest.mark.parametrize("tone", [1000, 6000])
@pytest.mark.parametrize("sway", SWAYS[:3])
def test_a_moving_head_makes_no_clicks(sway, tone):
    """A tone stays a tone: all else is 70 dB below it, and its level that of 1 / distance within 0.5 dB."""
    path = path_of(sway)
    y = heard(np.sin(2 * np.pi * tone * np.arange(LENGTH) / RATE).astype(np.float32), path)
    inner = slice(3000, -3000)
    power = np.abs(sfft.rfft(y[inner] * np.blackman(len(y[inner]))))
    f = sfft.rfftfreq(len(y[inner]), 1 / RATE)
    assert 20 * np.log10(power[np.abs(f - tone) > 30].max() / power.max()) < -70
    level = 20 * np.log10(np.abs(signal.hilbert(y)) * delays(path))[inner]
    assert np.ptp(level) < 0.5
