"""The non-real-time expert: it hears the whole command, asks the victim for scores, and evolves the moments.

Differential evolution as published (best1bin, mutation 0.5 to 1, recombination 1, ten individuals a gene, 75
generations, no polishing), SciPy's, vectorised: a generation is one batch for the victim, a genome that was
judged before is not judged again, and many clips may evolve at once, their generations in one batch.
Shapes: S candidates, n genes: start steps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import differential_evolution

from streaming.attack.environment import Clip, Environment

Objective = Callable[[np.ndarray], np.ndarray]  # start steps (S, n) int64 -> (S,), to be minimised


@dataclass(frozen=True)
class Evolution:
    """How long to evolve; the published values by default."""

    generations: int = 75
    individuals: int = 10  # times the number of genes
    seed: int = 0

    def settings(self, steps: int, genes: int) -> dict[str, Any]:
        """Arguments of SciPy's `differential_evolution`, the same for every way of running it."""
        return {
            "bounds": [(0.0, steps - 1e-9)] * genes,
            "strategy": "best1bin",
            "mutation": (0.5, 1.0),
            "recombination": 1.0,
            "popsize": self.individuals,
            "maxiter": self.generations,
            "tol": 0.0,
            "atol": -1.0,  # all generations, also where everybody agrees
            "polish": False,
            "updating": "deferred",
            "rng": np.random.default_rng(self.seed),
        }

    def evaluations(self, genes: int) -> int:
        """Genomes judged in one evolution."""
        return max(5, self.individuals * genes) * (self.generations + 1)


@dataclass(frozen=True)
class Found:
    """The best genome: sorted start steps (n,), its value; genomes asked for, and how many went to the victim."""

    steps: np.ndarray
    value: float
    evaluations: int
    asked: int


def evolve(objective: Objective, steps: int, genes: int, evolution: Evolution | None = None) -> Found:
    """Minimise over `genes` start steps 0..steps-1; a generation is one call of the objective."""
    evolution = evolution or Evolution()
    if genes == 0:
        return Found(np.empty(0, np.int64), float(objective(np.empty((1, 0), np.int64))[0]), 1, 1)
    known: dict[bytes, float] = {}
    count, refused = 0, []

    def judge(genomes: np.ndarray) -> np.ndarray:
        """(n, S), as SciPy has it."""
        nonlocal count
        rows = genome_steps(genomes.T)
        count += len(rows)
        keys = [row.tobytes() for row in rows]
        fresh = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
        if fresh:
            try:
                values = objective(np.stack(list(fresh.values())))
            except Exception as error:  # SciPy would hide it behind one of its own
                refused.append(error)
                raise
            known.update(zip(fresh, np.asarray(values, dtype=np.float64).tolist(), strict=True))
        return np.array([known[key] for key in keys])

    try:
        found = differential_evolution(judge, vectorized=True, **evolution.settings(steps, genes))
    except RuntimeError as error:
        raise (refused[0] if refused else error) from None
    return Found(genome_steps(found.x), float(found.fun), count, len(known))


def genome_steps(genomes: np.ndarray) -> np.ndarray:
    """Real genomes (..., n) -> sorted start steps, int64."""
    return np.sort(np.floor(genomes).astype(np.int64), axis=-1)


def expert(environment: Environment, clip: Clip, evolution: Evolution | None = None) -> Found:
    """The best moments for one clip."""
    steps = environment.steps(clip)
    return evolve(lambda rows: environment.odds(clip, rows), steps, environment.pulses, evolution)


def static(environment: Environment, clips: Sequence[Clip], evolution: Evolution | None = None) -> Found:
    """The moments that do most harm to all clips on average: the same perturbation whatever is said."""
    longest = int(np.median([environment.steps(clip) for clip in clips]))

    def mean_odds(rows: np.ndarray) -> np.ndarray:
        return np.mean([environment.odds(clip, rows) for clip in clips], axis=0)

    return evolve(mean_odds, longest, environment.pulses, evolution)


def experts(
    environment: Environment, clips: Sequence[Clip], evolution: Evolution | None = None, together: int = 1
) -> list[Found]:
    """The best moments for many clips, `together` of them evolving at once.

    On a GPU the generations of clips that evolve together are put before the victim in one batch (clips of one
    length and one number of microphones). On a CPU, where batches gain little, one at a time is as good.
    """
    if together <= 1:
        return [expert(environment, clip, evolution) for clip in clips]
    found: list[Found] = []
    for first in range(0, len(clips), together):
        found += _together(environment, clips[first : first + together], evolution)
    return found


def _together(environment: Environment, clips: Sequence[Clip], evolution: Evolution | None) -> list[Found]:
    meeting = Meeting(len(clips), lambda jobs: _one_batch(environment, jobs))
    results: list[Found | BaseException | None] = [None] * len(clips)

    def run(number: int) -> None:
        clip = clips[number]
        try:
            ask = lambda rows: meeting.ask((clip, rows))  # noqa: E731
            results[number] = evolve(ask, environment.steps(clip), environment.pulses, evolution)
        except BaseException as error:
            results[number] = error
        finally:
            meeting.leave()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(clips))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, Found)]


def _one_batch(environment: Environment, jobs: list[tuple[Clip, np.ndarray]]) -> list[np.ndarray]:
    """Candidates of several clips judged in one batch for each shape and truth."""
    import torch

    groups: dict[tuple, list[int]] = {}
    for number, (clip, _) in enumerate(jobs):
        groups.setdefault((clip.waveform.shape, clip.truth), []).append(number)
    answers: list[np.ndarray] = [np.empty(0)] * len(jobs)
    for (_, truth), members in groups.items():
        parts = [environment.candidates(*jobs[number]) for number in members]
        odds = environment.victim.odds(torch.cat(parts), truth).double().cpu().numpy()
        ends = np.cumsum([len(part) for part in parts])
        for number, answer in zip(members, np.split(odds, ends[:-1]), strict=True):
            answers[number] = answer
    return answers


class Meeting:
    """Threads that ask one by one are answered together, once every one of them waits (or has left)."""

    def __init__(self, members: int, answer: Callable[[list], list]):
        self._answer, self._members = answer, members
        self._jobs: list[Any] = []
        self._round: dict[str, Any] = {}
        self._changed = threading.Condition()

    def ask(self, job: Any) -> Any:
        with self._changed:
            place, mine = len(self._jobs), self._round
            self._jobs.append(job)
            self._close_if_complete()
            self._changed.wait_for(lambda: "answers" in mine or "error" in mine)
            if "error" in mine:
                raise mine["error"]
            return mine["answers"][place]

    def leave(self) -> None:
        with self._changed:
            self._members -= 1
            self._close_if_complete()

    def _close_if_complete(self) -> None:
        if not self._jobs or len(self._jobs) < self._members:
            return
        closing, jobs = self._round, self._jobs
        self._round, self._jobs = {}, []
        try:
            closing["answers"] = self._answer(jobs)
        except BaseException as error:
            closing["error"] = error
        self._changed.notify_all()
