"""Pretraining from spectrograms to a folder of weights, resumable at any step.

The folder holds `training.json` (whose run it is), `state.safetensors` (where it stands), `log.jsonl` (the
curve), and at the end `model.safetensors` (for `AST.from_ssast`) and `run.json`.
Shapes: B batch, N frames, F mel bands.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from detector.checkpoint import WEIGHTS
from detector.classify.claim import claimed, read_table
from detector.classify.config import DEVICES, SCHEDULES, check_ranges, check_word
from detector.classify.progress import Progress
from detector.fitting import Interrupted
from detector.pretrain.masking import SHARE, SIDES, draw_masks
from detector.pretrain.ssast import GENERATIVE_WEIGHT, SSAST
from detector.rundir import FINISHED, _commit, _environment, clean
from detector.runlog import LOG
from detector.schedule import epoch_batches, learning_rate, step_generator
from detector.state import Best, Position, copy_weights, load_state, save_state
from detector.team import Precision, Team, pick_device
from remasc.atomic import whole_file, write_text

BETAS = (0.95, 0.999)  # as published
WHERE = ("device", "amp", "checkpoint_minutes")  # may differ when a run goes on


class Spectrograms(Protocol):
    """Normalised log mel spectrograms (N, F), of any lengths."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...


@dataclass(frozen=True)
class PretrainConfig:
    """One pretraining. Published: 1024 frames, 400 of 512 patches, rate 1e-4, weight decay 5e-7.

    Attributes:
        frames: Longer clips are cut at a random place in every epoch, shorter ones padded and masked.
        patch: Bands and frames: (16, 16), or (128, 2) for whole frames.
        share: The share of patches that is hidden.
        sides: The least and greatest side of a cluster; None for single patches (frames).
        schedule: "cosine" or "constant", as in training.
    """

    size: str = "tiny"
    frames: int = 1024
    mels: int = 128
    patch: tuple[int, int] = (16, 16)
    share: float = SHARE
    sides: tuple[int, int] | None = SIDES
    epochs: int = 10
    batch_size: int = 24
    learning_rate: float = 1e-4
    weight_decay: float = 5e-7
    schedule: str = "cosine"
    clip: float = 1.0
    seed: int = 0
    device: str = "auto"
    amp: bool = True
    checkpoint_minutes: float = 10.0

    def __post_init__(self) -> None:
        check_ranges(self)
        check_word("schedule", self.schedule, SCHEDULES)
        check_word("device", self.device, DEVICES)


def pretrain(
    examples: Spectrograms,
    out: str | Path,
    config: PretrainConfig,
    *,
    resume: bool = True,
    progress: bool = False,
    stop_after: int | None = None,
) -> SSAST:
    """Train an SSAST on `examples`, from wherever the run in `out` stands; the network, on the CPU.

    A run that was interrupted anywhere gives the curve and the weights of one that was not. `stop_after` so
    many steps raises `Interrupted`, for the proof of that.
    """
    if len(examples) == 0:
        raise ValueError("no clip to learn from; expected at least one")
    out = Path(out)
    wanted = _identity(asdict(config), len(examples))
    claim = claimed(out, wanted, _finished, resume=resume)
    with claim as finished, Progress(progress, "pretraining") as bar:
        torch.manual_seed(config.seed)
        network = SSAST(config.size, config.frames, config.mels, config.patch)
        if finished is not None:
            return network.load_published(out / WEIGHTS).eval()
        run = _Run(network, examples, out, config)
        run.fit(bar, stop_after)
        with whole_file(out / WEIGHTS) as temporary:
            save_file(copy_weights(network), temporary)
        write_text(out / FINISHED, json.dumps(run.facts(), indent=1) + "\n")
        clean(out)
        return network.cpu().eval()


