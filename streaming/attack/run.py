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
from detector.hardening import GUARDS, Guarded, SourceMember, Together, guarded
from detector.score import Detector, load
from remasc import Corpus, Label, Recording
from remasc.atomic import write_text
from remasc.identity import position_of
from remasc.parallel import tracked
from remasc.protocol import partitions
from remasc.sentences import counted, quoted
from remasc.simulate.layout import by_file, read_scenes, scene_of
from streaming.attack.air import PLACES, scene_path
from streaming.attack.campaign import Campaign, Genuine, Plan
from streaming.attack.environment import Clip, clip_of
from streaming.attack.measures import share_of
from streaming.attack.table import figures, markdown, over
from streaming.attack.victims import DetectorVictim

DEFENCES = ("none", *GUARDS, "ensemble")
SOURCE = "source"  # the partner's name that stands for the bundled source model


@dataclass(frozen=True)
class Robustness:
    """What to measure: whose robustness, on which clips, behind which defence.

    `defence`: guards of `detector.hardening` (`GUARDS`, joined by + where several), or "ensemble" with `partner`: a
    detector, a source model's folder, or "source", the bundled source model. `draws`: how often the attacker asks
    a victim that draws numbers for one answer; `repeats`: how often such a victim judges every attempt. `p_fa` sets
    the threshold on `dev_clips` clean dev replays of the array, where there is a defence or
    `own_threshold` is False: systems that are compared have theirs set alike. These are never clips that are
    attacked: where dev is attacked, its replays are dealt in two halves by their hash.
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

    def __post_init__(self) -> None:
        for name in ("clips", "genuine", "training", "dev_clips", "draws", "repeats"):
            at_least_one(name, getattr(self, name))
        names = self.defence.split("+")
        if self.defence not in DEFENCES and (unknown := [name for name in names if name not in GUARDS]):
            raise ValueError(f"unknown defence {quoted(unknown[0])}; expected {', '.join(DEFENCES)}")
        if self.partner is not None and self.defence != "ensemble":
            raise ValueError(
                f"a partner beside the defence {quoted(self.defence)}; expected --defence ensemble"
            )

    @property
    def sets_threshold(self) -> bool:
        return self.defence != "none" or not self.own_threshold


def at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name.replace('_', ' ')} is {value}; expected at least 1")


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
    partner = partner_of(task, bare)
    found = chooser.recordings(task.split, Label.GENUINE, task.genuine)
    training = chooser.clips("train", Label.REPLAY, task.training)
    clips = chooser.clips(task.split, Label.REPLAY, task.clips)
    detector, origin = defend(task, bare, partner, chooser, progress)
    victim = DetectorVictim(detector, array=task.array, draws=task.draws)
    campaign = Campaign(
        victim, task.plan, out, _identity(task, corpus, bare, partner, air), repeats=task.repeats
    )
    rows = campaign.run(clips, training, progress=progress)
    genuine = campaign.genuine = _genuine(campaign, chooser, found, progress)
    first = rows[task.plan.cases()[0].name]
    record = {
        "victim": f"{bare.specification.system} ({Path(task.detector).name})",
        "victim_sha256": fingerprint(bare),
        "corpus": corpus.name,
        "simulated": corpus.simulated,
        "what": f"replays of {task.array} in {task.split}, drawn by name",
        "split": task.split,
        "array": task.array,
        "air": _air_words(air),
        "defence": _defence_words(task),
        "threshold": victim.threshold,
        "origin": origin,
        "training": len(training),
        "learning_queries": campaign.learning_queries(),
        "genuine": len(found),
        "p_miss": share_of(1 - genuine.accepted, genuine.speakers).as_dict(),
        "over": over(first),
        "plan": asdict(task.plan),
        "lines": figures(task.plan.cases(), rows, genuine),
    }
    write_text(out / "attack.json", json.dumps(record, indent=1, default=str) + "\n")
    write_text(out / "attack.md", markdown(record))
    return record, campaign, clips


def _identity(
    task: Robustness, corpus: Corpus, bare: Detector, partner: Partner | None, air: str
) -> dict[str, Any]:
    """What a ledger belongs to. The numbers of clips that are attacked and compared with are no part of it."""
    asked = asdict(task)
    for name in ("plan", "corpus", "detector", "partner", "clips", "genuine"):
        del asked[name]
    of_partner = None if partner is None else partner.sha256
    return asked | {
        "corpus": corpus.root.resolve(),
        "victim": fingerprint(bare),
        "partner": of_partner,
        "air": air,
    }


@dataclass(frozen=True)
class Partner:
    """The second member of an ensemble, and what says which it is."""

    member: Detector | SourceMember
    sha256: str


def partner_of(task: Robustness, bare: Detector) -> Partner | None:
    """The partner that the task names: the bundled source model, a source model's folder, or a detector."""
    if task.defence != "ensemble":
        return None
    if task.partner is None:
        raise ValueError("an ensemble needs a second detector; give --partner (a detector, or source)")
    if task.partner != SOURCE and not is_source(task.partner):
        other = load(task.partner)
        return Partner(other, fingerprint(other))
    from detector.source.model import load_source

    model = load_source("default" if task.partner == SOURCE else task.partner)
    digest = hashlib.sha256(json.dumps([model.config, model.run], sort_keys=True, default=str).encode())
    return Partner(SourceMember(model, bare.specification, task.array), digest.hexdigest())


