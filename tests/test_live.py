"""The command: what is sent where, what is kept, who has the last word, and when it refuses to begin."""

import json
import os
import shlex
import socket
import sys
import threading
import time

import numpy as np
import pytest

import replayguard
from remasc.audio import read_audio, write_wav
from streaming import devices, microphone
from tests.fake_portaudio import FakePortAudio
from tests.test_online import RATE, bursts
from tests.test_score import checkpoint


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    return str(checkpoint(tmp_path_factory.mktemp("detectors") / "one"))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "a.wav"
    write_wav(path, bursts(1.4, 0.5), RATE, "FLOAT")
    return path


def live(*arguments):
    return replayguard.main(["live", *map(str, arguments)])


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def finals(told):
    return [line for line in told if line["kind"] == "final"]


def program(code):
    return f"{shlex.quote(sys.executable)} -S -c {shlex.quote(code)}"


def test_a_hook_that_fails_accepts_nothing(name, path, capsys):
    common = ("--from", path, "--detector", name, "--array", "D1", "--json", "--threshold", "-1000")
    assert live(*common) == 0
    free = finals(lines(capsys))
    assert [line["genuine"] for line in free] == [True, True]
    assert live(*common, "--hook", program("raise SystemExit(0)")) == 0
    assert finals(lines(capsys)) == free
    assert live(*common, "--hook", program("raise SystemExit(7)")) == 1
    refused = finals(lines(capsys))
    assert [line["genuine"] for line in refused] == [None, None]
    assert all(line["reasons"] == ["hook"] and "7" in line["detail"] for line in refused)
    assert [line["score"] for line in refused] == [line["score"] for line in free]


def test_no_hook_accepts_what_was_not(name, path, capsys):
    common = ("--from", path, "--detector", name, "--array", "D1", "--json", "--threshold", "1000")
    assert live(*common, "--hook", program("print('{\"genuine\": true}')")) == 0
    told = lines(capsys)  # its output is not among ours
    assert {line["genuine"] for line in finals(told)} == {False}


def test_what_is_kept_scores_as_it_was_said(name, path, capsys, tmp_path):
    import detector

    common = ("--from", path, "--detector", name, "--array", "D1", "--json")
    live(*common, "--record", tmp_path / "kept")
    output = capsys.readouterr()
    assert "every utterance" in output.err
    told = finals(map(json.loads, output.out.splitlines()))
    sheets = [json.loads(sheet.read_text()) for sheet in sorted((tmp_path / "kept").glob("*.json"))]
    assert [sheet["score"] for sheet in sheets] == [line["score"] for line in told]
    for sheet in sheets:
        waveform, rate = read_audio(tmp_path / "kept" / sheet["recording"])
        assert detector.load(name).score(waveform, rate, "D1") == pytest.approx(sheet["score"], abs=1e-5)
    live(*common)
    assert len(list((tmp_path / "kept").iterdir())) == 2 * len(told)


def test_the_socket_tells_what_standard_output_tells(name, path, capsys, tmp_path):
    place, heard = tmp_path / "s", []

    def read():
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                one = socket.socket(socket.AF_UNIX)
                one.connect(str(place))
            except OSError:
                time.sleep(0.002)
                continue
            heard.extend(json.loads(line) for line in one.makefile())
            return

    reader = threading.Thread(target=read)
    reader.start()
    live("--from", path, "--detector", name, "--array", "D1", "--json", "--real-time", "--socket", place)
    reader.join()
    assert heard == lines(capsys)
    assert finals(heard)


def test_a_file_in_real_time_says_the_same(name, path, capsys):
    common = ("--from", path, "--detector", name, "--array", "D1", "--json")
    live(*common)
    first = finals(lines(capsys))
    live(*common, "--real-time")
    assert finals(lines(capsys)) == first


def test_some_channels_of_a_file(name, tmp_path, capsys):
    x = bursts(1.4, 0.5)
    six = np.concatenate([np.zeros((1, x.shape[1]), np.float32), x[::-1], x, x], axis=0)
    write_wav(tmp_path / "six.wav", six, RATE, "FLOAT")
    write_wav(tmp_path / "two.wav", x, RATE, "FLOAT")
    live("--from", tmp_path / "two.wav", "--detector", name, "--array", "D1", "--json")
    expected = lines(capsys)
    live("--from", tmp_path / "six.wav", "--detector", name, "--array", "D1", "--json", "--channels", "3,2")
    assert lines(capsys) == expected


