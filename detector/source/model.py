"""A trained source model: recordings in; human or device, which kind, and why, out.

Polarity: a higher score, part or llr speaks for a person. What cannot be judged is undecided, never human.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detector import quality
from detector.calibration import Calibration, probability
from detector.checkpoint import load_checkpoint, save_checkpoint
from detector.score import Detector
from detector.source.backbone import check_same, heard
from detector.source.classifiers import CLASSIFIERS, Classifier
from detector.source.cues import CUES, VERSION, cues_of
from detector.source.evidence import NARROW_RATE, REASONS, WIDE, condition_of
from detector.source.evidence import fault as fault_of_cues
from detector.source.explain import Explanation, explanation, unjudged
from detector.source.fusion import Fusion
from detector.source.shares import Shares
from remasc import MicArray, get_array, read_audio
from remasc.audio import resample
from remasc.sentences import counted, quoted, reason

BUNDLED = Path(__file__).parent.parent / "bundled" / "source"
SOURCE, FAMILY, SYNTHETIC = "source", "family", "synthetic"
HUMAN, DEVICE, UNDECIDED = "human", "device", "undecided"
NARROW_NOTE = "narrow-band: judged by the cues below 3.6 kHz alone, without the replay detector"


@dataclass(frozen=True)
class SourceJudgement:
    """What is said of one recording. `decision` is "human", "device" or "undecided"; only the first accepts.

    `score` and `llr` are those of the cues; `detector_llr` the replay detector's and `fused_llr` both together,
    None where it was not asked. `probability` (of a person) and `decision` follow `fused_llr` where there is one.
    "device" says that it was not accepted: the ratio lies below `threshold`, and a person may still be likelier.
    `kinds` are probabilities that sum to one; `kind` is the likeliest that agrees with the decision;
    `kinds_if_device` are those of devices alone, given that it is one. `detail` says why nothing was decided, or
    what a decision was made without.
    """

    trial: str
    score: float | None = None
    llr: float | None = None
    detector_llr: float | None = None
    fused_llr: float | None = None
    probability: float | None = None
    decision: str = UNDECIDED
    reason: str = ""
    detail: str = ""
    kind: str = ""
    kinds: dict[str, float] = field(default_factory=dict)
    threshold: float | None = None
    kinds_if_device: dict[str, float] = field(default_factory=dict)
    explanation: Explanation | None = None

    @property
    def decisive_llr(self) -> float | None:
        """The ratio that is held against the threshold."""
        return self.llr if self.fused_llr is None else self.fused_llr

    @property
    def accepted(self) -> bool | None:
        """Whether it passes as a person; None where nothing was decided."""
        return {HUMAN: True, DEVICE: False}.get(self.decision)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        return asdict(self) | {
            "accepted": self.accepted,
            "explanation": self.explanation and self.explanation.as_dict(),
        }


@dataclass(frozen=True, eq=False)
class SourceModel:
    """Heads over cues (or over embeddings): `source` tells a person from a device, `family` the device's kind,
    `synthetic` whether the voice was synthesised. `config` and `run` are what lies in its folder."""

    heads: dict[str, Classifier]
    human: np.ndarray  # (C, 3) percentiles of the people in training
    config: dict[str, Any]
    run: dict[str, Any]

    @property
    def cues(self) -> tuple[str, ...]:
        return tuple(self.config["cues"])

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(self.config["families"])

    @property
    def reads_embeddings(self) -> bool:
        return self.config["classifier"] == "neural"

    @property
    def calibration(self) -> Calibration:
        """Of whole recordings: several microphones, up to 7.2 kHz."""
        return Calibration(**self.run["calibration"])

    def calibration_of(self, values: np.ndarray) -> Calibration:
        """Of recordings of which the same can be heard as of these inputs (C,)."""
        condition = WIDE if self.reads_embeddings else condition_of(values, self.cues)
        return self.calibration if condition == WIDE else Calibration(**self.run["calibration_of"][condition])

    @property
    def fusion(self) -> Fusion | None:
        stored = self.run.get("fusion")
        return None if stored is None else Fusion(**stored["llr"])

    def score(self, values: np.ndarray) -> np.ndarray:
        """Scores (n,) of cues (n, C) in the order of `cues` (or of embeddings); higher = more human."""
        return self.heads[SOURCE].logits(values)[:, 0]

    def kinds(self, values: np.ndarray, human: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities (n,) of each kind, given that of a person (n,): the device's family, and apart from it
        whether the voice was synthesised ("tts-phone" is synthetic speech from a phone)."""
        logits = both_logits(self.heads[FAMILY].logits(values))
        family = Shares(**self.run["family_shares"])(logits) * (1 - human)[:, None]
        synthetic = np.zeros(len(family))
        if SYNTHETIC in self.heads:
            llr = Calibration(**self.run["synthetic_calibration"]).llr(
                self.heads[SYNTHETIC].logits(values)[:, 0]
            )
            share = self.run["synthetic_share"]
            synthetic = 1 / (1 + np.exp(-np.clip(llr + np.log(share / (1 - share)), -500, 500)))
        out = {HUMAN: human}
        for i, name in enumerate(self.families):
            out[name] = family[:, i] * (1 - synthetic)
            out[f"tts-{name}"] = family[:, i] * synthetic
        return out

    def explain(self, values: np.ndarray, most: int | None = 5) -> Explanation | None:
        """Why the cues (C,) have their log-likelihood ratio; None of a classifier that reads no cues."""
        if self.reads_embeddings:
            return None
        head, calibration = self.heads[SOURCE], self.calibration_of(values)
        parts = calibration.slope * head.parts(values)[:, 0]
        llr = float(calibration.llr(self.score(values[None])[0]))
        return explanation(self.cues, values, parts, llr - float(parts.sum()), self.human, head.exact, most)

    def judge(
        self,
        waveform: np.ndarray,
        sample_rate: int,
        array: MicArray | str | None = None,
        *,
        trial: str = "",
        prior: float = 0.5,
        detector: Detector | None = None,
        most: int | None = 5,
    ) -> SourceJudgement:
        """Judge (M, T) samples at `sample_rate` Hz; with a `detector`, by both. `most` reasons are told."""
        array = get_array(array) if array is not None and not isinstance(array, MicArray) else array
        waveform = np.asarray(waveform, np.float32)
        if waveform.ndim != 2 or waveform.size == 0:
            raise ValueError(
                f"the waveform has shape {waveform.shape}; expected (microphones, samples), neither empty"
            )
        fault = quality.fault(waveform, sample_rate, array.num_mics if array else None) or ""
        if fault == "channels":
            detail = f"{counted(len(waveform), 'channel')}, but the array {array.name} has {array.num_mics}"
            return SourceJudgement(trial, reason=fault, detail=detail)
        if self.reads_embeddings and detector is None:
            raise ValueError("this source model reads a replay detector's embedding; name it with --detector")
        note = ""
        if fault == "narrow-band" and sample_rate >= NARROW_RATE and not self.reads_embeddings:
            long = (
                waveform.shape[1] > quality.MAX_SECONDS * sample_rate
            )  # the check that would have come next
            waveform, sample_rate = resample(waveform, sample_rate, NARROW_RATE), NARROW_RATE
            fault, note, detector = "too-long" if long else "", NARROW_NOTE, None
        cues = cues_of(waveform, sample_rate, array)
        values = measured = np.array([cues[name] for name in self.cues], np.float32)
        told = self.explain(values, most)
        told = told and replace(told, beside=unjudged(cues))
        detector_llr = fused = None
        if detector is not None:
            if self.fusion is not None:
                check_same(detector, self.run["fusion"]["detector"])
            embedding, score = heard(detector, waveform, sample_rate, array)
            detector_llr = None if detector.calibration is None else float(detector.calibration.llr(score))
            values = embedding if self.reads_embeddings else values
        score = float(self.score(values[None])[0])
        llr = float(self.calibration_of(values).llr(score))
        if detector_llr is not None and self.fusion is not None:
            fused = float(self.fusion(np.array([[llr, detector_llr]]))[0])
        found = SourceJudgement(trial, score, llr, detector_llr, fused, detail=note, explanation=told)
        fault = fault or fault_of_cues(measured, self.human, self.run["strangest"])
        return self._decided(found, values, fault, prior)

    def _decided(
        self, found: SourceJudgement, values: np.ndarray, fault: str, prior: float
    ) -> SourceJudgement:
        llr = found.decisive_llr
        assert llr is not None, found
        if fault:
            return replace(found, reason=fault, detail=(quality.REASONS | REASONS)[fault])
        chance = probability(llr, prior)
        devices = {name: float(p[0]) for name, p in self.kinds(values[None], np.zeros(1)).items()}
        del devices[HUMAN]
        kinds = {HUMAN: chance} | {name: (1 - chance) * p for name, p in devices.items()}
        limit = self.run["threshold"]["llr"] if found.fused_llr is None else self.run["fusion"]["threshold"]
        human = llr >= limit
        agreeing = [HUMAN] if human else list(devices)
        return replace(
            found,
            probability=chance,
            decision=HUMAN if human else DEVICE,
            kind=max(agreeing, key=kinds.__getitem__),
            kinds=kinds,
            threshold=limit,
            kinds_if_device=devices,
        )

    def judge_file(
        self, path: str | Path, array: MicArray | str | None = None, **options: Any
    ) -> SourceJudgement:
        """`judge` for a sound file; a file that cannot be read is undecided, with the sentence that says why."""
        try:
            waveform, sample_rate = read_audio(path, seconds=quality.MAX_SECONDS + 1)
        except (ValueError, OSError) as error:
            detail = (error.strerror if isinstance(error, OSError) else None) or str(error)
            return SourceJudgement(str(path), reason="unreadable", detail=detail)
        return self.judge(waveform, sample_rate, array, trial=str(path), **options)

    def save(self, folder: str | Path) -> Path:
        """Write the model whole: config.json, model.safetensors (arrays), run.json."""
        state = {"human": self.human}
        for head, classifier in self.heads.items():
            state |= {f"{head}.{name}": values for name, values in classifier.arrays().items()}
        tensors = {name: torch.from_numpy(np.array(values)) for name, values in state.items()}
        tensors["human"] = torch.nan_to_num(tensors["human"], nan=_NONE)
        return save_checkpoint(folder, tensors, self.config, self.run)


