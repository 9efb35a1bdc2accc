"""Backbones: spectral planes in; one vector per frame (`cnn`), or the logits of a classifier (`AST`)."""

from detector.backbones.ast import AST

__all__ = ["AST"]
