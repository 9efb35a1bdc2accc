"""One engine for all tables: plan the cells, run what is not finished, write what is known.

A training that fails is reported and the others go on. Every finished one is left as it is by the next call, so
that a table may grow over days and over machines.
"""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from detector.config import TrainConfig
from eval.benchmarks.tables import cells as cells_of
from eval.benchmarks.tables import leaks, page, views
from eval.benchmarks.tables.catalogue import TABLES, Plan, Table
from eval.benchmarks.tables.cells import Cell, Training
from eval.benchmarks.tables.figures import figures_of
from eval.benchmarks.tables.options import Options
from eval.scores import ScoreTable, read_scores
from remasc import Corpus
from remasc.atomic import whole_file
from remasc.parallel import default_workers, on_cluster, unordered
from remasc.protocol import partitions
from remasc.sentences import reason

Say = Callable[[str], None]


@dataclass
class Benchmark:
    """A planned table: its cells with the trials of their tests, what cannot be, what failed, what is finished."""

    table: Table
    options: Options
    corpora: tuple[Corpus, ...]
    parts: dict[Path, dict[str, Corpus]] = field(default_factory=dict)  # root -> the partitions of its corpus
    cells: list[Cell] = field(default_factory=list)
    trials: dict[Any, list[str]] = field(default_factory=dict)  # Test -> its trials
    configs: dict[Training, TrainConfig] = field(default_factory=dict)
    impossible: dict[str, str] = field(default_factory=dict)  # cell -> why
    failed: dict[str, str] = field(default_factory=dict)  # training -> why
    records: dict[Training, dict[str, Any]] = field(default_factory=dict)
    leaks: list[dict[str, Any]] = field(default_factory=list)
    _known: dict[Any, dict[str, Any]] = field(default_factory=dict)

    def figures(self) -> list[dict[str, Any]]:
        """One entry for each place of the table whose runs are all finished, in the order of the plan."""
        places: dict[tuple[str, str, str], list[Cell]] = defaultdict(list)
        for cell in self.cells:
            places[cell.place].append(cell)
        found = []
        for place, runs in places.items():
            done = tuple(cell for cell in runs if cell.training in self.records)
            # a seed that is still missing is no reason to wait; one of several trainings of a seed is
            whole = {cell.training.seed for cell in runs} - {c.training.seed for c in runs if c not in done}
            done = tuple(cell for cell in done if cell.training.seed in whole)
            if done:
                if done not in self._known:
                    self._known[done] = self._figures(done)
                found.append(dict(zip(("section", "row", "column"), place, strict=True)) | self._known[done])
        return found

    def _figures(self, runs: Sequence[Cell]) -> dict[str, Any]:
        rows = []
        for cell in runs:
            config, record = self.configs[cell.training], self.records[cell.training]
            cut = cells_of.undertrained(config.system, config.epochs or 0, record)
            rows.append(
                record
                | {
                    "training": cell.training.name,
                    "scores": str((self.scored(cell) / "scores.tsv").relative_to(self.options.folder)),
                    "seed": cell.training.seed,
                    "speed": record["speeds"][cell.test.array],
                    "undertrained": cut,
                }
            )
        return figures_of(rows, [self.scores(cell) for cell in runs])

    def scored(self, cell: Cell) -> Path:
        """The folder of a cell's scores."""
        return cells_of.score_folder(self.configs[cell.training], cell.test.scored, self.options.split)

    def scores(self, cell: Cell) -> ScoreTable:
        """Of the trials of its test, each scored once."""
        path = self.scored(cell) / "scores.tsv"
        table = read_scores(path, partition=self.options.split)
        wanted = self.trials[cell.test]
        kept = table.select(np.isin(table.trial, wanted))
        if len(kept) != len(wanted):
            raise ValueError(
                f"{path}: holds scores of {len(kept)} of the {len(wanted)} trials; delete its folder"
            )
        return kept


def run(name: str, options: Options, *, say: Say = lambda _: None, shown: bool = False) -> Benchmark:
    """Train, score and measure every cell of a table that is not finished; the page lies in `options.folder`.

    `say` is told what is finished and how long the rest may take; `shown` lets a lone cell show its own bars.
    """
    bench = plan(name, options)
    options.folder.mkdir(parents=True, exist_ok=True)
    jobs = _jobs(bench)
    todo = [training for training in jobs if not _finished(bench.configs[training], jobs[training], options)]
    say(
        f"{name}: {len(bench.cells)} cells of {len(jobs)} trainings, {len(jobs) - len(todo)} of them finished"
        + (f"; {len(bench.impossible)} cells cannot be (see the page)" if bench.impossible else "")
    )
    with on_cluster(options.cluster) as there:
        workers = options.workers or there or _default_workers(options)
        bench.leaks = [leaks.verdict_of(corpus, options.folder, workers, shown) for corpus in bench.corpora]
        alone = workers == 1  # not: one cell left, or a run that goes on would count with other threads
        finished = [training for training in jobs if training not in todo]
        for training in finished:
            _take(
                bench,
                *_job(training, bench.configs[training], jobs[training], options.split, alone, False),
                say,
            )
        fresh = [
            (training, bench.configs[training], jobs[training], options.split, alone, shown and alone)
            for training in todo
        ]
        begun = time.monotonic()
        for number, (training, record) in enumerate(unordered(_job, fresh, workers), start=1):
            _take(bench, training, record, say)
            page.write(bench, pictures=False)
            done = f"[{len(finished) + number} of {len(jobs)}] {training.name}"
            say(done + _time_left(begun, number, len(fresh)))
    page.write(bench)
    if options.results is not None:
        keep(bench, options.results)
    return bench


