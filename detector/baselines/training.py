"""One training of a system without a network: for each choice of its settings a fit, and dev chooses.

To `detector.train` it is what `detector.fitting.Training` is for a network; a choice of settings takes the place
of an epoch (of a mixture: an iteration), and a system that has none is fitted once. Every process of a team fits
the same, as nothing is drawn but from the seed.
"""

from __future__ import annotations

import itertools
import time
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from detector.baselines.baseline import Baseline
from detector.config import TrainConfig
from detector.fitting import Interrupted
from detector.loading import Examples
from detector.losses import class_weights, columns_of, weighted_cross_entropy
from detector.runlog import RunLog
from detector.state import STATE, Best, Position, copy_weights
from eval.metrics import eer
from remasc.atomic import whole_file
from remasc.sentences import reason
from remasc.shards import sealed, unsealed


class BaselineTraining:
    """`fit` goes to the end from wherever it stood; the features are kept by `examples`."""

    def __init__(
        self, config: TrainConfig, network: Baseline, examples: dict[str, Examples], log: RunLog
    ) -> None:
        self.config, self.network, self.examples, self.log = config, network, examples, log
        self.columns = {name: columns_of(torch.as_tensor(part.labels)) for name, part in examples.items()}
        self.weights = class_weights(self.columns["train"])
        self.position, self.best = load_fit(config.out, network)

    def fit(self, stop_after: int | None = None) -> None:
        if stop_after is not None:
            raise Interrupted  # features are prepared: the call after this one goes on from there
        train, dev = (
            [part[i] for i in range(len(part))] for part in map(self.examples.get, ("train", "dev"))
        )
        genuine = np.asarray(self.examples["train"].labels) == 1
        choices, history = self.network.choices(self.config.epochs), self.position.history
        done = self.network.steps(choices[: len(history)])
        self.log.start(self.network.steps(choices), 1, done)
        steps, before = itertools.count(done + 1), history[-1] if history else None
        for number, choice in enumerate(choices[len(history) :], start=len(history) + 1):
            if before and before.get("settled"):
                break
            started = time.monotonic()

            def tick(loss: float, epoch: int = choice.get("iterations", number)) -> None:
                self.log.step(next(steps), epoch, loss)

            found = self.network.fit_features(train, genuine, self.config.seed, tick, before=before, **choice)
            before = choice | {"epoch": number} | found
            self._judge(before, dev, started)
            if self.log.on:  # of a team, the first process
                save_fit(self.config.out, self.network, self.position, self.best)
        self.network.adopt(self.best.weights)

    def _judge(self, facts: dict[str, Any], dev: list[Tensor], started: float) -> None:
        scores = torch.stack([self.network.decide_features(part) for part in dev]).cpu()
        genuine = np.asarray(self.examples["dev"].labels) == 1
        dev_eer = float(eer(scores[genuine].numpy(), scores[~genuine].numpy())[0])
        logits = torch.stack([scores, torch.zeros_like(scores)], dim=1)  # the score taken as log-odds
        dev_loss = float(weighted_cross_entropy(logits, self.columns["dev"], self.weights))
        epoch = facts.get("iterations", facts["epoch"])
        better = (dev_eer, dev_loss) < (self.best.dev_eer, self.best.dev_loss)
        if better:
            self.best = Best(epoch - 1, epoch - 1, dev_eer, dev_loss, copy_weights(self.network), scores)
        seconds = time.monotonic() - started
        row = {"learning_rate": 0.0, "dev_eer": dev_eer, "dev_loss": dev_loss, "best": better}
        history = [*self.position.history, facts | {"epoch": epoch} | row | {"seconds": round(seconds, 3)}]
        self.position = Position(epoch=epoch, seconds=self.position.seconds + seconds, history=history)
        self.log.epoch(history)


def save_fit(folder: Path, network: Baseline, position: Position, best: Best) -> None:
    """What an interrupted training goes on from, whole: tensors, and the rest as sealed JSON in the header."""
    tensors = {f"network/{name}": value for name, value in copy_weights(network).items()}
    tensors |= {f"best/{name}": value for name, value in best.weights.items()} | {"scores": best.scores}
    chosen = {name: getattr(best, name) for name in ("epoch", "eer_epoch", "dev_eer", "dev_loss")}
    facts = {"position": asdict(position), "best": chosen, "crc32": _checksums(tensors)}
    with whole_file(folder / STATE) as temporary:
        save_file(tensors, temporary, metadata={"state": sealed(facts)})


def load_fit(folder: Path, network: Baseline) -> tuple[Position, Best]:
    """Put the network where it stood; ValueError where what was left is damaged."""
    if not (folder / STATE).exists():
        return Position(), Best()
    try:
        with safe_open(folder / STATE, framework="pt") as file:
            facts = unsealed((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts["crc32"] != _checksums(tensors):
            raise ValueError("the checksums of its tensors differ")
        parts = {"network": {}, "best": {}}
        for name, value in tensors.items():
            whose, _, plain = name.partition("/")
            if plain:
                parts[whose][plain] = value
        network.adopt(parts["network"])
        return Position(**facts["position"]), Best(
            **facts["best"], weights=parts["best"], scores=tensors["scores"]
        )
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{folder / STATE}: not a state to go on from ({reason(error)}); start anew with --no-resume"
        ) from None


def _checksums(tensors: dict[str, Tensor]) -> dict[str, int]:
    return {name: zlib.crc32(value.contiguous().reshape(-1).numpy()) for name, value in tensors.items()}
