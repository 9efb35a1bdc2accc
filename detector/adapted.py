"""What a detector knows of single arrays that it was adapted to, as its checkpoint keeps it.

`run.json` has, under "arrays" and the array's name, `slope` and `offset`: the array's scores moved to the scale of
all others, so that one calibration and one threshold serve them. Where the array has a head of its own it lies in
the folder as an adapter (`detector.adapters`), and run.json has its SHA-256.
"""

from __future__ import annotations

import copy
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from remasc.sentences import quoted

if TYPE_CHECKING:
    from torch import nn

    from detector.score import Detector

HEAD = "head"  # the layer that embeddings end in


@dataclass(frozen=True)
class OwnScores:
    """One array's: `slope` times the score of `detector` (None: of the one that has them), plus `offset`."""

    detector: Detector | None
    slope: float
    offset: float


def open_arrays(detector: Detector, folder: Path) -> dict[str, OwnScores]:
    """By name of the array, of a detector whose checkpoint lies in `folder`; ValueError where it is not sound."""
    entries = detector.run.get("arrays") or {}
    if not isinstance(entries, dict):
        raise ValueError(f"its adapted arrays are {quoted(entries)}; expected a table")
    return {name: _open(detector, folder, name, entry) for name, entry in entries.items()}


def _open(detector: Detector, folder: Path, name: str, entry: dict[str, Any]) -> OwnScores:
    slope, offset = entry["slope"], entry["offset"]
    plain = all(type(number) in (int, float) and math.isfinite(number) for number in (slope, offset))
    if not plain or slope < 0:
        raise ValueError(f"its scores of {quoted(name)} are not moved by finite numbers")
    if entry["adapter_sha256"] is None:
        return OwnScores(None, slope, offset)
    if not hasattr(detector, "network"):
        raise ValueError(
            f"{folder}: exported from a detector with a head of its own for {quoted(name)}, which an export does "
            "not hold; export the one that it was adapted from"
        )
    from detector.adapters import load_adapter

    path = folder / adapter_file(name)
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != entry["adapter_sha256"]:
        raise ValueError(f"{path.name} is not the file that it was written with")
    network = load_adapter(path, copy.deepcopy(detector.network))
    return OwnScores(type(detector)(network, detector.config, detector.run), slope, offset)


def adapter_file(name: str) -> str:
    """Of an array, whose name may hold what no file's may."""
    return f"adapter-{hashlib.sha256(name.encode('utf-8')).hexdigest()[:12]}.safetensors"


def keep_adapter(path: Path, network: nn.Module, change: np.ndarray) -> str:
    """Write the head whose score is the network's plus `change @ [embedding, 1]` (E + 1,); returns its SHA-256."""
    import torch

    from detector.adapters import Adaptation, adapt, save_adapter

    adapted = adapt(copy.deepcopy(network), Adaptation("probe", head=(HEAD,)))
    half = torch.from_numpy(np.stack([change, -change]) / 2)  # of [genuine, replay]: their difference counts
    with torch.no_grad():
        adapted.head.weight += half[:, :-1].to(adapted.head.weight)
        adapted.head.bias += half[:, -1].to(adapted.head.bias)
    save_adapter(path, adapted)
    return hashlib.sha256(path.read_bytes()).hexdigest()
