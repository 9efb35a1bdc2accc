"""The figures of source identification as tables in Markdown."""

from __future__ import annotations

from typing import Any

import numpy as np

from eval import words


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
        lines += ["", *_differences(found["differences"]), *_conditions(found["conditions"])]
        lines += [*_kind_lines(found["kinds"]), ""]
        lines += ["| group of cues | EER rises by (shuffled, points) |", "|---|---:|"]
        lines += [f"| {group} | {100 * rise:+.2f} |" for group, rise in found["importance"].items()]
        lines += ["", *_fewer_lines(found["fewer_cues"]), ""]
    note = (
        "Dev set calibration, thresholds, fusion and the classifiers' settings: its own rates are optimistic."
    )
    return "\n".join([*lines, note]) + "\n"


def _differences(found: dict[str, dict]) -> list[str]:
    if not found:
        return []
    head = "| paired difference | points of EER | 95 % | | least Cllr, in thousandths | 95 % | |"
    lines = [head, "|---|---:|---:|---|---:|---:|---|"]
    for name, row in found.items():
        cells = [name]
        for prefix, scale in (("", 100), ("min_cllr_", 1000)):
            gain, low, high = (scale * row[prefix + key] for key in ("gain", "low", "high"))
            proof = "excludes zero" if row[f"{prefix}excludes_zero"] else ""
            cells += [f"{gain:+.3g}", f"{low:+.3g} to {high:+.3g}", proof]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _conditions(found: dict[str, dict[str, list[dict]]]) -> list[str]:
    """A row for each cell, a column for each system: EER with its interval, or why there is none."""
    lines = []
    for title, systems in found.items():
        names = list(systems)
        lines += [
            f"| {title} | genuine / replay | " + " | ".join(names) + " |",
            "|---|---:|" + "---:|" * len(names),
        ]
        for cells in zip(*systems.values(), strict=True):
            rates = [
                "too few"
                if cell["eer"] is None
                else f"{words.rate(cell['eer'])} {words.interval(cell['low'], cell['high'])}"
                for cell in cells
            ]
            lines.append(
                f"| {cells[0]['name']} | {cells[0]['genuine']} / {cells[0]['replay']} | {' | '.join(rates)} |"
            )
        lines.append("")
    return lines


def _fewer_lines(found: dict[str, dict[str, float]]) -> list[str]:
    lines = [
        "| cues hidden | EER | mean llr moves by | replays accepted at the threshold | people refused |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in found.items():
        lines.append(
            f"| {name} | {words.rate(row['eer'])} | {row['shift']:+.3f} | {words.rate(row['p_fa'])} | "
            f"{words.rate(row['p_miss'])} |"
        )
    return lines


def _kind_lines(found: dict[str, Any]) -> list[str]:
    names = found["names"]
    lines = [
        f"Kinds: accuracy {words.rate(found['accuracy'])}, mean over kinds "
        f"{words.rate(found['balanced_accuracy'])} (chance {words.rate(found['chance'])}); family of the devices "
        f"{words.rate(found['family_accuracy_of_devices'])} (the commonest: {words.rate(found['family_chance'])}).",
        "",
        "| true \\ said | " + " | ".join(names) + " |",
        "|---|" + "---:|" * len(names),
    ]
    for name, row in zip(found["true"], found["confusion"], strict=True):
        if sum(row):
            lines.append(f"| {name} | " + " | ".join(map(str, row)) + " |")
    return lines
