"""What is told of source identification on one partition: rates, paired differences, rates by condition, the
confusion matrix of the kinds, which groups of cues carry the decision, and what is left where cues are missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from detector.calibration import Calibration
from detector.source.classifiers import CLASSIFIERS
from detector.source.cues import CUES, JUDGED
from detector.source.evidence import MONO, NARROW, NARROW_MONO, hidden
from detector.source.model import HUMAN, SourceModel
from detector.source.training import Partition
from eval.breakdown import BREAKDOWNS, breakdown, speaker_groups
from eval.metrics import bootstrap_interval, cllr, eer, min_cllr, percentile_interval, resampled_counts
from eval.scores import ScoreTable

DRAWS, CELL_DRAWS = 1000, 300
PERMUTATIONS = 5
CHOSEN = (
    "additive"  # what `source train` fits unless told otherwise: importance, kinds and fusion are told of it
)


def judged(
    part: Partition, models: Mapping[str, list[SourceModel]], llrs: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Everything that is told of one partition; `llrs` (n,) of every system."""
    genuine = part.cues.genuine
    groups = speaker_groups(ratio_table(part, np.zeros(len(genuine))))
    return {
        "systems": {name: rates(llr, genuine, groups) for name, llr in llrs.items()},
        "seeds": {
            name: [_eer(model.score(part.inputs(name)), genuine) for model in ones]
            for name, ones in models.items()
        },
        "differences": {
            f"{after} below {before}": paired(llrs[before], llrs[after], genuine, groups)
            for before, after in _pairs(llrs, models)
        },
        "conditions": _by_condition(part, {name: llrs[name] for name in _told(llrs)}),
        "kinds": kinds(part, models[CHOSEN][0], llrs[CHOSEN]),
        "importance": importance(part, models[CHOSEN][0]),
        "fewer_cues": fewer_cues(part, models[CHOSEN][0]),
    }


def _pairs(llrs: Mapping[str, np.ndarray], models: Mapping[str, object]) -> list[tuple[str, str]]:
    """What is compared: what ships, alone and fused, with each peer; each fusion with the detector alone."""
    fused = [name for name in llrs if name.startswith("fused")]
    peers = [name for name in llrs if name not in {*models, *fused, "detector"}]
    ours = [name for name in (CHOSEN, f"fused with {CHOSEN}") if name in llrs]
    return [(peer, name) for peer in peers for name in ours] + [("detector", name) for name in fused]


def _told(llrs: Mapping[str, np.ndarray]) -> list[str]:
    """The systems whose rates are told by condition: not every classifier, each is like what ships."""
    other = set(CLASSIFIERS) - {CHOSEN}
    return [name for name in llrs if name.removeprefix("fused with ") not in other]


def _by_condition(part: Partition, llrs: Mapping[str, np.ndarray]) -> dict[str, dict[str, list[dict]]]:
    return {
        title: {
            name: [asdict(cell) for cell in breakdown(ratio_table(part, llr), by, n=CELL_DRAWS)]
            for name, llr in llrs.items()
        }
        for title, by in BREAKDOWNS.items()
        if len(by) == 1
    }


def ratio_table(part: Partition, llr: np.ndarray) -> ScoreTable:
    recordings = part.cues.recordings
    conditions = {key: [r.conditions()[key] for r in recordings] for key in recordings[0].conditions()}
    label = np.where(part.cues.genuine, "genuine", "replay")
    return ScoreTable([r.trial_id for r in recordings], llr, llr=llr, label=label, conditions=conditions)


def _eer(scores: np.ndarray, genuine: np.ndarray) -> float:
    return eer(scores[genuine], scores[~genuine])[0]


def rates(llr: np.ndarray, genuine: np.ndarray, groups: tuple | None) -> dict[str, float]:
    """EER and Cllr with 95 % intervals, drawn by speaker where there are enough."""
    one, other = llr[genuine], llr[~genuine]
    out = {}
    for name, metric in (("eer", lambda a, b: eer(a, b)[0]), ("cllr", cllr)):
        low, high = bootstrap_interval(one, other, metric, n=DRAWS, groups=groups)
        out |= {name: metric(one, other), f"{name}_low": low, f"{name}_high": high}
    return out


def paired(before: np.ndarray, after: np.ndarray, genuine: np.ndarray, groups: tuple | None) -> dict:
    """How much lower the EER is after than before, with the interval of the difference on the same draws; and the
    least Cllr likewise, which asks at all thresholds and not at one, and of which calibration is no part."""
    pairs = [(x[genuine], x[~genuine]) for x in (before, after)]
    draws = resampled_counts(int(genuine.sum()), int((~genuine).sum()), n=DRAWS, groups=groups)
    gains = np.array(
        [_gains([(np.repeat(a, own), np.repeat(b, other)) for a, b in pairs]) for own, other in draws]
    )
    out: dict[str, float | bool] = {}
    for prefix, gain, ones in zip(("", "min_cllr_"), _gains(pairs), gains.T, strict=True):
        low, high = map(float, percentile_interval(ones))
        told = {"gain": gain, "low": low, "high": high, "excludes_zero": low > 0}
        out |= {prefix + name: value for name, value in told.items()}
    return out


