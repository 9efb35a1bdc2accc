"""Explanations: exact sums, groups that are neutral say nothing, order and gain of microphones change nothing."""

import json

import numpy as np
import pytest

import detector
from detector.explain import GROUPS, shares, with_groups
from detector.neutral import Neutral, gap_db, learn, loudness, neutral, spoken
from remasc import ARRAYS, audio

RATE = 16000


def talk(mics=4, seconds=2.0, seed=0, gap=True):
    """Noise in bursts from one place, and a softer noise of each microphone's own."""
    g = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE))
    source = g.standard_normal(len(t) + 32)
    if gap:
        source *= np.where((np.arange(len(source)) // 8000) % 2 == 0, 1.0, 0.02)
    heard = np.stack([source[3 * m : 3 * m + len(t)] for m in range(mics)])
    return (0.1 * heard + 0.003 * g.standard_normal(heard.shape)).astype(np.float32)


def parts(told):
    return {one.group: one.part for one in told.contributions}


@pytest.fixture(scope="module", params=["default", "edge"])
def loaded(request):
    return detector.load(request.param)


@pytest.mark.parametrize("mics", [1, 2, 5, 7])
def test_the_parts_sum_to_the_value(loaded, mics):
    told = loaded.explain(talk(mics), RATE, None)
    assert [one.group for one in told.contributions] == list(GROUPS)
    assert told.reference + sum(parts(told).values()) == pytest.approx(told.value, abs=1e-5)
    assert told.value == pytest.approx(loaded.llr(talk(mics), RATE, None), abs=1e-6)
    assert told.unit == "llr"


def test_the_limit_is_in_the_same_unit(loaded):
    told = loaded.explain(talk(), RATE, None)
    assert (told.value >= told.threshold) == (told.decision == "genuine")


def test_the_order_of_the_microphones_does_not_matter(loaded):
    one, other = (loaded.explain(x, RATE, None) for x in (talk(5), talk(5)[[3, 0, 4, 2, 1]]))
    for group, part in parts(one).items():
        assert parts(other)[group] == pytest.approx(part, abs=2e-3)


def test_it_says_the_same_twice_and_a_gain_changes_nothing(loaded):
    first = loaded.explain(talk(), RATE, None)
    assert loaded.explain(talk(), RATE, None) == first
    louder = loaded.explain(2 * talk(), RATE, None)
    assert parts(louder) == pytest.approx(parts(first), abs=2e-3)


def test_the_threshold_told_is_the_one_that_decided(loaded):
    waveform = talk()
    shipped, asked = loaded.explain(waveform, RATE), loaded.explain(waveform, RATE, threshold=-100.0)
    assert shipped.threshold == pytest.approx(loaded.calibration.llr(loaded.threshold))
    assert asked.decision == "genuine"
    assert asked.threshold == pytest.approx(loaded.calibration.llr(-100.0))
    assert asked.threshold < asked.value == shipped.value


def test_one_microphone_hears_no_space(loaded):
    told = loaded.explain(talk(1), RATE, None)
    for one in told.contributions:
        assert one.defined == (one.group in ("spectral", "silence"))
        if not one.defined:
            assert one.part == 0
            assert "one microphone" in one.sentence


def test_without_pauses_silence_says_nothing(loaded):
    told = loaded.explain(talk(gap=False), RATE, None)
    (silence,) = (one for one in told.contributions if one.group == "silence")
    assert (silence.defined, silence.part) == (False, 0.0)


def test_facts_are_those_of_the_recording(loaded):
    told = {one.group: one for one in loaded.explain(talk(), RATE, None).contributions}
    facts = told["silence"].facts
    assert facts["seconds"] == pytest.approx(2.0, abs=0.05)
    assert facts["pause_seconds"] == pytest.approx(0.8, abs=0.2)  # two gaps, less what covariances smear
    assert facts["below_db"] > 15
    assert 0.25 <= told["spatial"].facts["one_wave"] <= 1
    for one in told.values():
        assert one.sentence


def test_what_cannot_be_judged_is_not_explained(loaded):
    for waveform, reason in ((np.zeros((2, RATE)), "silent"), (np.sign(talk()), "clipped")):
        told = loaded.explain(waveform, RATE, None)
        assert (told.decision, told.reason, told.contributions) == ("undecided", reason, ())
        assert told.detail
    told = loaded.explain(talk(3), RATE, ARRAYS["D4"])
    assert (told.reason, told.value) == ("channels", None)
    json.dumps(told.as_dict(), allow_nan=False)


@pytest.mark.slow
def test_an_export_tells_the_same(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from detector.export import export

    one = detector.load("edge").explain(talk(), RATE, None)
    other = detector.load(export("edge", tmp_path / "x")).explain(talk(), RATE, None)
    assert parts(other) == pytest.approx(parts(one), abs=1e-3)
    assert other.reference + sum(parts(other).values()) == pytest.approx(other.value, abs=1e-5)


def test_a_detector_that_hears_no_planes_does_not_explain(tmp_path):
    from tests.test_score import checkpoint

    with pytest.raises(ValueError, match="compact"):
        detector.load(checkpoint(tmp_path / "x", "nn-single")).explain(talk(), RATE, None)


# ---------------------------------------------------------------- the arithmetic, of any score


def planes(seed=0, frames=40, mics=4):
    g = np.random.default_rng(seed)
    x = g.standard_normal((6, 40, frames)).astype(np.float32)
    x[5] = 1 - 1 / mics
    return x, np.arange(frames) % 20 < 10


def curved(x):
    """A score in which every group meddles with every other."""
    return float(
        np.tanh(x[:5].mean()) + (x[0] * x[1]).mean() + (x[3, :, 1:] * x[3, :, :-1] * x[4, :, 1:]).mean()
    )


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_made_neutral_adds_nothing(group):
    x, speech = planes()
    average = neutral().of(4)
    kept = tuple(name for name in GROUPS if name != group)
    found, start = shares(with_groups(x, speech, average, kept), speech, average, curved)
    assert found[group] == pytest.approx(0, abs=1e-6)
    assert start + sum(found.values()) == pytest.approx(
        curved(with_groups(x, speech, average, kept)), abs=1e-9
    )
    assert abs(shares(x, speech, average, curved)[0][group]) > 1e-4  # as it was it did add something


def test_the_groups_part_the_planes():
    x, speech = planes()
    average = neutral().of(4)
    np.testing.assert_array_equal(with_groups(x, speech, average, GROUPS), x)
    without = with_groups(x, speech, average, ())
    assert (without[:5] != x[:5]).all()
    np.testing.assert_array_equal(without[5], x[5])
    moved = with_groups(x, speech, average, ("spectral", "spatial", "silence"))
    np.testing.assert_allclose(moved[3][:, speech].mean(1), x[3][:, speech].mean(1), atol=1e-5)
    assert moved[3][:, speech].std(axis=1).max() < 1e-5


def test_a_score_that_adds_up_is_parted_as_it_adds_up():
    x, speech = planes()
    average = neutral().of(4)

    def level_and_pause(p):
        return float(p[0][:, speech].astype(np.float64).sum() + 3 * p[1][:, ~speech].astype(np.float64).sum())

    found, _ = shares(x, speech, average, level_and_pause)
    differs = x.astype(np.float64) - with_groups(x, speech, average, ())
    assert found["spectral"] == pytest.approx(differs[0][:, speech].sum(), rel=1e-6)
    assert found["silence"] == pytest.approx(3 * differs[1][:, ~speech].sum(), rel=1e-6)
    assert found["spatial"] == pytest.approx(0, abs=1e-9)
    assert found["movement"] == pytest.approx(0, abs=1e-9)


# ---------------------------------------------------------------- the average command


def test_the_average_of_one_recording_is_that_recording(tmp_path):
    x, speech = planes()
    x[0] = np.where(speech, 1.5, -1.0) + 0.01 * x[0]
    (average,) = learn([x], "a test").averages.values()
    found = spoken(x)
    np.testing.assert_allclose(average.speech, x[:5][:, :, found].mean(-1), atol=1e-5)
    assert average.gap_db == pytest.approx(gap_db(x, found), abs=0.01)
    Neutral({4: average}, "a test").save(tmp_path / "n.json")
    kept = neutral.__wrapped__(tmp_path / "n.json")
    np.testing.assert_allclose(kept.of(7).pause, average.pause, atol=1e-4)
    assert kept.source == "a test"


def test_averages_of_other_planes_are_refused(tmp_path):
    (tmp_path / "n.json").write_text('{"version": 1, "source": "", "averages": {}}')
    with pytest.raises(ValueError, match="version 1"):
        neutral.__wrapped__(tmp_path / "n.json")
    with pytest.raises(ValueError, match="both speech and pauses"):
        learn([], "nothing")


def test_steady_sound_is_all_speech():
    x, _ = planes()
    x[0] = 0
    assert spoken(x).all()
    assert loudness(x) == pytest.approx(loudness(x)[0])


# ---------------------------------------------------------------- from the command line


def test_score_prints_it(tmp_path, capsys):
    import replayguard

    audio.write_wav(tmp_path / "a.wav", talk(), RATE)
    (tmp_path / "b.wav").write_bytes(b"no sound")
    assert replayguard.main(["score", str(tmp_path), "--explain"]) == 1
    out = capsys.readouterr().out
    assert all(group in out for group in GROUPS)
    assert replayguard.main(["score", str(tmp_path / "a.wav"), "--explain", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["explanation"]
    total = told["reference"] + sum(one["part"] for one in told["contributions"])
    assert total == pytest.approx(told["value"], abs=1e-5)
    assert replayguard.main(["score", str(tmp_path / "a.wav"), "--explain", "--tsv"]) == 2
