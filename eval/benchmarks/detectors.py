"""All detectors on the same trials and seeds, each by its own schedule until its own stop, scored once.

    python -m eval.benchmarks.detectors --corpus ROOT --out FOLDER [--systems lfcc-gmm void malrad ...]
        [--arrays D4] [--seeds 0 1 2] [--split eval] [--results eval/results/NAME]

Give several corpora to compare conditions: a corpus with positions matched between the classes, or with a condition
held out of train and dev (recipes remasc-sim-matched, held-out-*), is one condition. Every (corpus, array,
system, seed) is a folder of `replayguard train` under FOLDER and goes on where it was interrupted, so the table may
grow over days; `table.md` and `table.json` are written anew after each of them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from detector.config import ARRAY_NAMES, DEFAULTS, TrainConfig
from eval.benchmarks.detectors_table import FIGURES, UNSEEDED, figures_of, markdown
from remasc import Corpus
from remasc.atomic import write_text
from remasc.sentences import quoted

ONE_FOR_ALL = ("compact",)  # trained once on all arrays together
SPEED_CLIPS = 12
SPEED = "speed.json"


@dataclass(frozen=True)
class Detectors:
    """What is compared, and where it lies.

    Args:
        corpus: Folders of ReMASC copies or of simulated corpora, each a condition of its own.
        out: Folder of the runs; an interrupted benchmark goes on there.
        systems: Which detectors; default: all that can be trained.
        arrays: Which arrays; default: those that the corpora hold.
        seeds: Of the training. What draws nothing is trained once.
        split: Which partition is scored: eval, or dev, which chose the epochs.
        scale: Share of each schedule's epochs, at most 1; anything less is marked undertrained.
        device: auto, cpu, cuda or mps, for the networks.
        results: Where the tables go; default: OUT.
    """

    corpus: tuple[Path, ...]
    out: Path
    systems: tuple[str, ...] = tuple(DEFAULTS)
    arrays: tuple[str, ...] | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    split: str = "eval"
    scale: float = 1.0
    device: str = "auto"
    results: Path | None = None

    def __post_init__(self) -> None:
        if not self.corpus or not self.systems or not self.seeds:
            raise ValueError("a benchmark needs at least one corpus, one system and one seed")
        if len({folder.resolve().name for folder in self.corpus}) < len(self.corpus):
            raise ValueError("two corpora are of one name; give them folders of different names")
        if unknown := [name for name in self.systems if name not in DEFAULTS]:
            raise ValueError(f"unknown system {quoted(unknown[0])}; expected of {', '.join(DEFAULTS)}")
        if unknown := [name for name in self.arrays or () if name not in ARRAY_NAMES]:
            raise ValueError(f"unknown array {quoted(unknown[0])}; expected of {', '.join(ARRAY_NAMES)}")
        if self.split not in ("dev", "eval"):
            raise ValueError(f"split is {quoted(self.split)}; expected dev or eval")
        if not 0 < self.scale <= 1:
            raise ValueError(f"scale is {self.scale}; expected above 0, at most 1")


@dataclass(frozen=True)
class Cell:
    """One training, and the array that it is scored on."""

    corpus: Path
    array: str
    system: str
    seed: int

    def training(self, bench: Detectors) -> TrainConfig:
        trained_on = "all" if self.system in ONE_FOR_ALL else self.array
        place = bench.out / self.corpus.resolve().name
        epochs = DEFAULTS[self.system].get("epochs")
        return TrainConfig(
            self.corpus,
            place / f"{self.system}-{trained_on}-seed{self.seed}",
            system=self.system,
            array=trained_on,
            seed=self.seed,
            epochs=None if epochs is None else max(1, round(bench.scale * epochs)),
            cache=place / "prepared",
            device=bench.device,
        )

    def __str__(self) -> str:
        return f"{self.system}, {self.array}, seed {self.seed}, on {self.corpus.resolve().name}"


def cells(bench: Detectors) -> Iterator[Cell]:
    """Seed by seed, so that a first whole table stands early."""
    held = {root: _arrays(root) for root in bench.corpus}
    for seed in bench.seeds:
        for root in bench.corpus:
            for array in bench.arrays or held[root]:
                if array not in held[root]:
                    raise ValueError(
                        f"{root}: holds no trial of {array}; expected of {', '.join(held[root])}"
                    )
                for system in bench.systems:
                    if seed == bench.seeds[0] or system not in UNSEEDED:
                        yield Cell(root, array, system, seed)


def _arrays(root: Path) -> list[str]:
    return sorted({str(r.array) for r in Corpus.from_meta(root).trials()} & set(ARRAY_NAMES))


def run(bench: Detectors) -> Path:
    """Train, score and measure every cell that is not finished; returns the path of table.md."""
    todo = list(cells(bench))
    results = bench.results or bench.out
    results.mkdir(parents=True, exist_ok=True)
    begun, rows, fresh = time.monotonic(), [], 0
    for number, cell in enumerate(todo, start=1):
        worked = not (cell.training(bench).out / "run.json").exists()
        _say(f"[{number} of {len(todo)}] {cell}{_time_left(begun, fresh, len(todo) - number + 1)}")
        rows.append(_row(bench, cell))
        fresh += worked
        if not worked and number < len(todo):
            continue
        facts = {"split": bench.split, "scale": bench.scale, "cells": len(todo), "finished": number}
        table = {"benchmark": facts, "figures": figures_of(rows, bench.split)}
        write_text(results / "table.json", json.dumps(table, indent=1) + "\n")
        write_text(results / "table.md", markdown(table))
    return results / "table.md"


def _row(bench: Detectors, cell: Cell) -> dict[str, Any]:
    """A finished cell: its record, and where its scores lie."""
    from detector.batch import score_corpus
    from detector.train import train

    config = cell.training(bench)
    folder = train(config).folder
    corpus = Corpus.from_meta(cell.corpus)
    scored = folder / f"{bench.split}-{cell.array}"
    scores = score_corpus(str(folder), corpus, scored, split=bench.split, arrays=[cell.array])
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return {
        "corpus": corpus.name,
        "simulated": corpus.simulated,
        "array": cell.array,
        "system": cell.system,
        "seed": cell.seed,
        "scores": str(scores),
        "protocol_sha256": json.loads((scored / "run.json").read_text())["run"]["protocol sha256"],
        "undertrained": bench.scale < 1,
        "one_for_all": cell.system in ONE_FOR_ALL,
        "speed": _speed(folder, corpus, scored / SPEED, bench.split, cell.array),
    } | {name: record.get(name) for name in FIGURES}


def _speed(folder: Path, corpus: Corpus, path: Path, split: str, array: str) -> float:
    """Seconds of processor time for a second of sound, on one thread; measured once and kept."""
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))["real_time_factor"]
    import torch

    from detector.score import load
    from remasc import read_audio
    from remasc.protocol import partitions

    clips = [read_audio(r.path) for r in list(partitions(corpus)[split].filter(array=[array]))[:SPEED_CLIPS]]
    detector, threads = load(folder), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        detector.score(*clips[0], array)  # the first call prepares what later ones share
        begun = time.process_time()
        for waveform, rate in clips:
            detector.score(waveform, rate, array)
        spent = time.process_time() - begun
    finally:
        torch.set_num_threads(threads)
    factor = spent / sum(waveform.shape[1] / rate for waveform, rate in clips)
    write_text(path, json.dumps({"real_time_factor": factor, "clips": len(clips), "threads": 1}) + "\n")
    return factor


def _time_left(begun: float, done: int, left: int) -> str:
    """From the mean of what this call has trained; silent before the first."""
    if not done:
        return ""
    minutes = (time.monotonic() - begun) / done * left / 60
    return f"; about {minutes:.0f} min left" if minutes < 90 else f"; about {minutes / 60:.1f} h left"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        print(run(tyro.cli(Detectors, description=__doc__)).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        sys.exit(f"detectors: {error}")
