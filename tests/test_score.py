"""Judging recordings: polarity, refusal, abstention, and a partition scored exactly once."""

import json
import math

import numpy as np
import pytest
import torch

import detector
from detector import quality
from detector.checkpoint import save_checkpoint
from detector.config import BASELINES
from detector.score import Detector
from detector.systems import SYSTEMS, build_network, specify
from remasc import ARRAYS
from remasc.audio import write_wav


def description(system="compact", array="D4"):
    arrays = tuple(ARRAYS.values()) if system == "compact" else (ARRAYS[array],)
    return {"specification": specify(system, arrays).as_dict(), "network": {}}


def checkpoint(folder, system="compact", array="D4", **run):
    torch.manual_seed(0)
    config = description(system, array)
    facts = {"calibration": {"slope": 2.0, "offset": -0.5}, "threshold": {"score": 0.0, "p_fa": 0.05}} | run
    return save_checkpoint(folder, build_network(config), config, facts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("detectors") / "one")


@pytest.fixture(scope="module")
def loaded(folder):
    return detector.load(folder)


def speech(mics=7, seconds=1.5, rate=16000, seed=0):
    g = np.random.default_rng(seed)
    return (0.1 * g.standard_normal((mics, int(seconds * rate)))).astype(np.float32)


@pytest.mark.parametrize("rate", ["16000", None, math.nan, 0, True])
def test_a_rate_that_is_none_and_complex_samples_are_one_sentence(loaded, rate):
    with pytest.raises(ValueError, match="expected 4000 to 384000 Hz"):
        loaded.score(speech(), rate, "D4")
    with pytest.raises(ValueError, match="complex"):
        loaded.score(speech() + 1j, 16000, "D4")


def test_llr_and_probability_follow_the_score(loaded):
    score = loaded.score(speech(), 16000, "D4")
    assert isinstance(score, float)
    assert loaded.llr(speech(), 16000, "D4") == pytest.approx(2 * score - 0.5)
    judged = loaded.judge(speech(), 16000, ARRAYS["D4"], prior=0.9)
    assert judged.score == score
    assert judged.probability == pytest.approx(1 / (1 + math.exp(-(2 * score - 0.5 + math.log(9)))))


def test_accepts_at_the_threshold_and_not_below(loaded):
    score = loaded.score(speech(), 16000, "D4")
    assert loaded.judge(speech(), 16000, "D4", threshold=score).decision == "genuine"
    above = math.nextafter(score, math.inf)
    judged = loaded.judge(speech(), 16000, "D4", threshold=above)
    assert judged.decision == "replay"
    assert not judged.accepted


@pytest.mark.parametrize(
    ("waveform", "array", "message"),
    [
        (speech(6), "D4", "6 channels but the array D4 has 7"),
        (np.zeros((7, 0), np.float32), "D4", "neither empty"),
        (np.zeros(16000, np.float32), None, "expected"),
        (np.full((7, 16000), np.nan, np.float32), "D4", "NaN"),
        (speech(17), None, "at most 16"),
        (speech(), "D44", "did you mean"),
    ],
)
def test_what_it_cannot_take_is_refused(loaded, waveform, array, message):
    with pytest.raises(ValueError, match=message):
        loaded.score(waveform, 16000, array)


@pytest.mark.parametrize(
    ("reason", "waveform"),
    [
        ("channels", speech(3)),
        ("too-short", speech(seconds=0.2)),
        ("too-long", speech(seconds=31)),
        ("silent", 1e-5 * speech()),
        ("dead-channel", speech() * (np.arange(7) != 3)[:, None].astype(np.float32)),
        ("copied-channels", np.repeat(speech(1), 7, axis=0)),
        ("clipped", np.clip(40 * speech(), -1, 1)),
    ],
)
def test_what_cannot_be_judged_is_never_accepted(loaded, reason, waveform):
    judged = loaded.judge(waveform, 16000, "D4", threshold=-1e9)
    assert judged.reason == reason
    assert reason in quality.REASONS
    assert judged.decision == "undecided"
    assert not judged.accepted