def keep(bench: Benchmark, results: Path) -> None:
    """Copy the page and of each finished run what it is made of (records, protocols, scores), without weights."""
    out = bench.options.folder
    wanted = [path for path in out.glob(f"{bench.table.name}[.-]*") if path.is_file()]
    for cell in bench.cells:
        if cell.training in bench.records:
            folder, scored = bench.configs[cell.training].out, bench.scored(cell)
            wanted += [folder / "run.json", folder / "protocol.tsv"]
            wanted += [scored / name for name in ("run.json", "protocol.tsv", "scores.tsv", cells_of.SPEED)]
    for path in dict.fromkeys(wanted):
        place = results / path.relative_to(out)
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(place) as temporary:
            shutil.copyfile(path, temporary)


def plan(name: str, options: Options) -> Benchmark:
    """Every cell with its trials and its trainer's config; nothing is trained. ValueError where the options name
    what the corpora do not hold."""
    table = TABLES[name]
    if table.corpora and len(options.corpus) != table.corpora:
        raise ValueError(f"{name} compares {table.corpora} corpora, got {len(options.corpus)}; see --help")
    if options.held_out and name != "peers":
        raise ValueError(f"{name} holds nothing out by --held-out; use `replayguard benchmark peers`")
    corpora = views.corpora_of(options)
    bench = Benchmark(table, options, corpora, {corpus.root: partitions(corpus) for corpus in corpora})
    heard: dict[tuple, Path | str] = {}
    for cell in table.cells(Plan(options, corpora, options.systems or table.systems)):
        try:
            if cell.test not in bench.trials:
                test = cell.test
                whole = bench.parts[test.corpus]
                bench.trials[test] = views.tested(whole, options.split, test.array, test.only, test.without)
            _configure(bench, cell.training, heard)
        except ValueError as error:
            bench.impossible[f"{', '.join(word for word in cell.place if word)}"] = str(error)
            continue
        bench.cells.append(cell)
    if not bench.cells:
        why = next(iter(bench.impossible.values()), "no system that it is for was named")
        raise ValueError(f"no cell of {name} can be run on {corpora[0].root}: {why}")
    return bench


def _configure(bench: Benchmark, training: Training, heard: dict[tuple, Path | str]) -> None:
    """The config of a training, on what it hears; the parts of corpora are written here, before any cell runs."""
    if training in bench.configs:
        return
    options = bench.options
    corpus = next(one for one in bench.corpora if one.root == training.corpus)
    key = (training.corpus, training.selection, training.array)
    if key not in heard:
        try:
            heard[key] = _heard(bench, corpus, training)
        except ValueError as error:
            heard[key] = str(error)
    if isinstance(place := heard[key], str):
        raise ValueError(place)
    bench.configs[training] = training.config(
        place, options.folder, scale=options.scale, quick=options.quick, device=options.device
    )


def _heard(bench: Benchmark, corpus: Corpus, training: Training) -> Path:
    parts = views.train_and_dev(
        bench.parts[corpus.root],
        array=training.array,
        only=training.only,
        without=training.without,
        target=training.target,
        minutes=training.minutes,
    )
    if not training.selection:
        return corpus.root
    folder = (
        bench.options.folder
        / "corpora"
        / f"{corpus.root.resolve().name}-{training.array}-{training.selection}"
    )
    return views.write_view(folder, corpus, parts)


def _jobs(bench: Benchmark) -> dict[Training, list[tuple[Path, str]]]:
    """Training -> what it is scored on, each once, in the order of the plan."""
    jobs: dict[Training, list[tuple[Path, str]]] = defaultdict(list)
    for cell in bench.cells:
        if cell.test.scored not in jobs[cell.training]:
            jobs[cell.training].append(cell.test.scored)
    return dict(jobs)


def _finished(config: TrainConfig, tests: Sequence[tuple[Path, str]], options: Options) -> bool:
    folders = [cells_of.score_folder(config, test, options.split) for test in tests]
    return (config.out / "run.json").exists() and all((f / cells_of.SPEED).exists() for f in folders)


def _job(
    training: Training,
    config: TrainConfig,
    tests: list[tuple[Path, str]],
    split: str,
    alone: bool,
    shown: bool,
) -> tuple[Training, dict[str, Any] | str]:
    """The record of a training, or why it failed: whatever happens in one cell, the others go on."""
    try:
        return training, cells_of.run(config, tests, split, alone, shown)
    except (ValueError, OSError) as error:
        return training, str(error)
    except Exception as error:
        return training, f"{type(error).__name__}: {reason(error)}"


def _take(bench: Benchmark, training: Training, record: dict[str, Any] | str, say: Say) -> None:
    if isinstance(record, str):
        bench.failed[training.name] = record
        say(f"FAILED: {training.name}: {record}")
    else:
        bench.records[training] = record


def _default_workers(options: Options) -> int:
    import torch

    cuda = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    return 1 if cuda else default_workers()


def _time_left(begun: float, done: int, total: int) -> str:
    """From the mean of what this call has finished."""
    if done == total:
        return ""
    minutes = (time.monotonic() - begun) / done * (total - done) / 60
    return f"; about {minutes:.0f} min left" if minutes < 90 else f"; about {minutes / 60:.1f} h left"
