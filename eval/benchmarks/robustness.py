"""Defences compared: the robustness of a detector bare, behind each defence, and of its hardened successor.

Every attack is made anew against each system, knowing its defence and averaging over what it draws; all thresholds
are set on clean dev at one p_fa. A line for each system: clean p_miss, and p_fa under the strongest attack, which
counts. Each system has its own folder in OUT and resumes there.

    python -m eval.benchmarks.robustness --corpus ROOT --out OUT [--hardened FOLDER] [--defences none limiter]
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from detector.hardening import GUARDS
from remasc.atomic import write_text
from streaming.attack.baselines import ATTACKS
from streaming.attack.campaign import Plan
from streaming.attack.pulses import Budget
from streaming.attack.run import Robustness, measure
from streaming.attack.table import percent

RANDOMISED = ("windows", "noise")


@dataclass(frozen=True)
class Arguments:
    """Args:
    corpus: A corpus with train and dev.
    out: Folder for all.
    detector: The detector as it is.
    hardened: A checkpoint trained with --harden, to stand beside it.
    defences: none, and guards of detector.hardening, joined by + where several.
    split: Partition that is attacked.
    array: Which array.
    clips: Replays attacked.
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
    defences: tuple[str, ...] = ("none", *GUARDS, "limiter+windows")
    split: str = "dev"
    array: str = "D1"
    clips: int = 60
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


def main(arguments: Arguments) -> dict[str, Any]:
    plan = Plan(
        Budget(arguments.below_db), attacks=arguments.attacks, generations=arguments.generations,
        individuals=arguments.individuals, iterations=arguments.iterations,
        imitation_epochs=arguments.imitation_epochs, seed=arguments.seed,
    )  # fmt: skip
    detectors = [arguments.detector] + ([arguments.hardened] if arguments.hardened else [])
    systems = {}
    for detector in detectors:
        for defence in arguments.defences:
            random = any(name in defence for name in RANDOMISED)
            task = Robustness(
                arguments.corpus, detector, arguments.split, arguments.array, arguments.clips,
                genuine=arguments.clips, training=arguments.training, defence=defence, own_threshold=False,
                dev_clips=arguments.dev_clips,
                draws=arguments.draws if random else 1, repeats=arguments.repeats if random else 1, plan=plan,
            )  # fmt: skip
            name = f"{Path(detector).name}, {defence}"
            record, _, _ = measure(task, arguments.out / name.replace(", ", "-"))
            systems[name] = summary(record)
    write_text(arguments.out / "robustness.json", json.dumps(systems, indent=1) + "\n")
    write_text(arguments.out / "robustness.md", table(systems))
    return systems


def summary(record: dict[str, Any]) -> dict[str, Any]:
    """What counts of a system: clean p_miss and p_fa at its threshold, and the strongest attack's p_fa."""
    attacked = [line for line in record["lines"] if line["attack"] != "none"]
    clean = next((line["p_fa"] for line in record["lines"] if line["attack"] == "none"), None)
    strongest = max(attacked, key=lambda line: line["p_fa"]["value"])
    return {
        "p_miss_clean": record["genuine_rejected"],
        "p_fa_clean": clean,
        "p_fa_strongest": strongest["p_fa"],
        "strongest": strongest["attack"],
        "success_strongest": strongest["success"],
    }


def table(systems: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| system | p_miss, clean | p_fa, clean | p_fa, strongest attack | which |",
        "|---|---|---|---|---|",
    ]
    for name, one in systems.items():
        clean = f"{100 * one['p_miss_clean']:.1f} %"
        cells = (name, clean, percent(one["p_fa_clean"]), percent(one["p_fa_strongest"]), one["strongest"])
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(table(main(tyro.cli(Arguments))))
