"""Voice activity and spans: a course of frames, whatever blocks it came in, and never the future."""

import itertools

import numpy as np
import pytest

from streaming.vad import EnergyVad, Segmenter, Span

FRAMES = {"onset": 3, "pre": 15, "post": 20, "hang": 30, "shortest": 10, "longest": 1500, "cool": 15}
LOOKS = {"look": 50, "every": 25}


def noise(seed, mics, samples, level_db=-60.0):
    g = np.random.default_rng(seed)
    return (10 ** (level_db / 20) * g.standard_normal((mics, samples))).astype(np.float32)


def voiced_frames(vad, samples):
    return np.flatnonzero(vad.feed(samples[:, : samples.shape[1] // vad.frame * vad.frame]))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("mics", [1, 2, 7, 9, 16])
def test_the_levels_do_not_depend_on_the_blocks(seed, rate, mics):
    vad, x = EnergyVad(rate), noise(seed, mics, round(0.4 * rate))
    whole = vad.levels(x[:, : 20 * vad.frame])
    single = [vad.levels(x[:, k * vad.frame : (k + 1) * vad.frame])[0] for k in range(20)]
    assert whole.tolist() == single


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("snr_db", [12, 20, 40])
def test_speech_is_what_rises_above_the_floor(rate, snr_db):
    vad, x = EnergyVad(rate), noise(0, 4, 5 * rate)
    x[:, 2 * rate : 4 * rate] *= 10 ** (snr_db / 20)
    assert voiced_frames(vad, x).tolist() == list(range(100, 200))


def test_a_gain_and_the_order_of_microphones_decide_nothing():
    x = noise(0, 5, 16000 * 4)
    x[:, 16000:32000] *= 20
    expected = voiced_frames(EnergyVad(16000), x)
    assert len(expected) > 40
    np.testing.assert_array_equal(voiced_frames(EnergyVad(16000), 3 * x), expected)
    np.testing.assert_array_equal(voiced_frames(EnergyVad(16000), x[::-1]), expected)


def test_one_broken_microphone_decides_nothing():
    x = noise(0, 5, 16000 * 4)
    x[:, 16000:32000] *= 20
    expected = voiced_frames(EnergyVad(16000), x)
    for broken in (np.zeros(x.shape[1]), 1000 * noise(1, 1, x.shape[1])[0]):
        y = x.copy()
        y[2] = broken
        assert len(np.setxor1d(voiced_frames(EnergyVad(16000), y), expected)) <= 2


def test_a_rumble_and_a_constant_are_no_speech():
    x = noise(0, 2, 16000 * 4)
    t = np.arange(x.shape[1]) / 16000
    x += np.where(t > 2, 0.2 + 0.1 * np.sin(2 * np.pi * 60 * t), 0).astype(np.float32)
    assert (voiced_frames(EnergyVad(16000), x) == 100).all()  # the frame of the step itself is a click


def test_a_noise_that_stays_becomes_the_floor():
    vad = EnergyVad(16000)
    x = noise(0, 2, 16000 * 30)
    x[:, 16000 * 10 :] *= 10
    voiced = voiced_frames(vad, x)
    assert voiced[0] == 500
    assert voiced[-1] < 500 + 8.6 * 50
    x[:, 16000 * 25 :] *= 10  # and what rises above it is speech
    assert 1250 in voiced_frames(EnergyVad(16000), x)


def test_a_microphone_that_wakes_up_is_no_voice():
    x = noise(0, 2, 16000 * 3)
    x[:, :16000] = 0
    assert len(voiced_frames(EnergyVad(16000), x)) == 0


@pytest.mark.parametrize("cut", [1, 10, 100, 200, 319])
def test_a_frame_that_silence_cut_is_no_floor(cut):
    """A device that drops out leaves frames that are partly digital silence, far below the room's own noise."""
    x = noise(0, 2, 16000 * 4)
    for gap in (16000, 32000):
        x[:, gap - cut : gap + 3200 + cut] = 0
    assert len(voiced_frames(EnergyVad(16000), x)) == 0


def spans(flags, flush=True, **settings):
    """All that a segmenter says of frames of speech, with the frame at which it says it."""
    segmenter = Segmenter(**(FRAMES | LOOKS | settings))
    said = [(span, now + 1) for now, flag in enumerate(flags) if (span := segmenter.step(bool(flag)))]
    last = segmenter.flush() if flush else None
    return said + ([(last, len(flags))] if last else [])


def flags(*runs):
    """Alternating runs of silence and speech, in frames."""
    return np.concatenate([np.full(run, index % 2, bool) for index, run in enumerate(runs)])


def test_a_command_with_its_silence_and_its_looks():
    said = spans(flags(100, 120, 100))
    looks = [(Span("grows", 85, end), end) for end in (150, 175, 200, 225)]
    assert said == [*looks, (Span("ends", 85, 240), 250)]


def test_a_pause_within_a_command_does_not_end_it():
    assert [span for span, _ in spans(flags(100, 30, 29, 30, 60)) if span.kind == "ends"] == [
        Span("ends", 85, 209)
    ]


def test_a_click_is_dropped():
    assert spans(flags(100, 2, 100)) == []
    assert spans(flags(100, 9, 100)) == []
    assert len(spans(flags(100, 10, 100))) == 1


def test_speech_at_once_after_an_end_waits_and_is_whole():
    ends = [span for span, _ in spans(flags(100, 40, 31, 60, 100)) if span.kind == "ends"]
    assert ends == [Span("ends", 85, 160), Span("ends", 160, 251)]


def test_what_never_ends_is_cut_and_goes_on():
    ends = [span for span, _ in spans(np.ones(4000)) if span.kind == "ends"]
    assert ends == [Span("ends", 0, 1501), Span("ends", 1501, 3002), Span("ends", 3002, 4000)]


def test_looks_cost_a_multiple_of_the_length():
    looks = [span.last - span.first for span, _ in spans(np.ones(1500)) if span.kind == "grows"]
    assert sum(looks) < 10 * 1500


@pytest.mark.parametrize("seed", range(50))
def test_spans_are_in_order_apart_and_causal(seed):
    g = np.random.default_rng(seed)
    course = flags(*g.integers(1, g.integers(5, 200), 40))
    said = spans(course)
    ends = [span for span, _ in said if span.kind == "ends"]
    for span, at in said:
        assert 0 <= span.first < span.last <= at
        assert course[span.first : span.last].sum() >= FRAMES["shortest"]
    for before, after in itertools.pairwise(ends):
        assert before.last <= after.first
    cut = int(g.integers(1, len(course)))
    other = np.concatenate([course[:cut], g.random(300) < 0.5])
    past = [entry for entry in said if entry[1] <= cut and entry[1] < len(course)]
    assert [entry for entry in spans(other, flush=False) if entry[1] <= cut] == past


def test_every_look_is_followed_by_an_end():
    for seed in range(50):
        g = np.random.default_rng(seed)
        kinds = [span.kind for span, _ in spans(g.random(2000) < g.random())]
        assert not kinds or kinds[-1] == "ends"
