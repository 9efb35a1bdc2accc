"""What every benchmark command takes. Imports nothing heavy: help is answered from here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from detector.config import ARRAY_NAMES, DEFAULTS
from remasc.sentences import quoted

QUICK = "QUICK: a smoke test on a few clips and epochs. NOT A RESULT."
OUT, QUICK_OUT = Path("runs/benchmark"), Path("runs/benchmark-quick")


@dataclass(frozen=True)
class Options:
    """Where a benchmark's recordings are, and how much of it is run.

    Args:
        corpus: Folder of a ReMASC copy or of a simulated corpus; several, where a table compares them.
        out: Folder of the tables and of their runs, shared by all tables, so that none is trained twice; an
            interrupted one goes on there. Default: runs/benchmark (with --quick runs/benchmark-quick) beside you.
        systems: Which detectors; default: those of the table.
        arrays: Which arrays; default: all that the corpus holds (with --quick the first two).
        seeds: Of the training, default 0 1 2. What draws nothing is trained once.
        quick: A smoke test in minutes: a few clips, one seed, two epochs. No result, and marked so everywhere.
        held_out: Of peers: conditions kept out of train and dev, in turn, and tested: a condition (environment,
            playback_device, source_recorder, position, array) stands for each of its values, environment=vehicle
            for one.
        split: Which partition is tested: eval, or dev (which chose the epochs) as long as eval must rest.
        scale: Share of each schedule's epochs, at most 1; what was stopped by that is marked undertrained.
        workers: Cells at a time; default: one per core, or 1 with a GPU.
        processes: That train a network together, by torchrun: one a GPU, or to give a lone long cell all cores.
        cluster: Address of a Dask scheduler (tcp://host:8786), or ray for the Ray cluster that this machine has
            joined; the workers must see the same folders.
        device: Where networks train.
        results: Also copy the page here, with every run's record, protocol and scores, without weights.
    """

    corpus: tuple[Path, ...]
    out: Path | None = None
    systems: tuple[str, ...] | None = None
    arrays: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    quick: bool = False
    held_out: tuple[str, ...] = ()
    split: Literal["eval", "dev"] = "eval"
    scale: float = 1.0
    workers: int | None = None
    processes: int = 1
    cluster: str | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    results: Path | None = None

    def __post_init__(self) -> None:
        if not self.corpus or self.seeds == () or self.systems == () or self.arrays == ():
            raise ValueError("a benchmark needs at least one corpus, one system, one array and one seed")
        if len({folder.resolve().name for folder in self.corpus}) < len(self.corpus):
            raise ValueError("two corpora are of one name; give them folders of different names")
        for what, given, known in (
            ("system", self.systems, tuple(DEFAULTS)),
            ("array", self.arrays, ARRAY_NAMES),
        ):
            if unknown := [name for name in given or () if name not in known]:
                raise ValueError(f"unknown {what} {quoted(unknown[0])}; expected of {', '.join(known)}")
        if self.split not in ("dev", "eval"):
            raise ValueError(f"split is {quoted(self.split)}; expected dev or eval")
        if not 0 < self.scale <= 1:
            raise ValueError(f"scale is {self.scale}; expected above 0, at most 1")
        for what, count in (("workers", self.workers), ("processes", self.processes)):
            if count is not None and count < 1:
                raise ValueError(f"{what} is {count}; expected 1 or more")

    @property
    def folder(self) -> Path:
        return self.out or (QUICK_OUT if self.quick else OUT)

    @property
    def drawn(self) -> tuple[int, ...]:
        """The seeds."""
        return self.seeds or ((0,) if self.quick else (0, 1, 2))

    @property
    def warning(self) -> str:
        """What stands on everything that is written; empty for a result."""
        return QUICK if self.quick else ""
