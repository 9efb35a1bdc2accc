"""The table of `eval.benchmarks.detectors`: figures over seeds with one interval, by environment, and over corpora.

Rates are fractions. The interval of a mean over seeds comes from one bootstrap over the trials (over speakers where
there are enough), in which all seeds stand on the same draw: it says how far the trials carry, and the standard
deviation beside it how far the seeds scatter.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from eval import words
from eval.breakdown import MIN_TRIALS, speaker_groups
from eval.metrics import eer, percentile_interval, resampled_counts
from eval.scores import ScoreTable, read_scores

DRAWS = 500
UNSEEDED = ("void", "sub-bass", "gcc")  # nothing in them is drawn: one run says all
FIGURES = (  # of a run.json
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
)


def figures_of(rows: list[dict[str, Any]], split: str) -> list[dict[str, Any]]:
    """One entry for each corpus, array and system. Seeds and systems of a place must share their trials."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["corpus"], row["array"], row["system"]].append(row)
    found = [_figures(group, split) for group in groups.values()]
    by_place = sorted(found, key=lambda entry: (entry["corpus"], entry["array"]))
    for one, other in pairwise(by_place):
        same_place = (one["corpus"], one["array"]) == (other["corpus"], other["array"])
        if same_place and one["protocol_sha256"] != other["protocol_sha256"]:
            raise ValueError(
                f"{one['system']} and {other['system']} were scored on different trials of {one['corpus']}; "
                "only the same trials can be compared: give another --out"
            )
    return sorted(found, key=lambda entry: (entry["corpus"], entry["array"], entry["eer"]))


def _figures(rows: list[dict[str, Any]], split: str) -> dict[str, Any]:
    tables = [read_scores(Path(row["scores"]), partition=split) for row in rows]
    for other in tables[1:]:
        if other.trial.tolist() != tables[0].trial.tolist():
            raise ValueError(
                f"{rows[0]['system']}: its seeds were scored on different trials; give another --out"
            )
    rates, low, high, drawn = mean_eer(tables)
    first = rows[0]
    return {key: first[key] for key in ("corpus", "simulated", "array", "system", "protocol_sha256")} | {
        "one_for_all": first["one_for_all"],
        "undertrained": first["undertrained"],
        "parameters": first["parameters"],
        "real_time_factor": float(np.mean([row["speed"] for row in rows])),
        "trials": {"genuine": int(tables[0].genuine.sum()), "replay": int(tables[0].replay.sum())},
        "eer": float(np.mean(rates)),
        "low": low,
        "high": high,
        "interval_over": drawn,
        "sd": float(np.std(rates, ddof=1)) if len(rates) > 1 else None,
        "environments": _environments(tables),
        "runs": [
            {"seed": row["seed"], "eer": rate} | {name: row[name] for name in FIGURES}
            for row, rate in zip(rows, rates, strict=True)
        ],
    }


def mean_eer(tables: list[ScoreTable], n: int = DRAWS) -> tuple[list[float], float, float, str]:
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


def _environments(tables: list[ScoreTable]) -> dict[str, dict[str, Any]]:
    """By environment the trials and the mean EER over seeds, None with fewer than 50 trials of a class."""
    where = tables[0].conditions.get("environment", np.empty(0))
    found = {}
    for name in sorted(set(where.tolist())):
        parts = [table.select(where == name) for table in tables]
        counts = {"genuine": int(parts[0].genuine.sum()), "replay": int(parts[0].replay.sum())}
        enough = min(counts.values()) >= MIN_TRIALS
        rates = [eer(part.score[part.genuine], part.score[part.replay])[0] for part in parts if enough]
        found[name] = {**counts, "eer": float(np.mean(rates)) if enough else None}
    return found


def markdown(table: dict[str, Any]) -> str:
    """The figures as Markdown: a table for each corpus and array, and one of the means over corpora."""
    facts, figures = table["benchmark"], table["figures"]
    lines = [f"# Detectors, {facts['split']}: {facts['finished']} of {facts['cells']} runs finished", ""]
    if facts["split"] == "dev":
        lines += [
            "Dev chose epochs and settings, so that these figures are optimistic; eval was not scored.",
            "",
        ]
    if facts["scale"] < 1:
        lines += [
            f"UNDERTRAINED: {facts['scale']:.0%} of each schedule's epochs; this supports no claim.",
            "",
        ]
    places = list(dict.fromkeys((entry["corpus"], entry["array"]) for entry in figures))
    for place in places:
        lines += _section([entry for entry in figures if (entry["corpus"], entry["array"]) == place])
    if len({corpus for corpus, _ in places}) > 1:
        lines += _means(figures)
    return "\n".join(lines)


def _section(entries: list[dict[str, Any]]) -> list[str]:
    one, environments = entries[0], entries[0]["environments"]
    tag = " (simulated)" if one["simulated"] else ""
    head = ["system", "parameters", "CPU ms per s", "seeds", "epochs (chosen)", f"EER{tag}", "95 %", "sd"]
    head += ["mean of environments", *environments]
    lines = [f"## {one['corpus']}{tag}, {one['array']}", "", "| " + " | ".join(head) + " |"]
    lines += ["|---|" + "---:|" * (len(head) - 1)]
    for entry in entries:
        runs = entry["runs"]
        rates = [cell["eer"] for cell in entry["environments"].values()]
        known = [rate for rate in rates if rate is not None]
        cells = [
            entry["system"] + (" (one for all arrays)" if entry["one_for_all"] else ""),
            f"{entry['parameters']:,}",
            f"{1000 * entry['real_time_factor']:.1f}",
            ", ".join(str(run["seed"]) for run in runs),
            ", ".join(f"{run['epochs']} ({run['epoch']})" for run in runs),
            f"**{words.rate(entry['eer'])}**",
            words.interval(entry["low"], entry["high"]),
            "" if entry["sd"] is None else f"{100 * entry['sd']:.1f}",
            words.rate(float(np.mean(known))) if known else "",
            *("too few" if rate is None else words.rate(rate) for rate in rates),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    train = {name: one["runs"][0]["train_trials"][name] for name in ("genuine", "replay")}
    lines += [
        "",
        f"{one['trials']['genuine']:,} genuine and {one['trials']['replay']:,} replayed trials, each scored once; "
        f"trained on {train['genuine']:,} and {train['replay']:,}. The interval is a bootstrap over "
        f"{one['interval_over']}; an environment with under {MIN_TRIALS} trials of a class has no rate. What "
        f"draws nothing ({', '.join(UNSEEDED)}) is trained once.",
        "",
    ]
    return lines


def _means(figures: list[dict[str, Any]]) -> list[str]:
    """Over the corpora (conditions): the mean EER of each system that is finished on all of them."""
    conditions = list(dict.fromkeys((entry["corpus"], entry["array"]) for entry in figures))
    rates = defaultdict(dict)
    for entry in figures:
        rates[entry["system"]][entry["corpus"], entry["array"]] = entry["eer"]
    whole = {system: found for system, found in rates.items() if len(found) == len(conditions)}
    head = ["system", f"mean of {len(conditions)}", *(f"{corpus}, {array}" for corpus, array in conditions)]
    lines = ["## All conditions", "", "| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for system, found in sorted(whole.items(), key=lambda item: np.mean(list(item[1].values()))):
        cells = [words.rate(found[condition]) for condition in conditions]
        lines.append(
            f"| {system} | **{words.rate(float(np.mean(list(found.values()))))}** | "
            + " | ".join(cells)
            + " |"
        )
    return [*lines, ""]
