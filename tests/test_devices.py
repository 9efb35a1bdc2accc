"""Devices by name, arrays by the device's name, channels as people count them."""

import json

import pytest

import replayguard
from remasc.arrays import ARRAYS
from streaming import devices
from streaming.devices import BOARDS, Input, channels_of, find, guess, inputs
from tests.fake_portaudio import FakePortAudio

NAMES = {
    "ReSpeaker 4 Mic Array (UAC1.0): USB Audio (hw:1,0)": ("ReSpeaker USB 4-Mic Array", "", "2-5"),
    "seeed-4mic-voicecard: bcm2835-i2s-ac10x-codec0 (hw:2,0)": ("ReSpeaker 4-Mic", "", ""),
    "seeed-8mic-voicecard: - (hw:0,0)": ("ReSpeaker Core v2", "D3", "1-6"),
    "snd_rpi_googlevoicehat_soundcar: Google voiceHAT SoundCard HiFi": ("Google AIY Voice Kit", "D1", ""),
    "AIY-voicekit": ("Google AIY Voice Kit", "D1", ""),
    "UMA8: USB Audio (hw:3,0)": ("miniDSP UMA-8", "", "1-7"),
    "miniDSP UMA-8 MicArray": ("miniDSP UMA-8", "", "1-7"),
    "XMOS VocalFusion St (UAC1.0): USB Audio": ("XMOS microphone array", "", ""),
    "XVF3510 (UAC2)": ("XMOS microphone array", "", ""),
    "Respeaker 4-Mic Linear Array Kit": ("ReSpeaker 4-Mic Linear Array", "D2", ""),
    "ReSpeaker 2000": ("ReSpeaker", "", ""),
}


@pytest.mark.parametrize("name", NAMES)
def test_boards_are_known_by_their_names(name):
    board = guess(name)
    assert (board.name, board.array, board.channels) == NAMES[name]


@pytest.mark.parametrize(
    "name", ["HDA Intel PCH: ALC257 Analog", "pulse", "default", "MacBook Microphone", ""]
)
def test_other_names_are_not_guessed(name):
    assert guess(name) is None


def test_what_is_guessed_can_be_given():
    for board in BOARDS:
        assert board.array in ("", *ARRAYS)
        if board.channels:
            picked = channels_of(board.channels)
            assert not board.array or len(picked) == ARRAYS[board.array].num_mics


def test_channels_are_counted_from_one():
    assert channels_of("2-5") == (1, 2, 3, 4)
    assert channels_of("1,4,2,3") == (0, 3, 1, 2)
    assert channels_of(" 1 - 2 , 7") == (0, 1, 6)
    assert channels_of("3") == (2,)


@pytest.mark.parametrize(
    "text", ["", "0", "0-3", "5-2", "a", "1,,2", "1-", "-1", "65", "1,1", "2-4,3", "1.5", "9" * 50]
)
def test_channels_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="--channels") as refused:
        channels_of(text)
    assert "\n" not in str(refused.value)


FOUND = [
    Input(0, "pulse", 32, 44100),
    Input(3, "mic6", 32, 44100, default=True),
    Input(4, "Mic6 two", 2, 16000),
]


def test_a_device_by_name_part_number_or_default():
    assert find("mic6", FOUND).index == 3
    assert find("MIC6", FOUND).index == 3
    assert find("two", FOUND).index == 4
    assert find("4", FOUND).index == 4
    assert find(None, FOUND).index == 3
    with pytest.raises(ValueError, match="2 inputs hold"):
        find("mic", FOUND)
    with pytest.raises(ValueError, match="did you mean 'mic6'"):
        find("mic66", FOUND)
    with pytest.raises(ValueError, match="no input named '7'"):
        find("7", FOUND)
    with pytest.raises(ValueError, match="no sound input"):
        find("mic6", [])


def test_only_what_records_is_listed(monkeypatch, capsys):
    sound = FakePortAudio(Speakers=(0, (48000,)), **{"AIY\x1b[2J kit": (2, (16000, 48000))})
    monkeypatch.setattr(devices, "portaudio", lambda: sound)
    (one,) = inputs()
    assert (one.index, one.channels, one.rates, one.default) == (1, 2, (16000, 48000), False)
    assert "\x1b" not in one.name
    assert replayguard.main(["devices", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["guess"]["array"] == "D1"
    assert replayguard.main(["devices"]) == 0
    out = capsys.readouterr().out
    assert "--array D1" in out
    assert "Speakers" not in out
    sound.plugged = {}
    assert replayguard.main(["devices"]) == 1


def test_a_machine_without_portaudio_says_what_to_install(monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert replayguard.main(["devices"]) == 2
    assert "libportaudio2" in capsys.readouterr().err