def both_logits(logits: np.ndarray) -> np.ndarray:
    """Logits (n, K) also of two classes, of which a classifier gives one."""
    return np.column_stack([np.zeros(len(logits)), logits]) if logits.shape[1] == 1 else logits


_NONE = float(np.finfo(np.float32).max)  # stands for "no person had it": a checkpoint's arrays are finite


def load_source(path_or_name: str | Path = "default") -> SourceModel:
    """A source model by its bundled name ("default") or from its folder; a ValueError says what is wrong."""
    folder, names = Path(path_or_name), bundled_sources()
    if str(path_or_name) in names:
        folder = BUNDLED / str(path_or_name)
    elif not folder.is_dir():
        raise ValueError(
            f"no source model {quoted(str(path_or_name))}; expected a bundled one ({', '.join(names) or 'none'}) "
            "or the folder of `replayguard source train`"
        )
    config, state, run = load_checkpoint(folder)
    try:
        return _rebuilt(config, state, run)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise ValueError(
            f"{folder}: no source model that this version reads ({type(error).__name__}: {reason(error)}); "
            "train it again with `replayguard source train`"
        ) from None


def _rebuilt(config: dict, state: dict[str, torch.Tensor], run: dict) -> SourceModel:
    if config["system"] != "source" or config["cues_version"] != VERSION:
        raise ValueError(f"it is of cues version {quoted(config['cues_version'])}, this is {VERSION}")
    if unknown := [name for name in config["cues"] if name not in CUES]:
        raise ValueError(f"unknown cue {quoted(unknown[0])}")
    kind, arrays = CLASSIFIERS[config["classifier"]], {}
    for name, tensor in state.items():
        head, _, part = name.partition(".")
        arrays.setdefault(head, {})[part] = tensor.numpy()
    human = arrays.pop("human")[""]
    human = np.where(human == np.float32(_NONE), np.nan, human)
    heads = {name: kind.from_arrays(parts) for name, parts in arrays.items()}
    model = SourceModel(heads, human, config, run)
    width = len(config["cues"]) if not model.reads_embeddings else int(config["embedding"])
    model.kinds(
        np.full((1, width), np.nan, np.float32), model.calibration.llr(model.score(np.zeros((1, width))))
    )
    float(run["threshold"]["llr"]), float(run["strangest"])
    for facts in run["calibration_of"].values():
        Calibration(**facts)
    return model


def bundled_sources() -> list[str]:
    return (
        sorted(p.name for p in BUNDLED.iterdir() if (p / "config.json").is_file()) if BUNDLED.is_dir() else []
    )
