"""What is wrong with a microphone is said once when it begins and once when it is over, in any blocks."""

import numpy as np
import pytest

from streaming.watch import Watch

RATE = 8000


def noise(seconds, mics=4, level=0.03, seed=0):
    return np.random.default_rng(seed).normal(0, level, (mics, round(seconds * RATE))).astype(np.float32)


def said(x, block=80, mics=4):
    watch = Watch(mics, RATE)
    return [
        (notice.notice, notice.channels, notice.at)
        for start in range(0, x.shape[1], block)
        for notice in watch.feed(x[:, start : start + block])
    ]


def spoil(x, what, channel, start, end):
    span = slice(round(start * RATE), round(end * RATE))
    if what == "dead":
        x[channel, span] = 0.0
    elif what == "stuck":
        x[channel, span] = 0.4
    elif what == "faint":
        x[channel, span] *= 1e-3
    elif what == "clipping":
        x[channel, span] = np.clip(100 * x[channel, span], -1, 1)
    elif what == "copied":
        x[channel, span] = x[0, span]
    return x


@pytest.mark.parametrize("mics", [1, 2, 7])
def test_healthy_microphones_need_no_words(mics):
    assert said(noise(10, mics), mics=mics) == []


@pytest.mark.parametrize(
    ("what", "word", "over", "which"),
    [
        ("dead", "dead", "alive", (3,)),
        ("stuck", "dead", "alive", (3,)),
        ("faint", "dead", "alive", (3,)),
        ("clipping", "clipping", "clipping-over", (3,)),
        ("copied", "copied", "copied-over", (1, 3)),
    ],
)
@pytest.mark.parametrize("block", [37, 80, 20000])
def test_it_is_said_when_it_begins_and_when_it_is_over(what, word, over, which, block):
    x = spoil(noise(14), what, 2, 3.0, 8.0)
    told = said(x, block)
    assert [(a, b) for a, b, _ in told] == [(word, which), (over, which)]
    assert 4.9 <= told[0][2] <= 5.6
    assert 9.9 <= told[1][2] <= 10.6


def test_a_moment_is_no_fault():
    assert said(spoil(noise(6), "dead", 1, 2.0, 3.0)) == []


def test_all_at_once_are_told_together():
    x = noise(6)
    x[:] = 0
    assert [(word, channels) for word, channels, _ in said(x)] == [("dead", (1, 2, 3, 4))]


def test_levels_are_those_of_the_last_block():
    watch = Watch(2, RATE)
    x = np.stack([np.full(800, 0.1), np.full(800, 1.0)]).astype(np.float32)
    x[:, ::2] *= -1
    watch.feed(x)
    np.testing.assert_allclose(watch.levels, [-20, 0], atol=0.01)
    np.testing.assert_allclose(watch.peaks, [-20, 0], atol=0.01)
    assert watch.feed(np.zeros((2, 0), np.float32)) == []
