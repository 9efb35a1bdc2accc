"""A trained detector, ready to judge: recordings in, scores and decisions out.

Polarity: a higher score means more genuine. A recording is accepted when `score >= threshold` and nothing kept
the detector from judging it; everything else is not accepted (fail closed).
Waveforms are (M, T) float32, full scale = 1.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from detector import quality
from detector.calibration import Calibration, probability
from detector.systems import Specification, build_network
from remasc import MicArray, get_array, read_audio
from remasc.audio import resample
from remasc.sentences import counted, quoted, reason

if TYPE_CHECKING:
    import torch  # imported when a checkpoint is loaded: an exported detector judges without it

    from detector.adapted import OwnScores
    from detector.explain import Explanation

BUNDLED = Path(__file__).parent / "bundled"


@dataclass(frozen=True)
class Judgement:
    """What is said of one recording. `decision` is "genuine", "replay" or "undecided"; only the first accepts.

    `score` is None where there was nothing to score; `llr` is None without calibration, and `probability` also
    where nothing was decided: silence has a score, but no chance of being a person. `reason` is empty or a word
    of `quality.REASONS` that says why it could not be decided; `detail` says it in a sentence.
    """

    trial: str
    score: float | None
    llr: float | None
    probability: float | None
    decision: str
    reason: str = ""
    detail: str = ""

    @property
    def accepted(self) -> bool:
        return self.decision == "genuine"

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class Detector:
    """A network with its specification, its calibration and its threshold.

    `threshold` applies to scores. `specification` says which rate and arrays the network takes; a recording
    outside of it is refused with a ValueError. `own` is of the arrays that it was adapted to, by their names.
    """

    own: Mapping[str, OwnScores] = MappingProxyType({})

    def __init__(self, network: torch.nn.Module, config: dict, run: dict):
        self.network = network.eval()
        self.config, self.run = config, run
        self.specification: Specification = Specification.from_dict(config["specification"])
        calibration = run.get("calibration")
        self.calibration = None if calibration is None else Calibration(**calibration)
        self.threshold = _threshold(run.get("threshold"))

    def score(self, waveform: np.ndarray, sample_rate: int, array: MicArray | str | None = None) -> float:
        """Score of (M, T) samples recorded at `sample_rate` Hz; higher = more genuine.

        `array` is a MicArray, a name or an array file; None stands for an array that is not known, where the
        detector does not need it. Raises ValueError on samples that are not finite, an empty waveform, a
        channel count that is not the array's, or an array the detector was not made for. Says nothing of
        quality: `judge` does.
        """
        array = get_array(array) if isinstance(array, str | Path) else array
        checked, own = self._checked(waveform, sample_rate, array), self._own(array)
        score = float(((own and own.detector) or self)._logit(checked, sample_rate))
        if own is not None:
            score = own.slope * score + own.offset
        if not math.isfinite(score):
            raise ValueError(
                f"the detector's score is {score}, no number to decide by; its weights are damaged, copy it anew"
            )
        return score

    def llr(self, waveform: np.ndarray, sample_rate: int, array: MicArray | str | None = None) -> float:
        """Calibrated natural-log likelihood ratio of genuine against replay; ValueError where not calibrated."""
        if self.calibration is None:
            raise ValueError(
                "this detector was never calibrated, so it has scores but no likelihood ratios; train it with "
                "`replayguard train`, which calibrates on dev"
            )
        return float(self.calibration.llr(self.score(waveform, sample_rate, array)))

    def judge(
        self,
        waveform: np.ndarray,
        sample_rate: int,
        array: MicArray | str | None = None,
        *,
        trial: str = "",
        prior: float = 0.5,
        threshold: float | None = None,
    ) -> Judgement:
        """Score, calibrated probability at `prior`, and the decision at `threshold` (default: the shipped one)."""
        array = get_array(array) if isinstance(array, str | Path) else array
        threshold = self.threshold if threshold is None else threshold
        waveform = _samples(waveform)
        reason = self._fault(waveform, sample_rate, array.num_mics if array else None) or ""
        if reason == "channels":
            detail = f"{counted(len(waveform), 'channel')}, but the array {array.name} has {array.num_mics}"
            return Judgement(trial, None, None, None, "undecided", reason, detail)
        heard = waveform[:, : int((self.specification.seconds or quality.MAX_SECONDS) * sample_rate)]
        if heard.shape[1] < waveform.shape[1]:  # what follows says nothing of what is heard
            reason = reason or quality.fault(heard, sample_rate) or ""
        score = self.score(waveform[:, : int(quality.MAX_SECONDS * sample_rate)], sample_rate, array)
        llr = None if self.calibration is None else float(self.calibration.llr(score))
        if reason or threshold is None:
            reason = reason or "no-threshold"
            return Judgement(trial, score, llr, None, "undecided", reason, quality.REASONS[reason])
        decision = "genuine" if score >= threshold else "replay"
        return Judgement(trial, score, llr, None if llr is None else probability(llr, prior), decision)

    def judge_file(self, path: str | Path, array: MicArray | str | None = None, **options) -> Judgement:
        """`judge` for a sound file; a file that cannot be read is undecided, with the sentence that says why."""
        trial = options.pop("trial", str(path))
        try:
            waveform, sample_rate = read_audio(path, seconds=quality.MAX_SECONDS + 1)
            return self.judge(waveform, sample_rate, array, trial=trial, **options)
        except (ValueError, OSError) as error:
            detail = (error.strerror if isinstance(error, OSError) else None) or str(error)
            return Judgement(trial, None, None, None, "undecided", "unreadable", detail)

    def explain(
        self, waveform: np.ndarray, sample_rate: int, array: MicArray | str | None = None, **options
    ) -> Explanation:
        """What drove the judgement: spectrum, space, movement and silence, each with its share and a sentence.

        `options` are those of `judge`. What cannot be judged is not explained: the explanation says why.
        """
        from detector.explain import explain

        array = get_array(array) if isinstance(array, str | Path) else array
        judged, own = self.judge(waveform, sample_rate, array, **options), self._own(array)
        heard = _samples(waveform)[:, : int(quality.MAX_SECONDS * sample_rate)]
        threshold = self.threshold if options.get("threshold") is None else options["threshold"]
        if own is None:
            return explain(self, judged, heard, sample_rate, threshold)
        return explain(own.detector or self, judged, heard, sample_rate, threshold, own.slope, own.offset)

    def weights(self) -> Iterator[tuple[str, bytes]]:
        """What it learnt, by name: detectors are one where these, their config and their run are."""
        for name, tensor in sorted(self.network.state_dict().items()):
            yield name, tensor.cpu().numpy().tobytes()

    def _own(self, array: MicArray | None) -> OwnScores | None:
        return None if array is None else self.own.get(array.name)

    def _checked(self, waveform: np.ndarray, sample_rate: int, array: MicArray | str | None) -> np.ndarray:
        waveform = _samples(waveform)
        if not np.isfinite(waveform).all():
            raise ValueError("the waveform holds NaN or infinite samples; expected finite ones in [-1, 1]")
        if not isinstance(sample_rate, Real) or not 4000 <= sample_rate <= 384000:
            raise ValueError(f"the sample rate is {quoted(sample_rate)}; expected 4000 to 384000 Hz")
        array = get_array(array) if isinstance(array, str | Path) else array
        if array is not None and array.num_mics != len(waveform):
            raise ValueError(
                f"the recording has {len(waveform)} channels but the array {array.name} has "
                f"{array.num_mics} microphones; name the array that recorded it, or pick its channels"
            )
        self.specification.check(len(waveform), array)
        return waveform

    def _fault(self, waveform: np.ndarray, sample_rate: int, num_mics: int | None) -> str | None:
        return quality.fault(waveform, sample_rate, num_mics)

    def _logit(self, waveform: np.ndarray, sample_rate: int) -> float:
        import torch

        waveform = resample(waveform, sample_rate, self.specification.sample_rate)
        x = torch.from_numpy(self.specification.channels_of(np.ascontiguousarray(waveform)))
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            return float(self.network(x[None].to(device))[0])


def _samples(waveform: np.ndarray) -> np.ndarray:
    """(M, T) float32; ValueError on any other shape."""
    if hasattr(waveform, "detach"):  # a tensor
        waveform = waveform.detach().cpu().numpy()
    if np.iscomplexobj(waveform):
        raise ValueError("the waveform holds complex numbers; expected real samples in [-1, 1]")
    waveform = np.array(waveform, dtype=np.float32)  # a copy: the caller's may be read-only
    if waveform.ndim != 2 or waveform.size == 0:
        raise ValueError(
            f"the waveform has shape {waveform.shape}; expected (microphones, samples), neither empty"
        )
    return waveform


def load(path_or_name: str | Path = "default", *, device: str = "cpu") -> Detector:
    """A detector by its bundled name ("default"), from a checkpoint folder or from the folder of an export.

    Raises ValueError with one sentence where the name is unknown or the folder does not hold a sound checkpoint.
    """
    folder, names = Path(path_or_name), bundled_names()
    if str(path_or_name) in names:  # first: a folder of that name must not take its place
        folder = BUNDLED / str(path_or_name)
    elif not folder.is_dir():
        close = difflib.get_close_matches(str(path_or_name), names, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(
            f"no detector {str(path_or_name)!r}{hint}; expected a bundled one ({', '.join(names)}) or the "
            "folder of a checkpoint"
        )
    from detector.adapted import open_arrays
    from detector.runtime import is_exported, open_exported

    if is_exported(folder):
        exported = open_exported(folder)
        exported.own = open_arrays(exported, folder)
        return exported
    from detector.checkpoint import load_checkpoint

    config, state, run = load_checkpoint(folder)
    try:
        detector = Detector(_network(config, state), config, run)
        detector.own = open_arrays(detector, folder)
    except (KeyError, TypeError, RuntimeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{folder}: the checkpoint does not fit its own config ({type(error).__name__}: {reason(error)}); it "
            "was damaged or written by another version, copy it anew"
        ) from None
    for one in (detector, *(own.detector for own in detector.own.values() if own.detector)):
        one.network.to(device)
    return detector


def _network(config: dict, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The network of a config with these weights; nothing is allocated on the config's word alone."""
    import torch

    with torch.device("meta"):
        promised = build_network(config).state_dict()
    for name in promised.keys() | state.keys():
        one, other = promised.get(name), state.get(name)
        if one is None or other is None or (one.shape, one.dtype) != (other.shape, other.dtype):
            raise ValueError(f"the weights {quoted(name)} are missing, of another shape, or too many")
        if other.is_floating_point() and not torch.isfinite(other).all():
            raise ValueError(f"the weights {quoted(name)} are not finite")
    network = build_network(config)
    network.load_state_dict(state)
    return network


def _threshold(stated: object) -> float | None:
    """The score to accept at, from what run.json says of the threshold: {"score", "p_fa"} or null."""
    if stated is None:
        return None
    numbers = [stated.get(name) for name in ("score", "p_fa")] if isinstance(stated, dict) else [None]
    plain = all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < 1e100 for n in numbers)
    if not plain or not 0 <= numbers[1] < 1:
        raise ValueError(f"its threshold is {quoted(stated)}; expected a finite score and a p_fa below 1")
    return float(numbers[0])


def bundled_names() -> list[str]:
    return (
        sorted(p.name for p in BUNDLED.iterdir() if (p / "config.json").is_file()) if BUNDLED.is_dir() else []
    )
