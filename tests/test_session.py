"""Beside the sound path the same is said as in it; what cannot be kept up with accepts nothing."""

import threading
import time

import numpy as np
import pytest

from streaming import Settings, StreamingDetector
from streaming.blocks import Block
from streaming.decision import Decision
from streaming.delivery import Delivery
from streaming.notices import NOTICES, Notice
from streaming.session import MOST_WAITING, Said, Session
from streaming.sources import ArraySource, Paced
from tests.test_online import RATE, Cheap, bursts, scene, stream


class Blocks:
    """A source of given blocks, with a rate for each where it changes."""

    def __init__(self, blocks, sample_rate=RATE, num_mics=2, rates=None):
        self.blocks, self.sample_rate, self.num_mics, self.rates = blocks, sample_rate, num_mics, rates or {}

    def __iter__(self):
        for number, block in enumerate(self.blocks):
            self.sample_rate = self.rates.get(number, self.sample_rate)
            yield block


def session(source, detector=None, settings=None, **options):
    detector = detector or Cheap()
    return Session(source, lambda rate: StreamingDetector(detector, None, rate, settings=settings), **options)


def run(live):
    said = [one for one in live if one is not None]
    decisions = [one.decision for one in said if isinstance(one, Said)]
    return decisions, [one for one in said if isinstance(one, Notice)]


@pytest.mark.parametrize("seed", range(10))
def test_final_decisions_are_those_of_the_stream(seed):
    x = scene(seed, 2, 8.0)
    decisions, notices = run(session(ArraySource(x, RATE)))
    expected = stream(Cheap(), x, [160])
    assert [d for d in decisions if d.final] == [d for d in expected if d.final]
    assert all(d in expected for d in decisions)  # looks at growing commands may be left out
    assert notices == []


class Waits(Cheap):
    """Judges nothing before it is let."""

    def __init__(self, **options):
        super().__init__(**options)
        self.let = threading.Event()

    def judge(self, *arguments, **options):
        assert self.let.wait(60)
        return super().judge(*arguments, **options)


def test_a_slow_judge_leaves_out_looks_and_no_command():
    x, judge = bursts(3.0, 3.0, 3.0), Waits()

    class Ends(Blocks):
        def __iter__(self):
            yield from super().__iter__()
            judge.let.set()

    decisions, _ = run(session(Ends(list(ArraySource(x, RATE))), judge))
    expected = stream(Cheap(), x, [160])
    assert [d for d in decisions if d.final] == [d for d in expected if d.final]
    assert len(decisions) < len(expected)


def test_what_cannot_be_held_is_undecided_and_said():
    judge, count = Waits(threshold=-1e9), MOST_WAITING + 6
    live = session(ArraySource(bursts(*[0.5] * count), RATE), judge)
    said = []
    for one in live:
        said.append(one)
        if isinstance(one, Notice):
            assert one.notice == "overloaded"
            live._threads[0].join()  # everything was heard
            judge.let.set()
    finals = [one.decision for one in said if isinstance(one, Said) and one.decision.final]
    lost = [d for d in finals if d.reasons == ("overloaded",)]
    assert len(finals) == count
    assert len(lost) in (count - MOST_WAITING - 1, count - MOST_WAITING)
    assert all(d.genuine is None and d.score is None for d in lost)
    assert sum(isinstance(one, Notice) for one in said) == 1


def test_a_loss_is_undecided():
    blocks = list(ArraySource(bursts(2.0, 2.0), RATE))
    blocks[200] = Block(blocks[200].samples, lost=1)
    decisions, _ = run(session(Blocks(blocks)))
    assert [d.reasons for d in decisions if d.final] == [("interrupted",), (), ()]


def test_another_rate_is_another_stream_at_a_later_time():
    first, second = list(ArraySource(bursts(1.0), RATE)), list(ArraySource(bursts(1.0, rate=8000), 8000))
    live = session(Blocks(first + second, rates={len(first): 8000}))
    finals = [d for d in run(live)[0] if d.final]
    np.testing.assert_allclose([(d.start, d.end) for d in finals], [(0.7, 2.4), (3.7, 5.4)], atol=0.03)
    assert live.view.seconds == pytest.approx(6.0, abs=0.05)


def test_a_device_at_the_wrong_rate_decides_nothing():
    source = Blocks(list(ArraySource(bursts(1.0, 1.0), RATE)))
    source.rate_is_wrong = True
    decisions, _ = run(session(source, Cheap(threshold=-1e9)))
    assert decisions
    assert all(d.genuine is None and "rate" in d.reasons for d in decisions)


def test_samples_that_are_no_numbers_are_said_and_survived():
    blocks = list(ArraySource(bursts(2.0, 2.0), RATE))
    blocks[200] = Block(np.full((2, 160), np.nan, np.float32))
    decisions, notices = run(session(Blocks(blocks)))
    assert [d.reasons for d in decisions if d.final] == [("interrupted",), (), ()]
    assert [notice.notice for notice in notices] == ["refused"]


