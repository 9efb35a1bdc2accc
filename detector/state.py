"""The state of a training between two steps, in one file without pickle: `state.safetensors`.

Tensors (weights, the best weights, the optimiser's moments, the best dev scores) lie in the file, everything
else as JSON in its header, with a checksum of each tensor and of itself; written whole, so that a run killed at
any moment goes on from the last one.
"""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from remasc.atomic import whole_file
from remasc.sentences import reason
from remasc.shards import sealed, unsealed

STATE = "state.safetensors"


@dataclass
class Best:
    """The epoch that dev chose so far: lowest EER, among equals lowest loss. `eer_epoch` is when the EER itself
    last fell; `scores` (n,) float64 of the dev trials, higher = more genuine."""

    epoch: int = -1
    eer_epoch: int = -1
    dev_eer: float = 2.0
    dev_loss: float = 0.0
    weights: dict[str, Tensor] = field(default_factory=dict)
    scores: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))


@dataclass
class Position:
    """The next step is `step` of `epoch`; the sums are over this epoch's steps so far."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    weight_sum: float = 0.0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


def copy_weights(network: nn.Module) -> dict[str, Tensor]:
    """The state dict on the CPU, sharing no memory with the network."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def save_state(
    folder: Path,
    position: Position,
    best: Best,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    tensors = {f"network/{name}": value for name, value in copy_weights(network).items()}
    tensors |= {f"best/{name}": value for name, value in best.weights.items()}
    tensors["best_scores"] = best.scores
    for number, entries in optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            tensors[f"optimizer/{number}/{name}"] = value.detach().cpu().clone()
    facts = {
        "position": asdict(position),
        "best": {key: getattr(best, key) for key in ("epoch", "eer_epoch", "dev_eer", "dev_loss")},
        "scaler": scaler.state_dict(),
    }
    with whole_file(folder / STATE) as temporary:
        save_file(tensors, temporary, metadata={"state": sealed(facts | {"crc32": _checksums(tensors)})})


def load_state(
    folder: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> tuple[Position, Best] | None:
    """Put network and optimiser where they stood; None where there is no state, ValueError where it is damaged."""
    path = folder / STATE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts = unsealed((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts["crc32"] != _checksums(tensors):
            raise ValueError("the checksums of its tensors differ")
        position = Position(**facts["position"])
        best = Best(**facts["best"], weights=_below(tensors, "best/"), scores=tensors["best_scores"])
        network.load_state_dict(_below(tensors, "network/"))
        _load_optimizer(optimizer, _below(tensors, "optimizer/"))
        scaler.load_state_dict(facts["scaler"])
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path}: not a state to go on from ({reason(error)}); start anew with --no-resume"
        ) from None
    return position, best


def _checksums(tensors: dict[str, Tensor]) -> dict[str, int]:
    raw = {name: value.contiguous().reshape(-1).view(torch.uint8) for name, value in tensors.items()}
    return {name: zlib.crc32(value.numpy()) for name, value in raw.items()}


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, entry = name.partition("/")
        state.setdefault(int(number), {})[entry] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
