"""Threshold and calibration are set on what the finished detector says of the dev recordings themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import detector
from detector import shipped
from detector.calibration import Calibration, threshold_at
from detector.checkpoint import load_checkpoint
from detector.config import TrainConfig
from detector.fitting import Training
from detector.shipped import JUDGED, DevScores, from_training, judge_dev
from detector.state import STATE
from detector.train import train
from eval.metrics import eer
from remasc import Corpus, Label, Recording
from remasc.protocol import partitions
from tests.test_train import write_corpus

RATE = 16000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Noise on D4; among dev one recording far above the four seconds of training, and a silent replay."""
    root = tmp_path_factory.mktemp("corpus")
    write_corpus(root, "D4")
    dev = dev_of(root)
    long, silent = (next(r for r in dev if r.label is label).path for label in (Label.GENUINE, Label.REPLAY))
    rng = np.random.default_rng(1)
    soundfile.write(long, 0.05 * rng.standard_normal((6 * RATE, 7)), RATE, "PCM_16")
    soundfile.write(silent, 1e-5 * rng.standard_normal((RATE, 7)), RATE, "FLOAT")
    return root


def dev_of(root: Path) -> list[Recording]:
    return list(partitions(Corpus.from_meta(root))["dev"])


def config(corpus: Path, out: Path, **values) -> TrainConfig:
    given = {"epochs": 1, "batch_size": 8, "cache": corpus.parent / "cache", "device": "cpu"} | values
    return TrainConfig(corpus, out, "compact", "D4", **given)


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory) -> Path:
    return train(config(corpus, tmp_path_factory.mktemp("run")), progress=False).folder


def facts_of(folder: Path) -> dict:
    facts = load_checkpoint(folder)[2]
    return {key: value for key, value in facts.items() if key not in ("wall_seconds", "curves", "checksums")}


def test_they_are_set_on_the_scores_that_users_get(corpus, finished):
    facts, trained, dev = facts_of(finished), detector.load(finished), dev_of(corpus)
    judged = [trained.judge_file(r.path, "D4") for r in dev]
    genuine = np.array([r.label is Label.GENUINE for r in dev])
    kept = np.array([not one.reason for one in judged])
    scores = np.array([one.score for one in judged])
    assert [one.reason for one in judged if one.reason] == ["silent"]
    assert facts["dev_scored_by"] == "detector"
    assert facts["dev_abstained"] == {"genuine": {}, "replay": {"silent": 1}}
    assert facts["threshold"]["score"] == pytest.approx(threshold_at(scores[kept & ~genuine], 0.05), abs=1e-5)
    wanted = Calibration.fit(scores[kept & genuine], scores[kept & ~genuine])
    assert facts["calibration"] == pytest.approx(wanted.as_dict(), rel=1e-3, abs=1e-5)
    rejected = np.where(kept, scores, scores.min() - 1)
    assert facts["dev_eer_shipped"] == pytest.approx(eer(rejected[genuine], rejected[~genuine])[0])
    assert sum(one.accepted for one, real in zip(judged, genuine, strict=True) if not real) <= 0.05 * len(dev)
    assert not (finished / JUDGED).exists()


def test_both_dev_eers_are_told_apart(corpus, finished):
    again = train(config(corpus, finished), progress=False)
    facts = facts_of(finished)
    assert again.already_finished
    assert (again.dev_eer, again.dev_eer_shipped) == (facts["dev_eer"], facts["dev_eer_shipped"])


def test_killed_while_judging_it_goes_on_to_the_same_run(corpus, finished, tmp_path, monkeypatch):
    judge_all, asked = shipped.judge_all, []

    def stops(folder, jobs, **options):
        asked.append(len(jobs))
        for count, judgement in enumerate(judge_all(folder, jobs, **options)):
            if len(asked) < 3 and count == 2:
                raise KeyboardInterrupt
            yield judgement

    monkeypatch.setattr(shipped, "judge_all", stops)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(config(corpus, tmp_path), progress=False)
        assert not (tmp_path / "run.json").exists()
        with (tmp_path / JUDGED).open("a") as file:
            file.write('{"trial": "torn')
    train(config(corpus, tmp_path), progress=False)
    total = len(dev_of(corpus))
    assert asked == [total, total - 2, total - 4]
    assert facts_of(tmp_path) == facts_of(finished)
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name or path.name == JUDGED]


def test_scores_of_another_detector_are_not_taken_over(corpus, tmp_path, finished):
    description, weights, _ = load_checkpoint(finished)
    dev = dev_of(corpus)
    before = judge_dev(tmp_path, weights, description, dev, progress=False)
    altered = weights | {"head.bias": weights["head.bias"] + torch.tensor([1.0, 0.0])}
    after = judge_dev(tmp_path, altered, description, dev, progress=False)
    np.testing.assert_allclose(after.scores, before.scores + 1, atol=1e-5)


def test_a_recording_that_is_gone_is_no_abstention(corpus, tmp_path):
    path = dev_of(corpus)[0].path
    hidden, fit = path.with_suffix(".hidden"), Training.fit

    def fit_and_hide(self, stop_after=None):
        fit(self, stop_after)
        path.rename(hidden)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "fit", fit_and_hide)
        with pytest.raises(ValueError, match=r"1 of .* dev recordings are gone") as caught:
            train(config(corpus, tmp_path), progress=False)
    hidden.rename(path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / STATE).exists()
    assert train(config(corpus, tmp_path), progress=False).epochs == 1


def test_nothing_judged_ships_no_threshold():
    silent = DevScores(
        np.array([1.0, np.nan, 0.0]), np.array([True, True, False]), ("silent",) * 3, "detector"
    )
    assert silent.threshold(0.05) is None
    assert silent.calibration() is None
    assert silent.eer() == 0.5
    assert silent.abstained() == {"genuine": {"silent": 2}, "replay": {"silent": 1}}


def test_what_is_abstained_from_is_rejected_and_sets_nothing():
    scores, genuine = np.array([3.0, 9.0, 1.0, 9.0]), np.array([True, True, False, False])
    dev = DevScores(scores, genuine, ("", "clipped", "", "clipped"), "detector")
    assert dev.threshold(0.0) == np.nextafter(1.0, 2.0)  # not above 9
    assert dev.calibration() == Calibration.fit(scores[:1], scores[2:3])
    assert dev.eer() == eer(np.array([3.0, 0.0]), np.array([1.0, 0.0]))[0]
    assert from_training(scores, genuine).eer() == eer(scores[:2], scores[2:])[0]


def test_run_json_has_plain_numbers(finished):
    json.dumps(facts_of(finished), allow_nan=False)
