"""What was done to a simulated recording is what is found, and nothing else."""

import json

import numpy as np
import pytest

import replayguard
from remasc import ARRAYS, MicArray
from remasc.audio import write_wav
from streaming.array_check import check_array
from streaming.array_order import fit_order
from streaming.delays import SPEED_OF_SOUND, aperture, azimuth, coarse, direction, measure
from streaming.notices import Notice
from streaming.online import Heard
from streaming.study import Study
from streaming.vad import Span

RATE = 16000
SIDES = ((-1.0, 0.6), (0.9, 0.3), (0.3, -0.8))  # azimuth and elevation of the talker, radians


def burst(seed, seconds=1.2, rate=RATE):
    """A voice-like sound: noise in syllables, louder below 1 kHz."""
    g = np.random.default_rng(seed)
    size = round(seconds * rate)
    spectrum = np.fft.rfft(g.standard_normal(size))
    hertz = np.fft.rfftfreq(size, 1 / rate)
    spectrum *= (hertz > 100) * (hertz < 7800) / (1 + hertz / 1000)
    sound = np.fft.irfft(spectrum, size) * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * np.arange(size) / rate))
    return 0.1 * sound / np.abs(sound).max()


def recorded(array, seed=0, rate=RATE, sides=SIDES, noise=1e-4):
    """(M, T) float32: talkers one after the other, each heard directly and by 12 reflections from anywhere."""
    g = np.random.default_rng(seed)
    parts = []
    for number, (turn, lift) in enumerate(sides):
        sound = np.concatenate([burst(seed * 10 + number, rate=rate), np.zeros(rate // 5)])
        spectrum, hertz = np.fft.rfft(sound), np.fft.rfftfreq(len(sound), 1 / rate)
        heard = 0.0
        for reflection in range(13):
            way = g.standard_normal(3) if reflection else looking(turn, lift)
            onsets = -array.positions @ (way / np.linalg.norm(way)) / SPEED_OF_SOUND
            after, gain = (g.uniform(0.003, 0.08), g.uniform(0.05, 0.35)) if reflection else (0.001, 1.0)
            heard = heard + gain * np.exp(-2j * np.pi * hertz * (onsets[:, None] + after))
        parts.append(np.fft.irfft(spectrum * heard, len(sound)))
    x = np.concatenate(parts, axis=1)
    return (0.3 * x / np.abs(x).max() + noise * g.standard_normal(x.shape)).astype(np.float32)


def looking(turn, lift):
    """Unit vector towards azimuth and elevation."""
    return np.array([np.sin(turn) * np.cos(lift), np.sin(lift), np.cos(turn) * np.cos(lift)])


@pytest.fixture(scope="module")
def heard():
    return {name: recorded(ARRAYS[name]) for name in ARRAYS}


def late(x, channel, samples):
    y = x.copy()
    y[channel, samples:] = x[channel, : x.shape[1] - samples]
    y[channel, :samples] = 1e-4 * np.random.default_rng(0).standard_normal(samples)
    return y


def scaled(x, channel, gain):
    y = x.copy()
    y[channel] *= gain
    return y


def copied(x, channel, source):
    y = x.copy()
    y[channel] = x[source]
    return y


def exchanged(x, *order):
    return x[list(order) + list(range(len(order), len(x)))]


@pytest.mark.parametrize("name", ["D2", "D3", "D4"])
def test_an_array_as_it_should_be(heard, name):
    report = check_array(heard[name], RATE, ARRAYS[name])
    assert report.sure, report


def test_two_microphones_have_no_order_and_that_is_said(heard):
    report = check_array(heard["D1"], RATE, ARRAYS["D1"])
    assert report.sound
    assert [finding.question for finding in report.findings if finding.state != "ok"] == ["order"]


FAULTS = {
    "dead": (lambda x: scaled(x, 1, 0.0), "alive", (2,)),
    "faint": (lambda x: scaled(x, 1, 1e-3), "alive", (2,)),
    "copied": (lambda x: copied(x, 2, 0), "own signals", (1, 3)),
    "copied and louder": (lambda x: 0.9 * copied(scaled(x, 0, 0.7), 2, 0), "own signals", (1, 3)),
    "late by 10 ms": (lambda x: late(x, 1, 160), "synchronous", (2,)),
    "late by 1 ms": (lambda x: late(x, 3, 16), "synchronous", (4,)),
    "something else": (
        lambda x: np.concatenate([x[:2], np.random.default_rng(1).normal(0, 0.03, (1, x.shape[1])), x[3:]]),
        "synchronous", (3,),
    ),
    "inverted": (lambda x: scaled(x, 2, -1.0), "polarity", (3,)),
    "attenuated": (lambda x: scaled(x, 1, 0.5), "gain", (2,)),
    "louder": (lambda x: scaled(0.4 * x, 1, 2.0), "gain", (2,)),
    "swapped": (lambda x: exchanged(x, 1, 0), "order", (1, 2)),
}  # fmt: skip


CASES = [(fault, "D3") for fault in FAULTS] + [
    ("swapped", "D2"),
    ("swapped", "D4"),
    ("inverted", "D2"),
    ("dead", "D4"),
]


@pytest.mark.parametrize(("fault", "name"), CASES)
def test_a_fault_is_found_and_named(heard, fault, name):
    spoil, question, channels = FAULTS[fault]
    report = check_array(spoil(heard[name]).astype(np.float32), RATE, ARRAYS[name])
    found = report.of(question)
    assert not report.sound
    assert (found.state, found.channels) == ("fault", channels), report
    others = [one for one in report.findings if one.state == "fault" and one.question != question]
    assert [
        one.question for one in others if not (one.question == "gain" and fault == "something else")
    ] == []


def test_an_order_that_has_a_mirror_image_is_found_as_one_of_the_two(heard):
    report = check_array(exchanged(heard["D4"], 0, 3, 2, 1), RATE, ARRAYS["D4"])
    assert report.of("order").state == "fault"
    assert report.of("order").channels in ((2, 4), (1, 5))


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 0, 1)])
def test_other_orders_are_found(heard, order):
    report = check_array(exchanged(heard["D4"], *order), RATE, ARRAYS["D4"])
    assert report.of("order").state == "fault"
    moved = tuple(channel + 1 for channel, other in enumerate(order) if channel != other)
    assert report.of("order").channels == moved


