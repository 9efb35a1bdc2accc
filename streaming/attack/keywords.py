"""The published task: an untargeted attack on a keyword classifier, heard as it is, amplitudes of full scale.

The victim is any classifier of `replayguard classify` (AST, PSLA, an ensemble). The published budget is five
pulses of 10 ms with a constant amplitude of 0.25 of full scale (12.04 dB below) in a clip of 1 s.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detector.checkpoint import load_checkpoint
from detector.classify.data import read_clips, split_clips
from detector.classify.sound import RATE, Waveforms, collate
from detector.classify.store import Loaded, load_classifier
from remasc.atomic import write_text
from remasc.identity import position_of
from remasc.sentences import quoted
from streaming.attack.campaign import Campaign, Plan
from streaming.attack.environment import Clip
from streaming.attack.run import at_least_one
from streaming.attack.table import figures, markdown, over
from streaming.attack.victims import ClassifierVictim

FULL_SCALE = 1.0  # the level that amplitudes are stated against
PUBLISHED_DB = 12.0412  # 0.25 of full scale


@dataclass(frozen=True)
class Keywords:
    """What to measure: a classifier's checkpoint on labelled clips (as `replayguard classify` reads them)."""

    classifier: Path
    data: Path
    split: str = "dev"
    clips: int = 60
    training: int = 60
    seconds: float = 1.0
    speaker_pattern: str = ""
    split_seed: int = 0
    plan: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        for name in ("clips", "training"):
            at_least_one(name, getattr(self, name))


def measure_keywords(
    task: Keywords, out: Path, *, progress: bool = True
) -> tuple[dict[str, Any], Campaign, list[Clip]]:
    """As `run.measure`, for a classifier."""
    loaded = load_classifier(task.classifier)
    parts = split_clips(read_clips(task.data, task.speaker_pattern), task.split_seed)
    if task.split not in parts:
        raise ValueError(f"unknown split {quoted(task.split)}; expected one of {', '.join(parts)}")
    classes = loaded.network.architecture.classes
    asked = {
        name: value for name, value in asdict(task).items() if name not in ("plan", "classifier", "clips")
    }
    identity = asked | {"data": task.data.resolve(), "victim": _fingerprint(task.classifier)}
    campaign = Campaign(classifier_victim(loaded), task.plan, out, identity, only_right=True)
    clips, training = (
        drawn(parts[split], classes, count, task)
        for split, count in ((task.split, task.clips), ("train", task.training))
    )
    rows = campaign.run(clips, training, progress=progress)
    record = {
        "victim": f"{loaded.network.architecture.backbone} classifier ({Path(task.classifier).name})",
        "victim_sha256": _fingerprint(task.classifier),
        "corpus": task.data.name,
        "simulated": False,
        "what": f"keywords of {task.split} ({len(classes)} classes), drawn by name; untargeted",
        "split": task.split,
        "air": "none, the microphone hears the perturbation as it is; amplitudes in dB below full scale",
        "defence": "none",
        "threshold": None,
        "training": len(training),
        "learning_queries": campaign.learning_queries(),
        "over": over(rows[task.plan.cases()[0].name]),
        "plan": asdict(task.plan),
        "lines": figures(task.plan.cases(), rows),
    }
    write_text(out / "attack.json", json.dumps(record, indent=1, default=str) + "\n")
    write_text(out / "attack.md", markdown(record))
    return record, campaign, clips


def classifier_victim(loaded: Loaded) -> ClassifierVictim:
    """A loaded classifier, asked with waveforms (B, T) that are padded to what it hears."""
    network = loaded.network

    def ask(x: Tensor) -> Tensor:
        samples = min(x.shape[-1], network.samples)
        padded = torch.nn.functional.pad(x[:, :samples], (0, network.samples - samples))
        return network(padded, torch.full((len(x),), samples))

    return ClassifierVictim(ask, RATE)


def drawn(part: list, classes: tuple[str, ...], count: int, task: Keywords) -> list[Clip]:
    """`count` clips of a split by the hash of their names, cut or padded to `seconds`."""
    known = [clip for clip in part if clip.label in classes]
    if not known:
        raise ValueError(
            f"{task.data}: holds no clips of the classifier's classes ({', '.join(classes[:5])}, ...)"
        )
    known = sorted(known, key=lambda clip: position_of(f"{task.plan.seed}/{clip.name}"))[:count]
    sounds = Waveforms([clip.path for clip in known])
    out = []
    for number, clip in enumerate(known):
        waveform, _ = collate([sounds[number]], round(task.seconds * RATE))
        truth = classes.index(clip.label)
        samples = np.ascontiguousarray(waveform.numpy(), np.float32)
        out.append(Clip(clip.name, samples, truth, FULL_SCALE, speaker=clip.speaker or ""))
    return out


def _fingerprint(folder: Path) -> str:
    """SHA-256 of what the checkpoint's files are."""
    run = load_checkpoint(folder)[2]
    return hashlib.sha256(json.dumps(run["checksums"], sort_keys=True).encode()).hexdigest()
