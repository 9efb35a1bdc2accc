"""Source identification measured: `python -m eval.benchmarks.source ROOT --out eval/results/source/open`.

Fits every classifier on train; on dev tells the EER of the cues alone, of the replay detector and of both together,
the accuracy of the kinds with their confusion matrix, and which groups of cues carry the decision. With --final
the same on eval, once: a folder that holds eval figures is not scored again. Writes results.json and table.md,
and with --final the scores of each system (eval-SYSTEM/scores.tsv). Cues are kept in --cache and measured once.

Run it on a closed and on an open corpus; --hold environment=vehicle (or playback_device=phone ...) leaves a
condition out of train and dev and keeps it alone on eval. --peers void=PATH/scores.tsv sets the figures of other
systems' eval scores beside, on the same trials.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from detector.source.classifiers import CLASSIFIERS
from detector.source.cues import CUES, JUDGED
from detector.source.model import HUMAN, SourceModel
from detector.source.training import Partition, fit, measure, pick, provenance
from eval import words
from eval.metrics import bootstrap_interval, cllr, eer, percentile_interval, resampled_counts
from eval.scores import ScoreTable, read_scores, write_scores
from remasc import Corpus, Recording
from remasc.atomic import write_text
from remasc.protocol import held_out, partitions

DRAWS = 1000
PERMUTATIONS = 5
CHOSEN = "boosting"  # what ships: importance, kinds and fusion are told of it


@dataclass(frozen=True)
class Options:
    """Fit on train, judge on dev, and with --final on eval."""

    root: Annotated[Path, tyro.conf.Positional]
    out: Path
    train: int = 4000
    dev: int = 1200
    eval: int = 0
    array: str = "all"
    detector: str = "default"
    classifiers: tuple[str, ...] = tuple(CLASSIFIERS)
    final: bool = False
    hold: str = ""
    seeds: int = 3
    cache: Path | None = None
    workers: int | None = None
    peers: tuple[str, ...] = ()


def main(options: Options) -> None:
    if CHOSEN not in options.classifiers or not set(options.classifiers) <= set(CLASSIFIERS):
        raise ValueError(
            f"--classifiers is {options.classifiers}; expected some of {', '.join(CLASSIFIERS)} with {CHOSEN}"
        )
    results = options.out / "results.json"
    if options.final and results.is_file() and "eval" in json.loads(results.read_text(encoding="utf-8")):
        raise ValueError(f"{results}: eval was scored already, and it is scored once; give another --out")
    corpus = Corpus.from_meta(options.root)
    counts = {"train": options.train, "dev": options.dev} | ({"eval": options.eval} if options.final else {})
    picked = _picked(corpus, options, counts)
    cache = options.cache or options.out / "cache"
    detector = None if options.detector == "none" else options.detector
    classifiers = [name for name in options.classifiers if detector is not None or name != "neural"]
    parts = {  # what is fitted asks the replay detector for its embeddings alone
        name: measure(
            part,
            cache,
            None if name == "train" and "neural" not in classifiers else detector,
            workers=options.workers,
        )
        for name, part in picked.items()
    }
    figures: dict[str, Any] = provenance(corpus, parts) | {"options": _plain(options)}
    models = {
        name: [fit(parts["train"], parts["dev"], name, seed=seed) for seed in range(options.seeds)]
        for name in classifiers
    }
    for name in parts.keys() - {"train"}:
        figures[name] = judged(parts[name], models)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.final:
        figures["eval"]["peers"] = _peers(options.peers, parts["eval"])
        _write_scores(options.out, parts["eval"], models)
    write_text(results, json.dumps(figures, indent=1) + "\n")
    write_text(options.out / "table.md", markdown(figures))
    print(markdown(figures))


def _picked(corpus: Corpus, options: Options, counts: dict[str, int]) -> dict[str, list[Recording]]:
    if not options.hold:
        return pick(corpus, options.array, counts)
    key, _, value = options.hold.partition("=")
    parts = held_out(partitions(corpus), **{key: value})
    return pick(corpus, options.array, counts, parts)


def judged(part: Partition, models: Mapping[str, list[SourceModel]]) -> dict[str, Any]:
    """Everything that is told of one partition."""
    genuine, chosen = part.cues.genuine, models[CHOSEN][0]
    groups = _speakers(part)
    llrs = _ratios(part, models)
    found: dict[str, Any] = {
        "systems": {name: rates(llr, genuine, groups) for name, llr in llrs.items()},
        "seeds": {
            name: [_eer(model.score(part.inputs(name)), genuine) for model in ones]
            for name, ones in models.items()
        },
        "kinds": kinds(part, chosen, llrs[CHOSEN]),
        "importance": importance(part, chosen),
    }
    for name in llrs:
        if name.startswith("fused"):
            found["systems"][name]["gain_over_detector"] = paired(
                llrs["detector"], llrs[name], genuine, groups
            )
    found["arrays"] = {
        array: {name: _eer(llr[rows], genuine[rows]) for name, llr in llrs.items()}
        for array in sorted({r.array for r in part.cues.recordings})
        if len(set(genuine[rows := np.array([r.array == array for r in part.cues.recordings])])) == 2
    }
    return found


def _ratios(part: Partition, models: Mapping[str, list[SourceModel]]) -> dict[str, np.ndarray]:
    """Calibrated ratios (n,) of every system: each classifier (first seed), the detector, and these fused."""
    out = {name: ones[0].calibration.llr(ones[0].score(part.inputs(name))) for name, ones in models.items()}
    if part.detector is None:
        return out
    out["detector"] = part.detector.llr
    for name in models:
        if name != "neural":  # it reads the detector's own embedding
            joined = models[name][0].fusion
            out[f"fused with {name}"] = joined(np.column_stack([out[name], part.detector.llr]))
    return out


def _eer(scores: np.ndarray, genuine: np.ndarray) -> float:
    return eer(scores[genuine], scores[~genuine])[0]


def _speakers(part: Partition) -> tuple[np.ndarray, np.ndarray] | None:
    """Speakers of the genuine and of the replay trials (speaker 0, synthetic speech, is many: by trial); None
    where there are too few to draw from."""
    genuine = part.cues.genuine
    names = np.array([str(r.speaker) if r.speaker else r.trial_id for r in part.cues.recordings])
    return (names[genuine], names[~genuine]) if len(set(names[genuine])) >= 10 else None


def rates(llr: np.ndarray, genuine: np.ndarray, groups: tuple | None) -> dict[str, float]:
    """EER and Cllr with 95 % intervals, drawn by speaker where there are enough."""
    one, other = llr[genuine], llr[~genuine]
    out = {}
    for name, metric in (("eer", lambda a, b: eer(a, b)[0]), ("cllr", cllr)):
        low, high = bootstrap_interval(one, other, metric, n=DRAWS, groups=groups)
        out |= {name: metric(one, other), f"{name}_low": low, f"{name}_high": high}
    return out


def paired(before: np.ndarray, after: np.ndarray, genuine: np.ndarray, groups: tuple | None) -> dict:
    """How much lower the EER is after than before, with the interval of the difference on the same draws."""
    pairs = [(x[genuine], x[~genuine]) for x in (before, after)]
    gains = np.empty(DRAWS)
    draws = resampled_counts(int(genuine.sum()), int((~genuine).sum()), n=DRAWS, groups=groups)
    for i, (own, other) in enumerate(draws):
        first, second = (eer(np.repeat(a, own), np.repeat(b, other))[0] for a, b in pairs)
        gains[i] = first - second
    low, high = percentile_interval(gains)
    gain = eer(*pairs[0])[0] - eer(*pairs[1])[0]
    return {"gain": gain, "low": float(low), "high": float(high), "excludes_zero": bool(low > 0)}


def kinds(part: Partition, model: SourceModel, llr: np.ndarray) -> dict[str, Any]:
    """Accuracy of the likeliest kind at equal priors of person and device, and the confusion matrix (counts)."""
    shares = model.kinds(part.inputs(CHOSEN), 1 / (1 + np.exp(-llr)))
    names = list(shares)
    said = np.array(names)[np.stack(list(shares.values())).argmax(axis=0)]
    synthetic = part.cues.synthetic & ~part.cues.genuine
    true = np.where(synthetic, np.char.add("tts-", part.cues.family), part.cues.family)
    device = ~part.cues.genuine & (said != HUMAN)
    families = [np.char.replace(words_[device], "tts-", "") for words_ in (said, true)]
    matrix = [[int(((true == t) & (said == s)).sum()) for s in names] for t in names]
    recalls = [row[i] / sum(row) for i, row in enumerate(matrix) if sum(row)]
    given = {name: shares[name] + shares[f"tts-{name}"] for name in model.families}
    likeliest = np.array(list(given))[np.stack(list(given.values())).argmax(axis=0)]
    return {
        "names": names,
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


def _peers(named: tuple[str, ...], part: Partition) -> dict[str, dict]:
    """The rates of other systems' score files, on the trials of `part` alone."""
    out, genuine = {}, part.cues.genuine
    for entry in named:
        name, _, path = entry.partition("=")
        table = read_scores(Path(path))
        place = {trial: i for i, trial in enumerate(table.trial)}
        missing = [r.trial_id for r in part.cues.recordings if r.trial_id not in place]
        if missing:
            raise ValueError(
                f"{path}: trial {missing[0]} is not scored; a peer is compared on the same trials"
            )
        scores = table.score[[place[r.trial_id] for r in part.cues.recordings]]
        low, high = bootstrap_interval(
            scores[genuine], scores[~genuine], lambda a, b: eer(a, b)[0], n=DRAWS, groups=_speakers(part)
        )
        out[name] = {"eer": _eer(scores, genuine), "eer_low": low, "eer_high": high}
    return out