def test_a_channel_one_sample_late_does_not_fit_the_distances(heard):
    report = check_array(late(heard["D4"], 4, 1), RATE, ARRAYS["D4"])
    found = report.of("geometry")
    assert (found.state, found.channels) == ("fault", (5,))
    assert "1.0 samples" in found.detail


def test_an_array_that_is_larger_than_claimed(heard):
    small = MicArray("small", ARRAYS["D2"].positions / 2, 16000)
    report = check_array(heard["D2"], RATE, small)
    assert not report.sound
    assert {finding.question for finding in report.findings if finding.state == "fault"} <= {
        "synchronous",
        "geometry",
    }


def test_talkers_in_front_tell_no_order_and_that_is_said():
    report = check_array(recorded(ARRAYS["D2"], sides=[(0.0, 0.0)] * 2), RATE, ARRAYS["D2"])
    assert report.sound
    assert report.of("order").state == "unknown"


@pytest.mark.parametrize("samples", [0, 1, 100, 4000, 40000])
def test_noise_and_silence_tell_nothing(samples):
    g = np.random.default_rng(0)
    for level in (0.0, 0.05):
        x = (
            (level * g.standard_normal((4, samples))).astype(np.float32)
            if samples
            else np.zeros((4, 0), np.float32)
        )
        if samples == 0:
            with pytest.raises(ValueError, match="shape"):
                check_array(x, RATE, ARRAYS["D2"])
            continue
        report = check_array(x, RATE, ARRAYS["D2"])
        assert not report.sure


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="--channels"):
        check_array(np.zeros((5, 1000), np.float32), RATE, ARRAYS["D2"])