@pytest.mark.parametrize("pace", [(), ("--real-time",)])
def test_a_file_of_another_array_is_one_sentence(name, path, capsys, pace):
    assert live("--from", path, "--detector", name, "--array", "D3", *pace) == 2
    assert "has 2 channels, the array D3 has 6 microphones" in capsys.readouterr().err


def test_serve_refuses_a_file_of_another_array_and_takes_some_of_its_channels(name, path, capsys):
    for more in (("--array", "D3"), ("--array", "D1", "--channels", "2"), ("--channels", "1-3")):
        assert replayguard.main(["serve", "--port", "0", "--from", str(path), "--detector", name, *more]) == 2
        assert "channels" in capsys.readouterr().err


def test_a_file_where_the_utterances_shall_go_is_one_sentence(name, path, capsys):
    assert live("--from", path, "--detector", name, "--record", path) == 2
    assert "is a file; give a folder" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["benchmark tabel2", "corpus chek ROOT", "array --device x", "scor x.wav"])
def test_a_misspelt_command_is_one_sentence(words, capsys):
    assert replayguard.main(words.split()) == 2
    out, error = capsys.readouterr()
    assert not out
    assert "unknown command" in error
    assert "did you mean" in error


REFUSED = [
    (("--from", "x.wav", "--device", "absent"), "not both"),
    (("--json", "--dashboard", "on"), "not both"),
    (("--from", "x.wav", "--dashboard", "on"), "--real-time"),
    (("--seconds", "0"), "more than 0"),
    (("--device", "absent"), "neither --array nor --channels"),
    (("--device", "absent", "--array", "D2", "--channels", "1-3"), "has 4"),
    (("--device", "absent", "--array", "D1", "--hook", "no-such-program"), "--hook"),
    (("--device", "absent", "--array", "D1"), "no input named"),
    (("--device", "respeaker", "--array", "D1", "--mqtt", "nowhere"), "--mqtt"),
    (("--device", "respeaker", "--array", "D1", "--rate", "44100"), "44100 Hz"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_cannot_be_is_one_sentence(name, arguments, message, monkeypatch, capsys):
    fake = FakePortAudio()
    monkeypatch.setattr(devices, "portaudio", lambda: fake)
    monkeypatch.setattr(microphone, "portaudio", lambda: fake)
    assert live(*arguments, "--detector", name) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_microphone_that_overflows_and_goes_away(name, monkeypatch, capsys):
    """The whole command on a device that a thread feeds, loses and pulls out."""
    fake, x = FakePortAudio(), bursts(1.4, 1.4)
    monkeypatch.setattr(devices, "portaudio", lambda: fake)
    monkeypatch.setattr(microphone, "portaudio", lambda: fake)
    six = np.concatenate([np.zeros((1, x.shape[1]), np.float32), x, x, x[:1]])
    plugged = fake.plugged

    def speak():
        while not fake.streams:
            time.sleep(0.01)
        for start in range(0, x.shape[1], 160):
            fake.feed(six[:, start : start + 160], overflow=start == 160 * 200)
            time.sleep(0.0005)
        time.sleep(0.3)
        fake.unplug()
        time.sleep(0.2)
        fake.plugged = plugged
        while len(fake.streams) < 2:
            time.sleep(0.01)
        for start in range(0, x.shape[1], 160):
            fake.feed(six[:, start : start + 160])
            time.sleep(0.0005)

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    seconds = 2 * x.shape[1] / RATE - 0.2
    live(
        "--device", "respeaker", "--array", "D1", "--channels", "2-3", "--rate", RATE, "--json",
        "--detector", name, "--seconds", seconds,
    )  # fmt: skip
    speaker.join()
    told = lines(capsys)
    notices = [line["notice"] for line in told if line["kind"] == "notice"]
    assert [word for word in notices if word != "waiting"] == ["overflow", "unplugged", "reconnected"]
    said = finals(told)
    assert said[0]["reasons"] == ["interrupted"]
    assert len(said) >= 4
    assert all({"time", "latency"} <= set(line) for line in said)
    assert os.fstat(2)  # standard error is ours again
