"""Sound inputs of this machine, found by name, and a guess of the microphone array behind a name.

PortAudio (through sounddevice) is imported when a device is asked for, never before.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import asdict, dataclass
from typing import Any

from remasc.sentences import plain, quoted, reason

RATES = (16000, 44100, 48000)


@dataclass(frozen=True)
class Board:
    """A microphone board as its driver names it. `array` is ours where the geometry is known, "" elsewhere;
    `channels` as `--channels` takes them, where the device has more than the microphones."""

    name: str
    pattern: str
    array: str = ""
    channels: str = ""
    note: str = ""


OWN_FILE = "its geometry is not built in: write an array file (data/README.md)"

BOARDS = (
    Board("Google AIY Voice Kit", r"aiy|google\s*voice\s*hat", "D1"),
    Board("Amlogic A113X1", r"amlogic|a113x", "D4"),
    Board(
        "ReSpeaker Core v2", r"seeed-?8mic|respeaker[ -]?core", "D3", "1-6", "channels 7 and 8 are the playback"
    ),
    Board(
        "ReSpeaker 4-Mic Linear Array", r"respeaker[ -]*4[ -]?mic[ -]*lin|4[ -]?mic[ -]*linear", "D2",
        note="its sound card shares a name with the square 4-Mic HAT: check the order",
    ),
    Board("ReSpeaker USB 4-Mic Array", r"respeaker.*(4[ -]?mic|uac)", "", "2-5", f"a circle; {OWN_FILE}"),
    Board("ReSpeaker 4-Mic", r"seeed-?4-?mic", "", "", "a line (D2) or a square: check with `array check`"),
    Board("ReSpeaker 2-Mic HAT", r"seeed-?2-?mic", "", "", OWN_FILE),
    Board("ReSpeaker", r"respeaker|seeed", "", "", OWN_FILE),
    Board("miniDSP UMA-8", r"uma-?8|minidsp.*mic|micarray", "", "1-7", f"seven microphones; {OWN_FILE}"),
    Board("XMOS microphone array", r"xmos|xvf\d|vocalfusion", "", "", OWN_FILE),
)  # fmt: skip


@dataclass(frozen=True)
class Input:
    """One input as PortAudio numbers it. `rates` are those of `RATES` that it takes."""

    index: int
    name: str
    channels: int
    default_rate: int
    rates: tuple[int, ...] = ()
    default: bool = False
    host: str = ""

    def as_dict(self) -> dict[str, Any]:
        board = guess(self.name)
        return asdict(self) | {"rates": list(self.rates), "guess": None if board is None else _told(board)}


def _told(board: Board) -> dict[str, str | None]:
    return {
        "board": board.name,
        "array": board.array or None,
        "channels": board.channels or None,
        "note": board.note,
    }


def guess(name: str) -> Board | None:
    """The board whose pattern the device's name holds, the most particular first.

    >>> guess("ReSpeaker 4 Mic Array (UAC1.0): USB Audio (hw:1,0)").channels, guess("HDA Intel PCH")
    ('2-5', None)
    """
    return next((board for board in BOARDS if re.search(board.pattern, name, re.IGNORECASE)), None)


def portaudio() -> Any:
    """The module sounddevice; ValueError where the machine has no PortAudio."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise ValueError(
            f"no microphone can be opened ({reason(error)}); install PortAudio, on Debian and Ubuntu by "
            "`apt install libportaudio2`"
        ) from None
    return sounddevice


def inputs(*, rates: bool = True) -> list[Input]:
    """Everything that records, in PortAudio's order. `rates` asks each which rates it takes."""
    sound = portaudio()
    try:
        hosts, default = sound.query_hostapis(), sound.default.device[0]
        found = [
            Input(
                index=number,
                name=plain(device["name"]),
                channels=device["max_input_channels"],
                default_rate=round(device["default_samplerate"]),
                default=number == default,
                host=hosts[device["hostapi"]]["name"],
            )
            for number, device in enumerate(sound.query_devices())
            if device["max_input_channels"] > 0
        ]
    except sound.PortAudioError as error:
        raise ValueError(
            f"the sound devices cannot be listed ({reason(error)}); expected PortAudio to answer"
        ) from None
    if not rates:
        return found
    return [Input(**(asdict(one) | {"rates": _rates(sound, one)})) for one in found]


def _rates(sound: Any, one: Input) -> tuple[int, ...]:
    return tuple(rate for rate in RATES if takes(sound, one.index, min(one.channels, 2), rate))


def takes(sound: Any, index: int, channels: int, rate: int) -> bool:
    """Whether a device says that it records so."""
    try:
        sound.check_input_settings(device=index, channels=channels, samplerate=rate, dtype="float32")
    except (sound.PortAudioError, ValueError):
        return False
    return True


def find(name: str | None, found: list[Input]) -> Input:
    """A device by its number, its whole name, or a part of it that no other has; None is the default one.

    ValueError, with the close matches, where it is none or several.
    """
    if not found:
        raise ValueError("this machine has no sound input; plug a microphone array in")
    if name is None:
        return next((one for one in found if one.default), found[0])
    if name.isdecimal():
        exact = [one for one in found if one.index == int(name)]
    else:
        exact = [one for one in found if one.name.lower() == name.lower()]
    if exact:
        return exact[0]
    part = [one for one in found if name.lower() in one.name.lower()]
    if len(part) == 1:
        return part[0]
    if part:
        raise ValueError(
            f"{len(part)} inputs hold {quoted(name)} in their names ({', '.join(one.name for one in part[:4])}); "
            "give the whole name or the number that `replayguard devices` prints"
        )
    close = difflib.get_close_matches(name, [one.name for one in found], n=1, cutoff=0.4)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(
        f"no input named {quoted(name)}{hint}; `replayguard devices` lists the {len(found)} there are"
    )


def channels_of(text: str, most: int = 64) -> tuple[int, ...]:
    """ "2-5" or "1,4,2,3", counted from 1, as indices from 0, in that order.

    >>> channels_of("2-5"), channels_of("1,4,2")
    ((1, 2, 3, 4), (0, 3, 1))
    """
    chosen: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,3})\s*(?:-\s*(\d{1,3})\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= most:
            raise ValueError(
                f"--channels is {quoted(text)}; expected numbers from 1 to {most}, such as 2-5 or 1,4,2,3"
            )
        chosen += range(first - 1, last)
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"--channels {quoted(text)} names a channel twice; name each once")
    return tuple(chosen)
