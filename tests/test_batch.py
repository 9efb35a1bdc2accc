"""A partition of a corpus into scores.tsv: every trial once, resumable, nothing half-written."""

import json
import os
import signal

import pytest

from detector import batch
from detector.batch import judge_all, score_corpus
from detector.score import load
from eval.scores import read_scores
from tests.test_score import checkpoint
from tests.tiny_corpus import make_corpus


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path / "corpus", clips=16, seconds=0.8)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return str(checkpoint(tmp_path_factory.mktemp("detectors") / "one"))


def scored(detector, corpus, out, **options):
    return score_corpus(detector, corpus, out, progress=False, **options)


def test_every_trial_once_with_its_conditions(detector, corpus, tmp_path):
    path = scored(detector, corpus, tmp_path / "out")
    table = read_scores(path, protocol=tmp_path / "out" / "protocol.tsv")
    wanted = [r for r in corpus.trials() if r.subset == "eval"]
    assert sorted(table.trial) == sorted(r.trial_id for r in wanted)
    one = wanted[0]
    row = list(table.trial).index(one.trial_id)
    assert table.score[row] == load(detector).judge_file(one.path, one.array).score
    assert table.conditions["array"][row] == one.array
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["partition"] == "eval"
    assert record["threshold"]["score"] == 0.0


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(detector, corpus, tmp_path, monkeypatch):
    whole = scored(detector, corpus, tmp_path / "whole").read_bytes()
    judged = []

    def stops(*args, **options):
        for count, judgement in enumerate(judge_all(*args, **options)):
            if count == 3 and not judged:
                judged.append(count)
                raise KeyboardInterrupt
            yield judgement

    monkeypatch.setattr(batch, "judge_all", stops)
    with pytest.raises(KeyboardInterrupt):
        scored(detector, corpus, tmp_path / "out")
    assert not (tmp_path / "out" / "scores.tsv").exists()
    partial = tmp_path / "out" / "scores.tsv.partial"
    partial.write_text(partial.read_text() + '{"trial": "eval/50', encoding="utf-8")  # a torn last line
    assert scored(detector, corpus, tmp_path / "out").read_bytes() == whole
    assert not partial.exists()


def test_another_detector_does_not_go_on(detector, corpus, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "scores.tsv.partial").write_text('{"detector": "x", "protocol": "y"}\n{"trial"')
    with pytest.raises(ValueError, match="begun with another"):
        scored(detector, corpus, out)


def test_a_missing_file_stops_before_anything_is_scored(detector, corpus, tmp_path):
    next(r for r in corpus if r.subset == "eval").path.unlink()
    with pytest.raises(ValueError, match="1 of the 8 eval files are missing"):
        scored(detector, corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_broken_file_is_named_and_no_trial_is_dropped(detector, corpus, tmp_path):
    broken = next(r for r in corpus if r.subset == "eval").path
    content = broken.read_bytes()
    broken.write_bytes(content[:100])
    with pytest.raises(ValueError, match="1 of 8 trials could not be scored"):
        scored(detector, corpus, tmp_path / "out")
    assert not (tmp_path / "out" / "scores.tsv").exists()
    broken.write_bytes(content)
    assert len(read_scores(scored(detector, corpus, tmp_path / "out")).trial) == 8


def test_workers_change_nothing(detector, corpus, monkeypatch):
    monkeypatch.setattr(batch, "FEW", 1)
    jobs = [(r.trial_id, str(r.path), r.array) for r in corpus]
    one, two = (list(judge_all(detector, jobs, workers=n)) for n in (1, 2))
    assert [j.trial for j in two] == [r.trial_id for r in corpus]
    for a, b in zip(one, two, strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-4)


def test_a_detectors_own_folder_is_not_written_into(corpus, tmp_path):
    folder = checkpoint(tmp_path / "mine")
    before = (folder / "run.json").read_bytes()
    with pytest.raises(ValueError, match="a detector's own folder"):
        scored(str(folder), corpus, folder)
    assert (folder / "run.json").read_bytes() == before


def test_finished_scores_are_kept_and_never_mixed(detector, corpus, tmp_path):
    path = scored(detector, corpus, tmp_path / "out")
    protocol = (tmp_path / "out" / "protocol.tsv").read_bytes()
    stamp = path.stat().st_mtime_ns
    assert scored(detector, corpus, tmp_path / "out").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="other trials"):
        scored(detector, corpus, tmp_path / "out", split="dev")
    assert (tmp_path / "out" / "protocol.tsv").read_bytes() == protocol


@pytest.mark.parametrize("seeds", [{"seed": 7}, {"seed": 1, "protocol_seed": 7}])
def test_dev_is_that_of_the_detectors_training(corpus, tmp_path, seeds):
    from detector.checkpoint import save_checkpoint
    from detector.systems import build_network
    from remasc.protocol import partitions
    from tests.test_score import description

    config = description() | {"training": seeds | {"dev_share": 0.4}}
    folder = save_checkpoint(tmp_path / "seven", build_network(config), config, {})
    path = scored(str(folder), corpus, tmp_path / "out", split="dev")
    dev = partitions(corpus, dev_share=0.4, seed=7)["dev"]
    assert set(read_scores(path, partition="dev").trial) == {r.trial_id for r in dev}


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_is_one_sentence_and_what_was_scored_is_kept(detector, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "FEW", 2)
    monkeypatch.setattr(batch, "CHUNK", 2)  # one chunk would be judged, and killed, in this process
    whole = scored(detector, corpus, tmp_path / "whole", workers=2).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(batch, "_judge_chunk", die)
        with pytest.raises(OSError, match=r"worker processes was killed.*run again"):
            scored(detector, corpus, tmp_path / "out", workers=2)
    assert not (tmp_path / "out" / "scores.tsv").exists()
    assert scored(detector, corpus, tmp_path / "out", workers=2).read_bytes() == whole
