"""What drove a decision: the spectrum, space, movement or the pauses, each with its exact share and a fact.

The compact detector decides by planes of band and frame (`detector.frontends.planes`). They are parted so:

- spectral: the level of the speech, by band and moment;
- spatial: in the speech, how far one wave explains all microphones, what is left beside it, how their levels
  differ, and how well the moments agree with the command's own direction on the whole;
- movement: how that agreement changes from moment to moment. A source that moves changes it; so do echoes and
  noise, which no plane tells from movement;
- silence: everything in the pauses.

A group is taken away by setting it to the average command's (`detector.neutral`), with this recording's own course
of speech and pauses. The contributions are Shapley values over all subsets of the groups, which is exact for four:
they sum to the recording's value less that of the average command.
Shapes: C planes, K bands, N frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from math import factorial
from typing import TYPE_CHECKING, Any

import numpy as np

from detector.frontends.portable import BAND_HZ, SCALE, SHIFT
from detector.frontends.portable import planes as portable_planes
from detector.neutral import (
    COUNT,
    DB,
    LEVEL,
    MATCH,
    PRINCIPAL,
    SECOND,
    SPREAD,
    Average,
    gap_db,
    neutral,
    spoken,
    wander_db,
)
from remasc.audio import resample

if TYPE_CHECKING:
    from detector.score import Detector, Judgement

GROUPS = ("spectral", "spatial", "movement", "silence")
FRAME_SECONDS = 0.02
REGIONS_HZ = (60, 250, 1000, 3000, 7200)  # what a person looks at in a spectrum
UNDEFINED = {
    "spatial": "one microphone hears nothing of space",
    "movement": "one microphone hears no movement",
    "silence": "no pause that is clearly softer than the speech",
}


@dataclass(frozen=True)
class Contribution:
    """`part` is what the group adds, in `Explanation.unit`: above zero it speaks for a person. It is 0 where the
    recording holds nothing of the group (`defined` is False). `facts` are the measured numbers of the sentence."""

    group: str
    part: float
    sentence: str
    facts: dict[str, float]
    defined: bool = True


@dataclass(frozen=True)
class Explanation:
    """`reference + sum of all parts = value`, the recording's llr where the detector is calibrated, else its score
    (`unit` says which); accepted from `threshold` on, in the same unit. Without contributions where the recording
    could not be judged: `reason` and `detail` say why."""

    decision: str
    reason: str
    detail: str
    unit: str
    value: float | None
    threshold: float | None
    reference: float | None
    reference_source: str
    contributions: tuple[Contribution, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        return asdict(self) | {"contributions": [asdict(part) for part in self.contributions]}


def explain(
    detector: Detector,
    judged: Judgement,
    waveform: np.ndarray,
    sample_rate: int,
    threshold: float | None,
    slope: float = 1.0,
    offset: float = 0.0,
) -> Explanation:
    """Why the detector judged (M, T) samples as it did; `judged` is its judgement of them at the score
    `threshold`, made of `slope` times its network's score plus `offset`.

    ValueError for a detector that does not hear the planes.
    """
    if detector.specification.system != "compact":
        raise ValueError(
            f"a detector of the system {detector.specification.system} hears spectrum and space as one and cannot "
            "tell what drove it; explanations are of compact detectors"
        )
    calibration = detector.calibration
    unit = "score" if calibration is None else "llr"

    def told(score: float | None) -> float | None:
        return score if score is None or calibration is None else float(calibration.llr(score))

    said = (judged.decision, judged.reason, judged.detail, unit, told(judged.score), told(threshold))
    if judged.score is None or judged.reason not in ("", "no-threshold"):
        return Explanation(*said, None, neutral().source, ())
    planes, score_of = _ears(detector, waveform, sample_rate)
    mics = len(waveform)
    average, speech = neutral().of(mics), spoken(planes)
    parts, reference = shares(planes, speech, average, score_of)
    scale = slope * (1.0 if calibration is None else calibration.slope)
    contributions = tuple(
        _contribution(group, scale * parts.get(group, 0.0), group in parts, planes, speech, average, mics)
        for group in GROUPS
    )
    return Explanation(*said, told(slope * reference + offset), neutral().source, contributions)


def shares(
    planes: np.ndarray, speech: np.ndarray, average: Average, score_of: Callable[[np.ndarray], float]
) -> tuple[dict[str, float], float]:
    """Shapley values of the groups that the planes (C, K, N) hold, and the score of the average command.

    `speech` (N,) says which frames are speech; `score_of` gives the score of planes.
    """
    held = tuple(group for group in GROUPS if _holds(group, planes, speech))
    scores = {
        kept: score_of(with_groups(planes, speech, average, kept))
        for size in range(len(held) + 1)
        for kept in combinations(held, size)
    }
    count, parts = len(held), dict.fromkeys(held, 0.0)
    for kept, score in scores.items():
        for group in held:
            without = tuple(name for name in kept if name != group)
            if group in kept:
                weight = factorial(len(without)) * factorial(count - len(kept)) / factorial(count)
                parts[group] += weight * (score - scores[without])
    return parts, scores[()]


def with_groups(
    planes: np.ndarray, speech: np.ndarray, average: Average, kept: tuple[str, ...]
) -> np.ndarray:
    """Planes (C, K, N) in which every group but the kept ones is the average command's."""
    out = planes.copy()
    if "silence" not in kept:
        out[:COUNT, :, ~speech] = average.pause[..., None]
    if "spectral" not in kept:
        out[LEVEL][:, speech] = average.speech[LEVEL][:, None]
    if planes[COUNT].max() > 0:
        match = planes[MATCH][:, speech]
        middle = match.mean(axis=1, keepdims=True)
        if "spatial" not in kept:
            for plane in (PRINCIPAL, SECOND, SPREAD):
                out[plane][:, speech] = average.speech[plane][:, None]
            out[MATCH][:, speech] = average.speech[MATCH][:, None] + (match - middle)
        if "movement" not in kept:
            out[MATCH][:, speech] -= match - middle
    else:
        out[PRINCIPAL:COUNT] = 0
    return out


