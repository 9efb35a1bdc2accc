"""The training loop: steps, epochs, and the choice of dev, from wherever a run stands.

Shapes: B batch, n trials of a partition. Logits are (B, 2) in the published order [genuine, replay].
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor, nn

from detector.config import ADAM, TrainConfig
from detector.hardening import hardened
from detector.loading import Examples, batches
from detector.losses import GENUINE_COLUMN, REPLAY_COLUMN, class_weights, columns_of, weighted_cross_entropy
from detector.runlog import RunLog
from detector.schedule import epoch_batches, learning_rate, ramp_epochs, step_generator
from detector.state import Best, Position, copy_weights, load_state, save_state
from detector.team import Precision, Team
from eval.metrics import eer


class Interrupted(Exception):
    """A run stopped on purpose after some steps, for the proof that it resumes."""


class Training:
    """Network, optimiser and position of one run; `fit` goes to the end from wherever the state stands."""

    def __init__(
        self,
        config: TrainConfig,
        network: nn.Module,
        examples: dict[str, Examples],
        team: Team,
        device: torch.device,
        log: RunLog,
    ) -> None:
        self.config, self.team, self.device, self.log = config, team, device, log
        self.examples = examples
        if team.size > 1 and device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.network = network.to(device)
        self.module = team.wrap(self.network, device)
        optimizer = torch.optim.Adam if config.system in ADAM else torch.optim.AdamW
        self.optimizer = optimizer(
            self.network.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.precision = Precision(device, config.amp, on_cpu=getattr(network, "bfloat16_on_cpu", False))
        self.columns = {name: columns_of(torch.as_tensor(part.labels)) for name, part in examples.items()}
        self.weights = class_weights(self.columns["train"])
        workers = 0 if device.type == "cpu" else 4
        self.workers = workers if config.workers is None else config.workers
        found = load_state(config.out, self.network, self.optimizer, self.precision.scaler)
        self.position, self.best = found or (Position(), Best())
        self._clock = self._saved = time.monotonic()
        self._steps_here = 0

    def fit(self, stop_after: int | None = None) -> None:
        count = len(self.examples["train"])
        steps = len(epoch_batches(count, self.config.batch_size, 0, 0))
        done = self.position.epoch * steps + self.position.step
        self.log.start(self.config.epochs, steps, done)
        while self.position.epoch < self.config.epochs and not self._stalled():
            self._train_epoch(steps, stop_after)
            self._end_epoch(steps)

    def _stalled(self) -> bool:
        # while the rate still rises nothing has had its chance: patience counts from the ramp's end
        since = max(self.best.eer_epoch, ramp_epochs(self.config) - 1)
        waited = self.position.epoch - 1 - since
        return self.config.patience > 0 and self.position.epoch > 0 and waited >= self.config.patience

    def _train_epoch(self, steps: int, stop_after: int | None) -> None:
        position, team = self.position, self.team
        order = epoch_batches(
            len(self.examples["train"]), self.config.batch_size, self.config.seed, position.epoch
        )
        # a process without a clip in the last batch takes the first one, with no weight
        shares = [part[team.rank :: team.size] if team.rank < len(part) else part[:1] for part in order]
        pin = self.device.type == "cuda"
        self.network.train()
        for features, lengths, numbers in batches(
            self.examples["train"], shares[position.step :], self.workers, pin=pin
        ):
            if stop_after is not None and self._steps_here >= stop_after:
                raise Interrupted
            self._step(features, lengths, numbers, order[position.step], steps)
            position.step += 1
            self._steps_here += 1
            if team.first and time.monotonic() - self._saved >= 60 * self.config.checkpoint_minutes:
                self._save()

    def _step(
        self, features: Tensor, lengths: Tensor, numbers: Tensor, batch: np.ndarray, steps: int
    ) -> None:
        config, position, team = self.config, self.position, self.team
        generator = step_generator(config.seed, position.epoch, position.step, team.rank)
        if hasattr(self.network, "augment"):
            features, lengths = self.network.augment(features, lengths, generator)
        rate = learning_rate(config, position.epoch + position.step / steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        columns = self.columns["train"]
        if config.harden:
            features, lengths = features.to(self.device), lengths.to(self.device)
            features = hardened(
                self.network, features, lengths, columns[numbers].to(self.device), config.harden, generator
            )
        total = float(self.weights[columns[batch]].sum()) / team.size  # the processes' gradients are averaged
        share = float(team.rank < len(batch))
        with self.precision():
            logits = self.module(features.to(self.device, non_blocking=True), lengths.to(self.device))
        loss = share * weighted_cross_entropy(
            logits, columns[numbers].to(self.device), self.weights.to(self.device), total
        )
        if (penalty := getattr(self.network, "penalty", None)) is not None:  # a term of the network's own
            loss = loss + share * penalty
        value = loss.item()
        if not np.isfinite(value):
            raise ValueError(
                f"the loss is {value} in epoch {position.epoch + 1}; lower --learning-rate or set --clip"
            )
        self.precision.step(loss, self.optimizer, self.network, config.clip)
        position.loss_sum += value * total
        position.weight_sum += total
        self.log.step(position.epoch * steps + position.step + 1, position.epoch + 1, value)

    def _end_epoch(self, steps: int) -> None:
        position, best = self.position, self.best
        self.team.agree(self.network)
        scores, dev_loss = self._judge_dev()
        genuine = self.columns["dev"] == GENUINE_COLUMN
        dev_eer = float(eer(scores[genuine].numpy(), scores[~genuine].numpy())[0])
        better = (dev_eer, dev_loss) < (best.dev_eer, best.dev_loss)
        if better:
            since = position.epoch if dev_eer < best.dev_eer else best.eer_epoch
            self.best = Best(position.epoch, since, dev_eer, dev_loss, copy_weights(self.network), scores)
        sums = np.sum(self.team.gather((position.loss_sum, position.weight_sum)), axis=0)
        self._tick()
        row = {
            "epoch": position.epoch + 1,
            "loss": float(sums[0] / sums[1]),
            "learning_rate": learning_rate(self.config, position.epoch + (steps - 1) / steps),
            "dev_eer": dev_eer,
            "dev_loss": dev_loss,
            "best": better,
            "seconds": round(position.epoch_seconds, 3),
        }
        history = [*position.history, row]
        self.position = Position(epoch=position.epoch + 1, seconds=position.seconds, history=history)
        if self.team.first:
            self._save()
        self.log.epoch(history)

    @torch.no_grad()
    def _judge_dev(self) -> tuple[Tensor, float]:
        """Scores (n,) float64 of the dev trials, each once, and their weighted cross-entropy."""
        self.network.eval()
        count, columns = len(self.examples["dev"]), self.columns["dev"]
        mine = np.arange(count)[self.team.rank :: self.team.size]
        order = [mine[i : i + self.config.batch_size] for i in range(0, len(mine), self.config.batch_size)]
        found: list[tuple[int, list[float]]] = []
        for features, lengths, numbers in batches(self.examples["dev"], order, self.workers):
            logits = self.network.logits(features.to(self.device), lengths.to(self.device))
            found += zip(numbers.tolist(), logits.double().cpu().tolist(), strict=True)
        rows = dict(pair for part in self.team.gather(found) for pair in part)
        logits = torch.tensor([rows[number] for number in range(count)], dtype=torch.float64)
        loss = weighted_cross_entropy(logits, columns, self.weights)
        return logits[:, GENUINE_COLUMN] - logits[:, REPLAY_COLUMN], float(loss)

    def _tick(self) -> None:
        now = time.monotonic()
        self.position.epoch_seconds += now - self._clock
        self.position.seconds += now - self._clock
        self._clock = now

    def _save(self) -> None:
        self._tick()
        save_state(
            self.config.out, self.position, self.best, self.network, self.optimizer, self.precision.scaler
        )
        self._saved = time.monotonic()
