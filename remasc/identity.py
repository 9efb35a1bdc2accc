"""Randomness belongs to identity: the same names give the same numbers, in any order and on any worker."""

from __future__ import annotations

import hashlib

import numpy as np


def scene_rng(corpus_name: str, scene_id: str, *purpose: str) -> np.random.Generator:
    """A generator seeded by names alone: the corpus, the scene (or room, or device) and what it is for.

    Each purpose has its own stream, so that a new draw in one place moves no number in another.
    """
    text = "\x1f".join((corpus_name, scene_id, *purpose))
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def position_of(name: str) -> float:
    """Where a name falls in [0, 1): uniform over names, and the same in every corpus."""
    digest = hashlib.sha256(name.encode("utf-8")).digest()
    return int.from_bytes(digest[:6], "little") / 2**48
