"""Many small jobs on several processes, with progress; plain functions, no `__main__` guard needed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from remasc.sentences import quoted, reason

Result = TypeVar("Result")


def default_workers() -> int:
    """The processors that this process may use, at most 16: reading is bound by the disk before that."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 16)


@contextmanager
def on_cluster(address: str | None) -> Iterator[int | None]:
    """While it lasts, the jobs of this module run on the workers of a cluster; yields how many these are.

    `address` is that of a Dask scheduler (tcp://host:8786), or "ray" for the Ray cluster that this machine has
    joined. None stays on this machine, and yields None. The workers must have this package, and the corpus's
    folders under the same paths. ValueError without the library, OSError where no cluster answers or a worker is
    lost.
    """
    if address is None:
        yield None
    elif address == "ray":
        with _on_ray() as workers:
            yield workers
    else:
        with _on_dask(address) as workers:
            yield workers


@contextmanager
def _on_dask(scheduler: str) -> Iterator[int]:
    try:
        from dask.distributed import Client, KilledWorker
    except ImportError:
        raise ValueError("a cluster needs dask.distributed; run `pip install replayguard[cluster]`") from None
    from joblib import parallel_config

    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError, TypeError) as error:
        raise OSError(
            f"no Dask scheduler answers at {quoted(scheduler)} ({reason(error)}); start one with `dask scheduler` "
            "and workers with `dask worker`, or give `ray` for a Ray cluster"
        ) from None
    with client, parallel_config(backend="dask"), _lost("Dask", KilledWorker):
        yield max(2, sum(client.ncores().values()))  # 1 would stay in this process


@contextmanager
def _on_ray() -> Iterator[int]:
    try:
        import ray
        from ray.util.joblib.ray_backend import RayBackend
    except ImportError:
        raise ValueError("a Ray cluster needs ray; run `pip install replayguard[ray]`") from None
    from joblib import parallel_config, register_parallel_backend

    class AsTheyCome(RayBackend):
        """Ray's own backend of joblib, whose results can be had one by one although it does not say so."""

        supports_return_generator = True

        def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
            # Ray's pool deals jobs to its workers in turn, busy or not: dealt late, they wait beside idle ones
            parallel.pre_dispatch = "all"
            return super().configure(n_jobs, parallel, **options)

    register_parallel_backend("ray", AsTheyCome)
    try:
        ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise OSError(
            f"no Ray cluster answers here ({reason(error)}); start one with `ray start --head` and join it on "
            "every machine with `ray start --address HOST:6379`"
        ) from None
    try:
        one_each = parallel_config(backend="ray", ray_remote_args={"num_cpus": 1})  # else all on one machine
        with one_each, _lost("Ray", ray.exceptions.RayError):
            yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        ray.shutdown()


@contextmanager
def _lost(kind: str, error: type[Exception]) -> Iterator[None]:
    """What a cluster raises where one of its workers dies, as a sentence."""
    try:
        yield
    except error:
        raise OSError(
            f"a worker of the {kind} cluster was lost, most likely for memory; run again, what is finished is kept"
        ) from None


def unordered(
    function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], workers: int | None = None
) -> Iterator[Result]:
    """`function(*job)` for every job, in the order in which they finish; one worker runs in this process."""
    return _results(function, jobs, workers, "generator_unordered")


def ordered(
    function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], workers: int | None = None
) -> Iterator[Result]:
    """`function(*job)` for every job, in the order of the jobs, each as soon as it and those before are done."""
    return _results(function, jobs, workers, "generator")


def checked_workers(workers: int | None) -> int:
    """As many processes as asked for, or `default_workers()`; ValueError below one."""
    workers = default_workers() if workers is None else workers
    if workers < 1:
        raise ValueError(f"workers is {workers}; expected 1 or more")
    return workers


def _results(
    function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], workers: int | None, order: str
) -> Iterator[Result]:
    workers = checked_workers(workers)
    if workers == 1 or len(jobs) <= 1:
        yield from (function(*job) for job in jobs)
        return
    from joblib import Parallel, delayed  # imported late: slow, and not needed by one worker
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    # a worker that has grown (torch's caches do) is replaced between jobs, which is as it should be
    warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
    pool = Parallel(n_jobs=min(workers, len(jobs)), return_as=order)
    results = pool(delayed(function)(*job) for job in jobs)
    try:
        for result in results:  # noqa: UP028 (`yield from` would close them before the warning is silenced)
            yield result
    except GeneratorExit:  # whoever asked went away (`| head`): not worth the warning that joblib has for it
        with warnings.catch_warnings(action="ignore"):
            results.close()
        raise
    except TerminatedWorkerError:
        raise OSError(
            f"one of {workers} worker processes was killed, most likely for memory; run again with fewer, "
            "what is finished is kept"
        ) from None


def tracked(
    results: Iterable[tuple[int, Result]], what: str, total: int, done: int, shown: bool
) -> Iterator[Result]:
    """Passes on the results of (amount, result), moving a progress bar with the time left by the amounts."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(what, total=total, completed=done)
        for amount, result in results:
            bar.advance(task, amount)
            yield result
