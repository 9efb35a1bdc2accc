"""From the callback of a sound device to the thread that listens: a ring that one fills and another empties.

`write` is all that runs in the audio path: it copies once, takes no lock and allocates nothing that grows.
Shapes: C channels of the device, t samples of one call.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from streaming.blocks import Block
from streaming.ring import Ring


class Capture:
    """One writer, one reader. Samples that the reader did not fetch in time are lost, and said to be.

    >>> capture = Capture(2, 8)
    >>> capture.write(np.zeros((5, 2), np.float32))
    >>> capture.read().samples.shape, capture.read()
    ((2, 5), None)
    """

    def __init__(self, channels: int, capacity: int):
        self._ring = Ring(channels, capacity)
        self._gaps: deque[int] = deque(maxlen=1024)  # sample before which the device lost some
        self.taken = 0  # samples given out or lost by the reader
        self.behind = 0  # samples lost because the reader was too slow
        self.overflows = 0  # losses that the device told of

    @property
    def written(self) -> int:
        return self._ring.end

    def covers(self, seconds: float, sample_rate: int) -> bool:
        """Whether about so much waits to be read: the device was heard while the reader was away."""
        return self._ring.end - self.taken > 0.8 * seconds * sample_rate

    def write(self, samples: np.ndarray, lost: bool = False) -> None:
        """(t, C) float32 as a device gives them; `lost`: the device lost samples just before these."""
        if lost:
            self.overflows += 1
            self._gaps.append(self._ring.end)
        self._ring.feed(samples.T)

    def read(self) -> Block | None:
        """What was written since the last call up to the next loss, or None where nothing was."""
        end, lost = self._ring.end, 0
        oldest = end - self._ring.capacity
        if oldest > self.taken:
            return self._skip(end)
        while self._gaps and self._gaps[0] <= self.taken:
            self._gaps.popleft()
            lost = 1  # how many the device does not tell
        if self._gaps and self._gaps[0] < end:
            end = self._gaps[0]
        if end == self.taken:
            # a loss is told with the samples that follow it
            if lost:
                self._gaps.appendleft(self.taken)
            return None
        try:
            samples = self._ring.read(self.taken, end)
        except ValueError:  # the writer came round since
            return self._skip(self._ring.end)
        if self._ring.end - self._ring.capacity > self.taken:  # it came round while they were copied
            return self._skip(self._ring.end)
        self.taken = end
        return Block(samples, lost)

    def _skip(self, end: int) -> Block:
        """Give up half of the ring, so that the writer is not met again at once."""
        start = end - self._ring.capacity // 2
        lost = start - self.taken
        self.behind += lost
        self.taken = start
        return Block(np.zeros((self._ring.num_mics, 0), dtype=np.float32), lost)
