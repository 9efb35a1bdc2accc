"""Deterministic parameters for golden tests: every value follows from the name and shape of its key."""

from __future__ import annotations

import math
import zlib

import numpy as np

EMBEDDINGS = ("_token", "pos_embed", "mask_embed")


def fill(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 parameter of one state-dict key, seeded by the CRC-32 of the key's name.

    Matrices and filters are normal with the variance 1 / fan-in; biases and embeddings normal with deviation
    0.1; one-dimensional weights (norms) the same about 1; running variances uniform in [0.5, 1.5).
    """
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return np.array(1)
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    values = rng.standard_normal(shape)
    if len(shape) < 2 or key.endswith(EMBEDDINGS):
        values = values * 0.1
    else:
        values = values / math.sqrt(max(1, math.prod(shape[1:])))
    if len(shape) == 1 and key.endswith("weight"):
        values = values + 1
    return values.astype(np.float32)
