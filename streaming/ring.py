"""The last seconds of a live recording in constant memory.

Shapes: M microphones, t samples of one block.
"""

from __future__ import annotations

import numpy as np


class Ring:
    """Keeps the last `capacity` samples of each of M channels, and counts all that were ever fed.

    Positions are absolute: sample 0 is the first ever fed. Feeding copies once and allocates nothing.

    >>> ring = Ring(2, 4)
    >>> ring.feed(np.arange(12, dtype=np.float32).reshape(2, 6))
    >>> ring.start, ring.end
    (2, 6)
    >>> ring.read(3, 5).tolist()
    [[3.0, 4.0], [9.0, 10.0]]
    """

    def __init__(self, num_mics: int, capacity: int):
        assert num_mics >= 1, num_mics
        assert capacity >= 1, capacity
        self._samples = np.zeros((num_mics, capacity), dtype=np.float32)
        self.end = 0  # samples fed so far

    @property
    def num_mics(self) -> int:
        return self._samples.shape[0]

    @property
    def capacity(self) -> int:
        return self._samples.shape[1]

    @property
    def start(self) -> int:
        """The oldest sample still held."""
        return max(0, self.end - self.capacity)

    def feed(self, block: np.ndarray) -> None:
        """Append (M, t) samples; a block longer than the ring leaves its last `capacity` samples."""
        if block.ndim != 2 or block.shape[0] != self._samples.shape[0]:
            raise ValueError(
                f"a block of shape {block.shape} was fed to a ring of {self._samples.shape[0]} channels; expected "
                f"({self._samples.shape[0]}, samples)"
            )
        kept = block[:, -self.capacity :] if block.shape[1] else block
        position = (self.end + block.shape[1] - kept.shape[1]) % self.capacity
        head = min(kept.shape[1], self.capacity - position)
        self._samples[:, position : position + head] = kept[:, :head]
        self._samples[:, : kept.shape[1] - head] = kept[:, head:]
        self.end += block.shape[1]

    def read(self, start: int, end: int) -> np.ndarray:
        """A copy (M, end - start) of absolute samples; ValueError where they are not held (any more)."""
        if not self.start <= start <= end <= self.end:
            raise ValueError(
                f"samples {start} to {end} were asked for, but the ring holds {self.start} to {self.end}"
            )
        samples = np.empty((self.num_mics, end - start), np.float32)
        first = start % self.capacity
        head = min(end - start, self.capacity - first)
        samples[:, :head] = self._samples[:, first : first + head]
        samples[:, head:] = self._samples[:, : end - start - head]
        return samples

    def reset(self) -> None:
        """Forget everything; the next sample is number 0 again."""
        self.end = 0