def _holds(group: str, planes: np.ndarray, speech: np.ndarray) -> bool:
    if group in ("spatial", "movement"):
        return bool(planes[COUNT].max() > 0)
    return group == "spectral" or not speech.all()


def _ears(
    detector: Detector, waveform: np.ndarray, sample_rate: int
) -> tuple[np.ndarray, Callable[[np.ndarray], float]]:
    """The planes (C, K, N) that the detector hears, and its score of any such planes."""
    waveform = np.ascontiguousarray(resample(waveform, sample_rate, detector.specification.sample_rate))
    if hasattr(detector, "session"):  # an export: judged without torch
        return portable_planes(waveform, detector.planes), lambda planes: detector.stream().feed(planes)
    import torch

    network = detector.network
    device = next(network.parameters()).device

    @torch.inference_mode()
    def score_of_network(planes: np.ndarray) -> float:
        logits = network.logits(torch.from_numpy(planes)[None].to(device))
        return float(logits[0, 0] - logits[0, 1])

    with torch.inference_mode():
        heard = network.prepare(torch.from_numpy(waveform)[None].to(device))[0].cpu().numpy()
    return heard, score_of_network


def _contribution(
    group: str,
    part: float,
    defined: bool,
    planes: np.ndarray,
    speech: np.ndarray,
    average: Average,
    mics: int,
) -> Contribution:
    if not defined:
        return Contribution(group, 0.0, UNDEFINED[group], {}, False)
    sentence, facts = FACTS[group](planes, speech, average, mics)
    return Contribution(group, part, sentence, {name: round(fact, 3) for name, fact in facts.items()})


Fact = tuple[str, dict[str, float]]


def _spectral(planes: np.ndarray, speech: np.ndarray, average: Average, mics: int) -> Fact:
    """The region of the spectrum in which the speech differs most from an average command's."""
    level = DB * SCALE[LEVEL] * planes[LEVEL][:, speech].mean(axis=1)
    usual = DB * SCALE[LEVEL] * average.speech[LEVEL].astype(np.float64)
    difference = (level - level.mean()) - (usual - usual.mean())
    centres = _centres(len(level))
    means = [difference[(centres >= a) & (centres < b)].mean() for a, b in _regions()]
    most = int(np.abs(means).argmax())
    low, high = _regions()[most]
    facts = {"from_hz": low, "to_hz": high, "difference_db": means[most]}
    side = "above" if means[most] > 0 else "below"
    return (
        f"its speech lies {abs(means[most]):.1f} dB {side} an average command's at {low} to {high} Hz, all bands "
        "counting alike"
    ), facts


def _spatial(planes: np.ndarray, speech: np.ndarray, average: Average, mics: int) -> Fact:
    """How much of the power one wave explains while somebody speaks."""
    share = _mean_share(planes[PRINCIPAL][:, speech].mean(), PRINCIPAL)
    usual = _mean_share(average.speech[PRINCIPAL].mean(), PRINCIPAL)
    facts = {"one_wave": share, "usual": usual, "microphones": mics}
    return (
        f"in the speech one wave carries {share:.0%} of the power at {mics} microphones (an average command "
        f"{usual:.0%})"
    ), facts


def _movement(planes: np.ndarray, speech: np.ndarray, average: Average, mics: int) -> Fact:
    """How much the agreement with the own direction varies."""
    found = wander_db(planes, speech)
    return (
        f"the share of sound from the command's own direction varies by {found:.1f} dB while it is spoken (an "
        f"average command {average.wander_db:.1f} dB)"
    ), {"varies_db": found, "usual_db": average.wander_db}


def _silence(planes: np.ndarray, speech: np.ndarray, average: Average, mics: int) -> Fact:
    """How long and how deep the pauses are."""
    found, seconds = gap_db(planes, speech), FRAME_SECONDS * float((~speech).sum())
    whole = FRAME_SECONDS * len(speech)
    return (
        f"{seconds:.1f} of {whole:.1f} s are pauses, {found:.0f} dB below the speech (an average command "
        f"{average.gap_db:.0f} dB)"
    ), {"pause_seconds": seconds, "seconds": whole, "below_db": found, "usual_db": average.gap_db}


FACTS: Mapping[str, Callable[..., Fact]] = {
    "spectral": _spectral,
    "spatial": _spatial,
    "movement": _movement,
    "silence": _silence,
}


def _mean_share(normed: float, plane: int) -> float:
    """The geometric mean of a share of power, of its plane's mean as the network hears it."""
    return float(np.exp(normed * SCALE[plane] + SHIFT[plane]))


def _regions() -> list[tuple[int, int]]:
    return list(pairwise(REGIONS_HZ))


def _centres(bands: int) -> np.ndarray:
    """Centre frequencies (K,) in Hz of the mel bands."""
    low, high = 2595 * np.log10(1 + np.array(BAND_HZ) / 700)
    return 700 * (10 ** (np.linspace(low, high, bands + 2)[1:-1] / 2595) - 1)
