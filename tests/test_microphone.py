"""A device that overflows, goes away, comes back with another rate, or stands still: said, and survived."""

import threading
import time

import numpy as np
import pytest

from streaming import devices, microphone
from streaming.microphone import Microphone, Pace
from tests.fake_portaudio import FakePortAudio

NAME = "ReSpeaker 4 Mic Array (UAC1.0)"


@pytest.fixture
def sound(monkeypatch):
    fake = FakePortAudio()
    monkeypatch.setattr(devices, "portaudio", lambda: fake)
    monkeypatch.setattr(microphone, "portaudio", lambda: fake)
    return fake


class Listener:
    """Iterates a microphone in a thread of its own, as a session does."""

    def __init__(self, **options):
        self.notices, self.blocks, self.rates = [], [], []
        options = {"device": "respeaker", "channels": (1, 2, 3, 4), "patience": (0.01, 0.02)} | options
        self.mic = Microphone(notice=self.notices.append, **options)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        for block in self.mic:
            self.blocks.append(block)
            self.rates.append(self.mic.sample_rate)

    @property
    def words(self):
        return [notice.notice for notice in self.notices]

    @property
    def samples(self):
        return sum(block.samples.shape[1] for block in self.blocks)

    def until(self, condition, seconds=5.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.words, self.samples)
            time.sleep(0.002)

    def end(self):
        self.mic.stop()
        self.thread.join(timeout=5)
        assert not self.thread.is_alive()


def noise(samples=160, channels=6, seed=0):
    return np.random.default_rng(seed).uniform(-0.1, 0.1, (channels, samples)).astype(np.float32)


def test_the_chosen_channels_in_their_order(sound):
    listener, x = Listener(channels=(4, 1)), noise(1600)
    for start in range(0, 1600, 160):
        sound.feed(x[:, start : start + 160])
    listener.until(lambda: listener.samples == 1600)
    listener.end()
    heard = np.concatenate([block.samples for block in listener.blocks], axis=1)
    np.testing.assert_array_equal(heard, x[[4, 1]])
    assert all(block.lost == 0 for block in listener.blocks)
    assert listener.words == []
    assert sound.stream.closed
    assert sound.stream.settings["channels"] == 5


def test_an_overflow_is_said_and_marks_the_block(sound):
    listener = Listener()
    sound.feed(noise())
    listener.until(lambda: listener.samples == 160)
    sound.feed(noise(), overflow=True)
    listener.until(lambda: listener.samples == 320)
    listener.end()
    assert listener.words == ["overflow"]
    assert [block.lost > 0 for block in listener.blocks] == [False, True]


def test_an_unplugged_device_is_waited_for(sound):
    listener, plugged = Listener(), sound.plugged
    sound.feed(noise())
    listener.until(lambda: listener.samples == 160)
    sound.unplug()
    listener.until(lambda: "waiting" in listener.words)
    time.sleep(0.1)
    sound.plugged = plugged
    listener.until(lambda: len(sound.streams) == 2)
    sound.feed(noise())
    sound.feed(noise())
    listener.until(lambda: listener.samples == 480)
    listener.end()
    assert listener.words == ["unplugged", "waiting", "reconnected"]
    assert sound.started >= 2
    after = listener.blocks[1:]
    assert after[0].lost > 0
    assert sum(block.lost for block in after[1:]) == 0


def test_attempts_become_rarer(sound):
    listener = Listener(patience=(0.05, 0.2))
    sound.feed(noise())
    listener.until(lambda: listener.samples)
    sound.unplug()
    time.sleep(1.0)
    listener.end()
    assert 4 <= sound.started <= 8  # after 0.05, 0.15, 0.35, 0.55, 0.75, 0.95 s


def test_a_device_that_falls_silent_is_opened_anew(sound, monkeypatch):
    monkeypatch.setattr(microphone, "STALLED_SECONDS", 0.1)
    listener = Listener()
    sound.feed(noise())
    listener.until(lambda: len(sound.streams) == 2)
    assert sound.streams[0].closed
    sound.feed(noise())
    listener.until(lambda: "reconnected" in listener.words)
    listener.end()


def test_a_device_that_opens_and_gives_nothing_is_said_once(sound, monkeypatch):
    monkeypatch.setattr(microphone, "STALLED_SECONDS", 0.02)
    listener = Listener(patience=(0.01, 0.1))
    sound.feed(noise())
    listener.until(lambda: len(sound.streams) > 6, 20)
    listener.end()
    assert listener.words == ["unplugged"]


def test_another_rate_after_it_came_back_is_taken_and_said(sound):
    listener = Listener(array_rate=16000)
    sound.feed(noise())
    listener.until(lambda: listener.samples == 160)
    sound.unplug()
    sound.plugged = {NAME: (6, (48000,))}
    listener.until(lambda: len(sound.streams) == 2)
    sound.feed(noise())
    listener.until(lambda: listener.samples == 320)
    listener.end()
    assert "rate" in listener.words
    assert listener.rates == [16000, 48000]


def test_the_rate_is_the_arrays_where_the_device_can(sound):
    sound.plugged = {NAME: (6, (48000, 16000))}
    assert Microphone("respeaker", (0,), array_rate=16000).sample_rate == 16000
    assert Microphone("respeaker", (0,), array_rate=44100).sample_rate == 48000
    assert Microphone("respeaker", (0,), 16000, array_rate=48000).sample_rate == 16000
    with pytest.raises(ValueError, match="44100"):
        Microphone("respeaker", (0,), 44100)


def test_what_is_not_there_at_the_beginning_is_an_error(sound):
    with pytest.raises(ValueError, match="no input named"):
        Microphone("UMA-8", (0,))
    with pytest.raises(ValueError, match="channel 7"):
        Microphone("respeaker", (0, 6))


def test_it_ends_after_so_many_seconds(sound):
    listener = Listener(seconds=0.02)
    sound.feed(noise(400))
    listener.thread.join(timeout=5)
    assert not listener.thread.is_alive()
    assert sound.stream.closed


def test_a_rate_that_is_not_what_the_device_says_is_noticed_and_over(sound):
    mic = Microphone("respeaker", (0,))
    said = []
    mic.notice = said.append
    pace, now = Pace(16000), 100.0
    for rate in (16000, 16100, 15000, 15000, 15000, 16000, 16000, 16000):
        for _ in range(1100):
            mic._keep_pace(pace, rate // 100, now, restart=False)
            now += 0.01
    assert [notice.notice for notice in said] == ["rate", "rate-restored"]
    assert "15" in said[0].detail
    mic.close()


def test_time_without_a_turn_is_a_loss(sound, monkeypatch):
    """The whole program was stopped, its callback as well."""
    listener = Listener()
    sound.feed(noise())
    listener.until(lambda: listener.samples == 160)
    real = time.monotonic
    monkeypatch.setattr(microphone.time, "monotonic", lambda: real() + 4.0)
    sound.feed(noise())
    listener.until(lambda: listener.samples == 320)
    listener.end()
    assert "overflow" in listener.words
    assert listener.blocks[-1].lost > 0
