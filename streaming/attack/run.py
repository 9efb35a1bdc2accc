"""The robustness of a detector on a corpus, from names to the table: clips are chosen, a defence is put up, its
threshold set on clean dev, the campaign run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detector.calibration import threshold_at
from detector.hardening import GUARDS, Guarded, Together, guarded
from detector.score import Detector, load
from remasc import Corpus, Label, Recording
from remasc.atomic import write_text
from remasc.identity import position_of
from remasc.parallel import tracked
from remasc.protocol import partitions
from remasc.sentences import quoted
from remasc.simulate.layout import by_file, read_scenes, scene_of
from streaming.attack.air import PLACES, scene_path
from streaming.attack.campaign import Campaign, Plan
from streaming.attack.environment import Clip, clip_of
from streaming.attack.table import figures, markdown
from streaming.attack.victims import DetectorVictim

DEFENCES = ("none", *GUARDS, "ensemble")


@dataclass(frozen=True)
class Robustness:
    """What to measure: whose robustness, on which clips, behind which defence.

    `defence`: guards of `detector.hardening` ("windows", "limiter", "noise", or several joined by +), or "ensemble"
    with `partner`. `draws`: how often the attacker asks a victim that draws numbers for one answer; `repeats`: how
    often such a victim judges every attempt. `p_fa` sets the threshold on `dev_clips` clean dev replays of the
    array, where there is a defence or `own_threshold` is False: systems that are compared have theirs set alike.
    """

    corpus: Path
    detector: str = "default"
    split: str = "dev"
    array: str = "D1"
    clips: int = 60
    genuine: int = 60
    training: int = 60
    air: str | None = None
    defence: str = "none"
    partner: str | None = None
    draws: int = 1
    repeats: int = 1
    p_fa: float = 0.05
    dev_clips: int = 300
    own_threshold: bool = True
    plan: Plan = field(default_factory=Plan)


def measure(
    task: Robustness, out: Path, *, progress: bool = True
) -> tuple[dict[str, Any], Campaign, list[Clip]]:
    """Run or go on with the campaign in `out`; writes attack.json and attack.md there. Returns the record, the
    campaign and the attacked clips."""
    corpus = Corpus.from_meta(task.corpus)
    bare = load(task.detector)
    parts = _parts(corpus, bare)
    if task.split not in parts:
        raise ValueError(f"unknown split {quoted(task.split)}; expected one of {', '.join(parts)}")
    air = task.air or ("same" if (corpus.root / "scenes.jsonl").is_file() else "direct")
    chooser = _Chooser(corpus, parts, task, air, bare.specification.sample_rate)
    detector, origin = defend(task, bare, chooser, progress)
    victim = DetectorVictim(detector, array=task.array, draws=task.draws)
    identity = asdict(task) | {"plan": None, "corpus": corpus.name, "victim": fingerprint(bare), "air": air}
    campaign = Campaign(victim, task.plan, out, identity, repeats=task.repeats)
    training = chooser.clips("train", Label.REPLAY, task.training)
    clips = chooser.clips(task.split, Label.REPLAY, task.clips)
    rows = campaign.run(clips, training, progress=progress)
    genuine, accepted = _genuine(campaign, chooser, task, progress)
    record = {
        "victim": f"{bare.specification.system} ({Path(task.detector).name})",
        "victim_sha256": fingerprint(bare),
        "corpus": corpus.name,
        "simulated": corpus.simulated,
        "what": f"replays of {task.array} in {task.split}, drawn by name",
        "split": task.split,
        "array": task.array,
        "air": _air_words(air),
        "defence": task.defence if task.partner is None else f"{task.defence} with {Path(task.partner).name}",
        "threshold": victim.threshold,
        "origin": origin,
        "training": len(training),
        "genuine_rejected": float(1 - np.mean(accepted)),
        "plan": asdict(task.plan),
        "lines": figures(task.plan.cases(), rows, genuine),
    }
    write_text(out / "attack.json", json.dumps(record, indent=1, default=str) + "\n")
    write_text(out / "attack.md", markdown(record))
    return record, campaign, clips


def defend(task: Robustness, bare: Detector, chooser: _Chooser, progress: bool) -> tuple[Detector, str]:
    """The detector behind its defence, and where its threshold comes from."""
    if task.defence == "none" and task.own_threshold:
        if bare.threshold is None:
            raise ValueError(
                "the detector has no threshold; train it with `replayguard train`, which sets one"
            )
        return bare, f"the detector's own, p_fa {bare.run['threshold']['p_fa']:.1%} on its dev"
    module: torch.nn.Module
    if task.defence == "none":
        module = bare.network
    elif task.defence == "ensemble":
        if task.partner is None:
            raise ValueError("an ensemble needs a second detector; give --partner")
        module = Together([bare, load(task.partner)])
    else:
        names = task.defence.split("+")
        if unknown := [name for name in names if name not in GUARDS]:
            raise ValueError(f"unknown defence {quoted(unknown[0])}; expected {', '.join(DEFENCES)}")
        generator = torch.Generator().manual_seed(task.plan.seed)  # a measurement can be repeated
        module = Guarded(bare.network, names, sample_rate=bare.specification.sample_rate, generator=generator)
    detector = guarded(bare, module)
    clean = chooser.clips("dev", Label.REPLAY, task.dev_clips, air="direct")
    jobs = ((1, detector.score(clip.waveform, chooser.rate)) for clip in clean)
    scores = np.array(list(tracked(jobs, "threshold on clean dev", len(clean), 0, progress)))
    detector.threshold = threshold_at(scores, task.p_fa)
    return detector, f"set on {len(clean)} clean dev replays for p_fa {task.p_fa:.1%}"


@dataclass
class _Chooser:
    """Draws clips by the hash of their names: more clips contain the fewer ones, in every corpus."""

    corpus: Corpus
    parts: dict[str, Corpus]
    task: Robustness
    air: str
    rate: int

    def __post_init__(self) -> None:
        if self.air not in PLACES:
            raise ValueError(f"unknown way through the air {self.air!r}; expected one of {', '.join(PLACES)}")
        self.scenes = by_file(read_scenes(self.corpus.root)) if self.air != "direct" else {}
        if self.air != "direct" and not self.scenes:
            raise ValueError(
                f"{self.corpus.root}: no scenes.jsonl says what rooms these were; choose --air direct"
            )

    def recordings(self, split: str, label: Label, count: int) -> list[Recording]:
        part = self.parts[split].filter(array=self.task.array, label=label)
        found = sorted(part, key=lambda r: position_of(f"{self.task.plan.seed}/{r.trial_id}"))[:count]
        if not found:
            raise ValueError(
                f"{self.corpus.root}: {split} holds no {label.name.lower()} trials of {self.task.array}; choose "
                "another --array or --split"
            )
        return found

    def clips(self, split: str, label: Label, count: int, air: str | None = None) -> list[Clip]:
        return [clip_of(r, self.rate, path=self._path(r, air)) for r in self.recordings(split, label, count)]

    def _path(self, recording: Recording, air: str | None) -> np.ndarray | None:
        where = self.air if air is None else air
        if where == "direct":
            return None
        scene = scene_of(recording.file_id, self.scenes)
        if scene is None:
            raise ValueError(
                f"{self.corpus.root}: scenes.jsonl does not tell the scene of {recording.trial_id}"
            )
        return scene_path(scene, self.corpus.name, self.task.array, self.rate, where)


def _genuine(
    campaign: Campaign, chooser: _Chooser, task: Robustness, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of clean genuine clips, which attackers want to look like, and which of them are accepted."""
    found = chooser.recordings(task.split, Label.GENUINE, task.genuine)

    def judge(recording: Recording) -> list[float]:
        score, right = campaign.victim.verdict(clip_of(recording, chooser.rate).waveform, 1)
        return [score, float(right)]

    jobs = ((1, campaign.once(f"genuine clip/{r.trial_id}", lambda r=r: judge(r), False)) for r in found)
    scores, right = np.array(list(tracked(jobs, "genuine clips", len(found), 0, progress))).T
    return scores, right


