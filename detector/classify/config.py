"""The command line of `replayguard classify train`, `distill` and `adapt`. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from remasc.sentences import quoted

# Where a run lies and how fast it goes; everything else decides its result.
PLACE = ("data", "out", "device", "amp", "checkpoint_minutes", "resume")
RATES = {"ast": 2e-4, "psla": 1e-3}  # from scratch
SCHEDULES, DEVICES = ("cosine", "constant"), ("auto", "cpu", "cuda", "mps")
TUNING_RATE, FEW_RATE = 1e-4, 1e-3  # of a whole pretrained network; of few parameters beside one


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    """A classifier is trained on labelled sound.

    Args:
        data: CSV with the columns file,label and perhaps split (train, dev, eval) and speaker; or a folder with a
            folder for each class.
        out: Folder of the run; an interrupted run goes on there.
        backbone: ast or psla.
        size: Of the AST: tiny, small or base; default: that of --base, else tiny.
        variant: Of PSLA's EfficientNet: b0, b1 or b2; default b0.
        heads: PSLA's attention heads; 0 = mean over time; default: those of --base, else 4.
        stride: Of the AST's patches, in bands and frames; default: that of a classifier as --base, else 10.
        frames: Frames of 10 ms that are heard of a clip; default: the longest of the training clips, at most 1024.
        frontend: fixed = the Kaldi filter bank; trainable = it is where the training begins; default: that of
            --base, else fixed.
        base: Weights to begin from: a classifier's folder, a pretraining's folder, or a published file.
        loss: ce = one class a clip (softmax); bce = each class by itself (sigmoid), as published.
        balanced: Every class is drawn equally often.
        freq_mask: SpecAugment: at most so many bands are hidden in each clip.
        time_mask: SpecAugment: at most so many frames are hidden in each clip.
        roll: Clips are shifted by up to so many frames, around their ends.
        mixup: Share of the clips that are mixed with another of their batch (published 0.5).
        label_teacher: Label enhancement: the folder of a classifier whose opinions soften the training labels.
        label_share: How much of a label is the teacher's opinion.
        average: Ship the mean of the weights of the last so many epochs; 0 = the epoch that dev chose.
        ensemble: Train so many members, each from its own seed; their mean decides.
        labels: Share of the labelled training clips that is used.
        epochs: Passes over the training clips.
        batch_size: Clips per step.
        learning_rate: Its peak; default 2e-4 (ast), 1e-3 (psla), 1e-4 with --base, 1e-3 for few parameters.
        schedule: cosine or constant.
        weight_decay: Of AdamW.
        clip: Largest norm of the gradient; 0 = as it is.
        patience: Stop after so many epochs without a better dev accuracy; 0 = never.
        speaker_pattern: Regular expression whose first group is the speaker in a file's name.
        split_seed: Draws the splits where none are given: 60 : 20 : 20, disjoint in speakers where these are known.
        seed: Draws the initial weights, the order of the clips, and augmentation.
        device: auto, cpu, cuda or mps.
        amp: Mixed precision on CUDA; of an AST also on a CPU that multiplies bfloat16.
        checkpoint_minutes: Save the state at least so often, besides every epoch; 0 = every step.
        resume: Go on where an interrupted run stopped; --no-resume throws its state away.
    """

    data: Path
    out: Path
    backbone: Literal["ast", "psla"] = "ast"
    size: Literal["tiny", "small", "base"] | None = None
    variant: Literal["b0", "b1", "b2"] | None = None
    heads: int | None = None
    stride: int | None = None
    frames: int | None = None
    frontend: Literal["fixed", "trainable"] | None = None
    base: Path | None = None
    loss: Literal["ce", "bce"] = "ce"
    balanced: bool = False
    freq_mask: int = 0
    time_mask: int = 0
    roll: int = 0
    mixup: float = 0.0
    label_teacher: Path | None = None
    label_share: float = 0.5
    average: int = 0
    ensemble: int = 1
    labels: float = 1.0
    epochs: int = 30
    batch_size: int = 32
    learning_rate: float | None = None
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 1e-2
    clip: float = 5.0
    patience: int = 0
    speaker_pattern: str = ""
    split_seed: int = 0
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    amp: bool = True
    checkpoint_minutes: float = 10.0
    resume: bool = True

    def __post_init__(self) -> None:
        for name in ("data", "out", "base", "label_teacher", "teacher"):
            if isinstance(getattr(self, name, None), str):
                object.__setattr__(self, name, Path(getattr(self, name)))
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", self.usual_rate())
        self._check_words()
        check_ranges(self)
        if self.average and self.patience:
            raise ValueError(
                "the mean of the last epochs needs to know the last epoch: use --average or --patience"
            )
        if self.average > self.epochs:
            raise ValueError(
                f"the mean of {self.average} epochs of {self.epochs}; average at most as many as there are"
            )

    def _check_words(self) -> None:
        allowed = {"backbone": RATES, "size": ("tiny", "small", "base"), "variant": ("b0", "b1", "b2")}
        allowed |= {"frontend": ("fixed", "trainable"), "loss": ("ce", "bce")}
        allowed |= {"schedule": SCHEDULES, "device": DEVICES}
        by_base = ("size", "variant", "frontend")
        for name, words in allowed.items():
            if not (getattr(self, name) is None and name in by_base):
                check_word(name, getattr(self, name), words)

    def usual_rate(self) -> float:
        return TUNING_RATE if self.base else RATES.get(self.backbone, TUNING_RATE)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    def identity(self) -> dict[str, Any]:
        """What decides the result, besides the clips."""
        return {name: value for name, value in self.to_dict().items() if name not in PLACE}


@dataclass(frozen=True, kw_only=True)
class DistillConfig(ClassifyConfig):
    """A classifier is trained by labels and by another classifier (CMKD): a CNN teaches an AST, or the reverse.

    Args:
        teacher: Folder of the classifier that teaches; it is frozen and hears the same augmented clips.
        temperature: The teacher's logits are divided by it.
        task_share: Lambda: the share of the labels in the loss; the rest is the teacher's.
        soften: teacher = the temperature softens the teacher alone (published); both = also the student (Hinton).
    """

    teacher: Path
    temperature: float = 1.0
    task_share: float = 0.5
    soften: Literal["teacher", "both"] = "teacher"

    def _check_words(self) -> None:
        super()._check_words()
        if self.soften not in ("teacher", "both"):
            raise ValueError(f"soften is {quoted(self.soften)}; expected teacher or both")


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(ClassifyConfig):
    """Few parameters are trained on a frozen pretrained AST; the checkpoint keeps these alone and refers to it.

    Args:
        method: lora, serial or parallel (bottleneck adapters), prompt, bitfit, probe; full = everything is tuned.
        places: Of adapters: houlsby = after attention and MLP, pfeiffer = after the MLP alone.
        rank: Of LoRA; the width of a bottleneck; the number of prompt tokens.
        scale: LoRA adds scale / rank times its product, a parallel adapter is added scale times (2 * rank, 1).
    """

    method: Literal["lora", "serial", "parallel", "prompt", "bitfit", "probe", "full"] = "serial"
    places: Literal["houlsby", "pfeiffer"] = "pfeiffer"
    rank: int = 16
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.base is None:
            raise ValueError("there is nothing to adapt; give --base, a pretrained AST's folder or file")
        super().__post_init__()
        if self.method != "full" and self.frontend == "trainable":
            raise ValueError(
                f"{self.method} freezes the front end; leave --frontend out, or use --method full"
            )

    def _check_words(self) -> None:
        super()._check_words()
        if self.method not in (*METHODS, "full") or self.places not in ("houlsby", "pfeiffer"):
            raise ValueError(
                f"method {quoted(self.method)}, {quoted(self.places)}; expected {', '.join(METHODS)} or "
                "full, and houlsby or pfeiffer"
            )

    def usual_rate(self) -> float:
        return TUNING_RATE if self.method == "full" else FEW_RATE


WHOLE = ("heads", "stride", "frames", "freq_mask", "time_mask", "roll", "average", "ensemble", "epochs")
WHOLE += ("batch_size", "patience", "split_seed", "seed", "rank")
METHODS = ("lora", "serial", "parallel", "prompt", "bitfit", "probe")
RANGES = {
    "heads": (0, 64),
    "stride": (1, 16),
    "frames": (16, 10**5),
    "freq_mask": (0, 128),
    "time_mask": (0, 10**5),
    "roll": (0, 10**5),
    "mixup": (0, 1),
    "label_share": (0, 1),
    "average": (0, 10**6),
    "ensemble": (1, 64),
    "labels": (1e-6, 1),
    "epochs": (1, 10**6),
    "batch_size": (1, 10**6),
    "learning_rate": (1e-12, 1e3),
    "weight_decay": (0, 1e3),
    "clip": (0, 1e9),
    "patience": (0, 10**6),
    "split_seed": (0, 2**62),
    "seed": (0, 2**62),
    "checkpoint_minutes": (0, 1e6),
    "temperature": (1e-3, 1e3),
    "task_share": (0, 1),
    "rank": (1, 4096),
}


def check_word(name: str, value: Any, words: Iterable[str]) -> None:
    """ValueError, in one sentence, where a setting is none of its words."""
    if value not in tuple(words):
        raise ValueError(f"{name} is {quoted(value)}; expected {' or '.join(words)}")


def check_ranges(config: Any) -> None:
    """ValueError, in one sentence, where a setting is no number of its range; None is a default."""
    for name, (low, high) in RANGES.items():
        value = getattr(config, name, None)
        if value is not None and not (type(value) in (int, float) and low <= value <= high):
            raise ValueError(f"{name} is {quoted(value)}; expected {low:g} to {high:g}")
        if value is not None and name in WHOLE and type(value) is not int:
            raise ValueError(f"{name} is {quoted(value)}; expected a whole number")
