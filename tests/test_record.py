"""What is kept is what was judged, whole, and only the owner's."""

import json
import stat

import numpy as np
import pytest

from remasc.audio import read_audio
from streaming import record
from streaming.decision import Decision
from streaming.record import Recorder

SAID = Decision(1.0, 2.0, 0.5, 0.5, None, ("clipped",))
SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 1600)).astype(np.float32)


def test_sound_and_decision_lie_side_by_side(tmp_path):
    recorder = Recorder(tmp_path / "kept" / "here")
    sheets = [recorder.keep(SAID, SOUND, 16000, time="now") for _ in range(3)]
    assert len({sheet.name for sheet in sheets}) == 3
    assert sorted(sheets) == sheets
    for sheet in sheets:
        told = json.loads(sheet.read_text())
        waveform, rate = read_audio(sheet.parent / told["recording"])
        np.testing.assert_array_equal(waveform, SOUND)
        assert rate == told["sample_rate"] == 16000
        assert {key: told[key] for key in SAID.as_dict()} == SAID.as_dict()
    assert len(list((tmp_path / "kept" / "here").iterdir())) == 6
    assert stat.S_IMODE((tmp_path / "kept" / "here").stat().st_mode) == 0o700


def test_it_says_plainly_that_it_keeps(tmp_path):
    warning = Recorder(tmp_path / "a").warning
    assert "every utterance" in warning
    assert str(tmp_path / "a") in warning


def test_nothing_is_left_half_written(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path)

    def fails(*_, **__):
        raise OSError("no space")

    monkeypatch.setattr(record, "write_text", fails)
    with pytest.raises(OSError, match="no space"):
        recorder.keep(SAID, SOUND, 16000)
    assert not list(tmp_path.glob("*.json"))
    assert not list(tmp_path.glob(".*"))


def test_a_disk_that_is_nearly_full_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "LEAST_FREE_BYTES", 1e30)
    with pytest.raises(OSError, match="free"):
        Recorder(tmp_path).keep(SAID, SOUND, 16000)
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Recorder(tmp_path / "file")
