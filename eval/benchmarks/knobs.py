"""What carries the difference between the classes in a simulated corpus, knob by knob.

    python -m eval.benchmarks.knobs --speech DIR --noise DIR --out FOLDER [--array D2] [--seeds 0 1 2] [--pairs 600]

For every knob and seed a corpus of the open protocol is simulated with that knob alone turned, and
`eval.benchmarks.space` compares what one channel, space and both tell of it, array by array. SNR, distance and RT60
need no corpus of their own: they are told by thirds of what the unturned and the closed corpora hold. Resumes where
it stopped; a corpus's sound is removed once it was heard, unless --keep.
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
from eval.benchmarks.space_facts import facts_of, kept_facts
from remasc import Corpus
from remasc.atomic import whole_file, write_text
from remasc.simulate import Recipe, generate, load_recipe
from remasc.simulate.generate import VERSION


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
WITHIN = ("as it is", "closed")  # where SNR, distance and RT60 are told by thirds


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
    """Simulate, hear and compare one corpus, each unless it was done. What was heard stays when the sound goes."""
    recipe = recipe_of(options, knob)
    place = options.out / f"{recipe.name}-s{seed}"
    if all(_kept(place / f"{array}.json", recipe) for array in options.array):
        return
    root = place / "corpus"
    heard = {array: place / "facts" / f"{array}-{recipe.sha256[:12]}.npz" for array in options.array}
    if not all(path.is_file() for path in heard.values()):
        generate(
            recipe, root, speech=options.speech, noise=options.noise, arrays=options.array, seed=seed,
            workers=options.workers,
        )  # fmt: skip
        corpus = Corpus.from_meta(root)
        for array, path in heard.items():
            facts_of(corpus, array, path, options.workers)
        if not options.keep:
            shutil.rmtree(root)
    card = {
        "name": f"{recipe.name}-v{recipe.version}-s{seed}",
        "version": VERSION,
        "recipe": recipe.to_dict(),
    }
    for array, path in heard.items():
        row, trials = space.compare(card, array, kept_facts(path))
        with whole_file(place / f"{array}.npz") as temporary, temporary.open("wb") as handle:
            columns: dict[str, Any] = {"truth": trials.truth, "voice": trials.voice, "knobs": trials.knobs}
            columns |= trials.scores
            np.savez(handle, **columns)
        row |= {"knob": knob, "seed": seed, "recipe": recipe.to_dict()}
        write_text(place / f"{array}.json", json.dumps(row, indent=1) + "\n")


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
    rows = []
    for path in options.out.glob("knob-*/D?.json"):
        row = json.loads(path.read_text(encoding="utf-8"))
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as kept:
            scores = {view: kept[view] for view in space.VIEWS}
            rows.append((row, space.Trials(kept["truth"], kept["voice"], scores, kept["knobs"])))
    rows.sort(key=lambda row: (*_place(row[0]), row[0]["seed"]))
    summed = []
    for _, group in groupby(rows, key=lambda row: _place(row[0])):
        told, trials = zip(*group, strict=True)
        summed.append(over_seeds(told, trials))
    found = {"over seeds": summed, "corpora": [row for row, _ in rows]}
    write_text(options.out / "knobs.json", json.dumps(found, indent=1) + "\n")
    write_text(options.out / "knobs.md", markdown(found))


def _place(row: dict[str, Any]) -> tuple[str, int]:
    return row["array"], list(KNOBS).index(row["knob"])


def over_seeds(rows: Sequence[dict[str, Any]], trials: Sequence[space.Trials]) -> dict[str, Any]:
    """What the corpora of one knob and array say together: `space.figures_of` of all, and the standard deviation of
    each view over the seeds (None of one seed)."""
    found = space.figures_of(trials)
    for view, cell in found["views"].items():
        each = [row["views"][view]["eer"] for row in rows]
        cell["deviation"] = float(np.std(each, ddof=1)) if len(each) > 1 else None
    judged = [sum(row["trials"]["eval"][k] for row in rows) for k in (0, 1)]
    first = {key: rows[0][key] for key in ("array", "knob", "null")}
    told = {**first, "corpus": first["knob"], "seeds": len(rows), "trials": {"eval": judged}, **found}
    return told | {"knobs": space.thirds(trials) if first["knob"] in WITHIN else []}


def markdown(found: dict[str, Any]) -> str:
    """The knobs over their seeds, and each corpus by itself."""
    head = " | ".join(space.VIEWS) + " | " + " | ".join(f"{b} against {a}" for a, b in space.GAINS) + " |"
    rule = "|---" * (4 + len(space.VIEWS) + len(space.GAINS)) + "|"
    lines = [
        "# What carries the result, knob by knob (simulated)",
        "",
        "EER in % on eval, mean over the seeds (each a corpus of its own) ± their standard deviation [95 % "
        "interval over voices, which the seeds share; over trials, where voices are few]; gains in points with the "
        "interval of the difference. `python -m eval.benchmarks.knobs`",
        "",
        "| array | knob | seeds | eval trials | " + head,
        rule,
    ]
    lines += [_line(row, str(row["seeds"])) for row in found["over seeds"]]
    lines += ["", "Controls: " + " ".join(space.controls(found["over seeds"])), ""]
    lines += ["SNR, distance and RT60, by thirds of eval, over the same seeds:", ""]
    lines += [*space.thirds_table(found["over seeds"]), ""]
    lines += ["One corpus a line:", "", "| array | knob | seed | eval trials | " + head, rule]
    lines += [_line(row, str(row["seed"])) for row in found["corpora"]]
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any], seed: str) -> str:
    cells = [row["array"], row["knob"], seed, " + ".join(f"{n:,}" for n in row["trials"]["eval"])]
    for cell in row["views"].values():
        figure = space.percent(cell["eer"], cell["interval"])
        if cell.get("deviation") is not None:
            figure = figure.replace(" [", f" ± {100 * cell['deviation']:.1f} [")
        cells.append(figure)
    cells += [space.percent(gain["points"], gain["interval"]) for gain in row["gains"].values()]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main(tyro.cli(Knobs, description=__doc__))