class _Run:
    """Network, optimiser and position; the last row of the position's history is the running epoch's."""

    def __init__(self, network: SSAST, examples: Spectrograms, out: Path, config: PretrainConfig) -> None:
        self.examples, self.out, self.config = examples, out, config
        self.device = pick_device(config.device)
        self.network = network.to(self.device)
        self.precision = Precision(self.device, config.amp, on_cpu=True)
        self.optimizer = torch.optim.Adam(
            network.parameters(),
            lr=config.learning_rate,
            betas=BETAS,
            weight_decay=config.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        found = load_state(out, network, self.optimizer, self.precision.scaler)
        self.position = found[0] if found else Position()
        self._clock = self._saved = time.monotonic()

    def fit(self, bar: Progress, stop_after: int | None) -> None:
        config, position = self.config, self.position
        steps, here = len(self._order(0)), 0
        bar.start(config.epochs * steps, position.epoch * steps + position.step)
        while position.epoch < config.epochs:
            order = self._order(position.epoch)
            if position.step == 0:
                row = {"epoch": position.epoch + 1, "steps": 0, "infonce": 0.0, "mse": 0.0, "loss": 0.0}
                position.history.append(row)
            self.network.train()
            while position.step < steps:
                if stop_after is not None and here >= stop_after:
                    raise Interrupted
                self._step(order[position.step], position.epoch + position.step / steps)
                position.step, here = position.step + 1, here + 1
                bar.step(
                    position.epoch * steps + position.step, position.epoch + 1, position.history[-1]["loss"]
                )
                if time.monotonic() - self._saved >= 60 * config.checkpoint_minutes:
                    self._save()
            position.epoch, position.step = position.epoch + 1, 0
            self._save()

    def facts(self) -> dict[str, Any]:
        """What run.json says of the finished run."""
        return {
            "config": asdict(self.config),
            "clips": len(self.examples),
            "commit": _commit(),
            "environment": _environment(self.device, Team()),
            "wall_seconds": round(self.position.seconds, 1),
            "curves": self.position.history,
        }

    def _order(self, epoch: int) -> list[np.ndarray]:
        return epoch_batches(len(self.examples), self.config.batch_size, self.config.seed, epoch)

    def _step(self, batch: np.ndarray, when: float) -> None:
        config, position, network = self.config, self.position, self.network
        generator = step_generator(config.seed, position.epoch, position.step)
        x, lengths = collate([self.examples[int(i)] for i in batch], config.frames, generator)
        columns = None if lengths is None else network.columns(lengths)
        masked = draw_masks(
            network.grid, len(x), share=config.share, sides=config.sides, columns=columns, generator=generator
        )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, when)
        lengths = None if lengths is None else lengths.to(self.device)
        with self.precision():
            infonce, mse = network.losses(x.to(self.device), masked.to(self.device), lengths)
        loss = infonce + GENERATIVE_WEIGHT * mse
        if not bool(loss.isfinite()):
            raise ValueError(
                f"the loss is {loss.item()} in epoch {position.epoch + 1}; lower the learning rate"
            )
        self.precision.step(loss, self.optimizer, network, config.clip)
        row = position.history[-1]
        row["steps"] += 1
        for name, value in (("infonce", infonce), ("mse", mse), ("loss", loss)):
            row[name] += (value.item() - row[name]) / row["steps"]  # the mean so far

    def _save(self) -> None:
        now = time.monotonic()
        self.position.seconds += now - self._clock
        self._clock = now
        save_state(self.out, self.position, Best(), self.network, self.optimizer, self.precision.scaler)
        write_text(self.out / LOG, "".join(json.dumps(row) + "\n" for row in self.position.history))
        self._saved = now


def collate(
    clips: list[Tensor], frames: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor | None]:
    """Clips (N, F) of any lengths -> (B, frames, F) and their real frames (B,), None where all are full.

    A longer clip is cut at a place that the generator draws.
    """
    cut = []
    for clip in clips:
        spare = max(0, len(clip) - frames)
        start = int(torch.randint(spare + 1, (), generator=generator))
        cut.append(clip[start : start + frames])
    lengths = torch.tensor([len(clip) for clip in cut])
    x = torch.stack([F.pad(clip, (0, 0, 0, frames - len(clip))) for clip in cut])
    return x, None if bool((lengths == frames).all()) else lengths


def _finished(out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    run = read_table(out / FINISHED)
    config = run.get("config")
    return _identity(config if isinstance(config, dict) else {}, run.get("clips")), run


def _identity(config: dict[str, Any], clips: Any) -> dict[str, Any]:
    """What decides the result."""
    return {key: value for key, value in config.items() if key not in WHERE} | {"clips": clips}
