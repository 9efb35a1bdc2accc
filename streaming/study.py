"""What the commands that were heard tell of the array itself: where they came from, and whether the order of the
microphones is the claimed one. Shapes: M microphones."""

from __future__ import annotations

from collections import deque

import numpy as np

from remasc import MicArray
from streaming.array_check import CLOSURE_SECONDS, PEAK, listed
from streaming.array_order import fit_order
from streaming.delays import SLACK_SECONDS, SPEED_OF_SOUND, aperture, azimuth, measure
from streaming.notices import Notice
from streaming.online import Heard

MOST_WINDOWS = 24
ENOUGH_WINDOWS, ENOUGH_COMMANDS = 4, 2  # before anything is said of the order
ROUGH_SECONDS = 60e-6  # pairs may disagree so much where only the direction is asked for
LISTENED_SECONDS = 1.0  # of a command, its loudest part


class Study:
    """Called with every judged stretch; gives notices and the azimuth in radians, or None where it is not clear."""

    def __init__(self, array: MicArray):
        self.array = array
        self._bound = aperture(array.positions) / SPEED_OF_SOUND + SLACK_SECONDS
        self._onsets: deque[np.ndarray] = deque(maxlen=MOST_WINDOWS)
        self._commands = 0
        self._suspected: tuple[int, ...] = ()
        self._said: tuple[int, ...] = ()
        self._azimuth: float | None = None

    def __call__(self, heard: Heard, sample_rate: int) -> tuple[list[Notice], float | None]:
        if heard.growing or heard.waveform.shape[1] < LISTENED_SECONDS * sample_rate / 2:
            return [], self._azimuth
        found = measure(self._loudest(heard.waveform, sample_rate), sample_rate, self._bound)
        self._azimuth = None
        if found is None or np.median(np.abs(found.peak)) < PEAK or found.closure > ROUGH_SECONDS:
            return [], None
        self._azimuth = azimuth(found.onsets, self.array.positions)
        if found.closure > CLOSURE_SECONDS:
            return [], self._azimuth
        self._onsets.append(found.onsets)
        self._commands += 1
        return self._order(), self._azimuth

    def _loudest(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        size, step = round(LISTENED_SECONDS * sample_rate), sample_rate // 10
        starts = range(0, max(waveform.shape[1] - size, 0) + 1, step)
        power = np.concatenate([[0.0], np.cumsum(np.square(waveform).mean(axis=0, dtype=np.float64))])
        best = max(starts, key=lambda start: power[min(start + size, len(power) - 1)] - power[start])
        return waveform[:, best : best + size]

    def _order(self) -> list[Notice]:
        """Said when two looks in a row agree, and again only after it was right in between."""
        if len(self._onsets) < ENOUGH_WINDOWS or self._commands < ENOUGH_COMMANDS:
            return []
        moved = fit_order(np.stack(self._onsets), self.array.positions).moved
        agreed, self._suspected = moved == self._suspected, moved
        if not agreed or moved == self._said:
            return []
        self._said = moved
        if not moved:
            return []
        channels = tuple(channel + 1 for channel in moved)
        detail = f"{listed(channels)} do not sit where the array {self.array.name} says; see `array check`"
        return [Notice("swapped", detail, channels=channels)]
