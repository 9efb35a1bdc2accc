"""The soak holds where streaming equals offline, and notices each way in which it would not."""

import gc
import json
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from eval.benchmarks import soak_sound
from eval.benchmarks.soak import Soak, main, markdown, report, soak
from eval.benchmarks.soak_checks import Listener, Opinion, growth
from eval.benchmarks.soak_sound import Book
from remasc import Corpus, MicArray
from remasc.audio import write_wav
from streaming import StreamingDetector
from tests.tiny_corpus import meta_row

RATE = 8000
PAIR = MicArray("PAIR", np.array([[0.0, 0, 0], [0.05, 0, 0]]), RATE)


class Cheap:
    """Judges by the samples themselves, all of them."""

    def __init__(self):
        self.heard, self.kept, self.off_after = 0, [], None

    def judge(self, waveform, sample_rate, array=None, *, threshold=None):
        self.heard += 1
        score = zlib.crc32(waveform.tobytes()) % 2001 / 100 - 10
        if self.off_after is not None and self.heard > self.off_after:
            score += 1e-3
        decision = "genuine" if score >= 0 else "replay"
        return SimpleNamespace(score=score, llr=None, decision=decision, reason="", detail="")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Six commands in syllables over a little noise."""
    root = tmp_path_factory.mktemp("commands")
    (root / "data").mkdir()
    rows, g = [], np.random.default_rng(0)
    for n in range(6):
        t = np.arange(round(g.uniform(0.8, 2.5) * RATE)) / RATE
        level = 2e-3 + 0.05 * (0.55 + 0.45 * np.cos(2 * np.pi * g.uniform(3, 5) * t))
        write_wav(root / "data" / f"{1000000 + n}.wav", level * g.standard_normal((2, len(t))), RATE)
        rows.append(meta_row(1000000 + n, seconds=len(t) / RATE))
    (root / "meta.csv").write_text("\n".join(rows) + "\n")
    return Corpus.from_meta(root)


@pytest.fixture(autouse=True)
def a_thin_book(monkeypatch):
    """Three short chapters, so that copies come soon."""
    monkeypatch.setattr("eval.benchmarks.soak_checks.CHAPTERS", 3)
    monkeypatch.setattr(soak_sound, "CHAPTER_SECONDS", 20.0)


def listener(recordings, ears=None, share=0.5):
    ears = ears or StreamingDetector(Cheap(), PAIR, RATE)
    return Listener(ears, Book(recordings, PAIR, ears.vad.frame), share)


def after(listening, chapters):
    for number in range(chapters):
        listening.hear(number)
    return listening.tally


def options(tmp_path, **more):
    return Soak(out=tmp_path, detector="cheap", **{"hours": 0.03, "array": "PAIR"} | more)


def test_a_stream_of_many_chapters_equals_each_chapter_alone(recordings):
    tally = after(listener(recordings), 9)
    assert (tally.missed, tally.moved, tally.contradicted, tally.difference) == (0, 0, 0, 0.0)
    assert tally.faults == []
    assert tally.chapters == 9
    assert tally.commands >= 18
    assert tally.looks > tally.finals >= 9
    assert tally.judged > 0 < tally.copies
    assert tally.judged + tally.copies <= tally.finals


def test_a_chapter_is_the_same_whenever_it_comes_and_fits_the_voice_activity(recordings):
    book, other = Book(recordings, PAIR, 160), Book(recordings, PAIR, 160, seed=1)
    for number in range(3):
        chapter = book.chapter(number)
        assert np.array_equal(chapter.samples, book.chapter(number).samples)
        assert chapter.samples.shape[1] % (25 * 160) == 0
        assert np.abs(chapter.samples).max() <= 1
        assert chapter.commands[0][0] >= 10 * RATE
        assert chapter.commands[-1][1] + 2 * RATE <= chapter.samples.shape[1]
        assert chapter.commands != other.chapter(number).commands


class Faulty(StreamingDetector):
    """Does something wrong from the fourth chapter on, when all chapters were heard once."""

    def __init__(self, wrong):
        super().__init__(Cheap(), PAIR, RATE)
        self.wrong = wrong

    def feed(self, block):
        return self.wrong(self, block, super().feed)


def late(ears):
    return ears.seconds > 80


def drops_a_sample(ears, block, feed, count=1):
    if late(ears) and block.shape[1] >= count and not hasattr(ears, "dropped"):
        ears.dropped = True
        block = block[:, count:]
    return feed(block)


def drops_a_frame(ears, block, feed):
    return drops_a_sample(ears, block, feed, ears.vad.frame)


def is_deaf(ears, block, feed):
    return feed(block * 0 if late(ears) else block)


def swallows_what_it_says(ears, block, feed):
    return [] if (said := feed(block)) and late(ears) else said


def scores_a_little_off(ears, block, feed):
    if late(ears) and ears.detector.off_after is None:
        ears.detector.off_after = ears.detector.heard
    return feed(block)


@pytest.mark.parametrize(
    ("wrong", "noticed"),
    [
        (drops_a_sample, {"contradicted"}),
        (drops_a_frame, {"moved"}),
        (is_deaf, {"missed", "moved"}),
        (swallows_what_it_says, {"missed", "moved"}),
        (scores_a_little_off, {"contradicted"}),
    ],
)
def test_what_goes_wrong_after_a_while_is_noticed(recordings, wrong, noticed, tmp_path):
    listening = listener(recordings, Faulty(wrong))
    tally = after(listening, 9)
    assert {name for name in ("missed", "moved", "contradicted") if getattr(tally, name)} == noticed
    assert 0 < len(tally.faults) <= 20
    figures = report(listening, options(tmp_path), ended=True)
    assert not figures["held"]
    dropped = {drops_a_sample: 1, drops_a_frame: 160}.get(wrong, 0)
    assert figures["checks"]["samples that the clock is off"][0] == dropped


def test_growth_is_what_a_line_gains_after_the_first_copy_of_all():
    hours = np.linspace(0, 24, 97)
    noise = np.random.default_rng(0).normal(0, 0.5, 97)
    rising = list(zip(hours, 300 + 400 * np.minimum(hours, 0.75) + 2 * hours, strict=True))
    gained, slope = growth(rising)
    assert gained == pytest.approx(2 * 23.25)
    assert slope == pytest.approx(2)
    assert growth(rising[:4])[1] == pytest.approx(402)  # of too few chapters: it still rises
    assert abs(growth(list(zip(hours, 300 + noise, strict=True)))[0]) < 1
    assert growth([(0.1, 5.0)]) == (0.0, 0.0)


def test_a_detector_that_keeps_what_it_hears_does_not_hold(recordings, tmp_path):
    class Hoarder(Cheap):
        def judge(self, waveform, *rest, **options):
            self.kept.append(np.ones(2**21))
            return super().judge(waveform, *rest, **options)

    ears = StreamingDetector(Hoarder(), PAIR, RATE)
    gc.collect()  # what other tests left behind, or its going would hide what comes
    figures = soak(listener(recordings, ears, share=0), options(tmp_path, growth_mib=30.0), progress=False)
    assert figures["checks"]["MiB gained"][0] > 30
    assert not figures["held"]


def test_figures_are_written_whole_and_told(recordings, tmp_path):
    figures = soak(listener(recordings), options(tmp_path), progress=False)
    assert json.loads((tmp_path / "soak-cheap.json").read_text()) == figures
    assert (tmp_path / "soak-cheap.md").read_text() == markdown(figures)
    assert (figures["ended"], figures["held"]) == (True, True)
    assert 0.03 <= figures["hours"] < 0.05
    assert "| MiB gained |" in markdown(figures)


def test_a_signal_ends_it_with_what_was_heard(recordings, tmp_path):
    import signal

    listening = listener(recordings)
    hear = listening.hear

    def interrupted(number):
        if number == 2:
            signal.raise_signal(signal.SIGTERM)
        return hear(number)

    listening.hear = interrupted
    before = signal.getsignal(signal.SIGTERM)
    figures = soak(listening, options(tmp_path, hours=24.0), progress=False)
    assert (figures["chapters"], figures["ended"], figures["held"]) == (3, False, True)
    assert "ended before the 24 h" in markdown(figures)
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_opinion_is_as_far_from_another_as_their_scores():
    some, none = Opinion(-20.0, False, ()), Opinion(None, None, ("silent",))
    assert some.far_from(Opinion(-19.0, False, ())) == pytest.approx(1 / 19)
    assert Opinion(0.5, None, ()).far_from(Opinion(0.25, None, ())) == 0.25
    assert (some.far_from(none), none.far_from(some), none.far_from(none)) == (1.0, 1.0, 0.0)


def test_what_cannot_be_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="no recordings of PAIR"):
        Book((), PAIR, 160)
    for wrong in ({"hours": 0.0}, {"hours": float("nan")}, {"share": 2.0}):
        with pytest.raises(ValueError, match="expected some hours"):
            options(tmp_path, **wrong)


@pytest.mark.slow
def test_minutes_through_the_edge_detector_with_the_embedded_voices(tmp_path, monkeypatch):
    pytest.importorskip("espeakng_loader")
    monkeypatch.undo()
    monkeypatch.setattr(soak_sound, "DEMO_SCALE", 0.05)
    monkeypatch.setattr("eval.benchmarks.soak_checks.CHAPTERS", 2)
    given = Soak(out=tmp_path, detector="edge", hours=0.1, share=1.0, growth_mib=32.0)
    assert main(given) == 0
    figures = json.loads((tmp_path / "soak-edge.json").read_text())
    assert figures["chapters"] >= 5
    assert figures["judged offline"] == figures["final decisions"] > 20
