"""Learning from recordings without labels: SSAST, and what it masks."""

from detector.pretrain.ssast import SSAST

__all__ = ["SSAST"]
