"""Our detector without one of its parts, to see what that part is worth.

A variant is fitted by the detector's own schedule, seeds and parts, in a folder like any run's, and goes on where
it stopped. What it is blind to is hidden from it in every step and, when it is finished, its first filters are zero
there: so its checkpoint is that of an ordinary `CompactDetector`, which everything opens, and the same function.

Shapes: B batch, C planes (level, four of space, number of microphones), K bands, N frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from detector import rundir
from detector.checkpoint import save_checkpoint
from detector.config import TrainConfig
from detector.examples import PlaneExamples
from detector.fitting import Training
from detector.loading import build_examples, check_examples, training_parts
from detector.model import CompactDetector
from detector.runlog import RunLog
from detector.schedule import step_seed
from detector.shipped import judge_dev
from detector.systems import specify
from detector.team import Team
from remasc import ARRAYS, Corpus, Recording

FIRST_FILTERS = "backbone.blocks.0.first.weight"  # (outputs, C, 3, 3)


class Blind(CompactDetector):
    """Does not see the planes `hidden`, whatever augmentation made of them."""

    hidden: ClassVar[slice] = slice(0, 0)

    def embed(self, planes: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Planes (B, C, K, N) -> embeddings (B, 2 D)."""
        planes = planes.clone()
        planes[:, self.hidden] = 0
        return super().embed(planes, lengths)

    def augment(self, planes: Tensor, lengths: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As the whole detector is augmented, which hides the level of some items and the space of others; where
        that leaves nothing to be seen, a second draw serves, so that this is not what makes a variant worse."""
        twice, kept = super().augment(planes.repeat(2, 1, 1, 1), lengths.repeat(2), generator)
        twice[:, self.hidden] = 0
        (one, other), (of_one, of_other) = twice.chunk(2), kept.chunk(2)
        seen = one.flatten(1).any(dim=1)
        return torch.where(seen[:, None, None, None], one, other), torch.where(seen, of_one, of_other)

    def as_compact(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a `CompactDetector` that sees all planes and makes nothing of those that are hidden."""
        filters = weights[FIRST_FILTERS].clone()
        filters[:, self.hidden] = 0
        return dict(weights) | {FIRST_FILTERS: filters}


class WithoutSpace(Blind):
    """Sees the level alone, the mean over the microphones, and not even how many there are."""

    hidden = slice(1, None)


class WithoutSpectrum(Blind):
    """Sees how the microphones agree, and not how loud it is in which band."""

    hidden = slice(0, 1)


class WithoutAugmentation(Blind):
    """Trained on the beginnings of the recordings as they are: not cropped, coloured, masked, padded or gated."""

    @classmethod
    def build_examples(cls, recordings: Sequence[Recording], folder, **options) -> PlaneExamples:
        return super().build_examples(recordings, folder, **options | {"training": False})

    def augment(self, planes: Tensor, lengths: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return planes, lengths


NETWORKS: dict[str, type[Blind]] = {
    "without-space": WithoutSpace,
    "without-spectrum": WithoutSpectrum,
    "without-augmentation": WithoutAugmentation,
}


def train(config: TrainConfig, variant: str, *, progress: bool = True) -> None:
    """Train a variant as `config` says of the whole detector; leaves what `detector.train` leaves in `config.out`.
    A finished folder is left as it is."""
    with Team.gather_up(config.device) as (team, device):
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # the caller's random numbers stay the caller's
            corpus = Corpus.from_meta(config.corpus)
            parts = training_parts(config, corpus)
            with rundir.claimed(config, parts, team) as claim:
                if claim.finished is None:
                    with RunLog(config.out, on=True, bar=progress) as log:
                        torch.manual_seed(step_seed(config.seed))
                        network = NETWORKS[variant]()
                        examples = build_examples(config, parts, network, _heard(config), progress=progress)
                        check_examples(examples)
                        training = Training(config, network, examples, team, device, log)
                        training.fit()
                        log.stop()  # one bar at a time
                        _finish(training, variant, corpus, claim.protocol_sha256, progress)


def _heard(config: TrainConfig):
    return specify(config.system, tuple(ARRAYS[name] for name in config.arrays))


def _finish(training: Training, variant: str, corpus: Corpus, protocol_sha256: str, progress: bool) -> None:
    """Threshold and calibration from dev, and the checkpoint."""
    config, network = training.config, training.network
    weights = network.as_compact(training.best.weights)
    description = {
        "specification": _heard(config).as_dict(),
        "network": network.arguments,
        "training": config.identity() | {"corpus": corpus.name},
        "variant": variant,
    }
    recordings = training.examples["dev"].recordings
    dev = judge_dev(config.out, weights, description, recordings, progress=progress)
    card = {"name": corpus.name, "simulated": corpus.simulated} | corpus.card
    facts = rundir.facts(config, card, protocol_sha256, training, dev, training.team, training.device)
    save_checkpoint(config.out, weights, description, facts | {"variant": variant})
    rundir.clean(config.out)
