"""One engine for all tables: plan the cells, run what is not finished, write what is known.

A training that fails is reported and the others go on. Every finished one is left as it is by the next call, so
that a table may grow over days and over machines.
"""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detector.config import TrainConfig
from eval.benchmarks.tables import cells as cells_of
from eval.benchmarks.tables import leaks, page, views
from eval.benchmarks.tables.cells import Scored, Training
from eval.benchmarks.tables.options import Options
from eval.benchmarks.tables.planning import Benchmark, plan
from remasc.atomic import whole_file
from remasc.parallel import default_workers, on_cluster, unordered
from remasc.sentences import reason

Say = Callable[[str], None]


def run(name: str, options: Options, *, say: Say = lambda _: None, shown: bool = False) -> Benchmark:
    """Train, score and measure every cell of a table that is not finished; the page lies in `options.folder`.

    `say` is told what is finished and how long the rest may take; `shown` lets a lone cell show its own bars.
    """
    bench = plan(name, options)
    options.folder.mkdir(parents=True, exist_ok=True)
    for corpus in bench.corpora:
        views.same_recordings(corpus, cells_of.runs_folder(options.folder, corpus.root))
    jobs = _jobs(bench)
    todo = [training for training in jobs if not _finished(bench.configs[training], jobs[training], options)]
    if options.warning:
        say(options.warning)
    say(
        f"{name}: {len(bench.cells)} cells of {len(jobs)} trainings, {len(jobs) - len(todo)} of them finished"
        + (f"; {len(bench.impossible)} cells cannot be (see the page)" if bench.impossible else "")
    )
    with on_cluster(options.cluster) as there:
        workers = options.workers or there or _default_workers(options)
        bench.leaks = [leaks.verdict_of(corpus, options.folder, workers, shown) for corpus in bench.corpora]
        alone = workers == 1  # not: one cell left, or a run that goes on would count with other threads

        def job(training: Training, shown: bool = False) -> tuple:
            how = cells_of.How(options.split, alone, shown, options.processes)
            return training, bench.configs[training], jobs[training], how

        for training in jobs:
            if training not in todo:
                _take(bench, *_job(*job(training)), say)
        begun, left = time.monotonic(), [job(training, shown and alone) for training in todo]
        for number, (training, record) in enumerate(unordered(_job, left, workers), start=1):
            _take(bench, training, record, say)
            page.write(bench, pictures=False)
            done = f"[{len(jobs) - len(todo) + number} of {len(jobs)}] {bench.named(training)}"
            say(done + _time_left(begun, number, len(todo)))
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


def _jobs(bench: Benchmark) -> dict[Training, list[Scored]]:
    """Training -> what it is scored on, each once, in the order of the plan."""
    jobs: dict[Training, list[Scored]] = defaultdict(list)
    for cell in bench.cells:
        if cell.test.scored not in jobs[cell.training]:
            jobs[cell.training].append(cell.test.scored)
    return dict(jobs)


def _finished(config: TrainConfig, tests: Sequence[Scored], options: Options) -> bool:
    folders = [cells_of.score_folder(config, test, options.split) for test in tests]
    return (config.out / "run.json").exists() and all((f / cells_of.SPEED).exists() for f in folders)


def _job(
    training: Training,
    config: TrainConfig,
    tests: list[Scored],
    how: cells_of.How,
) -> tuple[Training, dict[str, Any] | str]:
    """The record of a training, or why it failed: whatever happens in one cell, the others go on."""
    try:
        return training, cells_of.run(config, tests, how, training.variant)
    except (ValueError, OSError) as error:
        return training, str(error)
    except Exception as error:
        return training, f"{type(error).__name__}: {reason(error)}"


def _take(bench: Benchmark, training: Training, record: dict[str, Any] | str, say: Say) -> None:
    if isinstance(record, str):
        bench.failed[bench.named(training)] = record
        say(f"FAILED: {bench.named(training)}: {record}")
    else:
        bench.records[training] = record


def _default_workers(options: Options) -> int:
    import torch

    cuda = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    return 1 if cuda else max(1, default_workers() // options.processes)


def _time_left(begun: float, done: int, total: int) -> str:
    """From the mean of what this call has finished."""
    if done == total:
        return ""
    minutes = (time.monotonic() - begun) / done * (total - done) / 60
    return f"; about {minutes:.0f} min left" if minutes < 90 else f"; about {minutes / 60:.1f} h left"
