"""A planned table: its cells with their trials and their trainers' configs, and the figures of what is finished.

Planning trains nothing; it writes the parts of corpora that trainings hear, before any of them runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from detector.config import TrainConfig
from eval.benchmarks.tables import cells as cells_of
from eval.benchmarks.tables import views
from eval.benchmarks.tables.catalogue import TABLES, Plan, Table
from eval.benchmarks.tables.cells import Cell, Place, Training
from eval.benchmarks.tables.figures import above, figures_of, mean_of
from eval.benchmarks.tables.options import Options
from eval.scores import ScoreTable, read_scores
from remasc import Corpus
from remasc.protocol import partitions


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
    _known: dict[Any, Any] = field(default_factory=dict)  # cells, or those of a row -> what was measured

    def named(self, training: Training) -> str:
        """A training's name, with its corpus where there are several."""
        return training.name + (f" on {training.corpus.resolve().name}" if len(self.corpora) > 1 else "")

    def figures(self) -> list[dict[str, Any]]:
        """One entry for each place of the table whose runs are all finished, in the order of the plan."""
        found = []
        for place, done in self._places().items():
            if done not in self._known:
                self._known[done] = self._figures(done)
            found.append(dict(zip(("section", "row", "column"), place, strict=True)) | self._known[done])
        return found

    def _places(self) -> dict[Place, tuple[Cell, ...]]:
        """The finished cells of each place that has any, in the order of the plan."""
        places: dict[Place, list[Cell]] = defaultdict(list)
        for cell in self.cells:
            places[cell.place].append(cell)
        found = {}
        for place, runs in places.items():
            done = tuple(cell for cell in runs if cell.training in self.records)
            # a seed that is still missing is no reason to wait; one of several trainings of a seed is
            whole = {cell.training.seed for cell in runs} - {c.training.seed for c in runs if c not in done}
            if done := tuple(cell for cell in done if cell.training.seed in whole):
                found[place] = done
        return found

    def means(self) -> list[dict[str, Any]]:
        """The mean of each row over the columns of its section, and over all columns of all sections (section
        None), where every one of them has a rate; and by how much it is above the table's reference row."""
        if not self.table.mean:
            return []
        rated = {
            (one["section"], one["row"], one["column"]) for one in self.figures() if one["eer"] is not None
        }
        sections = list(dict.fromkeys(cell.section for cell in self.cells))
        found = []
        for section in [*sections, *([None] if len(sections) > 1 else [])]:
            part = [cell for cell in self.cells if section in (None, cell.section)]
            over = tuple(dict.fromkeys((cell.section, cell.column) for cell in part))
            if section is None:
                over = tuple(product(sections, dict.fromkeys(column for _, column in over)))
            if len(over) < 2 and not self.table.reference:
                continue
            whole = {row for row in {cell.row for cell in part} if {(s, row, c) for s, c in over} <= rated}
            for row in dict.fromkeys(cell.row for cell in part if cell.row in whole):
                mean, reference = self._mean(row, over), self.table.reference
                entry = {"section": section, "row": row, "places": len(over)} | mean[0]
                if reference in whole - {row}:
                    entry["above"] = above(mean, self._mean(reference, over))
                found.append(entry)
        return found

    def _mean(self, row: str, over: tuple[tuple[str, str], ...]) -> tuple[dict[str, Any], np.ndarray]:
        places = self._places()
        runs = tuple(places[section, row, column] for section, column in over)
        if runs not in self._known:
            tables = [[self.scores(cell) for cell in one] for one in runs]
            self._known[runs] = mean_of(tables, [[cell.training.seed for cell in one] for one in runs])
        return self._known[runs]

    def _figures(self, runs: Sequence[Cell]) -> dict[str, Any]:
        rows = []
        for cell in runs:
            config, record = self.configs[cell.training], self.records[cell.training]
            cut = cells_of.undertrained(config.system, config.epochs or 0, record)
            rows.append(
                record
                | {
                    "training": cell.training.name,
                    "one_for_all": cell.training.array == "all",
                    "scores": str((self.scored(cell) / "scores.tsv").relative_to(self.options.folder)),
                    "seed": cell.training.seed,
                    "speed": record["speeds"][self.scored(cell).name],
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


def plan(name: str, options: Options) -> Benchmark:
    """Every cell with its trials and its trainer's config; nothing is trained. ValueError where the options name
    what the corpora do not hold."""
    table = TABLES[name]
    if table.corpora and len(options.corpus) != table.corpora:
        raise ValueError(f"{name} compares {table.corpora} corpora, got {len(options.corpus)}; see --help")
    if options.held_out and name != "peers":
        raise ValueError(f"{name} holds nothing out by --held-out; use `replayguard benchmark peers`")
    if table.only and options.systems not in (None, table.systems):
        raise ValueError(f"{name} is about {' and '.join(table.systems)}; leave --systems out")
    corpora = views.corpora_of(options)
    bench = Benchmark(table, options, corpora, {corpus.root: partitions(corpus) for corpus in corpora})
    heard: dict[tuple, Path | str] = {}
    cells = table.cells(Plan(options, corpora, options.systems or table.systems))
    for cell in dict.fromkeys(cells):  # what was asked for twice is counted once
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
