"""The audio core's benchmark: held-out voices are never heard, claims are judged by what is paired, and a run goes
through from start to table."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from eval.benchmarks import audio_core
from eval.benchmarks.audio_core import ARMS, CLAIMS, Options, keyword_list, main, markdown, unlabelled
from remasc.audio import write_wav


@pytest.fixture
def options(tmp_path):
    """Two words of six speakers, a third word of theirs, and a noise."""
    rng = np.random.default_rng(0)
    for word, pitch in (("yes", 500), ("no", 2500), ("cat", 1000)):
        folder = tmp_path / "data" / audio_core.SPEECH / word
        folder.mkdir(parents=True)
        for speaker in range(6):
            tone = np.sin(2 * np.pi * pitch * np.arange(4800) / 16000) * 0.3
            x = tone + 0.01 * rng.standard_normal(4800)
            write_wav(folder / f"s{speaker}_nohash_0.wav", x[None].astype(np.float32), 16000)
    (tmp_path / "data" / "noise").mkdir()
    noise = 0.1 * rng.standard_normal((1, 8000)).astype(np.float32)
    write_wav(tmp_path / "data" / "noise" / "rain.wav", noise, 16000)
    (tmp_path / "work").mkdir()
    return Options(
        data=tmp_path / "data",
        work=tmp_path / "work",
        out=tmp_path / "out",
        seeds=(0,),
        epochs=1,
        pretrain_epochs=1,
        frames=32,
        stride=16,
        device="cpu",
    )


def test_no_voice_of_dev_or_eval_is_pretrained_on(options):
    with open(keyword_list(options), encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    home = {row["speaker"]: row["split"] for row in rows}
    assert len({row["label"] for row in rows}) == 2
    assert all(home[row["speaker"]] == row["split"] for row in rows)
    heard = unlabelled(options)
    assert {home[path.name.split("_")[0]] for path in heard if "nohash" in path.name} == {"train"}
    assert any(path.parent.name == "cat" for path in heard)  # their other words are
    assert any(path.name == "rain.wav" for path in heard)


def test_every_arm_needs_arms_that_are_there():
    for arm in ARMS:
        for needed in audio_core._ordered((arm,)):
            assert needed in ARMS
        assert audio_core._ordered((arm,))[-1] == arm
        for needed in (ARMS[arm].get(key) for key in audio_core.NEEDS):
            assert needed is None or needed in audio_core._ordered((arm,))
    for _, better, worse in CLAIMS:
        assert {*better, *worse} <= set(ARMS)
        assert len(better) == len(worse)  # a sum of accuracies less as many others
    assert len({audio_core._plain(arm) for arm in ARMS}) == len(ARMS)


def record(arm, seed, share):
    rng = np.random.default_rng(seed)
    right = {f"{n}.wav": [f"s{n % 40}", int(rng.random() < share)] for n in range(400)}
    settings = {"epochs": Options.epochs, "pretrain_epochs": Options.pretrain_epochs}
    curve = [0.1, 0.5, 0.6, 0.6, 0.6, 0.6]
    return {"arm": arm, "seed": seed, "right": right, "dev_curve": curve, "settings": settings}


def test_a_claim_is_confirmed_refuted_or_left_open():
    good, poor = (
        [record(name, seed, share) for seed in range(5)] for name, share in (("a", 0.9), ("b", 0.6))
    )

    def verdict(better, worse):
        return audio_core._claim("x", [better], [worse])["verdict"]

    assert verdict(good, poor) == "confirmed"
    assert verdict(poor, good) == "refuted"
    same = audio_core._claim("x", [good], [good])
    assert same["verdict"] == "undecided"
    assert same["difference"] == 0
    assert audio_core._claim("x", [good[:1]], [poor[1:]]) is None  # no seed in common
    assert verdict(good, poor[:2]) == "none: fewer than 3 seeds"
    assert audio_core._claim("x", [good], [poor[::2]])["seeds"] == [0, 2, 4]
    rising = [one | {"dev_curve": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]} for one in poor]
    assert verdict(good, rising) == "none: undertrained"
    short = [one | {"settings": one["settings"] | {"pretrain_epochs": 10}} for one in poor]
    assert verdict(good, short) == "confirmed"  # it builds on no pretraining
    short = [one | {"arm": "ssast, LoRA"} for one in short]
    assert verdict(good, short) == "none: undertrained"


def test_seeds_that_disagree_decide_nothing():
    poor = [record("b", seed, 0.6) for seed in range(5)]
    lucky = [record("a", seed, 0.95 if seed in (0, 1) else 0.55) for seed in range(5)]
    found = audio_core._claim("x", [lucky], [poor])
    assert found["verdict"] == "undecided"
    right, speakers = audio_core._right(lucky)
    low, _ = audio_core.speaker_interval((right - audio_core._right(poor)[0]).mean(axis=0), speakers)
    assert low > 0  # the voices alone would have confirmed it


def test_a_gain_is_compared_with_another_gain():
    much, little, none = (
        [record(n, s, p) for s in range(5)] for n, p in (("a", 0.9), ("b", 0.7), ("c", 0.5))
    )
    assert audio_core._claim("x", [much, none], [none, little])["verdict"] == "confirmed"
    found = audio_core._claim("x", [little, little], [none, much])
    assert found["difference"] == pytest.approx(0, abs=0.03)
    assert found["verdict"] == "undecided"


def test_a_record_answers_for_what_decides_it(options):
    other = Options(**{**vars(options), "stride": 10, "pretrain_epochs": 2})
    same = {arm for arm in ARMS if options.settings_of(arm) == other.settings_of(arm)}
    assert same == {arm for arm in ARMS if arm.startswith(("efficientnet", "b0 ")) and "ast" not in arm}
    longer = Options(**{**vars(options), "pretrain_epochs": 2})
    assert all(
        (options.settings_of(arm) == longer.settings_of(arm)) != arm.startswith("ssast") for arm in ARMS
    )


def test_an_ensembles_first_member_is_the_run_alone(options, monkeypatch):
    """What is copied instead of trained anew is what would have been trained."""
    monkeypatch.setattr("detector.backbones.transformer.DEPTH", 1)
    monkeypatch.setattr(audio_core, "milliseconds", lambda *_: {})
    small = {"backbone": "ast", "frames": 32, "epochs": 1}
    audio_core._train(options, "train", small, 0, options.work / "runs" / "alone-0")
    three = small | {"ensemble": 2}
    audio_core._train(options, "train", three, 0, options.work / "runs" / "anew")
    folder = options.work / "runs" / "copied"
    audio_core._train(options, "train", three | {"first_member": "alone"}, 0, folder)
    weights = [
        (options.work / "runs" / name / "model.safetensors").read_bytes() for name in ("anew", "copied")
    ]
    assert weights[0] == weights[1]
    alone = (options.work / "runs" / "alone-0" / "model.safetensors").read_bytes()
    assert (folder / "member-1" / "model.safetensors").read_bytes() == alone


@pytest.mark.slow
def test_from_start_to_table_and_on_from_there(options, capsys):
    arms = ("ast-tiny", "ssast, linear probe")
    chosen = Options(**{**vars(options), "arms": arms})
    main(chosen)
    table = json.loads((options.out / "table.json").read_text(encoding="utf-8"))
    assert [row["arm"] for row in table["rows"]] == list(arms)
    probe = table["rows"][1]
    assert probe["trained_parameters"] < probe["parameters"] / 100
    assert table["pretraining"][0]["clips"] == len(unlabelled(options))
    before = (options.out / "table.md").read_text(encoding="utf-8")
    assert before == markdown(table, json.loads((options.work / "records" / "ast-tiny-0.json").read_text()))
    capsys.readouterr()
    main(chosen)
    assert capsys.readouterr().err == ""  # nothing was run again
    with pytest.raises(ValueError, match="give these again"):
        main(Options(**{**vars(chosen), "epochs": 2}))
