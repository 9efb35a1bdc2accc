"""Whether the microphones are well while they are listened to: dead, clipped, copied. One look each second.

Blocks of 10 ms cost mostly NumPy's calls, so samples are gathered for a tenth of a second first.

Shapes: M microphones, t samples of one block.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from detector.quality import CLIPPED_LEVEL, CLIPPED_SHARE
from streaming.notices import Notice

STEP_SECONDS = 0.1
STEPS = 10  # of one look
DEAD_DBFS = -100.0  # below every converter's own noise
DEAD_BELOW_DB = 40.0  # so far below the median of the others, something is broken
PATIENCE = 2  # windows in a row before it is said that something began or is over


@dataclass
class WatchState:
    """Of the window that is open, and what was said before."""

    gathered: int = 0  # samples of the step that is open
    samples: int = 0  # in whole steps
    seconds: float = 0.0
    power: np.ndarray | None = None  # (M,) sums of squares
    clipped: np.ndarray | None = None  # (M,) samples at full scale
    low: np.ndarray | None = None  # (M,) least sample
    high: np.ndarray | None = None
    same: np.ndarray | None = None  # (M, M) whether two channels were equal all along
    runs: dict[str, np.ndarray] = field(default_factory=dict)  # windows in a row against what was said
    said: dict[str, np.ndarray] = field(default_factory=dict)


class Watch:
    """`feed` takes blocks and gives notices; `levels` and `peaks` are those of the last tenth of a second,
    in dB of full scale.

    >>> watch = Watch(2, 1000)
    >>> x = np.random.default_rng(0).normal(0, 0.1, (2, 5000)).astype(np.float32)
    >>> x[1] = 0
    >>> [(n.notice, n.channels) for n in watch.feed(x)]
    [('dead', (2,))]
    """

    WORDS = (("dead", "alive"), ("clipping", "clipping-over"), ("copied", "copied-over"))

    def __init__(self, num_mics: int, sample_rate: int):
        self.num_mics, self.sample_rate = num_mics, sample_rate
        self._step = np.empty((num_mics, max(1, round(STEP_SECONDS * sample_rate))), dtype=np.float32)
        self.levels = np.full(num_mics, -120.0)
        self.peaks = np.full(num_mics, -120.0)
        self.state = WatchState()

    def feed(self, block: np.ndarray) -> list[Notice]:
        """(M, t) samples, t >= 0."""
        notices: list[Notice] = []
        while block.shape[1]:
            begin = self.state.gathered
            part = block[:, : self._step.shape[1] - begin]
            block = block[:, part.shape[1] :]
            self.state.gathered = end = begin + part.shape[1]
            self._step[:, begin:end] = part
            if end == self._step.shape[1]:
                self.state.gathered = 0
                notices += self._take(self._step)
        return notices

    def sick(self, word: str) -> np.ndarray:
        """Which microphones (M,) were last said to be "dead", "clipping" or "copied"."""
        return self.state.said.get(word, np.zeros(self.num_mics, dtype=bool))

    def _take(self, block: np.ndarray) -> list[Notice]:
        state, size = self.state, block.shape[1]
        low, high = block.min(axis=1), block.max(axis=1)
        power = np.einsum("mt,mt->m", block, block).astype(np.float64)
        clipped = np.zeros(self.num_mics, dtype=np.int64)
        loud = np.maximum(high, -low)
        if loud.max() >= CLIPPED_LEVEL:
            clipped = (np.abs(block) >= CLIPPED_LEVEL).sum(axis=1)
        self.levels = 10 * np.log10(power / size + 1e-12)
        self.peaks = 20 * np.log10(loud + 1e-6)
        # the first and the last sample tell most channels apart at no cost
        same = (block[:, None, [0, -1]] == block[None, :, [0, -1]]).all(axis=-1)
        if state.samples == 0:
            state.power, state.clipped, state.low, state.high, state.same = power, clipped, low, high, same
        else:
            state.power, state.clipped = state.power + power, state.clipped + clipped
            state.low, state.high = np.minimum(state.low, low), np.maximum(state.high, high)
            state.same &= same
        if (state.same.sum() > self.num_mics) and same.sum() > self.num_mics:
            state.same &= _equal(block, state.same)
        state.samples += size
        state.seconds += size / self.sample_rate
        return self._judge() if state.samples >= STEPS * size else []

    def _judge(self) -> list[Notice]:
        state = self.state
        level = 10 * np.log10(state.power / state.samples + 1e-30)
        constant = state.low == state.high
        dead = constant | (level < DEAD_DBFS) | (level < np.median(level) - DEAD_BELOW_DB)
        np.fill_diagonal(state.same, False)
        found = {
            "dead": dead,
            "clipping": state.clipped > CLIPPED_SHARE * state.samples,
            "copied": (state.same & ~dead[:, None] & ~dead[None, :]).any(axis=1),
        }
        state.samples = 0
        return [notice for begins, ends in self.WORDS for notice in self._change(begins, ends, found[begins])]

    def _change(self, begins: str, ends: str, now: np.ndarray) -> list[Notice]:
        """What is another for `PATIENCE` windows in a row than what was said."""
        none = np.zeros(self.num_mics, dtype=bool)
        said = self.state.said.setdefault(begins, none.copy())
        runs = np.where(now != said, self.state.runs.get(begins, np.zeros(self.num_mics, int)) + 1, 0)
        turned = runs >= PATIENCE
        self.state.runs[begins] = np.where(turned, 0, runs)
        notices = []
        for word, which in ((begins, turned & now), (ends, turned & ~now)):
            if which.any():
                channels = tuple(int(channel) + 1 for channel in np.flatnonzero(which))
                notices.append(Notice(word, at=round(self.state.seconds, 3), channels=channels))
        self.state.said[begins] = said ^ turned
        return notices


def _equal(block: np.ndarray, among: np.ndarray) -> np.ndarray:
    """(M, M) whether two channels are equal; only the pairs `among` are looked at."""
    same = np.eye(len(block), dtype=bool)
    for i, j in zip(*np.nonzero(np.triu(among, 1)), strict=True):
        same[i, j] = same[j, i] = np.array_equal(block[i], block[j])
    return same