@pytest.mark.parametrize("seed", range(5))
def test_delays_are_those_of_the_geometry(seed):
    """A far source without a room: the very delays of the formula, to a microsecond."""
    g = np.random.default_rng(seed)
    array = ARRAYS[["D2", "D3", "D4"][seed % 3]]
    turn, lift = g.uniform(-1.2, 1.2), g.uniform(-0.5, 0.5)
    onsets = -array.positions @ looking(turn, lift) / SPEED_OF_SOUND
    sound = burst(seed, 1.0)
    hertz = np.fft.rfftfreq(len(sound), 1 / RATE)
    x = np.fft.irfft(np.fft.rfft(sound) * np.exp(-2j * np.pi * hertz * (onsets[:, None])), len(sound))
    found = measure(x.astype(np.float32), RATE, aperture(array.positions) / SPEED_OF_SOUND + 3e-5)
    expected = onsets[found.pairs[:, 0]] - onsets[found.pairs[:, 1]]
    np.testing.assert_allclose(found.delay, expected, atol=1e-6)
    np.testing.assert_allclose(found.onsets, onsets - onsets.mean(), atol=1e-6)
    assert (found.peak > 0.8).all()
    assert direction(found.onsets, array.positions)[1] < 1e-6
    if array.name != "D2" or abs(lift) < 0.1:
        assert azimuth(found.onsets, array.positions) == pytest.approx(turn, abs=0.05)


def test_coarse_delays_have_their_sign():
    x = np.random.default_rng(0).normal(0, 0.1, (1, 8000)).astype(np.float32)
    two = np.concatenate([np.roll(x, 40, axis=1), -x])
    delay, peak = coarse(two, RATE, 0.1)
    assert delay[0] == pytest.approx(40 / RATE)
    assert peak[0] < -0.8


@pytest.mark.parametrize("seed", range(10))
def test_the_order_is_found_from_perfect_onsets(seed):
    g = np.random.default_rng(seed)
    positions = ARRAYS["D4"].positions
    towards = g.normal(0, 0.5, (6, 3))
    towards /= np.maximum(1, np.linalg.norm(towards, axis=1, keepdims=True))
    onsets = -towards @ positions.T / SPEED_OF_SOUND
    assert fit_order(onsets, positions).moves == ()
    a, b = g.choice(7, 2, replace=False)
    onsets[:, [a, b]] = onsets[:, [b, a]]
    assert fit_order(onsets, positions).moved == tuple(sorted((int(a), int(b))))


def test_live_says_once_that_microphones_are_swapped(heard):
    def said(x):
        study, told = Study(ARRAYS["D4"]), []
        size = round(1.4 * RATE)
        for turn in range(12):
            start = turn % len(SIDES) * size
            span = Heard(Span("ends", 0, 70), 70, x[:, start : start + size])
            notices, where = study(span, RATE)
            told += notices
            if turn < len(SIDES) and x is heard["D4"]:
                assert where == pytest.approx(SIDES[turn][0], abs=0.15)
        return told

    assert said(heard["D4"]) == []
    told = said(exchanged(heard["D4"], 0, 1, 3, 2))
    assert [(notice.notice, notice.channels) for notice in told] == [("swapped", (3, 4))]
    assert isinstance(told[0], Notice)


def test_the_command(heard, tmp_path, capsys):
    path = tmp_path / "six.wav"
    write_wav(path, heard["D3"], RATE, "FLOAT")
    assert replayguard.main(["array", "check", "--from", str(path), "--array", "D3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sure"]
    assert {finding["question"] for finding in told["findings"]} == {
        "alive", "own signals", "synchronous", "polarity", "gain", "order", "geometry",
    }  # fmt: skip
    assert (
        replayguard.main(["array", "check", "--from", str(path), "--array", "D3", "--channels", "2,1,3-6"])
        == 1
    )
    out = capsys.readouterr().out
    assert "FAULT" in out
    assert "channels 1 and 2 are swapped" in out
    for wrong in (
        ["--array", "D4"],
        [],
        ["--array", "D3", "--seconds", "0"],
        ["--array", "D3", "--channels", "9"],
    ):
        assert replayguard.main(["array", "check", "--from", str(path), *wrong]) == 2