def _gains(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """How much lower EER and least Cllr are in the second (genuine, replayed) pair of scores than in the first."""
    (first, least_first), (second, least_second) = ((eer(a, b)[0], min_cllr(a, b)) for a, b in pairs)
    return first - second, least_first - least_second


def kinds(part: Partition, model: SourceModel, llr: np.ndarray) -> dict[str, Any]:
    """Accuracy at equal priors of person and device, and the confusion matrix (counts). First it is said whether it
    is a person (llr >= 0), then which kind of device it is: the likeliest of all kinds would nearly always be a
    person, because the devices share their probability among them."""
    shares = model.kinds(part.inputs(CHOSEN), np.zeros(len(llr)))
    names = list(shares)
    devices = [name for name in names if name != HUMAN]
    likeliest = np.array(devices)[np.stack([shares[name] for name in devices]).argmax(axis=0)]
    said = np.where(llr >= 0, HUMAN, likeliest)
    synthetic = part.cues.synthetic & ~part.cues.genuine
    true = np.where(synthetic, np.char.add("tts-", part.cues.family), part.cues.family)
    device = ~part.cues.genuine & (said != HUMAN)
    families = [np.array([word.removeprefix("tts-") for word in ones[device]]) for ones in (said, true)]
    truths = names + sorted(set(true) - set(names))  # kinds too rare in training are never said
    matrix = [[int(((true == t) & (said == s)).sum()) for s in names] for t in truths]
    recalls = [row[i] / sum(row) if i < len(names) else 0.0 for i, row in enumerate(matrix) if sum(row)]
    given = {name: shares[name] + shares[f"tts-{name}"] for name in model.families}
    likeliest = np.array(list(given))[np.stack(list(given.values())).argmax(axis=0)]
    return {
        "names": names,
        "true": truths,
        "confusion": matrix,
        "accuracy": float((said == true).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "chance": 1 / max(1, len(recalls)),
        "family_accuracy_of_devices": float((likeliest == part.cues.family)[~part.cues.genuine].mean()),
        "family_accuracy_of_devices_found": float((families[0] == families[1]).mean())
        if device.any()
        else None,
        "family_chance": max(
            float((part.cues.family[~part.cues.genuine] == f).mean()) for f in model.families
        ),
    }


def importance(part: Partition, model: SourceModel) -> dict[str, float]:
    """By how much the EER rises when a group of cues is shuffled over the recordings, mean over five orders."""
    inputs, genuine = part.inputs(CHOSEN), part.cues.genuine
    base, rng = _eer(model.score(inputs), genuine), np.random.default_rng(0)
    rises = {}
    for group in dict.fromkeys(CUES[name].group for name in JUDGED):
        columns = [i for i, name in enumerate(JUDGED) if CUES[name].group == group]
        rise = 0.0
        for _ in range(PERMUTATIONS):
            shuffled = inputs.copy()
            shuffled[:, columns] = inputs[rng.permutation(len(inputs))][:, columns]
            rise += _eer(model.score(shuffled), genuine) - base
        rises[group] = rise / PERMUTATIONS
    return dict(sorted(rises.items(), key=lambda item: -item[1]))


def fewer_cues(part: Partition, model: SourceModel) -> dict[str, dict[str, float]]:
    """What is left where cues cannot be had: in a narrow band, with one microphone, with groups hidden at random.

    `shift` is by how much the mean ratio of all trials moves towards people (nats): no gain for an attacker.
    """
    inputs, genuine, rng = part.inputs(CHOSEN), part.cues.genuine, np.random.default_rng(0)
    whole = model.calibration.llr(model.score(inputs))
    groups = np.array([CUES[name].group for name in JUDGED])
    found = {name: hidden(inputs, JUDGED, name) for name in (NARROW, MONO, NARROW_MONO)}
    for share in (0.2, 0.5):
        absent = {group: rng.random(len(inputs)) < share for group in dict.fromkeys(groups)}
        away = np.stack([absent[group] for group in groups], axis=1)
        found[f"{share:.0%} of the groups hidden"] = np.where(away, np.float32(np.nan), inputs)
    out = {}
    for name, values in found.items():
        fitted = model.run["calibration_of"].get(name)
        calibration = model.calibration if fitted is None else Calibration(**fitted)
        llr = calibration.llr(model.score(values))
        accepted = llr >= model.run["threshold"]["llr"]
        out[name] = {
            "eer": _eer(llr, genuine),
            "shift": float(llr.mean() - whole.mean()),
            "p_fa": float(accepted[~genuine].mean()),
            "p_miss": float(1 - accepted[genuine].mean()),
        }
    return out
