"""Training: train fits, dev chooses the epoch and sets the threshold, eval is never seen.

A run is a pure function of its config and protocol: the order of the clips, augmentation and dropout belong to
(seed, epoch, step), the learning rate to the position. Killed at any moment it goes on from its last state to
the same result, bit for bit on one CPU type and number of threads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detector import rundir
from detector.checkpoint import save_checkpoint
from detector.config import TrainConfig
from detector.loading import Examples, batches, build_examples, check_examples, training_parts
from detector.losses import GENUINE_COLUMN, REPLAY_COLUMN, class_weights, columns_of, weighted_cross_entropy
from detector.runlog import RunLog
from detector.schedule import epoch_batches, learning_rate, ramp_epochs, step_generator, step_seed
from detector.shipped import DevScores, from_training, judge_dev
from detector.state import Best, Position, copy_weights, load_state, save_state
from detector.systems import build_network, specify
from detector.team import Precision, Team
from eval.metrics import eer
from remasc import ARRAYS, Corpus


@dataclass(frozen=True)
class TrainResult:
    """What became of a run: its checkpoint folder, and the epoch (from 1) that dev chose.

    `dev_eer` is that of the training loop, which chose the epoch; `dev_eer_shipped` that of the finished detector
    on the whole recordings, as users have it (None where there were no recordings to ask it about).
    `history` has one entry per epoch: epoch, loss, learning_rate, dev_eer, dev_loss, best, seconds.
    """

    folder: Path
    dev_eer: float
    dev_eer_shipped: float | None
    dev_loss: float
    epoch: int
    epochs: int
    history: tuple[dict[str, Any], ...]
    seconds: float
    already_finished: bool = False


class Interrupted(Exception):
    """A run stopped on purpose after some steps, for the proof that it resumes."""


def train(
    config: TrainConfig, *, examples: dict[str, Examples] | None = None, progress: bool = True
) -> TrainResult:
    """Train as `config` says; leaves a checkpoint, `protocol.tsv` and `log.jsonl` in `config.out`.

    `examples` ("train", "dev") replaces what would be built from the corpus. A finished folder is said to be
    finished and left as it is; one of another config is a ValueError. Under `torchrun` every process calls this.
    """
    with Team.gather_up(config.device) as (team, device):
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # the caller's random numbers stay the caller's
            if config.test_run:
                from detector.proof import prove

                return prove(config, examples, team, device, progress)
            return run(config, examples, team, device, progress)


def run(
    config: TrainConfig,
    examples: dict[str, Examples] | None,
    team: Team,
    device: torch.device,
    progress: bool,
    stop_after: int | None = None,
) -> TrainResult:
    """One training in its folder; `stop_after` steps of this call it raises `Interrupted`."""
    parts, card = _parts(config, examples)
    with rundir.claimed(config, parts, team) as claim, RunLog(config.out, on=team.first, bar=progress) as log:
        if claim.finished is not None:
            chosen = claim.finished
            log.say(f"{config.out}: finished, {rundir.in_words(chosen)}; nothing to do")
            return _result(config, chosen, already_finished=True)
        specification = specify(config.system, tuple(ARRAYS[name] for name in config.arrays))
        arguments = {"filters": config.filters} if config.system.startswith("nn-") else {}
        description = {"specification": specification.as_dict(), "network": arguments}
        torch.manual_seed(step_seed(config.seed))
        network = build_network(description)
        description["network"] = (
            network.arguments
        )  # with its defaults: these may change, a checkpoint may not
        given = examples is not None
        if examples is None:
            if not team.first:
                team.wait()  # the first process prepares, the others open what it prepared
            examples = build_examples(config, parts, network, specification, progress=progress and team.first)
            if team.first:
                team.wait()
        check_examples(examples)
        training = _Training(config, network, examples, team, device, log)
        training.fit(stop_after)
        log.stop()  # one bar at a time
        facts = None
        if team.first:
            description["training"] = config.identity() | {"corpus": card.get("name")}
            dev = _dev_scores(config, training, description, given, progress)
            facts = rundir.facts(config, card, claim.protocol_sha256, training, dev, team, device)
            save_checkpoint(config.out, training.best.weights, description, facts)
            rundir.clean(config.out)
            log.say(f"{config.out}: {rundir.in_words(facts)}")
        return _result(config, team.gather(facts)[0])


def _dev_scores(
    config: TrainConfig, training: _Training, description: dict[str, Any], given: bool, progress: bool
) -> DevScores:
    """What threshold and calibration are set on: the finished detector's scores of the dev recordings."""
    recordings = training.examples["dev"].recordings
    if given and not all(recording.path.is_file() for recording in recordings):
        genuine = (training.columns["dev"] == GENUINE_COLUMN).numpy()
        return from_training(training.best.scores.numpy(), genuine)
    return judge_dev(config.out, training.best.weights, description, recordings, progress=progress)


def _parts(
    config: TrainConfig, examples: dict[str, Examples] | None
) -> tuple[dict[str, Corpus], dict[str, Any]]:
    """The trials by partition, and what is said of their corpus."""
    if examples is None:
        corpus = Corpus.from_meta(config.corpus)
        return training_parts(config, corpus), {
            "name": corpus.name,
            "simulated": corpus.simulated,
        } | corpus.card
    parts = {name: Corpus(part.recordings, config.corpus) for name, part in examples.items()}
    try:
        corpus = Corpus.from_meta(config.corpus)
    except (ValueError, OSError):
        return parts, {"name": config.corpus.name, "simulated": None}
    return parts, {"name": corpus.name, "simulated": corpus.simulated} | corpus.card


def _result(config: TrainConfig, facts: dict[str, Any], already_finished: bool = False) -> TrainResult:
    return TrainResult(
        folder=config.out,
        dev_eer=facts["dev_eer"],
        dev_eer_shipped=facts.get("dev_eer_shipped"),
        dev_loss=facts["dev_loss"],
        epoch=facts["epoch"],
        epochs=facts["epochs"],
        history=tuple(facts["curves"]),
        seconds=facts["wall_seconds"],
        already_finished=already_finished,
    )


class _Training:
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
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.precision = Precision(device, config.amp)
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
        total = float(self.weights[columns[batch]].sum()) / team.size  # the processes' gradients are averaged
        share = float(team.rank < len(batch))
        with self.precision():
            logits = self.module(features.to(self.device, non_blocking=True), lengths.to(self.device))
        loss = share * weighted_cross_entropy(
            logits, columns[numbers].to(self.device), self.weights.to(self.device), total
        )
        value = loss.item()
        if not np.isfinite(value):
            raise ValueError(
                f"the loss is {value} in epoch {position.epoch + 1}; lower --learning-rate or set --clip"
            )
        scaler = self.precision.scaler
        self.optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        if config.clip > 0:
            scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        scaler.step(self.optimizer)
        scaler.update()
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
