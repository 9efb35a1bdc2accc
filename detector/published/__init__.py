"""Detectors re-implemented from their papers, at their published size and under their published names."""

from detector.published.acoustic_maps import AcousticMaps
from detector.published.malrad import MALRAD
from detector.published.nn_multichannel import NNMultichannel

__all__ = ["MALRAD", "AcousticMaps", "NNMultichannel"]
