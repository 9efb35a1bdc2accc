"""From scores to the figures of a table: a place's EER over its runs, with one interval.

Rates are fractions. The interval of a mean comes from one bootstrap over the trials (over speakers where there are
enough), in which all runs stand on the same draw: it says how far the trials carry, and the standard deviation
beside it how far the seeds scatter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.breakdown import MIN_TRIALS, speaker_groups
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
    genuine, replay = tables[0].genuine, tables[0].replay
    pairs = [(table.score[genuine], table.score[replay]) for table in tables]
    groups = speaker_groups(tables[0])
    draws = resampled_counts(int(genuine.sum()), int(replay.sum()), n=n, groups=groups)
    means = [
        np.mean([eer(np.repeat(g, of_g), np.repeat(r, of_r))[0] for g, r in pairs]) for of_g, of_r in draws
    ]
    low, high = percentile_interval(np.array(means))
    return [eer(*pair)[0] for pair in pairs], float(low), float(high), "speakers" if groups else "trials"


def means_of(figures: Sequence[dict[str, Any]], columns: Sequence[str]) -> dict[tuple[str, str], float]:
    """(section, row) -> the mean EER over the columns, where all of them have a rate."""
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for one in figures:
        if one["eer"] is not None:
            found[one["section"], one["row"]][one["column"]] = one["eer"]
    return {
        place: float(np.mean(list(rates.values())))
        for place, rates in found.items()
        if len(rates) == len(columns) > 1
    }
