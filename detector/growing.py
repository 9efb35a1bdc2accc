"""A detector for one command while it grows: `judge` of a longer recording goes on where a shorter one ended.

What is resampled, and the covariance of each frame, is computed once; what is relative to the clip is made anew
(`detector.frontends.growing`). So every judgement is `Detector.judge`'s of the same samples, provisional ones too.
Shapes: M microphones, T samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from detector.frontends.growing import Front, GrowingPlanes
from detector.score import Detector
from remasc.resampling import Resampler


def growing(detector: Any) -> Any:
    """A detector that judges as `detector` does, for one command: each recording given to it begins with the last.

    One that does not hear planes, or runs elsewhere than on this processor, is given back itself: it hears all of
    a command each time.
    """
    if not isinstance(detector, Detector):
        return detector
    ears = _ears(detector)
    return detector if ears is None else _Growing(detector, *ears)


class _Growing(Detector):
    def __init__(self, detector: Detector, front: Front, score: Callable[[np.ndarray], float]):
        self.__dict__.update(vars(detector))
        self._front, self._score_of = front, score
        self._heard = 0
        self._resampler: Resampler | None = None
        self._planes: GrowingPlanes | None = None

    def _logit(self, waveform: np.ndarray, sample_rate: int) -> float:
        waveform = self.specification.channels_of(waveform)
        if self._resampler is None or self._planes is None:
            self._resampler = Resampler(len(waveform), sample_rate, self.specification.sample_rate)
            self._planes = GrowingPlanes(self._front, len(waveform))
        assert waveform.shape[1] >= self._heard, (waveform.shape, self._heard)
        new, self._heard = waveform[:, self._heard :], waveform.shape[1]
        return self._score_of(self._planes.heard(*self._resampler.feed(new)))


def _ears(detector: Detector) -> tuple[Front, Callable[[np.ndarray], float]] | None:
    """What hears for it, and its score of planes (6, K, N)."""
    network = getattr(detector, "network", None)
    if network is None:
        return None
    import torch

    from detector.frontends.planes import CovariancePlanes, Frames

    front = getattr(network, "front", None)
    if not isinstance(front, CovariancePlanes) or front.filters.device.type != "cpu":
        return None

    def score(planes: np.ndarray) -> float:
        with torch.inference_mode():
            logits = network.logits(torch.from_numpy(planes)[None])
        return float(logits[0, 0] - logits[0, 1])

    return Frames(front), score
