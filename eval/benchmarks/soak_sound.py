"""Sound without end for `eval.benchmarks.soak`: chapters of a minute, made when they are due, each the same to the
bit whenever it comes again.

A chapter is room noise with simulated commands in it, and noises that are none (a door, a fan). It begins with ten
seconds of the room alone and is a whole number of half seconds long, so that the voice activity, which remembers
the least level of the last 16 half seconds, hears it in mid-stream as it hears it in a recording of its own.
Shapes: M microphones, T samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from remasc import Corpus, MicArray, Recording, read_audio
from remasc.identity import scene_rng
from streaming.vad import FLOOR_PARTS, FRAME_SECONDS, PART_FRAMES

CHAPTERS = 60  # after so many the first one comes again
CHAPTER_SECONDS = 60.0
CALM_SECONDS = (FLOOR_PARTS + 4) * PART_FRAMES * FRAME_SECONDS  # until the floor knows of this chapter alone
END_SECONDS = 2.0  # every command is over before the next chapter begins
PAUSE_SECONDS = (1.2, 5.0)
ROOM_DBFS = -62.0
NOISE_SECONDS, NOISE_DBFS, NOISE_SHARE = (
    (0.05, 1.5),
    (-40.0, -25.0),
    0.4,
)  # the noises, and how many pauses have one
POOL_SECONDS = 10.0
DEMO_SCALE = 0.25  # of the recipe `demo`, where no corpus was given


@dataclass(frozen=True)
class Chapter:
    """Samples (M, T) float32, and where the commands lie in them: [first, last) each."""

    samples: np.ndarray
    commands: tuple[tuple[int, int], ...]


class Book:
    """`chapter(number)` of recordings of one array, for a voice activity that steps by `frame` samples."""

    def __init__(self, recordings: Sequence[Recording], array: MicArray, frame: int, *, seed: int = 0):
        if not recordings:
            raise ValueError(
                f"the corpus has no recordings of {array.name}; choose another --array or --corpus"
            )
        self.recordings, self.array, self.frame = recordings, array, frame
        self._name = f"soak-{seed}"
        rng = scene_rng(self._name, "pool")
        pool = (array.num_mics, round(POOL_SECONDS * array.sample_rate))
        self._pool = rng.standard_normal(pool, dtype=np.float32)

    def chapter(self, number: int) -> Chapter:
        rng = scene_rng(self._name, str(number))
        rate = self.array.sample_rate
        here, parts, commands = round(CALM_SECONDS * rate), [], []
        while here < CHAPTER_SECONDS * rate:
            pause = round(rng.uniform(*PAUSE_SECONDS) * rate)
            if rng.random() < NOISE_SHARE:
                samples = min(round(rng.uniform(*NOISE_SECONDS) * rate), pause)
                place = here + int(rng.integers(pause - samples + 1))
                parts.append((place, self._noise(samples, rng.uniform(*NOISE_DBFS), rng)))
            here += pause
            command = self._command(rng)
            parts.append((here, command))
            commands.append((here, here + command.shape[1]))
            here = commands[-1][1]
        unit = PART_FRAMES * self.frame
        samples = self._noise(-(-round(here + END_SECONDS * rate) // unit) * unit, ROOM_DBFS, rng)
        for place, part in parts:
            samples[:, place : place + part.shape[1]] += part
        return Chapter(samples, tuple(commands))

    def _command(self, rng: np.random.Generator) -> np.ndarray:
        recording = self.recordings[int(rng.integers(len(self.recordings)))]
        command, rate = read_audio(recording.path)
        if rate != self.array.sample_rate:
            raise ValueError(
                f"{recording.path}: has {rate} Hz, the array {self.array.name} {self.array.sample_rate}; "
                "choose another --corpus"
            )
        return command

    def _noise(self, samples: int, dbfs: float, rng: np.random.Generator) -> np.ndarray:
        """White noise (M, samples), another in each microphone, from a random place of the pool."""
        place = int(rng.integers(self._pool.shape[1]))
        noise = np.take(self._pool, np.arange(place, place + samples), axis=1, mode="wrap")
        noise *= np.float32(10 ** (dbfs / 20))
        return noise


def commands_of(root: Path | None, array: MicArray) -> tuple[AbstractContextManager, Sequence[Recording]]:
    """What keeps the recordings where they are, and those of an array, simulated now where there is no `root`."""
    kept: AbstractContextManager = nullcontext()
    if root is None:
        from remasc.simulate import generate

        kept = TemporaryDirectory(prefix="soak-")
        root = generate("demo", kept.name, arrays=(array.name,), scale=DEMO_SCALE)
    return kept, Corpus.from_meta(root).trials().filter(array=array.name)
