"""Defences compared: the robustness of a detector bare, behind each defence, and of its hardened successor.

Every attack is made anew against each system, knowing its defence and averaging over what it draws; all thresholds
are set on clean dev at one p_fa, on replays that are not attacked. A line for each system: clean p_miss, and p_fa
under the strongest attack, which counts; both also as a share of the first system's, on the same clips, with
intervals over speakers. Each system has its own folder in OUT and resumes there.

    python -m eval.benchmarks.robustness --corpus ROOT --out OUT [--hardened FOLDER] [--defences none limiter]
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from detector.hardening import DRAWN, GUARDS
from remasc.atomic import write_text
from streaming.attack.baselines import ATTACKS
from streaming.attack.campaign import Campaign, Plan
from streaming.attack.measures import ratio
from streaming.attack.pulses import Budget
from streaming.attack.run import SOURCE, Robustness, measure
from streaming.attack.table import percent, speakers_of


@dataclass(frozen=True)
class Arguments:
    """Args:
    corpus: A corpus with train and dev.
    out: Folder for all.
    detector: The detector as it is.
    hardened: A checkpoint trained with --harden, to stand beside it.
    defences: none, guards of detector.hardening (joined by + where several), and source: an ensemble with the
        bundled source classifier.
    split: Partition that is attacked.
    array: Which array.
    clips: Replays attacked.
    genuine: Clean genuine recordings, for p_miss.
    training: Replays that attackers learn from.
    dev_clips: Clean dev replays that set each threshold.
    attacks: Which attacks.
    below_db: Amplitude in dB below the command (negative: louder).
    generations: Of the expert.
    individuals: Of the expert, times the number of pulses.
    iterations: Of the white-box expert.
    imitation_epochs: Of the published policy.
    draws: How often an attacker asks a defence that draws numbers.
    repeats: How often such a defence judges each attempt.
    seed: Draws the clips.
    """

    corpus: Path
    out: Path
    detector: str = "default"
    hardened: str | None = None
    defences: tuple[str, ...] = ("none", *GUARDS, "limiter+windows", SOURCE)
    split: str = "dev"
    array: str = "D1"
    clips: int = 60
    genuine: int = 400
    training: int = 60
    dev_clips: int = 300
    attacks: tuple[str, ...] = field(default=ATTACKS)
    below_db: float = -6.0
    generations: int = 75
    individuals: int = 10
    iterations: int = 20
    imitation_epochs: int = 150
    draws: int = 4
    repeats: int = 5
    seed: int = 0


class System(NamedTuple):
    """What is kept of a measured system: its line, and clip by clip what the comparison is made of."""

    line: dict[str, Any]
    accepted: list[float]  # of the attacked clips, under the strongest attack
    speakers: list[str] | None
    rejected: list[float]  # of the clean genuine clips
    genuine_speakers: list[str]


def main(arguments: Arguments) -> dict[str, Any]:
    plan = Plan(
        Budget(arguments.below_db), attacks=arguments.attacks, generations=arguments.generations,
        individuals=arguments.individuals, iterations=arguments.iterations,
        imitation_epochs=arguments.imitation_epochs, seed=arguments.seed,
    )  # fmt: skip
    detectors = [arguments.detector] + ([arguments.hardened] if arguments.hardened else [])
    systems: dict[str, System] = {}
    for detector in detectors:
        for defence in arguments.defences:
            name = f"{Path(detector).name}, {defence}"
            task = task_of(arguments, detector, defence, plan)
            systems[name] = system(*measure(task, arguments.out / name.replace(", ", "-"))[:2])
    first, *_ = systems.values()
    lines = {name: one.line | compared(one, first) for name, one in systems.items()}
    write_text(arguments.out / "robustness.json", json.dumps(lines, indent=1) + "\n")
    write_text(arguments.out / "robustness.md", table(lines))
    return lines


def task_of(arguments: Arguments, detector: str, defence: str, plan: Plan) -> Robustness:
    random = bool(set(defence.split("+")) & set(DRAWN))
    return Robustness(
        arguments.corpus, detector, arguments.split, arguments.array, arguments.clips,
        genuine=arguments.genuine, training=arguments.training,
        defence="ensemble" if defence == SOURCE else defence, partner=SOURCE if defence == SOURCE else None,
        own_threshold=False, dev_clips=arguments.dev_clips,
        draws=arguments.draws if random else 1, repeats=arguments.repeats if random else 1, plan=plan,
    )  # fmt: skip


def system(record: dict[str, Any], campaign: Campaign) -> System:
    """What counts of a system: clean p_miss and p_fa at its threshold, and the strongest attack's p_fa."""
    attacked = [line for line in record["lines"] if line["attack"] != "none"]
    clean = next((line["p_fa"] for line in record["lines"] if line["attack"] == "none"), None)
    strongest = max(attacked, key=lambda line: line["p_fa"]["value"])
    line = {
        "threshold": record["threshold"],
        "origin": record["origin"],
        "clips": strongest["clips"],
        "genuine": record["genuine"],
        "p_miss_clean": record["p_miss"],
        "p_fa_clean": clean,
        "p_fa_strongest": strongest["p_fa"],
        "strongest": strongest["attack"],
        "success_strongest": strongest["success"],
        "over": record["over"],
    }
    rows = campaign.rows[strongest["case"]]
    genuine = campaign.genuine
    assert genuine is not None, "every replay detector is asked for its p_miss"
    return System(
        line,
        [1 - row.right for row in rows],
        speakers_of(rows),
        (1 - genuine.accepted).tolist(),
        list(genuine.speakers),
    )


def compared(one: System, first: System) -> dict[str, Any]:
    """A system's p_fa under its strongest attack over the first system's under its own; likewise clean p_miss."""
    found = {
        "p_fa_of_the_first": ratio(one.accepted, first.accepted, one.speakers),
        "p_miss_of_the_first": ratio(one.rejected, first.rejected, one.genuine_speakers),
    }
    return {name: None if rate is None else rate.as_dict() for name, rate in found.items()}


def table(lines: dict[str, dict[str, Any]]) -> str:
    share = "of the first's"
    head = ("system", "p_miss, clean", share, "p_fa, clean", "p_fa, strongest attack", share, "which")
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, one in lines.items():
        names = ("p_miss_clean", "p_miss_of_the_first", "p_fa_clean", "p_fa_strongest", "p_fa_of_the_first")
        out.append("| " + " | ".join((name, *(percent(one[key]) for key in names), one["strongest"])) + " |")
    first = next(iter(lines.values()))
    counts = f"{first['clips']} attacked replays, {first['genuine']} clean genuine clips"
    out += ["", f"{counts}; 95 % intervals over the {first['over']}. Every threshold {first['origin']}."]
    return "\n".join([*out, ""])


if __name__ == "__main__":
    print(table(main(tyro.cli(Arguments))))
