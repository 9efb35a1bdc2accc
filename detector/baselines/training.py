"""One training of a system without a network: for each choice of its settings a fit, and dev chooses.

To `detector.train` it is what `detector.fitting.Training` is for a network; a choice of settings takes the place
of an epoch (of a mixture: an iteration), and a system that has none is fitted once. Every process of a team fits
the same, as nothing is drawn but from the seed.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detector.baselines.baseline import Baseline
from detector.config import TrainConfig
from detector.fitting import Interrupted
from detector.loading import Examples
from detector.losses import class_weights, columns_of, weighted_cross_entropy
from detector.runlog import RunLog
from detector.state import Best, Position, copy_weights
from eval.metrics import eer


class BaselineTraining:
    """`fit` goes to the end; the features, which take the time, are kept by `examples`."""

    def __init__(
        self, config: TrainConfig, network: Baseline, examples: dict[str, Examples], log: RunLog
    ) -> None:
        self.config, self.network, self.examples, self.log = config, network, examples, log
        self.columns = {name: columns_of(torch.as_tensor(part.labels)) for name, part in examples.items()}
        self.weights = class_weights(self.columns["train"])
        self.position, self.best = Position(), Best()

    def fit(self, stop_after: int | None = None) -> None:
        if stop_after is not None:
            raise Interrupted  # features are prepared: the call after this one goes on from there
        train, dev = (
            [part[i] for i in range(len(part))] for part in map(self.examples.get, ("train", "dev"))
        )
        genuine = np.asarray(self.examples["train"].labels) == 1
        choices = self.network.choices(self.config.epochs)
        steps = itertools.count(1)
        self.log.start(self.network.steps(choices), 1, 0)
        for number, choice in enumerate(choices, start=1):
            started = time.monotonic()

            def tick(loss: float, epoch: int = choice.get("iterations", number)) -> None:
                self.log.step(next(steps), epoch, loss)

            found = self.network.fit_features(train, genuine, self.config.seed, tick, **choice)
            self._judge(choice | {"epoch": number} | found, dev, started)
            if found.get("settled"):
                break
        self.network.arguments = self._arguments
        self.network.learnt(**self.best.weights)

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
            self._arguments = dict(self.network.arguments)
        seconds = time.monotonic() - started
        row = {"learning_rate": 0.0, "dev_eer": dev_eer, "dev_loss": dev_loss, "best": better}
        history = [*self.position.history, facts | {"epoch": epoch} | row | {"seconds": round(seconds, 3)}]
        self.position = Position(epoch=epoch, seconds=self.position.seconds + seconds, history=history)
        self.log.epoch(history)
