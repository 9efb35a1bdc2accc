"""The training loop of a classifier: steps, epochs and the choice of dev, from wherever a run stands.

A step is a function of seed, epoch and step alone, so that a run killed anywhere goes on to the same result.
Shapes: B batch, T samples, N frames, F mel bands, K classes.
"""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detector.adapters import trained
from detector.classify.augment import mixed, rolled, spec_augment
from detector.classify.config import ClassifyConfig
from detector.classify.progress import Progress
from detector.classify.sound import Waveforms, collate
from detector.distill import Distillation, Teacher, distillation_loss, task_loss
from detector.fitting import Interrupted
from detector.runlog import LOG
from detector.schedule import epoch_batches, learning_rate, step_generator, step_seed
from detector.state import Best, Position, copy_weights, load_state, save_state
from detector.team import Precision, pick_device
from remasc.atomic import write_text

BALANCE = 1  # purpose of a stream of random numbers
LEAST_JUDGED = 32  # clips of dev that are classified at once, however few a step learns from


class Labelled:
    """Waveforms with the numbers of their classes (n,)."""

    def __init__(self, waveforms: Waveforms, numbers: np.ndarray) -> None:
        self.waveforms, self.numbers = waveforms, numbers

    def __len__(self) -> int:
        return len(self.numbers)


