"""Where blocks come from: files and arrays of samples; `microphone.Microphone` is one more `Source`.

Shapes: M microphones, t samples of one block.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from remasc.audio import read_audio
from streaming.blocks import Block, checked, checked_rate

BLOCK_SECONDS = 0.01


class Source(Protocol):
    """Blocks one after the other, each (num_mics, t) at `sample_rate` Hz, until there are no more."""

    sample_rate: int
    num_mics: int

    def __iter__(self) -> Iterator[Block]: ...


class ArraySource:
    """Samples (M, T) in blocks of `block_seconds`; the last one is shorter.

    >>> source = ArraySource(np.zeros((2, 2500)), 100_000)
    >>> [block.samples.shape for block in source]
    [(2, 1000), (2, 1000), (2, 500)]
    """

    def __init__(self, waveform: np.ndarray, sample_rate: int, *, block_seconds: float = BLOCK_SECONDS):
        self._waveform = checked(waveform, None)
        self.sample_rate = checked_rate(sample_rate)
        if not 0 < block_seconds <= 60:
            raise ValueError(f"blocks of {block_seconds} seconds; expected more than 0 and at most 60")
        self._block = max(1, round(block_seconds * self.sample_rate))

    @property
    def num_mics(self) -> int:
        return len(self._waveform)

    def __iter__(self) -> Iterator[Block]:
        for start in range(0, self._waveform.shape[1], self._block):
            yield Block(self._waveform[:, start : start + self._block])


class FileSource(ArraySource):
    """A sound file in blocks, as fast as they are taken. It is read whole, as far as `read_audio` allows."""

    def __init__(self, path: str | Path, *, block_seconds: float = BLOCK_SECONDS):
        super().__init__(*read_audio(path), block_seconds=block_seconds)


class Paced:
    """Another source at the pace of its own sound, as a microphone would give it."""

    def __init__(self, source: Source, name: str = "a recording"):
        self._source, self.name = source, name
        self.sample_rate, self.num_mics = source.sample_rate, source.num_mics
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the iteration; from any thread."""
        self._stopped.set()

    def __iter__(self) -> Iterator[Block]:
        began, given = time.monotonic(), 0
        for block in self._source:
            given += block.samples.shape[1]
            if self._stopped.wait(max(0.0, began + given / self.sample_rate - time.monotonic())):
                return
            yield block
