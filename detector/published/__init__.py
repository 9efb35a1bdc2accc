"""Detectors re-implemented from their papers, at their published size and under their published names."""

from detector.published.nn_multichannel import NNMultichannel

__all__ = ["NNMultichannel"]
