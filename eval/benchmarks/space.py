"""Whether space tells anything in a simulated corpus: `python -m eval.benchmarks.space ROOT ... --out FOLDER`.

Four views of the same recordings, classified alike: the spectrum of channel 1 (single), the same with channel 1
repeated as every microphone (dummy), what the microphones' covariance says without the spectrum (spatial), and
both. Several ROOTs are several seeds of a recipe, or recipes that differ by one knob. Learnt on train, the
classifier and its settings chosen on dev, eval scored once. Intervals are of voices drawn again
(of trials, where these are few), the differences of the same draws.

The dummy control: where dummy gains 2 points or more on single (the upper bound), the comparison hears something
else than space. The null control is a corpus of a recipe with `null = true`: all views owe 45 to 55 %.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from detector.rundir import fingerprint
from eval.benchmarks.space_facts import KNOBS, Facts, facts_of
from eval.breakdown import MIN_TRIALS, voice_groups
from eval.metrics import eer, percentile_interval, resampled_counts
from eval.probes import NOTHING
from remasc import ARRAYS, Corpus
from remasc.atomic import write_text
from remasc.protocol import PARTITIONS

VIEWS = ("single", "dummy", "spatial", "both")
GAINS = (("single", "both"), ("dummy", "both"), ("single", "dummy"))
DRAWS = 1000


@dataclass(frozen=True)
class Space:
    """What is compared.

    Args:
        roots: Simulated corpora with train, dev and eval.
        out: Folder of table.md and table.json.
        array: Only this array; may be repeated. Default: all that are there.
        cache: Folder of what was heard of each recording; default: OUT/facts.
        workers: Processes; default: one per core.
    """

    roots: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path
    array: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    cache: Path | None = None
    workers: int | None = None


def main(options: Space) -> None:
    """Compare the views on every corpus and array, print and write the table."""
    found = []
    for root in options.roots:
        corpus = Corpus.from_meta(root)
        if not corpus.simulated:
            raise ValueError(
                f"{root}: was not simulated; space is shown on corpora of `replayguard simulate`"
            )
        present = [name for name in ARRAYS if any(r.array == name for r in corpus)]
        for array in options.array or present:
            heard = fingerprint(corpus.filter(array=array))[:16]
            kept = (options.cache or options.out / "facts") / f"{array}-{heard}.npz"
            found.append(compare(corpus.card, array, facts_of(corpus, array, kept, options.workers))[0])
            write(options.out, found)
    print((options.out / "table.md").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Trials:
    """Eval of one corpus and array: who is genuine (n,), whose voice (n,), each view's scores (n,), and what the
    scenes have of each of `KNOBS` (n, 3)."""

    truth: np.ndarray
    voice: np.ndarray
    scores: dict[str, np.ndarray]
    knobs: np.ndarray

    def where(self, kept: np.ndarray) -> Trials:
        """Those that are `kept` (n,)."""
        scores = {view: each[kept] for view, each in self.scores.items()}
        return Trials(self.truth[kept], self.voice[kept], scores, self.knobs[kept])

    def fewest(self) -> int:
        """Trials of the rarer class."""
        return int(min(self.truth.sum(), (~self.truth).sum()))


def compare(card: dict[str, Any], array: str, facts: Facts) -> tuple[dict[str, Any], Trials]:
    """The figures of one array of the corpus of a card, and what they are of."""
    part = {name: facts.partition == name for name in PARTITIONS}
    found = {
        view: strongest(
            {name: columns[rows] for name, rows in part.items()},
            {name: facts.truth[rows] for name, rows in part.items()},
        )
        for view, columns in facts.views().items()
    }
    judged = part["eval"]
    scores = {view: f.scores for view, f in found.items()}
    trials = Trials(facts.truth[judged], facts.voice[judged], scores, facts.knobs[judged])
    figures = figures_of([trials])
    for view, cell in figures["views"].items():
        cell["classifier"] = found[view].name
    return {
        "corpus": card["name"],
        "version": card["version"],
        "protocol": card["recipe"]["protocol"],
        "null": bool(card["recipe"].get("null")),
        "array": array,
        "trials": {
            name: [int((facts.truth[rows] == k).sum()) for k in (True, False)] for name, rows in part.items()
        },
        **figures,
        "knobs": thirds([trials]),
    }, trials


def figures_of(corpora: Sequence[Trials]) -> dict[str, Any]:
    """EER of each view, mean over the corpora, with its interval, and the gains with those of the same draws.

    Corpora of several seeds share their voices: a voice that is drawn is drawn in all of them.
    """
    truth = np.concatenate([each.truth for each in corpora])
    groups = voice_groups(np.concatenate([each.voice for each in corpora]), truth, ~truth)
    own_ends = np.cumsum([each.truth.sum() for each in corpora])[:-1]
    other_ends = np.cumsum([(~each.truth).sum() for each in corpora])[:-1]
    errors: dict[str, list[float]] = {view: [] for view in VIEWS}
    for own, other in resampled_counts(int(truth.sum()), int((~truth).sum()), n=DRAWS, groups=groups):
        counts = list(zip(np.split(own, own_ends), np.split(other, other_ends), strict=True))
        for view in VIEWS:
            drawn = [_error(each, view, *count) for each, count in zip(corpora, counts, strict=True)]
            errors[view].append(float(np.mean(drawn)))
    points = {view: float(np.mean([_error(each, view) for each in corpora])) for view in VIEWS}
    return {
        "views": {view: {"eer": points[view], "interval": _interval(errors[view])} for view in VIEWS},
        "gains": {
            f"{one} - {other}": {
                "points": points[one] - points[other],
                "interval": _interval(np.subtract(errors[one], errors[other])),
            }
            for one, other in GAINS
        },
        "drawn": "trials" if groups is None else "voices",
    }


def _error(trials: Trials, view: str, own: np.ndarray | int = 1, other: np.ndarray | int = 1) -> float:
    """EER of a view, each genuine trial taken `own` times and each replay `other` times."""
    scores = trials.scores[view]
    return float(eer(np.repeat(scores[trials.truth], own), np.repeat(scores[~trials.truth], other))[0])


def thirds(corpora: Sequence[Trials]) -> list[dict[str, Any]]:
    """`figures_of` the lower, middle and upper third of all corpora's eval, by what the scenes have of each knob;
    none of a third that holds fewer than `MIN_TRIALS` of a class in some corpus."""
    rows = []
    for number, knob in enumerate(KNOBS):
        had = [each.knobs[:, number] for each in corpora]
        edges = np.quantile(np.concatenate(had), [0, 1 / 3, 2 / 3, 1])
        homes = [np.digitize(own, edges[1:3]) for own in had]
        for third, (low, high) in enumerate(pairwise(edges)):
            within = [each.where(home == third) for each, home in zip(corpora, homes, strict=True)]
            if min(each.fewest() for each in within) >= MIN_TRIALS:
                count = sum(len(each.truth) for each in within)
                told = {"knob": knob, "from": float(low), "to": float(high), "trials": count}
                rows.append(told | figures_of(within))
    return rows


# ---------------------------------------------------------------- who decides


@dataclass(frozen=True)
class Found:
    """Scores (n,) of eval, higher = genuine, and the classifier that dev chose."""

    name: str
    scores: np.ndarray


def strongest(columns: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> Found:
    """The best on dev, applied to eval, of a linear discriminant, support vectors (two widths) and boosted trees.

    columns: facts (n, D) of each partition; labels: whether they are genuine (n,).
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.svm import SVC

    middle, spread = columns["train"].mean(axis=0), columns["train"].std(axis=0)
    told = spread > 1e-6
    x = {name: (rows - middle)[:, told] / spread[told] for name, rows in columns.items()}
    if not told.any():
        return Found("none", np.random.default_rng(0).standard_normal(len(x["eval"])))
    width = x["train"].shape[1]
    candidates = {
        "linear": LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
        "support vectors": SVC(C=2.0, gamma=1 / width),
        "support vectors, wide": SVC(C=2.0, gamma=0.3 / width),
        "boosted trees": HistGradientBoostingClassifier(
            max_iter=200, learning_rate=0.06, max_leaf_nodes=15, l2_regularization=1.0, random_state=0
        ),
    }
    dev = labels["dev"]

    def error(model: Any) -> float:
        scores = model.fit(x["train"], labels["train"]).decision_function(x["dev"])
        return float(eer(scores[dev], scores[~dev])[0])

    best = min(candidates, key=lambda name: error(candidates[name]))
    return Found(best, candidates[best].decision_function(x["eval"]))


