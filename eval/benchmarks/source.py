"""Source identification measured: `python -m eval.benchmarks.source ROOT --out eval/results/source/open`.

Fits every classifier and the --peers (void, lfcc-gmm, cqcc-gmm, sub-bass) on train; on dev tells the EER of the
cues alone, of the peers, of the replay detector and of the fusion, with their paired differences, by condition; the
accuracy of the kinds with their confusion matrix, and which groups of cues carry the decision. With --final the
same on eval, once: a folder that holds eval figures is not scored again. Writes results.json and table.md, and with
--final the scores of each system (eval-SYSTEM/scores.tsv). What is measured or fitted is kept in --cache.

    python -m eval.benchmarks.source ROOT --out DIR --final --peers void lfcc-gmm

Run it on a closed and on an open corpus; --hold environment=vehicle (or playback_device=phone ...) leaves a
condition out of train and dev and keeps it alone on eval. --peers NAME=PATH/scores.tsv sets another system's eval
scores beside, on the same trials.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from detector.source.classifiers import CLASSIFIERS
from detector.source.cues import CUES, JUDGED
from detector.source.model import HUMAN, SourceModel
from detector.source.training import Partition, fit, measure, pick, provenance
from eval.benchmarks.source_peers import PEERS, peer_ratios
from eval.benchmarks.source_tables import markdown
from eval.breakdown import BREAKDOWNS, breakdown
from eval.metrics import bootstrap_interval, cllr, eer, percentile_interval, resampled_counts
from eval.scores import ScoreTable, read_scores, write_scores
from remasc import Corpus, Recording
from remasc.atomic import write_text
from remasc.protocol import held_out, partitions

DRAWS, CELL_DRAWS = 1000, 300
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
    peers: tuple[str, ...] = ("void",)


def main(options: Options) -> None:
    if CHOSEN not in options.classifiers or not set(options.classifiers) <= set(CLASSIFIERS):
        raise ValueError(
            f"--classifiers is {options.classifiers}; expected some of {', '.join(CLASSIFIERS)} with {CHOSEN}"
        )
    if unknown := [name for name in options.peers if "=" not in name and name not in PEERS]:
        raise ValueError(f"no peer {unknown[0]!r}; expected {', '.join(PEERS)} or NAME=PATH/scores.tsv")
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
    peers = {name: peer_ratios(name, picked, cache) for name in options.peers if "=" not in name}
    ratios = {}
    for name in [name for name in parts if name != "train"]:
        ratios[name] = {peer: found[name] for peer, found in peers.items()} | _ratios(parts[name], models)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.final:
        ratios["eval"] |= _scored_elsewhere(options.peers, parts["eval"])
        _write_scores(options.out, parts["eval"], ratios["eval"])
    for name, llrs in ratios.items():
        figures[name] = judged(parts[name], models, llrs)
    write_text(results, json.dumps(figures, indent=1) + "\n")
    write_text(options.out / "table.md", markdown(figures))
    print(markdown(figures))


def _picked(corpus: Corpus, options: Options, counts: dict[str, int]) -> dict[str, list[Recording]]:
    if not options.hold:
        return pick(corpus, options.array, counts)
    key, _, value = options.hold.partition("=")
    parts = held_out(partitions(corpus), **{key: value})
    return pick(corpus, options.array, counts, parts)


def judged(
    part: Partition, models: Mapping[str, list[SourceModel]], llrs: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Everything that is told of one partition; `llrs` (n,) of every system."""
    genuine, groups = part.cues.genuine, _speakers(part)
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
            name: [asdict(cell) for cell in breakdown(_table(part, llr), by, n=CELL_DRAWS)]
            for name, llr in llrs.items()
        }
        for title, by in BREAKDOWNS.items()
        if len(by) == 1
    }


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


def _scored_elsewhere(named: tuple[str, ...], part: Partition) -> dict[str, np.ndarray]:
    """The scores of other systems' score files, on the trials of `part` alone; llrs where they have them."""
    out = {}
    for entry in named:
        name, named_path, path = entry.partition("=")
        if not named_path:
            continue
        table = read_scores(Path(path))
        place = {trial: i for i, trial in enumerate(table.trial)}
        missing = [r.trial_id for r in part.cues.recordings if r.trial_id not in place]
        if missing:
            raise ValueError(
                f"{path}: trial {missing[0]} is not scored; a peer is compared on the same trials"
            )
        values = table.llr if table.calibrated else table.score
        out[name] = values[[place[r.trial_id] for r in part.cues.recordings]]
    return out


def _table(part: Partition, llr: np.ndarray) -> ScoreTable:
    recordings = part.cues.recordings
    conditions = {key: [r.conditions()[key] for r in recordings] for key in recordings[0].conditions()}
    label = np.where(part.cues.genuine, "genuine", "replay")
    return ScoreTable([r.trial_id for r in recordings], llr, llr=llr, label=label, conditions=conditions)


def _write_scores(out: Path, part: Partition, llrs: Mapping[str, np.ndarray]) -> None:
    for name, llr in llrs.items():
        folder = out / f"eval-{name.replace(' ', '-')}"
        folder.mkdir(exist_ok=True)
        write_scores(folder / "scores.tsv", _table(part, llr))


def _plain(options: Options) -> dict[str, Any]:
    paths = {
        "root",
        "out",
        "cache",
        "detector",
        "workers",
        "peers",
    }  # of this machine: they say nothing elsewhere
    return {name: value for name, value in vars(options).items() if name not in paths}


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError) as error:
        sys.exit(f"source: {error}")
