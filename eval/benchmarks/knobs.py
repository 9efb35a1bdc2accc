"""What carries the difference between the classes in a simulated corpus, knob by knob.

    python -m eval.benchmarks.knobs --speech DIR --noise DIR --out FOLDER [--array D2] [--seeds 0 1 2] [--pairs 600]

For every knob and seed a corpus of the open protocol is simulated with that knob alone turned, and
`eval.benchmarks.space` compares what one channel, space and both tell of it, array by array. SNR, distance and RT60
need no corpus of their own: every corpus has them by thirds. Resumes where it stopped; a corpus's sound is removed
once it was heard, unless --keep.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from eval.benchmarks import space
from remasc import Corpus
from remasc.atomic import write_text
from remasc.simulate import Recipe, generate, load_recipe


def _devices(count: int) -> dict[str, Any]:
    """So many instances of each family in train, a quarter as many in dev and eval, at least five."""
    few = max(5, count // 4)
    return {"devices": {"train": count, "dev": few, "eval": few}}


# what each knob changes of the recipe `small`; `closed` is the recipe of that name
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
    "closed": {},
    "null": {"null": True, "device_noise": False},
}


@dataclass(frozen=True)
class Knobs:
    """What is turned.

    Args:
        speech: Folder of clean speech.
        out: Folder of the corpora, of what was heard, and of the table.
        noise: Folder of background noise; default: synthesised.
        array: Arrays that record; may be repeated.
        knobs: Which of the knobs; default: all.
        seeds: One corpus each.
        pairs: Pairs of scenes in train; dev has a fifth of them.
        eval_pairs: Pairs of scenes in eval; default: three quarters of those in train.
        workers: Processes; default: one per core.
        keep: Keep the corpora.
    """

    speech: Path
    out: Path
    noise: Path | None = None
    array: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ("D2",)
    knobs: tuple[str, ...] = tuple(KNOBS)
    seeds: tuple[int, ...] = (0, 1, 2)
    pairs: int = 600
    eval_pairs: int | None = None
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
    """The recipe `small` with one knob turned, or the recipe `closed`, at the asked size."""
    train, judged = options.pairs, options.eval_pairs or options.pairs * 3 // 4
    pairs = {"train": train, "dev": max(train // 5, 1), "eval": judged}
    name = "knob-" + knob.replace(" ", "-")
    base = load_recipe("closed" if knob == "closed" else "small")
    return dataclasses.replace(base, name=name, version=1, pairs=pairs, **KNOBS[knob])


def compared(options: Knobs, knob: str, seed: int) -> None:
    """Simulate, hear and compare one corpus on the arrays whose figures are not there yet."""
    recipe = recipe_of(options, knob)
    place = options.out / f"{recipe.name}-s{seed}"
    if not (missing := [array for array in options.array if not _kept(place / f"{array}.json", recipe)]):
        return
    root = place / "corpus"
    generate(
        recipe, root, speech=options.speech, noise=options.noise, arrays=options.array, seed=seed,
        workers=options.workers,
    )  # fmt: skip
    corpus = Corpus.from_meta(root)
    for array in missing:
        row = space.compare(
            root, corpus, array, space.Space((root,), place, options.array, workers=options.workers)
        )
        row |= {"knob": knob, "seed": seed, "recipe": recipe.to_dict()}
        write_text(place / f"{array}.json", json.dumps(row, indent=1) + "\n")
    if not options.keep:
        shutil.rmtree(root)


def _kept(path: Path, recipe: Recipe) -> bool:
    """Whether the figures are there; refuses those of a corpus of another size or recipe."""
    if not path.is_file():
        return False
    if json.loads(path.read_text(encoding="utf-8"))["recipe"] != json.loads(json.dumps(recipe.to_dict())):
        raise ValueError(
            f"{path}: figures of another recipe or size; name another --out, or remove this file"
        )
    return True


def write(options: Knobs) -> None:
    """knobs.json and knobs.md of all figures that are there."""
    found = sorted(options.out.glob("knob-*/D?.json"))
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in found]
    rows.sort(key=lambda row: (row["array"], list(KNOBS).index(row["knob"]), row["seed"]))
    write_text(options.out / "knobs.json", json.dumps(rows, indent=1) + "\n")
    write_text(options.out / "knobs.md", markdown(rows))


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The knobs over their seeds, and each corpus by itself."""
    lines = [
        "# What carries the result, knob by knob (simulated)",
        "",
        "EER in % on eval, mean over the seeds (each a corpus of its own) ± their standard deviation; gains in "
        "points with the mean of the seeds' limits, for the seeds share their voices and are not independent. Null "
        "owes 45 to 55 % everywhere, dummy less than 2 points against single. `python -m eval.benchmarks.knobs`",
        "",
        "| array | knob | seeds | eval trials | " + " | ".join(space.VIEWS) + " | " + _GAINS + " |",
        "|---" * (5 + len(space.VIEWS) + len(space.GAINS) - 1) + "|",
    ]
    for (array, knob), group in groupby(rows, key=lambda row: (row["array"], row["knob"])):
        lines.append(_line(over_seeds(list(group)), array, knob))
    lines += [
        "",
        "One corpus a line, with its 95 % intervals over voices (over trials, where voices are few):",
        "",
        "| array | knob | seed | eval trials | " + " | ".join(space.VIEWS) + " | " + _GAINS + " |",
        "|---" * (5 + len(space.VIEWS) + len(space.GAINS) - 1) + "|",
    ]
    for row in rows:
        trials = " + ".join(f"{n:,}" for n in row["trials"]["eval"])
        cells = [row["array"], row["knob"], str(row["seed"]), trials]
        cells += [space.percent(row["views"][v]["eer"], row["views"][v]["interval"]) for v in space.VIEWS]
        cells += [space.percent(g["points"], g["interval"]) for g in map(row["gains"].get, _gain_names())]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


_GAINS = " | ".join(f"{other} against {one}" for one, other in space.GAINS)


def _gain_names() -> list[str]:
    return [f"{one} - {other}" for one, other in space.GAINS]


def over_seeds(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the seeds of one knob and array say together, in fractions: EER of each view as (mean, standard
    deviation), each gain as (mean, [mean lower limit, mean upper limit]). The deviation of one seed is nan."""
    views = {v: np.array([row["views"][v]["eer"] for row in rows]) for v in space.VIEWS}
    gains = {name: [row["gains"][name] for row in rows] for name in _gain_names()}
    return {
        "seeds": len(rows),
        "trials": [sum(row["trials"]["eval"][k] for row in rows) for k in (0, 1)],
        "views": {
            v: (float(e.mean()), float(e.std(ddof=1)) if len(e) > 1 else float("nan"))
            for v, e in views.items()
        },
        "gains": {
            name: (
                float(np.mean([g["points"] for g in each])),
                [float(limit) for limit in np.mean([g["interval"] for g in each], axis=0)],
            )
            for name, each in gains.items()
        },
    }


def _line(found: dict[str, Any], array: str, knob: str) -> str:
    cells = [array, knob, str(found["seeds"]), " + ".join(f"{n:,}" for n in found["trials"])]
    for mean, spread in found["views"].values():
        cells.append(f"{100 * mean:.1f}" + (f" ± {100 * spread:.1f}" if found["seeds"] > 1 else ""))
    cells += [space.percent(mean, limits) for mean, limits in found["gains"].values()]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main(tyro.cli(Knobs, description=__doc__))
