"""One row of ReMASC's `meta.csv` as a frozen `Recording`, and the enums its codes stand for.

The nine columns (no header, padded with spaces): file id | speech type | speaker | environment | position |
source recorder | playback device | recording device | seconds (Gong et al., arXiv 1904.03365, readme.txt).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path


class SpeechType(IntEnum):
    """Column 2. Source recordings are what the attacker plays; they are never a trial."""

    SOURCE = 1
    GENUINE = 2
    REPLAY = 3


class Label(IntEnum):
    """The class of a trial. Higher scores mean more genuine, so genuine is 1."""

    REPLAY = 0
    GENUINE = 1


class Environment(IntEnum):
    OUTDOOR = 1
    INDOOR_1 = 2
    INDOOR_2 = 3
    VEHICLE = 4


class SourceRecorder(IntEnum):
    TASCAM_DR05 = 1
    IPOD = 2
    TTS = 3


class PlaybackDevice(IntEnum):
    HEADPHONE = 1
    PHONE = 2
    SMALL_SPEAKER = 3
    STEREO_SPEAKER = 4
    VEHICLE = 5


class RecordingDevice(IntEnum):
    """Column 8; the arrays "D1".."D4" of `remasc.ARRAYS`. RANDOM is of simulated corpora alone: every recording is
    of another array, whose geometry is in scenes.jsonl."""

    D1 = 1
    D2 = 2
    D3 = 3
    D4 = 4
    RANDOM = 9


def name_of(code: IntEnum | None) -> str:
    """The lower-case word printed in tables: `Environment.INDOOR_1` -> "indoor-1"; None -> "-"."""
    return "-" if code is None else code.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Recording:
    """What `meta.csv` says about one file, and where the file is; never its samples.

    A code of -1 in the file is None here. `position` keeps ReMASC's code (-1 where unknown), because its
    meaning depends on the environment (data/README.md). Genuine rows of environment 1 carry a source
    recorder in the published files: kept as it is.
    """

    file_id: str
    speech_type: SpeechType
    speaker: int  # 0..50, 0 = text to speech
    environment: Environment
    position: int
    source_recorder: SourceRecorder | None
    playback_device: PlaybackDevice | None
    recording_device: RecordingDevice | None
    seconds: float  # as meta.csv states it
    path: Path  # <root>/<subset>/data/<file_id>.wav, whether or not the file exists
    subset: str  # "core", "eval" or "" where meta.csv lies in the root itself

    @property
    def is_trial(self) -> bool:
        return self.speech_type is not SpeechType.SOURCE

    @property
    def label(self) -> Label | None:
        """Genuine or replay; None for a source recording."""
        if self.speech_type is SpeechType.SOURCE:
            return None
        return Label.GENUINE if self.speech_type is SpeechType.GENUINE else Label.REPLAY

    @property
    def array(self) -> str | None:
        """The key into `remasc.ARRAYS`: "D1".."D4", or "RANDOM"; None for a source recording."""
        return None if self.recording_device is None else self.recording_device.name

    @property
    def trial_id(self) -> str:
        """Unique over the subsets of one copy: "eval/2010001"; the bare file id where there is no subset."""
        return f"{self.subset}/{self.file_id}" if self.subset else self.file_id

    def conditions(self) -> dict[str, str]:
        """The condition columns of a protocol file, as the words printed in tables."""
        return {
            "array": self.array or "-",
            "environment": name_of(self.environment),
            "position": str(self.position),
            "source_recorder": name_of(self.source_recorder),
            "playback_device": name_of(self.playback_device),
            "speaker": str(self.speaker),
        }
