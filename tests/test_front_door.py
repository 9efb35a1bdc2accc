"""The command line as a person meets it: help, versions, mistakes, scoring."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import replayguard
from remasc.audio import write_wav
from tests.test_score import checkpoint, speech
from tests.tiny_corpus import make_corpus


def call(capsys, *arguments):
    try:
        code = replayguard.main([str(a) for a in arguments])
    except SystemExit as stop:  # tyro's own way out
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("detectors") / "one", threshold={"score": -1e6, "p_fa": 0.05})


def test_help_names_every_command(capsys):
    code, out, _ = call(capsys, "--help")
    assert code == 0
    assert all(name in out for name in replayguard.COMMANDS)


@pytest.mark.parametrize("command", replayguard.COMMANDS)
def test_every_command_explains_itself(capsys, command):
    code, out, _ = call(capsys, *command.split(), "--help")
    assert code == 0
    assert "--help" in out


def test_version(capsys):
    code, out, _ = call(capsys, "--version")
    assert code == 0
    assert out.startswith("replayguard 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("scor",), "did you mean `replayguard score`"),
        (("score", "x.wav", "--json", "--tsv"), "not both"),
        (("score", "x.wav", "--out", "x"), "--out is for --corpus"),
        (("score", "x.wav", "--detector", "nope"), "no detector 'nope'"),
        (("corpus", "summary", "nowhere"), "nowhere"),
        (("evaluate", "nowhere.tsv"), "nowhere.tsv"),
        (("simulate", "--out", "x", "--recipe", "smal"), "small"),
        (("train", "--corpus", "nowhere", "--out", "x", "--system", "nn-singel"), "nn-single"),
    ],
)
def test_mistakes_get_one_sentence_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_scores_files_folders_patterns_and_lists(capsys, tmp_path, detector):
    for n in range(3):
        write_wav(tmp_path / f"{n}.wav", speech(seed=n), 16000)
    (tmp_path / "list.txt").write_text(f"{tmp_path / '0.wav'}\n\n{tmp_path / '2.wav'}\n")
    common = ("--array", "D4", "--detector", detector, "--json")
    for names, count in [
        ((tmp_path / "0.wav",), 1),
        ((tmp_path,), 3),
        ((tmp_path / "*.wav",), 3),
        ((tmp_path, tmp_path / "0.wav"), 3),
        (("--list", tmp_path / "list.txt"), 2),
    ]:
        code, out, err = call(capsys, "score", *names, *common)
        assert (code, err) == (0, "")
        rows = [json.loads(line) for line in out.splitlines()]
        assert len(rows) == count
        assert {row["decision"] for row in rows} == {"genuine"}


def test_an_undecided_file_says_why_and_exits_1(capsys, tmp_path, detector):
    write_wav(tmp_path / "good.wav", speech(), 16000)
    write_wav(tmp_path / "silent.wav", np.zeros((7, 16000)), 16000)
    write_wav(tmp_path / "stereo.wav", speech(2), 16000)
    (tmp_path / "text.wav").write_text("no sound at all")
    code, out, _ = call(capsys, "score", tmp_path, "--array", "D4", "--detector", detector, "--tsv")
    assert code == 1
    rows = {line.split("\t")[0].rsplit("/", 1)[-1]: line.split("\t") for line in out.splitlines()[1:]}
    assert rows["good.wav"][4] == "genuine"
    assert rows["silent.wav"][4:6] == ["undecided", "silent"]
    assert rows["silent.wav"][3] == ""  # silence has no chance of being a person
    assert rows["stereo.wav"][4:6] == ["undecided", "channels"]
    assert rows["text.wav"][4:6] == ["undecided", "unreadable"]
    code, out, _ = call(capsys, "score", tmp_path / "gone.wav", "--detector", detector)
    assert code == 1
    assert "undecided" in out


def test_corpus_summary_and_check(capsys, tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    code, out, _ = call(capsys, "corpus", "summary", corpus.root)
    assert code == 0
    assert "24" in out
    code, out, _ = call(capsys, "corpus", "check", corpus.root, "--json", "--workers", "1")
    assert (code, json.loads(out)["ok"]) == (0, True)
    corpus[0].path.unlink()
    code, out, _ = call(capsys, "corpus", "check", corpus.root, "--json", "--workers", "1")
    assert (code, json.loads(out)["counts"]["missing"]) == (1, 1)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["score", "--help"]])
def test_a_reader_who_goes_away_is_no_error(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, replayguard.__file__, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
