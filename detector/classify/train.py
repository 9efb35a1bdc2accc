"""A classifier trained, distilled or adapted as its config says, resumable, from clips to checkpoint.

The folder holds `training.json` (whose run it is) and `state.safetensors` (where it stands) while it runs, then
the checkpoint (config.json, model.safetensors, run.json), `splits.csv`, `log.jsonl` and `predictions.csv` of dev
and eval. An ensemble has a folder for each member within. Train fits, dev chooses the epoch, eval is classified
once, by what is shipped.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detector.adapters import adapt
from detector.checkpoint import load_checkpoint
from detector.classify.claim import claimed
from detector.classify.config import AdaptConfig, ClassifyConfig, DistillConfig
from detector.classify.data import SPLITS, Clip, fewer, read_clips, shared_speakers, split_clips, table
from detector.classify.fitting import Fitting, Labelled, all_logits, trainable_count
from detector.classify.network import Architecture, Classifier, build
from detector.classify.predict import Prediction, write_predictions
from detector.classify.progress import Progress
from detector.classify.sound import RATE, Waveforms, check_readable, longest_seconds
from detector.classify.store import adaptation_of, begin, load_classifier, save_classifier
from detector.distill import Distillation, Teacher
from detector.frontends.fbank import FilterBank
from detector.rundir import FINISHED, _commit, _environment, clean
from detector.schedule import step_seed
from detector.team import Team, pick_device

SPLIT_TABLE, PREDICTIONS = "splits.csv", "predictions.csv"
MOST_FRAMES = 1024
STRIDE = 10


@dataclass(frozen=True)
class Trained:
    """A finished run: its folder, run.json, and the history of its (last) member's epochs."""

    folder: Path
    run: dict[str, Any]
    history: tuple[dict[str, Any], ...]
    already_finished: bool = False


def train_classifier(
    config: ClassifyConfig, *, progress: bool = False, stop_after: int | None = None
) -> Trained:
    """Train as `config` says (a `DistillConfig` has a teacher, an `AdaptConfig` a frozen base).

    `stop_after` so many steps raises `Interrupted`, for the proof that a run resumes.
    """
    if isinstance(config, AdaptConfig) and config.method != "full" and config.ensemble > 1:
        raise ValueError("an ensemble of adapters is not kept in one checkpoint; train them apart")
    clips = read_clips(config.data, config.speaker_pattern)
    parts = split_clips(clips, config.split_seed)
    parts["train"] = fewer(parts["train"], config.labels, config.split_seed)
    wanted, beside = config.identity() | {"splits": _splits_hash(parts)}, {SPLIT_TABLE: table(parts)}
    claim = claimed(config.out, wanted, _finished, resume=config.resume, beside=beside)
    with claim as finished, Progress(progress) as bar:
        if finished is not None:
            bar.say(f"{config.out}: finished already; nothing to do")
            return Trained(config.out, finished, tuple(finished["curves"]), already_finished=True)
        devices = [0] if pick_device(config.device).type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            return _Run(config, parts, any(clip.split for clip in clips), bar).finish(stop_after)


