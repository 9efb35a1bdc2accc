"""Backbones: spectral planes in; one vector per frame (`cnn`), or the scores of a classifier (`AST`, `PSLA`)."""

from detector.backbones.ast import AST
from detector.backbones.psla import PSLA

__all__ = ["AST", "PSLA"]
