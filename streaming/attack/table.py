"""The robustness table: a line for each attack, from the rows of a campaign.

Shapes: C clips of a case, G genuine clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from remasc.sentences import counted
from streaming.attack import measures
from streaming.attack.campaign import Case, Genuine, Row
from streaming.attack.expert import Evolution

HEAD = ("attack", "success", "mean drop", "p_fa", "EER", "of the expert's", "queries")


def figures(
    cases: Sequence[Case], rows: Mapping[str, Sequence[Row]], genuine: Genuine | None = None
) -> list[dict[str, Any]]:
    """A line for each case. `genuine`: what attackers of a replay detector want to look like; None = a classifier.

    success: of the clips that the victim had right, the share that it has no longer; drop: how much less sure of
    the truth it is on these, on average; p_fa: of all clips, the share that is accepted; eer: of clean genuine
    against all attacked clips; gained: (attack - random) / (expert - random) of the success at the same budget.
    """
    return [_line(case, rows, cases, genuine) for case in cases]


def _line(
    case: Case, rows: Mapping[str, Sequence[Row]], cases: Sequence[Case], genuine: Genuine | None
) -> dict[str, Any]:
    mine = list(rows[case.name])
    had = [row for row in mine if row.right_before]
    everybody, speakers = speakers_of(mine), speakers_of(had)
    line: dict[str, Any] = {
        "case": case.name,
        "attack": case.attack,
        "below_db": case.budget.below_db,
        "delay_ms": 1000 * case.delay,
        "clips": len(mine),
        "right_before": len(had),
        "success": _plain(measures.success([True] * len(had), [row.right for row in had], speakers)),
        "drop": _plain(measures.mean_of([row.p_before - row.p_true for row in had], speakers)),
        "queries": float(np.mean([row.queries for row in had])) if had else 0.0,
        "gained": None,
    }
    if genuine is not None:
        line["p_fa"] = _plain(measures.share_of([1 - row.right for row in mine], everybody))
        found = np.array([row.score for row in mine])
        named = None if everybody is None else (genuine.speakers, everybody)
        line["eer"] = _plain(measures.detection(genuine.scores, found, named))
    if case.attack not in ("none", "random"):
        line["gained"] = _plain(_gained(case, rows, cases, had))
    return line


def speakers_of(rows: Sequence[Row]) -> list[str] | None:
    """Who speaks in each; None where nobody knows."""
    names = [row.speaker for row in rows]
    return names if all(names) else None


def _gained(
    case: Case, rows: Mapping[str, Sequence[Row]], cases: Sequence[Case], had: list[Row]
) -> measures.Rate | None:
    """Against random and expert under the same budget, clip by clip."""
    same = {
        one.attack: {row.clip: 1 - row.right for row in rows[one.name]}
        for one in cases
        if one.attack in ("random", "expert") and (one.budget, one.shape) == (case.budget, case.shape)
    }
    if len(same) < 2:
        return None
    return measures.gained(
        [1 - row.right for row in had],
        [same["random"][row.clip] for row in had],
        [same["expert"][row.clip] for row in had],
        speakers_of(had),
    )


def _plain(rate: measures.Rate | None) -> dict[str, float] | None:
    return None if rate is None else rate.as_dict()


def cells(line: Mapping[str, Any]) -> tuple[str, ...]:
    """A line as words, in the order of `HEAD`."""
    return (
        line["case"],
        percent(line["success"]),
        number(line["drop"]),
        percent(line.get("p_fa")),
        percent(line.get("eer")),
        percent(line["gained"]),
        f"{line['queries']:,.0f}",
    )


def shown(lines: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows without the columns that say nothing: a classifier has no p_fa."""
    rows = [cells(line) for line in lines]
    told = [k for k in range(len(HEAD)) if k == 0 or any(row[k] != "-" for row in rows)]
    return tuple(HEAD[k] for k in told), [tuple(row[k] for k in told) for row in rows]


def percent(rate: Mapping[str, float] | None) -> str:
    if rate is None:
        return "-"
    return f"{100 * rate['value']:.1f} % ({100 * rate['low']:.1f} to {100 * rate['high']:.1f})"


def number(rate: Mapping[str, float] | None) -> str:
    return "-" if rate is None else f"{rate['value']:.3f} ({rate['low']:.3f} to {rate['high']:.3f})"


def markdown(record: Mapping[str, Any]) -> str:
    """The table with what it stands on, as Markdown."""
    lines = [f"# Robustness of {record['victim']}", "", *(f"{fact}  " for fact in facts(record)), ""]
    head, rows = shown(record["lines"])
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, ""])


def facts(record: Mapping[str, Any]) -> list[str]:
    """Sentences on what was measured."""
    first = record["lines"][0]
    kind = {True: "SIMULATED recordings", False: "recordings"}.get(
        record["simulated"], "recordings of which nothing says whether they are simulated"
    )
    said = [
        f"{counted(first['clips'], 'clip')} of {record['corpus']} ({kind}), {record['what']}; the victim had "
        f"{first['right_before']} of them right before any attack.",
        f"Attackers learnt on {record['training']} other clips, of the training partition{_asked(record)}.",
        *_effort(record),
        f"Perturbations go through the air: {record['air']}. Defence: {record['defence']}.",
        "Success: of the clips that the victim had right, the share that it has no longer. In parentheses 95 % "
        f"intervals over the {record['over']}. Queries: of the victim, for each attacked clip.",
    ]
    if record.get("p_miss") is not None:
        said.insert(
            1,
            f"Of {counted(record['genuine'], 'clean genuine clip')} {percent(record['p_miss'])} are rejected.",
        )
    if record.get("threshold") is not None:
        limit = f"Replays are accepted at scores of {record['threshold']:.4f} and above"
        said.insert(1, f"{limit} ({record['origin']}).")
    return said


def _effort(record: Mapping[str, Any]) -> list[str]:
    """How hard the expert searched, and what the published policy learnt from it, beside what was published."""
    attacks, plan = {line["attack"] for line in record["lines"]}, record["plan"]
    said = []
    if attacks & {"expert", "static", "imitation"}:
        genomes = Evolution(plan["generations"], plan["individuals"]).evaluations(plan["budget"]["pulses"])
        said.append(f"The expert judges {genomes:,} sets of moments for a clip (published: 3,800)")
    if "imitation" in attacks:
        said.append(
            f"imitation learnt from {record['training']:,} of its clips in {plan['imitation_epochs']} epochs "
            "(published: 10,000 and more, in 150)"
        )
    return [f"{'; '.join(said)}."] if said else []


def _asked(record: Mapping[str, Any]) -> str:
    """How often the victim was asked for what attackers learnt."""
    asked = [f"{name} {count:,}" for name, count in record["learning_queries"].items()]
    return f", with queries of the victim: {', '.join(asked)}" if asked else ""


def over(rows: Sequence[Row]) -> str:
    """What the intervals are made over, in words."""
    speakers = speakers_of(rows)
    known = speakers is not None and len(set(speakers)) >= measures.FEWEST
    return f"{len(set(speakers or ()))} speakers" if known else "clips"