def _parts(corpus: Corpus, detector: Detector) -> dict[str, Corpus]:
    """The partitions as the detector was trained with, so that its dev is this dev."""
    training = detector.config.get("training") or {}
    seed = int(training.get("protocol_seed", training.get("seed", 0)))
    return partitions(corpus, dev_share=float(training.get("dev_share", 0.2)), seed=seed)


def fingerprint(detector: Detector) -> str:
    """SHA-256 that changes whenever the weights or the threshold do."""
    digest = hashlib.sha256(json.dumps([detector.config, detector.run], sort_keys=True, default=str).encode())
    for name, tensor in sorted(detector.network.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _air_words(air: str) -> str:
    return {
        "same": "from the command's own playback device and place",
        "elsewhere": "from such a device at another place in the room",
        "direct": "none, all microphones hear the perturbation as it is",
    }[air]


def examples(campaign: Campaign, clips: Sequence[Clip], count: int) -> list[tuple[str, str, np.ndarray, Any]]:
    """(case, clip, waveform (M, T), its row) of up to `count` clips under every case of the base plan."""
    shown = []
    for clip in clips[:count]:
        for case in campaign.plan.cases()[: len(campaign.plan.attacks)]:
            row = campaign.rows[case.name][[c.name for c in clips].index(clip.name)]
            shown.append((case.attack, clip.name, campaign.example(case, clip, row).waveform, row))
    return shown