def _write_scores(out: Path, part: Partition, models: Mapping[str, list[SourceModel]]) -> None:
    recordings = part.cues.recordings
    conditions = {key: [r.conditions()[key] for r in recordings] for key in recordings[0].conditions()}
    label = np.where(part.cues.genuine, "genuine", "replay")
    for name, llr in _ratios(part, models).items():
        folder = out / f"eval-{name.replace(' ', '-')}"
        folder.mkdir(exist_ok=True)
        table = ScoreTable([r.trial_id for r in recordings], llr, llr=llr, label=label, conditions=conditions)
        write_scores(folder / "scores.tsv", table)


def _plain(options: Options) -> dict[str, Any]:
    kept = {"train", "dev", "eval", "array", "hold", "seeds"}  # paths of this machine say nothing elsewhere
    return {name: value for name, value in vars(options).items() if name in kept}


def markdown(figures: dict[str, Any]) -> str:
    """The figures as tables."""
    tag = " (SIMULATED)" if figures["simulated"] else ""
    lines = [f"# Source identification on {figures['corpus']}{tag}", ""]
    for part in ("dev", "eval"):
        if part not in figures:
            continue
        found, trials = figures[part], figures[f"{part}_trials"]
        lines += [f"## {part}: {trials['genuine']:,} genuine, {trials['replay']:,} replayed trials", ""]
        lines += ["| system | EER | 95 % | seeds | Cllr |", "|---|---:|---:|---:|---:|"]
        for name, row in found["systems"].items():
            seeds = found["seeds"].get(name)
            spread = "" if not seeds else f"{100 * np.mean(seeds):.1f} ± {100 * np.std(seeds):.1f}"
            lines.append(
                f"| {name} | {words.rate(row['eer'])} | {words.interval(row['eer_low'], row['eer_high'])} | "
                f"{spread} | {row['cllr']:.3f} |"
            )
        for name, row in found.get("peers", {}).items():
            lines.append(
                f"| {name} | {words.rate(row['eer'])} | {words.interval(row['eer_low'], row['eer_high'])} | | |"
            )
        lines += ["", *_gains(found), *_kind_lines(found["kinds"]), ""]
        lines += ["| group of cues | EER rises by (shuffled, points) |", "|---|---:|"]
        lines += [f"| {group} | {100 * rise:+.2f} |" for group, rise in found["importance"].items()]
        lines.append("")
    note = (
        "Dev set calibration, thresholds, fusion and the classifiers' settings: its own rates are optimistic."
    )
    return "\n".join([*lines, note]) + "\n"


def _gains(found: dict[str, Any]) -> list[str]:
    lines = []
    for name, row in found["systems"].items():
        if gain := row.get("gain_over_detector"):
            lines.append(
                f"{name}: {100 * gain['gain']:+.2f} points of EER below the detector alone, 95 % "
                f"{100 * gain['low']:+.2f} to {100 * gain['high']:+.2f}."
            )
    return [*lines, ""]


def _kind_lines(found: dict[str, Any]) -> list[str]:
    names = found["names"]
    lines = [
        f"Kinds ({CHOSEN}): accuracy {words.rate(found['accuracy'])}, mean over kinds "
        f"{words.rate(found['balanced_accuracy'])} (chance {words.rate(found['chance'])}); family of the devices "
        f"{words.rate(found['family_accuracy_of_devices'])} (the commonest: {words.rate(found['family_chance'])}).",
        "",
        "| true \\ said | " + " | ".join(names) + " |",
        "|---|" + "---:|" * len(names),
    ]
    for name, row in zip(names, found["confusion"], strict=True):
        if sum(row):
            lines.append(f"| {name} | " + " | ".join(map(str, row)) + " |")
    return lines


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError) as error:
        sys.exit(f"source: {error}")
