"""Streaming equals offline, in any blocks; the future never changes a decision; memory does not grow."""

import json
import tracemalloc
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

import detector
import replayguard
from detector import quality
from detector.calibration import Calibration
from detector.frontends.growing import GrowingPlanes
from remasc.audio import write_wav
from streaming import Decision, Settings, StreamingDetector, listen
from streaming.blocks import Block
from streaming.online import seconds_of
from streaming.sources import ArraySource, FileSource

RATE = 16000


class Cheap:
    """Judges by the samples themselves, all of them, so that one other sample is another score."""

    def __init__(self, calibration=None, threshold=0.0):
        self.calibration, self.threshold, self.heard = calibration, threshold, 0

    def judge(self, waveform, sample_rate, array=None, *, threshold=None):
        self.heard += 1
        score = (zlib.crc32(waveform.tobytes()) % 2001 - 1000) / 100
        llr = None if self.calibration is None else self.calibration.llr(score)
        if waveform.shape[1] > quality.MAX_SECONDS * sample_rate:
            return SimpleNamespace(score=score, llr=llr, decision="undecided", reason="too-long", detail="")
        decision = "genuine" if score >= (self.threshold if threshold is None else threshold) else "replay"
        return SimpleNamespace(score=score, llr=llr, decision=decision, reason="", detail="")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    from tests.test_score import checkpoint  # imports torch, which the laws of the stream do not need

    return detector.load(checkpoint(tmp_path_factory.mktemp("detectors") / "one"))


def scene(seed, mics=2, seconds=8.0, rate=RATE):
    """Bursts of noise in syllables between pauses, over a floor at -60 dBFS: (M, T) float32."""
    g = np.random.default_rng(seed)
    samples = round(seconds * rate)
    level, here = np.full(samples, 1e-3), round(g.uniform(0.2, 1.0) * rate)
    while here < samples:
        length = round(g.uniform(0.3, 2.5) * rate)
        burst = slice(here, here + length)
        syllables = 0.55 + 0.45 * np.cos(2 * np.pi * g.uniform(3, 5) * np.arange(length) / rate)
        level[burst] = 10 ** g.uniform(-1.7, -0.8) * syllables[: len(level[burst])]
        here += length + round(g.uniform(0.3, 2.0) * rate)
    return (level * g.standard_normal((mics, samples))).astype(np.float32)


def stream(detector, x, sizes, rate=RATE, array=None, **options):
    """All decisions of x fed in blocks of `sizes`, which are repeated."""
    live = StreamingDetector(detector, array, rate, **options)
    return fed(live, x, sizes) + live.flush()


def fed(live, x, sizes):
    said, here, turn = [], 0, 0
    while here < x.shape[1]:
        size = int(sizes[turn % len(sizes)])
        said += live.feed(x[:, here : here + size])
        here, turn = here + size, turn + 1
    return said


def span_of(x, said, rate=RATE):
    return x[:, round(said.start * rate) : round(said.end * rate)]