def _interval(values: Any) -> list[float]:
    return [float(v) for v in percentile_interval(np.asarray(values))]


# ---------------------------------------------------------------- what is written


def write(out: Path, found: Sequence[dict[str, Any]]) -> None:
    """table.json and table.md, whole, after each array: an interrupted comparison keeps what it has."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "table.json", json.dumps(list(found), indent=1) + "\n")
    write_text(out / "table.md", markdown(found))


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """The tables, each figure with its interval."""
    lines = [
        "# What one channel, space, and both tell (simulated)",
        "",
        "EER in % on eval [95 % interval over voices, over trials where voices are few]; gains in points with the "
        "interval of the difference. Classifiers of pooled facts (linear, support vectors, boosted trees), chosen "
        "on dev: `python -m eval.benchmarks.space`.",
        "",
        "| corpus | array | eval trials | "
        + " | ".join(VIEWS)
        + " | both against single | both against dummy | "
        "dummy against single |",
        "|---|---|---|" + "---|" * (len(VIEWS) + len(GAINS)),
    ]
    for row in found:
        genuine, replay = row["trials"]["eval"]
        cells = [row["corpus"], row["array"], f"{genuine:,} + {replay:,}"]
        cells += [percent(row["views"][view]["eer"], row["views"][view]["interval"]) for view in VIEWS]
        cells += [
            percent(row["gains"][f"{a} - {b}"]["points"], row["gains"][f"{a} - {b}"]["interval"])
            for a, b in GAINS
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Controls: " + " ".join(controls(found)), ""]
    lines += thirds_table(found)
    return "\n".join(lines) + "\n"


def thirds_table(found: Sequence[dict[str, Any]]) -> list[str]:
    """By thirds of SNR, distance and RT60: the views and the gains."""
    head = [*VIEWS, *(f"{b} against {a}" for a, b in GAINS)]
    lines = ["| corpus | array | knob | from | to | trials | " + " | ".join(head) + " |"]
    lines.append("|---" * (6 + len(head)) + "|")
    for row in found:
        for third in row["knobs"]:
            cells = [row["corpus"], row["array"], third["knob"]]
            cells += [f"{third['from']:.2f}", f"{third['to']:.2f}", f"{third['trials']:,}"]
            cells += [percent(cell["eer"], cell["interval"]) for cell in third["views"].values()]
            cells += [percent(gain["points"], gain["interval"]) for gain in third["gains"].values()]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def controls(found: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence on each control: dummy's gain everywhere, the band of the views where a corpus is null."""
    out = []
    for row in found:
        where = f"{row['corpus']} {row['array']}"
        if row["null"]:
            low, high = NOTHING
            outside = [
                view
                for view, cell in row["views"].items()
                if cell["interval"][1] < low or cell["interval"][0] > high
            ]
            out.append(f"{where}: null control {'FAILS on ' + ', '.join(outside) if outside else 'holds'}.")
        else:  # where nothing tells, nothing can be gained
            bottom, top = row["gains"]["single - dummy"]["interval"]
            verdict = (
                "holds"
                if top < 0.02
                else "FAILS"
                if bottom > 0
                else "not shown to hold: the interval is wide"
            )
            out.append(f"{where}: dummy gains at most {100 * top:.1f} points ({verdict}).")
    return out


def percent(value: float, interval: Sequence[float]) -> str:
    """ "20.6 [18.5, 23.0]" of fractions."""
    return f"{100 * value:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


if __name__ == "__main__":
    main(tyro.cli(Space, description=__doc__))
