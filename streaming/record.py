"""Utterances kept with what was said of them; only where somebody asked for it."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from remasc.atomic import write_text
from remasc.audio import write_wav
from streaming.decision import Decision

LEAST_FREE_BYTES = 200e6  # a full disk harms more than a recording that is missing


class Recorder:
    """Each utterance as NAME.wav (32 bit float, the very samples that were judged) and NAME.json (the decision).

    NAME is the moment of the decision in UTC and a number. Each file appears whole, the JSON last:
    where there is one, the sound is there, too. A folder that is made here can be read by its owner alone.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise FileExistsError(f"{self.folder} is a file; give a folder for the utterances")
        if not self.folder.is_dir():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700)
        self.kept = 0

    @property
    def warning(self) -> str:
        """What has to be said to whoever is in the room."""
        return f"every utterance that is heard is kept as sound in {self.folder.resolve()}"

    def keep(self, decision: Decision, waveform: np.ndarray, sample_rate: int, **more: object) -> Path:
        """The path of the JSON file; OSError where the disk does not take it."""
        if shutil.disk_usage(self.folder).free < LEAST_FREE_BYTES:
            raise OSError(f"less than {LEAST_FREE_BYTES / 1e6:.0f} MB are free in {self.folder}")
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"[:-3] + f"Z-{self.kept + 1:04d}"
        sound, sheet = self.folder / f"{name}.wav", self.folder / f"{name}.json"
        write_wav(sound, waveform, sample_rate, "FLOAT")
        told = decision.as_dict() | more | {"recording": sound.name, "sample_rate": sample_rate}
        write_text(sheet, json.dumps(told, allow_nan=False, indent=1) + "\n")
        self.kept += 1
        return sheet