def is_source(name: str) -> bool:
    """Does a folder hold a source model?"""
    try:
        config = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("system") == "source"


def _defence_words(task: Robustness) -> str:
    if task.partner is None:
        return task.defence
    source = task.partner == SOURCE or is_source(task.partner)
    known = (
        "the source classifier (the attacker knows both; gradients are the detector's alone, whatever is tried is "
        "chosen by the joint score)"
    )
    return f"{task.defence} with {known if source else Path(task.partner).name}"


def defend(
    task: Robustness, bare: Detector, partner: Partner | None, chooser: _Chooser, progress: bool
) -> tuple[Detector, str]:
    """The detector behind its defence, and where its threshold comes from."""
    if not task.sets_threshold:
        if bare.threshold is None:
            raise ValueError(
                "the detector has no threshold; train it with `replayguard train`, which sets one"
            )
        return bare, f"the detector's own, p_fa {bare.run['threshold']['p_fa']:.1%} on its dev"
    if not isinstance(getattr(bare, "network", None), torch.nn.Module):
        raise ValueError("an exported detector takes no defence; name the checkpoint that it was made of")
    module: torch.nn.Module
    if task.defence == "none":
        module = bare.network
    elif partner is not None:
        module = Together([bare, partner.member])
    else:
        names = task.defence.split("+")
        generator = torch.Generator().manual_seed(task.plan.seed)  # a measurement can be repeated
        module = Guarded(bare.network, names, sample_rate=bare.specification.sample_rate, generator=generator)
    detector = guarded(bare, module)
    clean = chooser.clips("dev", Label.REPLAY, task.dev_clips, air="direct", unattacked=True)
    jobs = ((1, detector.score(clip.waveform, chooser.rate, task.array)) for clip in clean)
    scores = np.array(list(tracked(jobs, "threshold on clean dev", len(clean), 0, progress)))
    detector.threshold = threshold_at(scores, task.p_fa)
    return (
        detector,
        f"set on {counted(len(clean), 'clean dev replay')}, not attacked, for p_fa {task.p_fa:.1%}",
    )


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

    def recordings(self, split: str, label: Label, count: int, unattacked: bool = False) -> list[Recording]:
        """`unattacked`: those of dev that set a threshold, and that no attack is measured on."""
        part = list(self.parts[split].filter(array=self.task.array, label=label))
        if split == "dev" and self.task.split == "dev" and self.task.sets_threshold and label is Label.REPLAY:
            part = sorted(part, key=lambda r: position_of(f"threshold/{r.trial_id}"))[int(unattacked) :: 2]
        found = sorted(part, key=lambda r: position_of(f"{self.task.plan.seed}/{r.trial_id}"))[:count]
        if not found:
            raise ValueError(
                f"{self.corpus.root}: {split} holds no {label.name.lower()} trials of {self.task.array}"
                f"{' that are left over' if unattacked else ''}; choose another --array or --split"
            )
        return found

    def clips(
        self, split: str, label: Label, count: int, air: str | None = None, unattacked: bool = False
    ) -> list[Clip]:
        found = self.recordings(split, label, count, unattacked)
        return [clip_of(r, self.rate, path=self._path(r, air)) for r in found]

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


def _genuine(campaign: Campaign, chooser: _Chooser, found: list[Recording], progress: bool) -> Genuine:
    """Clean genuine clips, which attackers want to look like, before the finished system."""

    def judge(recording: Recording) -> list[float]:
        return list(campaign.verdict(clip_of(recording, chooser.rate).waveform, 1))

    jobs = ((1, campaign.once(f"genuine clip/{r.trial_id}", lambda r=r: judge(r), False)) for r in found)
    scores, right = np.array(list(tracked(jobs, "genuine clips", len(found), 0, progress))).T
    return Genuine(scores, right, [str(recording.speaker) for recording in found])


def _parts(corpus: Corpus, detector: Detector) -> dict[str, Corpus]:
    """The partitions as the detector was trained with, so that its dev is this dev."""
    training = detector.config.get("training") or {}
    seed = int(training.get("protocol_seed", training.get("seed", 0)))
    return partitions(corpus, dev_share=float(training.get("dev_share", 0.2)), seed=seed)


def fingerprint(detector: Detector) -> str:
    """SHA-256 that changes whenever the weights or the threshold do."""
    digest = hashlib.sha256(json.dumps([detector.config, detector.run], sort_keys=True, default=str).encode())
    for name, weights in detector.weights():
        digest.update(name.encode() + weights)
    return digest.hexdigest()


def _air_words(air: str) -> str:
    return {
        "same": "from the command's own playback device and place",
        "elsewhere": "from such a device at another place in the room",
        "direct": "none, all microphones hear the perturbation as it is",
    }[air]


def examples(campaign: Campaign, clips: Sequence[Clip], count: int) -> list[tuple[str, str, np.ndarray, Any]]:
    """(case, clip, waveform (M, T), its row) of up to `count` clips that the victim had right, under every case of
    the base plan."""
    cases = campaign.plan.cases()[: len(set(campaign.plan.attacks))]
    had = [number for number, row in enumerate(campaign.rows[cases[0].name]) if row.right_before]
    shown = []
    for number in had[: max(0, count)]:
        for case in cases:
            row, clip = campaign.rows[case.name][number], clips[number]
            shown.append((case.attack, clip.name, campaign.example(case, clip, row).waveform, row))
    return shown
