"""Training: train fits, dev chooses the epoch and sets the threshold, eval is never seen.

A run is a pure function of its config and protocol: the order of the clips, augmentation and dropout belong to
(seed, epoch, step), the learning rate to the position. Killed at any moment it goes on from its last state to
the same result, bit for bit on one CPU type and number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detector import rundir
from detector.baselines.training import BaselineTraining
from detector.checkpoint import WEIGHTS, save_checkpoint
from detector.config import BASELINES, TrainConfig
from detector.fitting import Training
from detector.loading import Examples, build_examples, check_examples, training_parts
from detector.losses import GENUINE_COLUMN
from detector.model import EDGE
from detector.runlog import RunLog
from detector.schedule import step_seed
from detector.score import Detector, load
from detector.shipped import DevScores, from_training, judge_dev
from detector.systems import Specification, build_network, specify
from detector.team import Team
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
    specification = specify(config.system, tuple(ARRAYS[name] for name in config.arrays), config.microphones)
    description = {"specification": specification.as_dict(), "network": _arguments(config)}
    torch.manual_seed(step_seed(config.seed))
    network = build_network(description)
    if (base := _base(config, specification)) is not None:
        _take_weights(network, base, str(config.base))
    weights = None if base is None else base.run["checksums"][WEIGHTS]
    parts, card = _parts(config, examples)
    with (
        rundir.claimed(config, parts, team, weights) as claim,
        RunLog(config.out, on=team.first, bar=progress) as log,
    ):
        if claim.finished is not None:
            chosen = claim.finished
            log.say(f"{config.out}: finished, {rundir.in_words(chosen)}; nothing to do")
            return _result(config, chosen, already_finished=True)
        given = examples is not None
        if examples is None:
            if not team.first:
                team.wait()  # the first process prepares, the others open what it prepared
            examples = build_examples(config, parts, network, specification, progress=progress and team.first)
            if team.first:
                team.wait()
        check_examples(examples)
        training = _training(config, network, examples, team, device, log)
        training.fit(stop_after)
        # with its defaults, which may change, as a checkpoint may not; and with what a fit found
        description["network"] = network.arguments
        log.stop()  # one bar at a time
        facts = None
        if team.first:
            description["training"] = config.identity() | {"corpus": card.get("name")}
            dev = _dev_scores(config, training, description, given, progress)
            facts = rundir.facts(config, card, claim.protocol_sha256, training, dev, team, device)
            if base is not None:
                facts["base"] = {"name": Path(str(config.base)).name, "sha256": weights}
            save_checkpoint(config.out, training.best.weights, description, facts)
            rundir.clean(config.out)
            log.say(f"{config.out}: {rundir.in_words(facts)}")
        return _result(config, team.gather(facts)[0])


def _arguments(config: TrainConfig) -> dict[str, Any]:
    """What the config says of the network's own arguments."""
    if config.system.startswith("nn-"):
        return {"filters": config.filters}
    if config.backbone == "cnn":
        return {}
    return dict(EDGE) if config.backbone == "edge" else {"backbone": config.backbone}


def _base(config: TrainConfig, specification: Specification) -> Detector | None:
    """The detector whose weights this run goes on from; ValueError where it is of another kind."""
    if config.base is None:
        return None
    base = load(config.base)
    if not isinstance(base.network, torch.nn.Module):
        raise ValueError(f"{config.base}: an export cannot be trained; give the checkpoint that it came from")
    kinds = [(one.system, one.num_mics, one.sample_rate) for one in (base.specification, specification)]
    if kinds[0] != kinds[1]:
        words = [f"a {name} of {mics or 'any number of'} channels at {rate} Hz" for name, mics, rate in kinds]
        raise ValueError(f"{config.base}: {words[0]}; this run trains {words[1]}, give a base of that kind")
    return base


def _take_weights(network: torch.nn.Module, base: Detector, name: str) -> None:
    try:
        network.load_state_dict(base.network.state_dict())
    except RuntimeError:
        raise ValueError(
            f"{name}: its network is not of the size that this run trains; give the same --backbone"
        ) from None


def _training(
    config: TrainConfig,
    network: torch.nn.Module,
    examples: dict[str, Examples],
    team: Team,
    device: torch.device,
    log: RunLog,
) -> Training | BaselineTraining:
    if config.system in BASELINES:
        return BaselineTraining(config, network, examples, log)
    return Training(config, network, examples, team, device, log)


def _dev_scores(
    config: TrainConfig,
    training: Training | BaselineTraining,
    description: dict[str, Any],
    given: bool,
    progress: bool,
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
