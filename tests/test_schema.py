from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from remasc import Label
from remasc.schema import (
    Environment,
    PlaybackDevice,
    Recording,
    RecordingDevice,
    SourceRecorder,
    SpeechType,
    name_of,
)


def recording(kind: SpeechType = SpeechType.REPLAY, **changes) -> Recording:
    row = {
        "file_id": "2010001",
        "speech_type": kind,
        "speaker": 7,
        "environment": Environment.INDOOR_1,
        "position": 11,
        "source_recorder": SourceRecorder.TASCAM_DR05,
        "playback_device": PlaybackDevice.PHONE,
        "recording_device": RecordingDevice.D3,
        "seconds": 1.5,
        "path": Path("core/data/2010001.wav"),
        "subset": "core",
    }
    return Recording(**{**row, **changes})


def test_higher_is_more_genuine():
    assert Label.GENUINE > Label.REPLAY
    assert recording(SpeechType.GENUINE).label is Label.GENUINE
    assert recording(SpeechType.REPLAY).label is Label.REPLAY


def test_source_recordings_are_no_trials():
    source = recording(SpeechType.SOURCE, recording_device=None)
    assert not source.is_trial
    assert source.label is None
    assert source.array is None


def test_trial_ids_differ_between_subsets():
    ids = {recording(subset=subset).trial_id for subset in ("core", "eval", "complete", "")}
    assert ids == {"core/2010001", "eval/2010001", "complete/2010001", "2010001"}


def test_a_recording_cannot_be_changed_and_can_be_a_key():
    with pytest.raises(FrozenInstanceError):
        recording().speaker = 8
    assert len({recording(), recording(), recording(speaker=8)}) == 2


def test_words_are_one_per_code_and_never_contain_a_tab():
    for enum in (SpeechType, Label, Environment, SourceRecorder, PlaybackDevice, RecordingDevice):
        words = [name_of(member) for member in enum]
        assert len(set(words)) == len(enum)
        assert all(word and not set(word) & set("\t\n _") for word in words)
    assert name_of(None) == "-"


def test_conditions_are_words_also_where_not_applicable():
    genuine = recording(SpeechType.GENUINE, source_recorder=None, playback_device=None)
    assert genuine.conditions() == {
        "array": "D3",
        "environment": "indoor-1",
        "position": "11",
        "source_recorder": "-",
        "playback_device": "-",
        "speaker": "7",
    }
