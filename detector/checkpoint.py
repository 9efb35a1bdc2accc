"""A checkpoint is a folder: `config.json` + `model.safetensors` + `run.json`.

`config.json` says what the network is (`specification`, `network`, `training`), `run.json` where it comes from
and how it decides (commit, protocol hash, dev EER, calibration, threshold). `run.json` is written last and
carries the SHA-256 of all three, so that a torn or altered checkpoint is an error and never a wrong decision.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from remasc.atomic import write_text
from remasc.sentences import quoted, reason

FORMAT = 1
CONFIG, WEIGHTS, RUN = "config.json", "model.safetensors", "run.json"
MAX_JSON_BYTES = 64 * 2**20


def save_checkpoint(
    folder: str | Path, network: nn.Module | Mapping[str, Tensor], config: dict, run: dict
) -> Path:
    """Write a checkpoint whole; returns its folder.

    `network` is a module or its state dict. A new folder appears under its name when it is complete; in a
    folder that exists the three files are replaced one by one, run.json last, and other files stay.
    """
    folder = Path(folder)
    state = network.state_dict() if isinstance(network, nn.Module) else network
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"the weights {name} are not finite; nothing was saved, lower the learning rate")
    weights = save(tensors, metadata={"format": "pt"})
    config_text = _dump({"format": FORMAT} | config)
    run = dict(run) | {"checksums": {CONFIG: _sha256(config_text.encode()), WEIGHTS: _sha256(weights)}}
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder if folder.exists() else folder.parent  # in any case on the same file system
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=beside))
    try:
        temporary.chmod(0o755)
        (temporary / CONFIG).write_text(config_text, encoding="utf-8")
        (temporary / WEIGHTS).write_bytes(weights)
        (temporary / RUN).write_text(_sealed(run), encoding="utf-8")
        if folder.exists():
            for name in (CONFIG, WEIGHTS, RUN):
                os.replace(temporary / name, folder / name)
        else:
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def load_checkpoint(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """`(config, state_dict, run)` of a checkpoint folder, on the CPU.

    Everything is validated; a missing, torn, damaged or altered file is a ValueError of one sentence.
    """
    folder = Path(folder)
    run = _read_run(folder)
    config_bytes = _read(folder / CONFIG, run["checksums"].get(CONFIG))
    config = _parse(folder / CONFIG, config_bytes)
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{folder / CONFIG}: format {quoted(config.get('format'))}; this version reads {FORMAT}, "
            "install another one"
        )
    weights = _read(folder / WEIGHTS, run["checksums"].get(WEIGHTS))
    try:
        state = load(weights)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"{folder / WEIGHTS}: not readable as safetensors ({reason(error)}); copy it anew"
        ) from None
    return config, state, run


def update_run(folder: str | Path, **fields: Any) -> dict[str, Any]:
    """Set entries of a checkpoint's run.json (calibration, threshold, an eval result); returns all of it."""
    if "checksums" in fields:
        raise ValueError("the checksums of a checkpoint follow from its files; they cannot be set")
    folder = Path(folder)
    run = _read_run(folder) | fields
    write_text(folder / RUN, _sealed(run))
    return run


def _read_run(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; expected a checkpoint ({CONFIG}, {WEIGHTS}, {RUN})")
    path = folder / RUN
    run = _parse(path, _read(path, None))
    checksums = run.get("checksums")
    if not isinstance(checksums, dict) or not {CONFIG, WEIGHTS, RUN} <= set(checksums):
        raise ValueError(f"{path}: carries no checksums; expected a run.json written with its checkpoint")
    if _seal(run) != checksums[RUN]:
        raise ValueError(
            f"{path}: altered since it was written (its checksum differs); copy the checkpoint anew, or set "
            "values through detector.checkpoint.update_run"
        )
    return run


def _read(path: Path, expected: str | None) -> bytes:
    try:
        if path.suffix == ".json" and path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"{path}: larger than any such file; expected a checkpoint's JSON")
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ValueError(
            f"{path}: not there; a checkpoint holds {CONFIG}, {WEIGHTS} and {RUN}: copy the whole folder"
        ) from None
    if expected is not None and _sha256(content) != expected:
        raise ValueError(
            f"{path}: not the file that {RUN} was written with (its checksum differs); copy the folder anew"
        )
    return content


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        values = json.loads(content.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)
        if not isinstance(values, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not readable as JSON ({reason(error)}); copy the checkpoint anew"
        ) from None
    return values


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no finite number")


def _finite(word: str) -> float:
    number = float(word)
    return number if math.isfinite(number) else _no_constant(quoted(word))  # 1e999


def _dump(values: dict[str, Any]) -> str:
    try:
        return json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n"
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"a checkpoint's JSON must be plain and its numbers finite ({reason(error)})"
        ) from None


def _seal(run: dict[str, Any]) -> str:
    """The SHA-256 of a run's content without its own seal."""
    checksums = {name: value for name, value in run["checksums"].items() if name != RUN}
    return _sha256(_dump(run | {"checksums": checksums}).encode())


def _sealed(run: dict[str, Any]) -> str:
    return _dump(run | {"checksums": run["checksums"] | {RUN: _seal(run)}})


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