def equals_offline(detector, x, said, rate=RATE, array=None):
    judged = detector.judge(span_of(x, said, rate), rate, array)
    assert abs(said.score - judged.score) <= 1e-5 * max(1, abs(judged.score))
    assert said.genuine is {"genuine": True, "replay": False, "undecided": None}[judged.decision]
    assert said.reasons == ((judged.reason,) if judged.reason else ())
    assert said.llr == pytest.approx(judged.llr, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_final_decisions_equal_offline_scoring_in_any_blocks(untrained, seed):
    g = np.random.default_rng(seed)
    mics, rate, array = [(2, 16000, "D1"), (2, 44100, "D1"), (1, 16000, None), (4, 22050, None)][seed % 4]
    x = scene(seed, mics, 4.0, rate)
    finals = None
    for sizes in ([rate // 100], g.integers(0, rate, 20), [10 * rate]):
        said = [d for d in stream(untrained, x, sizes, rate, array) if d.final]
        assert said, seed
        assert finals is None or said == finals
        finals = said
    for final in finals:
        equals_offline(untrained, x, final, rate, array)
        offline = untrained.score(span_of(x, final, rate), rate, array)
        assert abs(final.score - offline) <= 1e-5 * max(1, abs(offline))


@pytest.mark.parametrize("seed", range(40))
def test_nothing_depends_on_the_blocks(seed):
    g = np.random.default_rng(seed)
    mics, rate = [(1, 44100), (2, 16000), (7, 8000), (4, 11025)][seed % 4]
    x = scene(seed, mics, 5.0, rate)
    whole = stream(Cheap(), x, [x.shape[1]], rate)
    assert any(d.final for d in whole), seed
    for longest in (50, rate // 10, rate, 10 * rate):
        assert stream(Cheap(), x, g.integers(0, longest, 50), rate) == whole, (seed, longest)


def test_single_samples_give_the_same():
    x = scene(0, 2, 3.0)
    assert stream(Cheap(), x, [1]) == stream(Cheap(), x, [x.shape[1]])


@pytest.mark.parametrize("seed", range(30))
def test_the_future_changes_nothing(seed):
    """What was due by a moment is said by then, and whatever comes later leaves it as it was."""
    g = np.random.default_rng(seed)
    x, cut = scene(seed, 2, 6.0), int(g.integers(RATE, 6 * RATE))
    live = StreamingDetector(Cheap(), None, RATE)
    past = fed(live, x[:, :cut], [1600])
    assert all(d.at * RATE <= cut and d.end <= d.at for d in past)
    for future in (x[:, cut:], scene(seed + 100, 2, 2.0), np.zeros((2, 16000), np.float32)):
        said = stream(Cheap(), np.concatenate([x[:, :cut], future], axis=1), [777])
        assert said[: len(past)] == past
        assert all(d.at * RATE > cut - 320 for d in said[len(past) :])


def test_a_growing_command_is_scored_and_nothing_is_decided(untrained):
    x = scene(3, 2, 1.0)
    x = np.concatenate([x[:, :3200] * 0 + scene(9, 2, 0.2) * 1e-3, scene(1, 2, 8.0)], axis=1)
    said = stream(untrained, x, [160])
    growing = [d for d in said if not d.final]
    assert growing
    for d in growing:
        assert d.genuine is None
        assert d.reasons[0] == "growing"
        judged = untrained.judge(span_of(x, d), RATE)
        assert d.score == pytest.approx(judged.score, rel=1e-5, abs=1e-5)
    finals = [d for d in said if d.final]
    for d in growing:  # the last word on it follows
        assert any(f.start == d.start and f.end >= d.end - 0.5 for f in finals)


def bursts(*lengths, pause=1.0, level=30.0, rate=RATE):
    """A floor of noise with a burst of each length in seconds after a pause; and a pause at the end."""
    parts = [(pause, 1.0) if k % 2 == 0 else (lengths[k // 2], level) for k in range(2 * len(lengths) + 1)]
    gains = np.concatenate([np.full(round(seconds * rate), gain) for seconds, gain in parts])
    g = np.random.default_rng(0)
    return (1e-3 * gains * g.standard_normal((2, len(gains)))).astype(np.float32)


def test_the_first_look_comes_a_second_after_speech_began_and_then_every_half():
    said = stream(Cheap(), bursts(2.2), [160])
    assert [d.at for d in said] == pytest.approx([2.0, 2.5, 3.0, 3.5, 3.8])
    assert [d.kind for d in said] == ["provisional"] * 4 + ["final"]
    assert (said[-1].start, said[-1].end) == pytest.approx((0.7, 3.6))


def test_decided_early_once_confirmed_or_revised_at_the_end():
    calibration = Calibration(1.0, 0.0)
    confirmed = revised = 0
    for seed in range(20):
        said = stream(Cheap(calibration), scene(seed, 2, 8.0), [1600], settings=Settings(margin=2.0))
        open_since = None
        for d in said:
            if d.kind == "early":
                assert open_since is None
                assert abs(d.llr) >= 2.0
                assert d.genuine is (d.score >= 0)
                open_since = d
            elif d.final and open_since is not None:
                assert d.revised is (d.genuine is not open_since.genuine)
                revised, confirmed = revised + d.revised, confirmed + (not d.revised)
                open_since = None
            else:
                assert not d.revised
    assert confirmed > 3
    assert revised > 3


def test_early_decisions_need_a_calibrated_detector():
    with pytest.raises(ValueError, match="no calibration"):
        StreamingDetector(Cheap(), None, RATE, settings=Settings(margin=1.0))
    said = stream(Cheap(Calibration(1.0, 0.0)), bursts(3.0), [160])
    assert {d.kind for d in said} == {"provisional", "final"}


def test_a_command_too_long_is_cut_and_not_decided(untrained):
    x = scene(0, 1, 34.0)
    x = np.where(np.abs(x) < 1, np.random.default_rng(0).normal(0, 0.05, x.shape), 0).astype(np.float32)
    x[:, :RATE] *= 0.02
    x[:, RATE:] *= 1 + 0.9 * np.cos(np.arange(33 * RATE) / RATE * 5)[None]  # dips, so that it stays speech
    said = [d for d in stream(untrained, x, [4000], settings=Settings(every=30.0)) if d.final]
    assert said[0].reasons == ("too-long",)
    assert said[0].genuine is None
    assert said[0].end - said[0].start == pytest.approx(30.02)
    for d in said:
        equals_offline(untrained, x, d)
    assert said[1].start >= said[0].end


@pytest.mark.parametrize("reason", ["clipped", "dead-channel", "copied-channels", "narrow-band", "gated"])
def test_what_offline_abstains_from_is_undecided(untrained, reason):
    rate = 8000 if reason == "narrow-band" else RATE
    x = bursts(1.5, rate=rate)
    if reason == "clipped":
        x = np.clip(40 * x, -1, 1)
    elif reason == "dead-channel":
        x[0] = 0.25
    elif reason == "copied-channels":
        x[0] = x[1]
    elif reason == "gated":
        x[:, : rate * 9 // 10] = 0
    said = stream(untrained, x, [rate // 100], rate, settings=Settings(threshold=-1e9))
    assert said
    for d in said:
        assert d.genuine is None
        assert reason in d.reasons


class Unheard(Exception):
    """As onnxruntime's errors: of no kind that one thinks of."""


@pytest.mark.parametrize(
    "error", [ValueError("no"), RuntimeError("out of memory"), MemoryError(), Unheard("of")]
)
def test_what_cannot_be_scored_is_undecided_and_the_stream_goes_on(error):
    class Broken:
        def judge(self, *_, **__):
            raise error

    said = stream(Broken(), bursts(0.5, 0.5), [160])
    assert [(d.genuine, d.reasons, d.detail) for d in said] == [(None, ("failed",), str(error))] * 2


def test_who_was_interrupted_while_judging_hears_all_of_the_command_anew(untrained, monkeypatch):
    live, x = StreamingDetector(untrained, None, RATE), bursts(2.5)
    fed(live, x[:, : 2 * RATE + 1600], [1600])

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GrowingPlanes, "heard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fed(live, x[:, 2 * RATE + 1600 : 3 * RATE], [1600])
    said = [d for d in fed(live, x[:, live._ring.end :], [1600]) + live.flush() if d.final]
    assert len(said) == 1
    equals_offline(untrained, x, said[0])


def test_lost_samples_leave_a_command_undecided():
    x = bursts(2.0, 2.0)
    live = StreamingDetector(Cheap(), None, RATE)
    fed(live, x[:, : 2 * RATE + 100], [160])
    (said,) = live.interrupt()
    assert (said.final, said.genuine, said.reasons) == (True, None, ("interrupted",))
    assert live.interrupt() == []
    after = [d for d in fed(live, x[:, 2 * RATE + 900 :], [160]) if d.final]
    assert len(after) == 2
    assert all(d.start * RATE >= 2 * RATE + 100 for d in after)


def test_listening_to_a_source_is_feed_and_flush_and_hears_of_losses():
    x = bursts(2.0, pause=0.4)
    source = ArraySource(x, RATE)
    assert list(listen(source, StreamingDetector(Cheap(), None, RATE))) == stream(Cheap(), x, [160])
    blocks = list(source)
    blocks[150] = Block(blocks[150].samples, lost=480)
    said = [d for d in listen(blocks, StreamingDetector(Cheap(), None, RATE)) if d.final]
    assert [d.reasons for d in said] == [("interrupted",), ()]
    assert said[0].end <= 1.5 <= said[1].start


def test_reset_is_a_new_object():
    x, y = scene(0, 2, 5.0), scene(1, 2, 5.0)
    live = StreamingDetector(Cheap(), "D1", RATE)
    fed(live, x, [1234])
    live.reset()
    assert live.seconds == 0
    assert not live.speaking
    assert fed(live, y, [1234]) + live.flush() == stream(Cheap(), y, [1234], array="D1")
    unknown = StreamingDetector(Cheap(), None, RATE)
    fed(unknown, x, [1234])
    unknown.reset()
    assert unknown.feed(np.zeros((5, 160), np.float32)) == []


def test_flush_twice_says_nothing_new_and_more_may_follow():
    x = bursts(1.0, 1.0)
    live = StreamingDetector(Cheap(), None, RATE)
    fed(live, x[:, : RATE * 19 // 10], [160])
    assert [d.final for d in live.flush()] == [True]
    assert live.flush() == []
    assert [d.final for d in fed(live, x[:, RATE * 19 // 10 :], [160])].count(True) == 1


REFUSED = [
    (np.zeros((3, 160), np.float32), "has 3 channels, the array 2"),
    (np.zeros((160, 2), np.float32), "microphones"),
    (np.zeros(160, np.float32), "expected"),
    (np.zeros((2, 160), np.int16), "int16"),
    (np.full((2, 160), np.nan, np.float32), "finite"),
    (np.full((2, 160), np.inf, np.float32), "finite"),
    (np.full((2, 160), 20000.0), "-1, 1"),
]


@pytest.mark.parametrize(("block", "message"), REFUSED)
def test_a_refused_block_is_one_sentence_and_leaves_all_as_it_was(block, message):
    x = bursts(1.0)
    live = StreamingDetector(Cheap(), "D1", RATE)
    said = fed(live, x[:, :RATE], [777])
    with pytest.raises(ValueError, match=message) as refused:
        live.feed(block)
    assert "\n" not in str(refused.value)
    assert said + fed(live, x[:, RATE:], [777]) + live.flush() == stream(Cheap(), x, [777])


def test_empty_blocks_doubles_and_strides_are_taken():
    x = bursts(1.0)
    live = StreamingDetector(Cheap(), None, RATE)
    assert live.feed(np.zeros((2, 0))) == []
    interleaved = np.ascontiguousarray(x.T).astype(np.float64)
    said = fed(live, interleaved.T, [0, 160, 0, 0, 161])
    assert said + live.flush() == stream(Cheap(), x, [160])


@pytest.mark.parametrize("rate", [0, -1, 1000, 16000.5, float("nan"), "16000", None, True, 10**9])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match="sample rate"):
        StreamingDetector(Cheap(), None, rate)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pre_roll": -1.0}, "pre_roll"),
        ({"hang_over": float("nan")}, "hang_over"),
        ({"post_roll": 1.0}, "no more silence"),
        ({"every": "x"}, "every"),
        ({"first": None}, "first"),
        ({"threshold": float("inf")}, "threshold"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Settings(**options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"array": 7}, "the array is of type int; expected a MicArray"),
        ({"array": np.zeros((2, 3))}, "the array is of type"),
        ({"array": b"D1"}, "the array is of type"),
        ({"detector": None}, "the detector is of type NoneType; expected what"),
        ({"detector": 3.5}, "the detector is of type float"),
        ({"settings": {"first": 1.0}}, "expected `streaming.Settings"),
    ],
)
def test_what_is_no_detector_no_array_or_no_settings_is_one_sentence(given, message):
    with pytest.raises(ValueError, match=message) as refused:
        StreamingDetector(**{"detector": Cheap(), "array": None, "sample_rate": RATE} | given)
    assert "\n" not in str(refused.value)


def test_what_the_detector_cannot_take_is_said_at_once(untrained):
    with pytest.raises(ValueError, match="at most 16"):
        StreamingDetector(untrained, None, RATE).feed(np.zeros((17, 10), np.float32))
    with pytest.raises(ValueError, match="did you mean"):
        StreamingDetector(untrained, "D44", RATE)
    with pytest.raises(ValueError, match="no detector"):
        StreamingDetector("defualt", "D1", RATE)


def test_a_bundled_detector_by_its_name():
    assert StreamingDetector("default", "D4", 44100).feed(np.zeros((7, 441), np.float32)) == []


@pytest.mark.parametrize(
    ("rate", "before"), [(16000, 20 * 16000), pytest.param(192_000, 2**31 + 1, marks=pytest.mark.slow)]
)
def test_silence_before_moves_the_times_and_nothing_else(rate, before):
    """To the sample, also where they are counted beyond 2^31."""
    g, late, alone = np.random.default_rng(0), *(StreamingDetector(Cheap(), None, rate) for _ in range(2))
    before = -(-before // late.vad.frame) * late.vad.frame
    silence = np.zeros((1, 10 * rate), np.float32)
    for here in range(0, before, silence.shape[1]):
        assert late.feed(silence[:, : before - here]) == []
    pause = 1e-3 * g.standard_normal((1, rate)).astype(np.float32)
    x = np.concatenate([pause, scene(3, 1, 3.0, rate)], axis=1)
    expected = fed(alone, x, [7777]) + alone.flush()
    said = fed(late, x, [7777]) + late.flush()
    assert any(d.final for d in expected)
    assert [(d.kind, d.score, d.genuine) for d in said] == [(d.kind, d.score, d.genuine) for d in expected]
    for d, first in zip(said, expected, strict=True):
        for name in ("start", "end", "at"):
            moved, sample = getattr(d, name), round(getattr(first, name) * rate) + before
            assert int(moved * rate) == round(moved * rate) == sample


@pytest.mark.parametrize("minutes", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_an_hour_takes_the_memory_of_a_minute(minutes):
    """Silence and commands in blocks of three sizes; what is held afterwards is what was held before."""
    minute = np.concatenate([scene(seed, 1, 20.0, 4000) for seed in range(3)], axis=1)
    detector = Cheap()
    live = StreamingDetector(detector, None, 4000)
    fed(live, minute, [4000])
    tracemalloc.start()
    fed(live, minute, [4000])
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    for turn in range(minutes - 2):
        fed(live, minute, [(40, 4001, 40000)[turn % 3] if turn < 3 else 40000])
    later, later_peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert live.seconds == 60 * minutes
    assert detector.heard > 20 * minutes
    assert later - held < 10_000
    assert later_peak < peak + 500_000


def test_sources_give_their_samples_in_order(tmp_path):
    x = np.round(scene(0, 2, 1.0) * 32768) / 32768
    write_wav(tmp_path / "a.wav", x, RATE)
    for source in (ArraySource(x, RATE, block_seconds=0.013), FileSource(tmp_path / "a.wav")):
        assert (source.num_mics, source.sample_rate) == (2, RATE)
        blocks = [block.samples for block in source]
        assert all(block.shape[1] > 0 for block in blocks)
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), x.astype(np.float32))
    with pytest.raises(ValueError, match="60"):
        ArraySource(x, RATE, block_seconds=0)


def test_decisions_compare_as_data():
    assert Decision(0, 1, 2.0, None, True) == Decision(0, 1, 2.0, None, True)


def test_the_front_door_listens_to_a_file(untrained, tmp_path, capsys):
    from tests.test_score import checkpoint

    x = bursts(1.4, 0.5)
    write_wav(tmp_path / "a.wav", x, RATE, "FLOAT")
    write_wav(tmp_path / "quiet.wav", x[:, :RATE], RATE, "FLOAT")
    name = str(checkpoint(tmp_path / "detector"))
    common = ["--detector", name, "--array", "D1"]
    assert replayguard.main(["live", "--from", str(tmp_path / "a.wav"), *common, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    said = stream(untrained, x, [160], array="D1")
    assert lines == [json.loads(d.as_json()) for d in said]
    assert replayguard.main(["live", "--from", str(tmp_path / "a.wav"), *common]) == 0
    assert capsys.readouterr().out.splitlines() == [d.sentence for d in said if d.final]
    assert replayguard.main(["live", "--from", str(tmp_path / "quiet.wav"), *common]) == 1
    assert "no command" in capsys.readouterr().err
    assert replayguard.main(["live", "--from", str(tmp_path / "gone.wav"), *common]) == 2


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_times_name_their_sample_whether_rounded_or_cut_off(rate):
    for sample in range(0, 100_000 * (rate // 50), 7 * (rate // 50)):
        seconds = seconds_of(sample, rate)
        assert int(seconds * rate) == sample == round(seconds * rate)