def test_sick_microphones_are_told():
    x = bursts(1.0, pause=3.0)
    x[1] = 0
    _, notices = run(session(ArraySource(x, RATE)))
    assert [(notice.notice, notice.channels) for notice in notices] == [("dead", (2,))]


def test_an_array_with_a_microphone_that_hardly_lives_decides_nothing():
    x = np.concatenate([bursts(1.0, pause=3.0), bursts(1.0, pause=3.0)])
    x[1] *= 1e-3  # not constant, so that the detector alone would judge it
    decisions, _ = run(session(Blocks(list(ArraySource(x, RATE)), num_mics=4), Cheap(threshold=-1e9)))
    assert decisions
    assert all(d.genuine is None and "dead-channel" in d.reasons for d in decisions)
    asleep = np.concatenate([np.zeros((2, 4 * RATE), np.float32), bursts(1.0, pause=0.5)], axis=1)
    decisions, notices = run(session(ArraySource(asleep, RATE), Cheap(threshold=-1e9)))
    assert [notice.notice for notice in notices] == ["dead", "alive"]
    assert [d.genuine for d in decisions if d.final] == [True]


def test_the_gate_has_the_last_word():
    from dataclasses import replace

    live = session(
        ArraySource(bursts(1.0, 1.0), RATE),
        Cheap(threshold=-1e9),
        gate=lambda decision: replace(decision, genuine=None, reasons=("hook",)),
    )
    assert {d.genuine for d in run(live)[0]} == {None}


def test_an_error_beside_the_sound_path_is_the_callers():
    def breaks(*_):
        raise RuntimeError("study")

    with pytest.raises(RuntimeError, match="study"):
        run(session(ArraySource(bursts(1.0), RATE), study=breaks))

    class Broken(Blocks):
        def __iter__(self):
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        run(session(Broken([])))


def test_leaving_ends_the_threads():
    live = session(Paced(ArraySource(scene(0, 2, 60.0), RATE)))
    for one in live:
        assert one is None
        break
    assert not any(thread.is_alive() for thread in live._threads)


def test_paced_sound_takes_its_time():
    began = time.monotonic()
    source = Paced(ArraySource(scene(0, 2, 0.5), RATE))
    assert sum(block.samples.shape[1] for block in source) == RATE // 2
    assert 0.45 < time.monotonic() - began < 2.0


def test_a_view_tells_what_goes_on():
    live = session(ArraySource(bursts(2.0), RATE), settings=Settings(first=0.5))
    run(live)
    view = live.view
    assert view.seconds == pytest.approx(4.0)
    assert not view.speaking
    assert view.levels.shape == view.peaks.shape == (2,)
    assert 0 < view.real_time_factor < 1
    assert view.latency >= 0
    assert view.scores[-1][2] == "final"


class Kept:
    def __init__(self, fails=0):
        self.lines, self.fails = [], fails

    def send(self, line):
        self.fails -= 1
        if self.fails >= 0:
            raise OSError("away")
        self.lines.append(line)

    def close(self): ...


def said_of(decision, samples=160):
    x = np.zeros((2, samples), np.float32)
    from streaming.online import Heard
    from streaming.vad import Span

    return Said(decision, Heard(Span("ends", 0, 1), 1, x), RATE, 0.25)


def test_an_outlet_that_fails_is_said_once_and_the_others_get_all():
    good, bad = Kept(), Kept(fails=3)
    delivery = Delivery([bad, good])
    told = [delivery.take(said_of(Decision(0, 1, 1.0, None, None))) for _ in range(5)]
    assert [len(notices) for notices in told] == [1, 0, 0, 0, 0]
    assert told[0][0].notice == "outlet"
    assert (len(good.lines), len(bad.lines)) == (5, 2)
    assert (delivery.finals, delivery.undecided) == (5, 5)


def test_what_cannot_be_recorded_is_said_and_the_decision_goes_on():
    class Full:
        def keep(self, *_, **__):
            raise OSError("disk full")

    good = Kept()
    notices = Delivery([good], Full()).take(said_of(Decision(0, 1, 1.0, None, True)))
    assert [notice.notice for notice in notices] == ["record"]
    assert ['"genuine": true' in line for line in good.lines] == [False, True]


def test_live_lines_tell_when_and_how_late():
    import json
    from datetime import UTC, datetime

    good = Kept()
    Delivery([good], live=True).take(said_of(Decision(0.0, 1.0, 1.0, None, True, at=1.2)))
    told = json.loads(good.lines[0])
    assert told["latency"] == 0.25
    ago = (datetime.now(UTC) - datetime.fromisoformat(told["time"])).total_seconds()
    assert 0.4 < ago < 1.5


def test_notices_have_words_and_accept_nothing():
    for word in NOTICES:
        told = Notice(word, channels=(2,)).as_dict()
        assert told["kind"] == "notice"
        assert told["genuine"] is None
        assert told["detail"]
    with pytest.raises(KeyError):
        Notice("unheard of").as_dict()
