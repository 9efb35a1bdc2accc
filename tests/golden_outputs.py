"""Outputs of the published implementations on seeded weights, and those weights (tests/golden, its fill.py)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.golden.fill import fill

__all__ = ["fill", "read_golden"]
GOLDEN = Path(__file__).parent / "golden"


def read_golden(name: str) -> dict:
    """What stands in tests/golden/NAME.npz: "spec" (key -> shape), "meta", and the outputs "y"."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return {"spec": json.loads(str(file["spec"])), "meta": json.loads(str(file["meta"])), "y": file["y"]}
