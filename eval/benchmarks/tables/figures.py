"""From scores to the figures of a table: a place's EER over its runs, with one interval.

Rates are fractions. The interval of a mean comes from one bootstrap over the trials (over speakers where there are
enough), in which all runs, and all places of a row, stand on the same draw: it says how far the trials carry, and
the standard deviation beside it how far the seeds scatter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from eval.breakdown import MIN_TRIALS, voice_groups
from eval.metrics import eer, percentile_interval, resampled_counts
from eval.scores import ScoreTable

DRAWS = 500
KEPT = (  # of a run.json
    "epoch",
    "epochs",
    "dev_eer",
    "dev_eer_shipped",
    "parameters",
    "train_trials",
    "dev_trials",
    "wall_seconds",
    "commit",
    "environment",
    "protocol_sha256",
)


def figures_of(
    rows: Sequence[dict[str, Any]], tables: Sequence[ScoreTable], draws: int = DRAWS
) -> dict[str, Any]:
    """The figures of one place of a table: `rows` are its runs (seed, training, undertrained, speed and run.json's
    facts), `tables` their scores of the same trials. No rate with fewer than 50 trials of a class."""
    first = tables[0]
    if any(other.trial.tolist() != first.trial.tolist() for other in tables[1:]):
        raise ValueError("runs of one place were scored on different trials; only the same can be compared")
    counts = {"genuine": int(first.genuine.sum()), "replay": int(first.replay.sum())}
    figures = {
        "trials": counts,
        "parameters": rows[0]["parameters"],
        "real_time_factor": float(np.mean([row["speed"] for row in rows])),
        "undertrained": any(row["undertrained"] for row in rows),
        "one_for_all": all(row["one_for_all"] for row in rows),
        "abstained": float(np.mean([table.abstained.mean() for table in tables])),
        "seeds": sorted({row["seed"] for row in rows}),
        "eer": None,
        "runs": [
            {name: row.get(name) for name in ("seed", "training", "scores", "undertrained", *KEPT)}
            for row in rows
        ],
    }
    if min(counts.values()) < MIN_TRIALS:
        return figures
    rates, low, high, over = mean_eer(tables, draws)
    by_seed = defaultdict(list)
    for row, run, rate in zip(rows, figures["runs"], rates, strict=True):
        run["eer"] = rate
        by_seed[row["seed"]].append(rate)
    means = [np.mean(found) for found in by_seed.values()]
    sd = float(np.std(means, ddof=1)) if len(means) > 1 else None
    return figures | {"eer": float(np.mean(rates)), "low": low, "high": high, "interval_over": over, "sd": sd}


def mean_eer(tables: Sequence[ScoreTable], n: int = DRAWS) -> tuple[list[float], float, float, str]:
    """Each table's EER, the interval of their mean, and what was drawn. All hold the same trials in order."""
    values, over = drawn_means([tables], n)
    return [_eer(table) for table in tables], *_interval(values), over


def _eer(table: ScoreTable) -> float:
    return eer(table.score[table.genuine], table.score[table.replay])[0]


def mean_of(
    places: Sequence[Sequence[ScoreTable]], seeds: Sequence[Sequence[int]], draws: int = DRAWS
) -> tuple[dict[str, Any], np.ndarray]:
    """The mean EER of several places of a table, each of which is the mean of its runs, and its `drawn_means`:
    `places` are their scores, `seeds` their seeds. It has a deviation where all places have the same seeds, two or
    more."""
    rates = [[_eer(table) for table in tables] for tables in places]
    by_seed = [
        {seed: np.mean([r for r, s in zip(found, of, strict=True) if s == seed]) for seed in of}
        for found, of in zip(rates, seeds, strict=True)
    ]
    sd = None
    if len(by_seed[0]) > 1 and all(found.keys() == by_seed[0].keys() for found in by_seed):
        sd = float(np.std([np.mean([found[seed] for found in by_seed]) for seed in by_seed[0]], ddof=1))
    values, over = drawn_means(places, draws)
    low, high = _interval(values)
    mean = float(np.mean([np.mean(found) for found in rates]))
    return {"eer": mean, "low": low, "high": high, "interval_over": over, "sd": sd}, values


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = percentile_interval(values[np.isfinite(values)])
    return float(low), float(high)


def above(
    mean: tuple[dict[str, Any], np.ndarray], other: tuple[dict[str, Any], np.ndarray]
) -> dict[str, Any]:
    """By how much a mean is above another over the same trials, with the interval of the difference."""
    low, high = _interval(mean[1] - other[1])
    return {"eer": mean[0]["eer"] - other[0]["eer"], "low": low, "high": high}


def drawn_means(places: Sequence[Sequence[ScoreTable]], n: int = DRAWS) -> tuple[np.ndarray, str]:
    """(n,) bootstrap values of the mean over the places, and what was drawn: speakers, or trials where they are
    few (in all, or in a place). A speaker, or a trial, that is in several places is drawn for all of them. NaN
    where a draw leaves a class of a place empty. Over the same trials the draws are the same, so that values may be
    subtracted."""
    first = [tables[0] for tables in places]
    sizes = [[int(getattr(t, name).sum()) for t in first] for name in ("genuine", "replay")]
    cuts = [np.cumsum(of)[:-1] for of in sizes]
    pairs = [[(t.score[t.genuine], t.score[t.replay]) for t in tables] for tables in places]
    for over, groups in _units(first):
        values = np.array(
            [
                np.mean([_drawn_eer(*one) for one in zip(pairs, *map(np.split, drawn, cuts), strict=True)])
                for drawn in resampled_counts(sum(sizes[0]), sum(sizes[1]), n=n, groups=groups)
            ]
        )
        if over == "trials" or np.isfinite(values).mean() > 0.5:
            return values, over
    raise AssertionError("trials can always be drawn")


def _units(tables: Sequence[ScoreTable]) -> Iterator[tuple[str, Any]]:
    """What may be drawn of the trials of all tables together, the best first: its name, and their groups."""
    genuine, replay, trial = (
        np.concatenate([getattr(table, name) for table in tables]) for name in ("genuine", "replay", "trial")
    )
    if all("speaker" in table.conditions for table in tables):
        voice = np.concatenate([table.conditions["speaker"] for table in tables])
        if groups := voice_groups(voice, genuine, replay, trial):
            yield "speakers", groups
    yield "trials", None if np.unique(trial).size == trial.size else (trial[genuine], trial[replay])


def _drawn_eer(pairs: Sequence[tuple[np.ndarray, np.ndarray]], of_g: np.ndarray, of_r: np.ndarray) -> float:
    """The mean EER of a place's runs (genuine and replay scores) on a draw; NaN where that holds one class."""
    if not of_g.any() or not of_r.any():
        return float("nan")
    return float(np.mean([eer(np.repeat(g, of_g), np.repeat(r, of_r))[0] for g, r in pairs]))