class _Run:
    """One claimed run from its clips to its checkpoint."""

    def __init__(
        self, config: ClassifyConfig, parts: dict[str, list[Clip]], given: bool, bar: Progress
    ) -> None:
        self.config, self.clips, self.given, self.bar = config, parts, given, bar
        self.classes = tuple(sorted({clip.label for clip in parts["train"]}))
        self.parts = {split: self._labelled(parts[split]) for split in SPLITS}
        bar.start(sum(map(len, self.parts.values())))
        check_readable([part.waveforms for part in self.parts.values()], bar.step)
        longest = {split: longest_seconds(part.waveforms.paths) for split, part in self.parts.items() if part}
        self.architecture = Architecture(
            self.classes,
            config.backbone,
            size=config.size or "tiny",
            variant=config.variant or "b0",
            heads=4 if config.heads is None else config.heads,
            stride=(config.stride or STRIDE,) * 2,
            frames=config.frames or _frames(longest["train"]),
            frontend=config.frontend or "fixed",
            loss=config.loss,
        )
        self.device = pick_device(config.device)

    def _labelled(self, clips: list[Clip]) -> Labelled:
        numbers = {name: number for number, name in enumerate(self.classes)}
        return Labelled(
            Waveforms([clip.path for clip in clips]),
            np.array([numbers[clip.label] for clip in clips], dtype=np.int64),
        )

    def finish(self, stop_after: int | None) -> Trained:
        config = self.config
        if config.ensemble == 1:
            network, fitting = self.member(config, config.out, stop_after)
            facts, history = self._facts(fitting), fitting.history
        else:
            network, facts, history = self._ensemble(stop_after)
        facts |= self._outcome(network.to(self.device).eval())
        facts["curves"] = history
        base = getattr(config, "base", None) if hasattr(network, "adaptation") else None
        save_classifier(
            config.out,
            network,
            network.state_dict(),
            training=config.identity(),
            run=facts,
            base=base,
        )
        clean(config.out)
        return Trained(config.out, facts, tuple(history))

    def member(self, config: ClassifyConfig, out: Path, stop_after: int | None) -> tuple[nn.Module, Fitting]:
        """One network trained in `out`, with the weights that it ships, and how it got them."""
        torch.manual_seed(step_seed(config.seed))
        network: Classifier = begin(self.architecture, config.base)
        _refuse_ignored(config, network.architecture)
        if isinstance(config, AdaptConfig) and config.method != "full":
            plan = adaptation_of(config.method, config.places, config.rank, config.scale, network)
            adapt(network, plan)
        teacher = distillation = None
        if isinstance(config, DistillConfig):
            teacher = Teacher(load_classifier(config.teacher).network, network, self.device)
            distillation = Distillation(config.temperature, config.task_share, config.soften)
        targets = self._targets()
        fitting = Fitting(
            config, network, self.parts, targets, out, self.bar, teacher=teacher, distillation=distillation
        )
        fitting.fit(stop_after)
        network.load_state_dict(fitting.weights())
        return network, fitting

    def _ensemble(self, stop_after: int | None) -> tuple[nn.Module, dict[str, Any], list[dict[str, Any]]]:
        config = self.config
        ensemble, runs, history = None, [], []
        for number in range(config.ensemble):
            out = config.out / f"member-{number + 1}"
            single = replace(config, ensemble=1, seed=config.seed + number, out=out)
            if (out / FINISHED).exists():
                loaded = load_classifier(out)
                network, facts = loaded.network, loaded.run
            else:
                out.mkdir(exist_ok=True)
                network, fitting = self.member(single, out, stop_after)
                facts = self._facts(fitting) | {"curves": fitting.history}
                save_classifier(out, network, network.state_dict(), training=single.identity(), run=facts)
                clean(out)
            if ensemble is None:
                ensemble = build(replace(network.architecture, members=config.ensemble))
            ensemble.members[number].load_state_dict(network.state_dict())
            runs.append({key: facts[key] for key in ("seed", "epoch", "dev_accuracy") if key in facts})
            history = facts["curves"]
        total = {"parameters": sum(p.numel() for p in ensemble.parameters()), "members": runs}
        return ensemble, facts | total, list(history)

    def _targets(self) -> Tensor:
        """Soft labels of the training clips (n, K)."""
        config, train = self.config, self.parts["train"]
        hard = nn.functional.one_hot(torch.from_numpy(train.numbers), len(self.classes)).float()
        if config.label_teacher is None:
            return hard
        teacher = load_classifier(config.label_teacher).network
        if teacher.architecture.classes != self.classes:
            raise ValueError(f"{config.label_teacher}: knows other classes; label enhancement needs the same")
        logits = all_logits(teacher.to(self.device), train.waveforms, config.batch_size, self.device)
        return (1 - config.label_share) * hard + config.label_share * teacher.probabilities(logits)

    def _facts(self, fitting: Fitting) -> dict[str, Any]:
        best, position, config = fitting.best, fitting.position, fitting.config
        chosen = "mean of the last epochs" if config.average else "dev" if best.weights else "last"
        facts = {
            "seed": config.seed,
            "epoch": best.epoch + 1 if best.weights and not config.average else position.epoch,
            "epochs": position.epoch,
            "chosen_by": chosen,
            "parameters": sum(p.numel() for p in fitting.network.parameters()),
            "trained_parameters": trainable_count(fitting.network),
            "commit": _commit(),
            "environment": _environment(self.device, Team()),
            "wall_seconds": round(position.seconds, 1),
        }
        return facts | ({"best_dev_accuracy": 1 - best.dev_eer} if best.weights else {})

    def _outcome(self, network: nn.Module) -> dict[str, Any]:
        """What the shipped network says of dev and eval: accuracies for run.json, and predictions.csv."""
        rows: list[Prediction] = []
        facts: dict[str, Any] = {
            "clips": {split: len(part) for split, part in self.parts.items()},
            "speakers": {s: len({c.speaker for c in clips} - {""}) for s, clips in self.clips.items()},
            "speakers_shared": shared_speakers(self.clips),
            "split_by": self._split_by(),
            "splits": _splits_hash(self.clips),
        }
        for split in ("dev", "eval"):
            part, clips = self.parts[split], self.clips[split]
            if not part:
                continue
            logits = all_logits(network, part.waveforms, self.config.batch_size, self.device)
            facts[f"{split}_accuracy"] = float((logits.argmax(1).numpy() == part.numbers).mean())
            probabilities = network.probabilities(logits).numpy()
            rows += [
                Prediction(clip.name, p, clip.label, split, clip.speaker)
                for clip, p in zip(clips, probabilities, strict=True)
            ]
        write_predictions(self.config.out / PREDICTIONS, rows, self.classes)
        return facts

    def _split_by(self) -> str:
        speakers = any(clip.speaker for clips in self.clips.values() for clip in clips)
        return "given" if self.given else "speaker" if speakers else "file"


def _frames(seconds: float) -> int:
    """Frames of a clip, at most `MOST_FRAMES`, at least a patch."""
    return int(min(MOST_FRAMES, max(16, FilterBank().count(round(seconds * RATE)))))


def _refuse_ignored(config: ClassifyConfig, found: Architecture) -> None:
    """A base says what its backbone is: what was asked for besides must be the same."""
    there = {"frontend": found.frontend}
    if found.backbone == "ast":
        there |= {"size": found.size, "stride": min(found.stride)}
    else:
        there |= {"variant": found.variant, "heads": found.heads}
    for name, value in there.items():
        asked = getattr(config, name)
        if asked is not None and asked != value:
            raise ValueError(
                f"{config.base}: its {name} is {value}, not {asked}; leave --{name} out, or give another --base"
            )


def _finished(out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    description, _, run = load_checkpoint(out)
    return description.get("training", {}) | {"splits": run.get("splits")}, run


def _splits_hash(parts: dict[str, list[Clip]]) -> str:
    """Changes with the clips, their labels, splits, speakers and sizes."""
    digest = hashlib.sha256(table(parts).encode())
    for split in SPLITS:
        for clip in sorted(parts[split], key=lambda clip: clip.name):
            digest.update(f"{clip.path.stat().st_size}\n".encode())
    return digest.hexdigest()
