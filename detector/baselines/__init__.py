"""Peers without a network: classical features and a small classifier each, by the same commands as the networks.

`fit`, `score`, `save`, `load`; higher = more genuine. Their features are NumPy's, what they learn are tensors, so
that checkpoints, judging and calibration are those of every other detector.
"""

from detector.baselines.baseline import Baseline
from detector.baselines.peers import CQCCGMM, LFCCGMM, StereoGCC, SubBass, Void

BASELINES: dict[str, type[Baseline]] = {
    kind.system: kind for kind in (LFCCGMM, CQCCGMM, Void, SubBass, StereoGCC)
}

__all__ = ["BASELINES", "CQCCGMM", "LFCCGMM", "Baseline", "StereoGCC", "SubBass", "Void"]
