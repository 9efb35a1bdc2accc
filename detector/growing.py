"""A detector for one command while it grows: `judge` of a longer recording goes on where a shorter one ended.

What is resampled, the covariance of each frame, and what tells whether a recording can be judged, is computed once;
what is relative to the clip is made anew (`detector.frontends.growing`). So every judgement is that of
`Detector.judge` on the same samples; of an export, provisional ones are near it (`detector.runtime.Looks`).
Shapes: M microphones, T samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from detector.frontends import portable
from detector.frontends.growing import Front, GrowingPlanes
from detector.quality import Faults
from detector.runtime import Looks, OnnxDetector
from detector.score import Detector, Judgement
from remasc.resampling import Resampler


def growing(detector: Any) -> Any:
    """A detector that judges as `detector` does, for one command: each recording given to it begins with the last.

    One that does not hear planes, runs elsewhere than on this processor, or judges in a way of its own, is given
    back itself: it hears all of a command each time.
    """
    if type(detector) not in (Detector, OnnxDetector) or "judge" in vars(detector):
        return detector
    ears = _ears(detector)
    return detector if ears is None else _Growing(detector, ears)


class _Growing(Detector):
    def __init__(self, detector: Detector, ears: _Ears):
        self.__dict__.update(vars(detector))
        self.own = {name: replace(own, detector=growing(own.detector)) for name, own in detector.own.items()}
        self._ears = ears
        self._heard, self._provisional = 0, False
        self._faults: Faults | None = None
        self._resampler: Resampler | None = None
        self._planes: GrowingPlanes | None = None

    def judge(self, *recording: Any, provisional: bool = False, **options: Any) -> Judgement:
        """As `Detector.judge`. An export's score of what is `provisional` may differ by what `Looks` says."""
        self._provisional = provisional
        return super().judge(*recording, **options)

    def _fault(self, waveform: np.ndarray, sample_rate: int, num_mics: int | None) -> str | None:
        if self._faults is None:
            self._faults = Faults(len(waveform), sample_rate)
        self._faults.feed(waveform[:, self._faults.samples :])
        return self._faults.first(num_mics)

    def _logit(self, waveform: np.ndarray, sample_rate: int) -> float:
        waveform = self.specification.channels_of(waveform)
        if self._resampler is None or self._planes is None:
            self._resampler = Resampler(len(waveform), sample_rate, self.specification.sample_rate)
            self._planes = GrowingPlanes(self._ears.front, len(waveform))
        new, self._heard = waveform[:, self._heard :], waveform.shape[1]
        heard = self._planes.heard(*self._resampler.feed(new))
        if self._provisional and self._ears.look is not None and self._planes.certain:
            return self._ears.look(heard, self._planes.certain)
        return self._ears.score(heard)


class _Ears(NamedTuple):
    """What makes a detector's planes (6, K, N), their score, and that of a look at a growing command."""

    front: Front
    score: Callable[[np.ndarray], float]
    look: Callable[[np.ndarray, int], float] | None = None


def _ears(detector: Detector) -> _Ears | None:
    if isinstance(detector, OnnxDetector):
        return _Ears(
            portable.Frames(detector.planes),
            lambda planes: detector.stream().feed(planes),
            Looks(detector).score,
        )
    import torch

    from detector.frontends.planes import CovariancePlanes, Frames

    network = detector.network
    front = getattr(network, "front", None)
    if not isinstance(front, CovariancePlanes) or front.filters.device.type != "cpu":
        return None

    def score(planes: np.ndarray) -> float:
        with torch.inference_mode():
            logits = network.logits(torch.from_numpy(planes)[None])
        return float(logits[0, 0] - logits[0, 1])

    return _Ears(Frames(front), score)
