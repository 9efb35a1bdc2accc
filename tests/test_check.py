import dataclasses
import json
import os

import numpy as np
import pytest
from tiny_corpus import make_corpus, real_corpus

from remasc import Corpus
from remasc.audio import read_audio, write_wav
from remasc.check import KINDS, check, default_state, render_check


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    return make_corpus(tmp_path / "corpus", clips=8)


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state" / "check.jsonl"


def rewrite(recording, change) -> None:
    waveform, rate = read_audio(recording.path)
    write_wav(recording.path, change(waveform.copy()), rate)


def kinds(report) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for problem in report.problems:
        found.setdefault(problem.trial, []).append(problem.kind)
    return found


def test_a_healthy_corpus_is_ok(corpus, state):
    report = check(corpus, state=state, workers=1)
    assert report.ok
    assert report.files == 12
    assert not any(report.counts().values())
    assert "all 12 files" in render_check(report)


def silence(w):
    w[1] = 0
    return w


def whisper(w):
    w[1] *= 3e-4
    return w


def copy(w):
    w[1] = w[0]
    return w


def scaled_copy(w):
    w[1] = -0.5 * w[0]
    return w


@pytest.mark.parametrize(
    ("change", "kind", "detail"),
    [
        (silence, "silent", "channel 2"),
        (whisper, "silent", "channel 2"),
        (lambda w: 0 * w, "silent", "channel 1, 2"),
        (lambda w: np.clip(w * 30, -1, 1), "clipped", "channel 1, 2"),
        (lambda w: np.clip(w * 3, -0.3, 0.3), "clipped", "channel 1, 2"),
        (copy, "copies", "channels 1 and 2"),
        (scaled_copy, "copies", "channels 1 and 2"),
        (lambda w: w[:1], "channels", "1 channels; D1 has 2"),
        (lambda w: np.concatenate([w, w[:, ::-1]]), "channels", "4 channels; D1 has 2"),
        (lambda w: np.concatenate([w, w], axis=1), "length", "meta.csv says 0.150"),
    ],
)
def test_each_fault_is_found_and_it_alone(corpus, state, change, kind, detail):
    faulty = corpus[0]
    rewrite(faulty, change)
    report = check(corpus, state=state, workers=1)
    assert kinds(report) == {faulty.trial_id: [kind]}
    assert detail in report.problems[0].detail
    assert report.counts()[kind] == 1


def test_missing_unreadable_and_wrong_rate(corpus, state):
    corpus[0].path.unlink()
    corpus[1].path.write_bytes(b"no sound")
    waveform, _ = read_audio(corpus[2].path)
    write_wav(corpus[2].path, waveform, 48000)
    data = corpus[4].path.read_bytes()
    corpus[4].path.write_bytes(data[:-100])
    report = check(corpus, state=state, workers=1)
    found = kinds(report)
    assert found[corpus[0].trial_id] == ["missing"]
    assert found[corpus[1].trial_id] == ["unreadable"]
    assert "rate" in found[corpus[2].trial_id]
    assert found[corpus[4].trial_id] == ["unreadable"]
    assert len(found) == 4
    text = render_check(report)
    assert "4 of 12 files have problems" in text
    assert text.count("no sound") == 0
    assert str(corpus[1].path) in text


def test_a_peak_or_a_quiet_recording_is_no_fault(corpus, state):
    def peak(w):
        w[:, 50] = 1.0
        return w

    rewrite(corpus[0], peak)
    rewrite(corpus[1], lambda w: w * 3e-3)
    rewrite(corpus[3], lambda w: w + 0.9 * w[:1])  # correlated, as microphones are
    assert check(corpus, state=state, workers=1).ok


def test_results_are_kept_and_looked_at_again_when_a_file_changes(corpus, state):
    first = check(corpus, state=state, workers=1)
    assert first.reused == 0
    again = check(corpus, state=state, workers=1)
    assert again.reused == 12
    assert again.problems == first.problems
    rewrite(corpus[3], lambda w: 0 * w)
    changed = check(corpus, state=state, workers=1)
    assert changed.reused == 11
    assert list(kinds(changed)) == [corpus[3].trial_id]
    corpus[3].path.unlink()
    assert kinds(check(corpus, state=state, workers=1)) == {corpus[3].trial_id: ["missing"]}
    altered = corpus.replace(dataclasses.replace(r, seconds=r.seconds + (r is corpus[5])) for r in corpus)
    assert kinds(check(altered, state=state, workers=1))[corpus[5].trial_id] == ["length"]


def test_a_stopped_check_goes_on(corpus, state):
    rewrite(corpus[0], lambda w: 0 * w)
    whole = check(corpus, state=state, workers=1)
    lines = state.read_bytes().splitlines(keepends=True)
    for kept, reused in (
        (b"", 0),
        (b"".join(lines[:5]) + lines[5][:20], 5),
        (b"\xff\n[]\n{}\nnull\n" + lines[1], 1),
    ):
        state.write_bytes(kept)
        resumed = check(corpus, state=state, workers=1)
        assert resumed.problems == whole.problems
        assert resumed.reused == reused
        assert len(state.read_bytes().splitlines()) == 12


def test_several_processes_find_the_same(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", clips=80, seconds=0.05)
    for recording in corpus[::9]:
        rewrite(recording, lambda w: 0 * w)
    one = check(corpus, state=tmp_path / "one", workers=1)
    two = check(corpus, state=tmp_path / "two", workers=2)
    assert one == two
    assert len(one.problems) == len(corpus[::9])
    with pytest.raises(ValueError, match="workers"):
        check(corpus, state=tmp_path / "three", workers=0)


def test_the_report_is_json(corpus, state):
    corpus[0].path.unlink()
    report = json.loads(json.dumps(check(corpus, state=state, workers=1).as_dict()))
    assert report["ok"] is False
    assert report["counts"] == {kind: int(kind == "missing") for kind in KINDS}
    assert report["problems"][0]["trial"] == corpus[0].trial_id


def test_state_lies_in_the_users_cache_folder(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = sorted(os.listdir(corpus.root))
    check(corpus, workers=1)
    assert default_state(corpus).is_file()
    assert default_state(corpus).is_relative_to(tmp_path / "cache")
    assert sorted(os.listdir(corpus.root)) == before


def test_real_meta_files_without_audio_are_all_missing(state):
    report = check(real_corpus(), state=state, workers=1)
    assert report.counts()["missing"] == len(report.problems) == 44_529
    assert len(render_check(report).splitlines()) < 30
