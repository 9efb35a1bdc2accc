"""What carries the difference between the classes in a simulated corpus, knob by knob.

    python -m eval.benchmarks.knobs --speech DIR --noise DIR --out FOLDER [--array D2] [--seeds 0 1 2] [--pairs 600]

For every knob and seed a corpus of the open protocol is simulated on one array, with that knob alone turned, and
`eval.benchmarks.space` compares what one channel, space and both tell of it. SNR, distance and RT60 need no corpus
of their own: every corpus has them by thirds. Resumes where it stopped; a corpus's sound is removed once it was
heard, unless --keep.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from eval.benchmarks import space
from remasc import Corpus
from remasc.atomic import write_text
from remasc.simulate import Recipe, generate, load_recipe


def _devices(count: int) -> dict[str, Any]:
    """So many instances of each family in train, a quarter as many in dev and eval, at least five."""
    few = max(5, count // 4)
    return {"devices": {"train": count, "dev": few, "eval": few}}


# what each knob changes of the recipe `small`
KNOBS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "5 device instances": _devices(5),
    "20 device instances": _devices(20),
    "60 device instances": _devices(60),
    "200 device instances": _devices(200),
    "no recorder": {"source_recorders": {"1": 0.0, "2": 0.0, "3": 1.0}},
    "always a recorder": {"source_recorders": {"1": 0.5, "2": 0.5, "3": 0.0}},
    "one driver": {"one_driver": True},
    "no directivity": {"directivity": False},
    "no movement": {"movement": False},
    "no hiss": {"device_noise": False},
    "closed": {"protocol": "closed", "devices": {"train": 1, "dev": 1, "eval": 1}},
    "null": {"null": True, "device_noise": False},
}


@dataclass(frozen=True)
class Knobs:
    """What is turned.

    Args:
        speech: Folder of clean speech.
        out: Folder of the corpora, of what was heard, and of the table.
        noise: Folder of background noise; default: synthesised.
        array: Array that records.
        knobs: Which of the knobs; default: all.
        seeds: One corpus each.
        pairs: Pairs of scenes in train; dev has a fifth, eval three quarters of them.
        workers: Processes; default: one per core.
        keep: Keep the corpora.
    """

    speech: Path
    out: Path
    noise: Path | None = None
    array: str = "D2"
    knobs: tuple[str, ...] = tuple(KNOBS)
    seeds: tuple[int, ...] = (0, 1, 2)
    pairs: int = 600
    workers: int | None = None
    keep: bool = False


def main(options: Knobs) -> None:
    """Turn every knob for every seed, print and write the table."""
    if unknown := [knob for knob in options.knobs if knob not in KNOBS]:
        raise ValueError(f"unknown knob {unknown[0]!r}; known: {', '.join(KNOBS)}")
    for seed in options.seeds:
        for knob in options.knobs:
            compared(options, knob, seed)
            write(options)
    print((options.out / "knobs.md").read_text(encoding="utf-8"))


def recipe_of(options: Knobs, knob: str) -> Recipe:
    """The recipe `small` with one knob turned."""
    pairs = {"train": options.pairs, "dev": max(options.pairs // 5, 1), "eval": options.pairs * 3 // 4}
    name = "knob-" + knob.replace(" ", "-")
    return dataclasses.replace(load_recipe("small"), name=name, version=1, pairs=pairs, **KNOBS[knob])


def compared(options: Knobs, knob: str, seed: int) -> None:
    """Simulate, hear and compare one corpus, unless its figures are there already."""
    recipe = recipe_of(options, knob)
    place = options.out / f"{recipe.name}-s{seed}"
    figures = place / "figures.json"
    if figures.is_file():
        return
    root = place / "corpus"
    generate(
        recipe, root, speech=options.speech, noise=options.noise, arrays=(options.array,), seed=seed,
        workers=options.workers,
    )  # fmt: skip
    asked = space.Space((root,), place, (options.array,), workers=options.workers)
    row = space.compare(root, Corpus.from_meta(root), options.array, asked)
    write_text(figures, json.dumps(row | {"knob": knob, "seed": seed}, indent=1) + "\n")
    if not options.keep:
        shutil.rmtree(root)


def write(options: Knobs) -> None:
    """knobs.json and knobs.md of all figures that are there."""
    found = sorted(options.out.glob("knob-*/figures.json"))
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in found]
    rows = [row for row in rows if row["array"] == options.array]
    rows.sort(key=lambda row: (list(KNOBS).index(row["knob"]), row["seed"]))
    write_text(options.out / "knobs.json", json.dumps(rows, indent=1) + "\n")
    lines = [
        f"# What carries the result, knob by knob ({options.array}, simulated)",
        "",
        "EER in % on eval [95 % interval over voices, over trials where voices are few], one corpus a line; the "
        "gain of space with the interval of the difference. `python -m eval.benchmarks.knobs`",
        "",
        "| knob | seed | eval trials | " + " | ".join(space.VIEWS) + " | both against single |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [space.percent(row["views"][v]["eer"], row["views"][v]["interval"]) for v in space.VIEWS]
        gain = row["gains"]["single - both"]
        trials = " + ".join(f"{n:,}" for n in row["trials"]["eval"])
        cells = [
            row["knob"],
            str(row["seed"]),
            trials,
            *cells,
            space.percent(gain["points"], gain["interval"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    write_text(options.out / "knobs.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Knobs, description=__doc__))
