"""Published weights: from a file or a mapping to tensors that fit, or one sentence that says why not.

A `.pth` is a pickle: it is read with `weights_only=True`, which builds tensors and plain containers and runs
nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from remasc.sentences import quoted, reason

WRAPPERS = ("state_dict", "model_state_dict", "model")  # where a training's checkpoint keeps the weights

WHOLE = (torch.int64, torch.int32, torch.int16)


def published_tensors(source: Any) -> tuple[dict[str, Tensor], str]:
    """The tensors by name, and what to call the source in a sentence.

    `source` is a state dict or the path of a `.pth` or `.safetensors` file; prefixes `module.` (of DataParallel)
    are stripped. Raises ValueError where it holds anything but names with real tensors.
    """
    if not isinstance(source, Mapping | str | Path):
        raise ValueError(
            f"published weights of type {type(source).__name__}; expected a state dict or the path of its file"
        )
    name = "the state dict" if isinstance(source, Mapping) else str(source)
    state = source if isinstance(source, Mapping) else _read(Path(source))
    for key in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise ValueError(f"{name}: holds no state dict ({type(state).__name__}); expected names with tensors")
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        plain = re.sub(r"^(module\.)+", "", str(key))
        if plain in tensors:
            raise ValueError(
                f"{name}: names {quoted(plain)} twice, with and without module.; expected it once"
            )
        tensors[plain] = _real(value, f"{name}: {quoted(plain)}")
    return tensors, name


def _real(value: Any, what: str) -> Tensor:
    """A dense tensor of floats, or one whole number (a batch norm's counter, a recorded size); an array becomes
    one."""
    if isinstance(value, np.ndarray) and value.dtype.kind in ("f" if value.ndim else "fi"):
        value = torch.as_tensor(value)
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} is of type {type(value).__name__}; expected names with tensors")
    number = value.is_floating_point() or (value.ndim == 0 and value.dtype in WHOLE)
    if not number or value.layout != torch.strided or value.is_meta:
        kind = "meta" if value.is_meta else f"{value.layout} {value.dtype}".replace("torch.", "")
        raise ValueError(f"{what} is a {kind} tensor; expected a dense one of floats")
    return value


def _read(path: Path) -> Any:
    """What a file holds. Never unpickles objects."""
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; expected a .pth or .safetensors of published weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(
            f"{path}: no such file; expected a .pth or .safetensors of published weights"
        ) from None
    except PermissionError as error:
        raise ValueError(f"{path}: not readable as weights ({reason(error)}); change its rights") from None
    except (
        Exception
    ):  # the readers raise a dozen types on a damaged file, with advice that nobody should follow
        raise ValueError(
            f"{path}: not readable as weights (damaged, or objects besides tensors, which are never run); expected "
            "a .pth that holds tensors alone, or .safetensors"
        ) from None


def misfit(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """What is wrong with a state dict, in words; empty when it fits."""
    faults = []
    if missing := [k for k in wanted if k not in given]:
        faults.append(f"missing {_some(missing)}")
    if unknown := [k for k in given if k not in wanted]:
        faults.append(f"unexpected {_some(unknown)}")
    shapes = [
        f"{k} has shape {list(given[k].shape)} instead of {list(wanted[k].shape)}"
        for k in wanted
        if k in given and given[k].shape != wanted[k].shape
    ]
    if not all(torch.isfinite(value.float()).all() for value in given.values()):  # a double may be too large
        shapes = [*shapes[:3], "some values are not finite"]
    return ", ".join(faults + shapes[:4])


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    words = [name if re.fullmatch(r"[\w.]{1,80}", name) else quoted(name) for name in names[:most]]
    return ", ".join(words) + more