class Fitting:
    """Network, optimiser and position of one run; `fit` goes to the end from wherever the state in `out` stands.

    `targets` (n, K) are the soft labels of the training clips; `teacher` distils with `distillation`.
    """

    def __init__(
        self,
        config: ClassifyConfig,
        network: nn.Module,
        parts: dict[str, Labelled],
        targets: Tensor,
        out: Path,
        progress: Progress,
        teacher: Teacher | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        self.config, self.parts, self.targets, self.out = config, parts, targets, out
        self.progress, self.teacher, self.distillation = progress, teacher, distillation
        self.device = pick_device(config.device)
        self.network = network.to(self.device)
        # the mean of the last epochs' weights is kept beside the network, and so in the state
        self.kept = nn.ModuleDict({"network": self.network})
        if config.average:
            self.kept["mean"] = copy.deepcopy(self.network).requires_grad_(False)
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            parameters,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.precision = self._precision_of(network)
        self.answering = None if teacher is None else self._precision_of(teacher.network)
        found = load_state(out, self.kept, self.optimizer, self.precision.scaler)
        # of `Best`, dev_eer is the share of dev that is classified wrongly
        self.position, self.best = found or (Position(), Best())
        self._clock = self._saved = time.monotonic()
        self._steps_here = 0

    def _precision_of(self, network: nn.Module) -> Precision:
        """Matrix products gain from half of it on a CPU, EfficientNet's small convolutions lose."""
        on_cpu = network.architecture.backbone == "ast"
        return Precision(self.device, self.config.amp, on_cpu=on_cpu)

    @property
    def history(self) -> list[dict[str, Any]]:
        return self.position.history

    def fit(self, stop_after: int | None = None) -> None:
        config = self.config
        steps = len(self._order(0))
        self.progress.start(config.epochs * steps, self.position.epoch * steps + self.position.step)
        while self.position.epoch < config.epochs and not self._stalled():
            order = self._order(self.position.epoch)
            self.network.train()
            while self.position.step < steps:
                if stop_after is not None and self._steps_here >= stop_after:
                    raise Interrupted
                self._step(order[self.position.step], steps)
                self.position.step += 1
                self._steps_here += 1
                if time.monotonic() - self._saved >= 60 * config.checkpoint_minutes:
                    self._save()
            self._end_epoch(steps)

    def weights(self) -> dict[str, Tensor]:
        """What the run ships: the mean of its last epochs, else the epoch that dev chose, else the last."""
        if self.config.average:
            return copy_weights(self.kept["mean"])
        return self.best.weights or copy_weights(self.network)

    def _stalled(self) -> bool:
        patience = self.config.patience
        return 0 < patience <= self.position.epoch - 1 - self.best.eer_epoch and bool(self.parts["dev"])

    def _order(self, epoch: int) -> list[np.ndarray]:
        numbers, size = self.parts["train"].numbers, self.config.batch_size
        if self.config.balanced:
            share = 1.0 / np.bincount(numbers)[numbers]
            rng = np.random.default_rng([self.config.seed, epoch, BALANCE])
            drawn = rng.choice(len(numbers), len(numbers), p=share / share.sum())
            order = [drawn[start : start + size] for start in range(0, len(drawn), size)]
        else:
            order = epoch_batches(len(numbers), size, self.config.seed, epoch)
        if len(order) > 1 and len(order[-1]) == 1:  # batch statistics of one clip say nothing
            order[-2:] = [np.concatenate(order[-2:])]
        return order

    def _step(self, batch: np.ndarray, steps: int) -> None:
        config, position = self.config, self.position
        generator = step_generator(config.seed, position.epoch, position.step)
        waveforms = self.parts["train"].waveforms
        x, lengths = collate([waveforms[int(i)] for i in batch], self.network.samples, generator)
        targets = self.targets[torch.from_numpy(batch)]
        if config.mixup > 0:
            seed = step_seed(config.seed, position.epoch, position.step, 1)
            x, lengths, targets = mixed(x, lengths, targets, config.mixup, seed)
        rate = learning_rate(config, position.epoch + position.step / steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        spectra, frames = self.network.spectrograms(x.to(self.device), lengths)
        if config.roll:
            spectra = rolled(spectra, config.roll, generator)
        if config.freq_mask or config.time_mask:
            spectra = spec_augment(spectra, frames, config.freq_mask, config.time_mask, generator)
        loss = self._loss(spectra, frames, targets.to(self.device))
        value = loss.item()
        if not np.isfinite(value):
            raise ValueError(f"the loss is {value} in epoch {position.epoch + 1}; lower --learning-rate")
        self.precision.step(loss, self.optimizer, self.network, config.clip)
        position.loss_sum += value * len(batch)
        position.weight_sum += len(batch)
        self.progress.step(position.epoch * steps + position.step + 1, position.epoch + 1, value)

    def _loss(self, spectra: Tensor, frames: Tensor, targets: Tensor) -> Tensor:
        kind = self.network.architecture.loss
        with self.precision():
            logits = self.network.logits(spectra, frames)
        if self.teacher is None:
            return task_loss(logits, targets, kind)
        with self.answering():
            wanted = self.teacher(spectra, frames)
        return distillation_loss(logits, wanted, targets, self.distillation, kind)

    def _end_epoch(self, steps: int) -> None:
        position, config = self.position, self.config
        row: dict[str, Any] = {"epoch": position.epoch + 1, "loss": position.loss_sum / position.weight_sum}
        row["learning_rate"] = learning_rate(config, position.epoch + (steps - 1) / steps)
        if config.average and position.epoch >= config.epochs - config.average:
            self._average(position.epoch - (config.epochs - config.average) + 1)
        if self.parts["dev"]:
            wrong, loss = self.judge()
            better = (wrong, loss) < (self.best.dev_eer, self.best.dev_loss)
            if better:
                since = position.epoch if wrong < self.best.dev_eer else self.best.eer_epoch
                self.best = Best(position.epoch, since, wrong, loss, copy_weights(self.network))
            row |= {"dev_accuracy": 1 - wrong, "dev_loss": loss, "best": better}
        self._tick()
        row["seconds"] = round(position.epoch_seconds, 3)
        history = [*position.history, row]
        self.position = Position(epoch=position.epoch + 1, seconds=position.seconds, history=history)
        self._save()
        write_text(self.out / LOG, "".join(json.dumps(line) + "\n" for line in history))
        self.progress.epoch(row, config.epochs)

    @torch.no_grad()
    def _average(self, count: int) -> None:
        """The mean takes in this epoch's weights, as the `count`th."""
        mean = self.kept["mean"].state_dict()
        for name, value in self.network.state_dict().items():
            if value.is_floating_point() and count > 1:
                mean[name] += (value - mean[name]) / count
            else:
                mean[name].copy_(value)

    @torch.no_grad()
    def judge(self) -> tuple[float, float]:
        """(share of dev classified wrongly, its mean loss) of the network as it stands."""
        dev = self.parts["dev"]
        numbers = torch.from_numpy(dev.numbers)
        size = max(self.config.batch_size, LEAST_JUDGED)
        logits = all_logits(self.network, dev.waveforms, size, self.device, self.precision)
        hard = nn.functional.one_hot(numbers, logits.shape[1]).float()
        loss = task_loss(logits, hard, self.network.architecture.loss)
        return float((logits.argmax(1) != numbers).double().mean()), float(loss)

    def _tick(self) -> None:
        now = time.monotonic()
        self.position.epoch_seconds += now - self._clock
        self.position.seconds += now - self._clock
        self._clock = now

    def _save(self) -> None:
        self._tick()
        save_state(self.out, self.position, self.best, self.kept, self.optimizer, self.precision.scaler)
        self._saved = time.monotonic()


@torch.no_grad()
def all_logits(
    network: nn.Module,
    waveforms: Waveforms,
    batch_size: int,
    device: torch.device | str = "cpu",
    precision: Precision | None = None,
    tell: Any = None,
) -> Tensor:
    """Logits (n, K) float32 on the CPU of all clips, each from its beginning; `tell(done)` after each batch."""
    was, found = network.training, []
    network.eval()
    for start in range(0, len(waveforms), batch_size):
        stop = min(start + batch_size, len(waveforms))
        x, lengths = collate([waveforms[i] for i in range(start, stop)], network.samples)
        spectra, frames = network.spectrograms(x.to(device), lengths)
        if precision is None:
            found.append(network.logits(spectra, frames).float().cpu())
        else:
            with precision():
                found.append(network.logits(spectra, frames).float().cpu())
        if tell is not None:
            tell(stop)
    network.train(was)
    return torch.cat(found)


def trainable_count(network: nn.Module) -> int:
    """Parameters that are trained."""
    if hasattr(network, "adaptation"):
        return sum(value.numel() for value in trained(network).values())
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
