"""Stand-ins for human talkers where no speech folder is given: the embedded synthesiser espeak-ng.

It runs in a process of its own (the library keeps global state) and writes a small labelled speech folder.
Its "speakers" are voice variants at different pitches and rates. They are no humans and are declared as such.
"""

from __future__ import annotations

import csv
import ctypes
import importlib.util
import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from remasc.atomic import write_text
from remasc.audio import write_wav
from remasc.identity import scene_rng

LICENCE = "audio made by espeak-ng (GPL-3.0-or-later program); stand-ins for human talkers"
COMMANDS = [
    "turn on the kitchen light", "what is the weather today", "set a timer for ten minutes",
    "open the garage door", "call my brother at work", "play some quiet music",
    "add milk to the shopping list", "lock the front door", "read my new messages",
    "turn the heating down", "what time is it in Paris", "remind me to water the plants",
    "unlock the car", "order a large pizza", "stop the alarm", "show me the way home",
    "close the bedroom window", "transfer fifty dollars to Anna", "turn off the television",
    "how tall is that mountain", "start the dishwasher", "good morning computer",
    "find a parking place nearby", "volume up please", "send the report to Michael",
    "switch on the porch lamp", "is there any news", "tell me a short story",
    "dim the lights in the hall", "navigate to the nearest station",
]  # fmt: skip
# without f2, f3, f5, sandro, victor and Alicia, whose breath is random: they never say the same bytes twice
VARIANTS = [
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f4", "Alex", "Andrea",
    "Annie", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo", "Jacky", "Lee", "Marco", "Mario",
    "Michael", "Mike", "Nguyen", "Reed", "adam", "anika", "antonio", "aunty", "belinda", "benjamin",
    "boris", "caleb", "david", "ed", "edward", "ian", "iven", "john", "linda", "marcelo", "max",
    "michel", "miguel", "norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "shelby", "steph",
    "travis", "zac", "grandma",
]  # fmt: skip
ACCENTS = ["en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-029"]  # "en" is the British one


def require_voices() -> None:
    """ValueError with the way out where the synthesiser is not installed."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise ValueError(
            "no speech folder is given and the embedded voices are not installed; "
            "run `uv sync`, `pip install replayguard[voices]`, or give --speech DIR"
        )


def plan_voices(corpus_name: str, speakers: dict[str, int], per_speaker: int) -> list[dict]:
    """What each voice says: rows of file, speaker, partition, text, voice, pitch (0..99), rate (words a minute)."""
    rng = scene_rng(corpus_name, "voices")
    rows = []
    order = rng.permutation(len(VARIANTS))
    homes = [partition for partition, count in speakers.items() for _ in range(count)]
    for s, home in enumerate(homes):
        variant = VARIANTS[order[s % len(VARIANTS)]]
        voice = f"{ACCENTS[int(rng.integers(len(ACCENTS)))]}+{variant}"
        pitch, rate = int(rng.integers(25, 75)), int(rng.integers(135, 200))
        texts = rng.permutation(len(COMMANDS))[:per_speaker]
        for n, text in enumerate(texts):
            row = {"file": f"voice{s:03d}/{n:02d}.wav", "speaker": f"voice{s:03d}", "partition": home}
            rows.append({**row, "text": COMMANDS[text], "voice": voice, "pitch": pitch, "rate": rate})
    return rows


def make_voices(folder: Path, corpus_name: str, speakers: dict[str, int], per_speaker: int = 12) -> Path:
    """Write the stand-in speech folder with so many voices by partition; metadata.csv last, so that it says
    whether the folder is whole."""
    require_voices()
    rows = plan_voices(corpus_name, speakers, per_speaker)
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    metadata = folder / "metadata.csv"
    if metadata.is_file() and metadata.read_text(encoding="utf-8") == table.getvalue():
        return folder
    if (folder / "plan.csv").is_file() and (folder / "plan.csv").read_text(
        encoding="utf-8"
    ) != table.getvalue():
        shutil.rmtree(folder)  # other voices under the same names
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "plan.csv", table.getvalue())
    done = subprocess.run(
        [sys.executable, "-m", "remasc.simulate.voices", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ValueError(f"the embedded voices do not run here ({reason}); give --speech DIR")
    write_text(
        folder / "ORIGIN.md",
        f"# espeak-ng voices (synthetic stand-ins for human talkers)\nLicence: {LICENCE}.\n",
    )
    write_text(metadata, table.getvalue())
    return folder


class Espeak:
    """The synthesiser through ctypes, in retrieval mode: text in, samples out."""

    def __init__(self) -> None:
        import espeakng_loader

        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = str(Path(espeakng_loader.get_data_path()).parent).encode()
        self.sample_rate = self.library.espeak_Initialize(1, 0, data, 0)  # 1 = retrieval: nothing is played
        if self.sample_rate <= 0:
            self.sample_rate = self.library.espeak_Initialize(
                1, 0, espeakng_loader.get_data_path().encode(), 0
            )
        if self.sample_rate <= 0:
            raise OSError("espeak_Initialize failed")
        self.blocks: list[np.ndarray] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self.callback = kind(self._collect)  # kept: the library holds only its address
        self.library.espeak_SetSynthCallback(self.callback)

    def _collect(self, samples: ctypes.POINTER, count: int, events: int) -> int:
        if samples and count > 0:
            self.blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str, voice: str, pitch: int, rate: int) -> np.ndarray:
        """Samples (T,) float32 in [-1, 1]."""
        if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise OSError(f"espeak-ng has no voice {voice}")
        self.library.espeak_SetParameter(1, rate, 0)
        self.library.espeak_SetParameter(3, pitch, 0)
        self.blocks.clear()
        raw = text.encode() + b"\0"
        self.library.espeak_Synth(raw, ctypes.c_size_t(len(raw)), 0, 1, 0, 1, None, None)
        self.library.espeak_Synchronize()
        if not self.blocks:
            raise OSError(f"espeak-ng gave no sound for voice {voice}")
        return np.concatenate(self.blocks).astype(np.float32) / 32768


def _synthesise(folder: Path) -> None:
    """Say every row of the folder's plan.csv; what is there already stays."""
    espeak = Espeak()
    with (folder / "plan.csv").open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            path = folder / row["file"]
            if not path.is_file():
                path.parent.mkdir(exist_ok=True)
                sound = espeak.say(row["text"], row["voice"], int(row["pitch"]), int(row["rate"]))
                write_wav(path, sound[None], espeak.sample_rate)


if __name__ == "__main__":
    _synthesise(Path(sys.argv[1]))