def no_speech():
    """Sounds that no person made, by name, (2, T) at 16 kHz."""
    g = np.random.default_rng(0)
    t = np.arange(32000) / 16000
    lsb = g.integers(-1, 2, (2, 32000)) / 32768
    click = np.zeros((2, 32000))
    click[:, 16000] = 0.5
    talk = 0.1 * g.standard_normal((2, 32000))
    gap = np.zeros((2, 3200))
    return {
        "click in digital silence": click + np.array([[0.0], [1e-6]]) * lsb,
        "click in hiss": click + 3 * lsb,
        "tone": 0.2 * np.stack([np.sin(2765 * t), np.sin(2765 * t + 0.3)]),
        "constant and a little noise": 0.3 + lsb,
        "zeros appended": np.concatenate([talk, gap], axis=1),
        "dither in front": np.concatenate([lsb, talk], axis=1),
    }


@pytest.mark.parametrize("name", no_speech())
def test_what_no_person_said_is_never_accepted(loaded, name):
    judged = loaded.judge(no_speech()[name].astype(np.float32), 16000, None, threshold=-1e9)
    assert judged.decision == "undecided", name


@pytest.mark.parametrize("rate", [8000, 11025, 12000])
def test_a_rate_that_hides_the_upper_band_is_not_judged(loaded, rate):
    judged = loaded.judge(speech(4, rate=rate), rate, None, threshold=-1e9)
    assert (judged.decision, judged.reason) == ("undecided", "narrow-band")


def test_a_published_network_is_judged_by_the_second_that_it_hears(tmp_path):
    single = detector.load(checkpoint(tmp_path / "x", "nn-single"))
    late = np.concatenate([1e-6 * speech(seed=2), speech()], axis=1)
    assert single.judge(late, 16000, "D4", threshold=-1e9).decision == "undecided"


def test_a_bundled_name_cannot_be_taken_by_a_folder(tmp_path, monkeypatch):
    bundled = detector.load("default").run
    checkpoint(tmp_path / "default")
    monkeypatch.chdir(tmp_path)
    assert detector.load("default").run == bundled


def test_a_file_that_cannot_be_read_is_undecided(loaded, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVE")
    for path in (tmp_path / "bad.wav", tmp_path / "none.wav", tmp_path):
        judged = loaded.judge_file(path, "D4")
        assert judged.decision == "undecided"
        assert judged.score is None
        assert judged.reason


def test_the_rate_hardly_matters(loaded):
    from remasc.audio import resample

    g = np.random.default_rng(0)
    noise = resample(0.1 * g.standard_normal((4, 16000)).astype(np.float32), 8000, 16000)  # below 4 kHz
    low = loaded.score(noise, 16000, None)
    high = loaded.score(resample(noise, 16000, 44100), 44100, None)
    assert abs(low - high) < 0.1 * max(1, abs(low))


@pytest.mark.parametrize("system", [s for s in SYSTEMS if s not in ("compact", *BASELINES)])
def test_published_systems_hear_their_channels(tmp_path, system):
    loaded = detector.load(checkpoint(tmp_path / "x", system))
    x = speech()
    score = loaded.score(x, 16000, "D4")
    other = x.copy()
    other[1:] = speech(6, seed=1)
    changed = loaded.score(other, 16000, "D4")
    assert (changed == score) == (system in ("nn-single", "nn-dummy"))
    if system not in ("nn-single", "nn-dummy"):
        with pytest.raises(ValueError, match="takes 7"):
            loaded.score(speech(2), 16000, "D1")
    else:
        with pytest.warns(UserWarning, match="not calibrated there"):
            loaded.score(speech(2), 16000, "D1")


def test_unknown_names_and_damaged_checkpoints_are_one_sentence(folder, tmp_path):
    with pytest.raises(ValueError, match="no detector"):
        detector.load("defualt")
    config = json.loads((folder / "config.json").read_text())
    config["network"] = {"widths": [8, 8, 8, 8]}
    network = build_network(description())
    other = save_checkpoint(tmp_path / "other", network, config, {})
    with pytest.raises(ValueError, match="does not fit its own config"):
        detector.load(other)


def test_without_calibration_there_is_no_llr_and_no_decision(tmp_path):
    config = description()
    bare = Detector(build_network(config), config, {})
    with pytest.raises(ValueError, match="never calibrated"):
        bare.llr(speech(), 16000, "D4")
    judged = bare.judge(speech(), 16000, "D4")
    assert (judged.decision, judged.llr, judged.probability) == ("undecided", None, None)


def test_wav_file_equals_its_samples(loaded, tmp_path):
    x = np.round(speech() * 32768) / 32768
    write_wav(tmp_path / "a.wav", x, 16000)
    assert loaded.judge_file(tmp_path / "a.wav", "D4").score == loaded.score(x, 16000, "D4")
