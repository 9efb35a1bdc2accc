"""A cell of a table: a training (system, seed, what it hears of a corpus) and a test (which trials).

`run` trains and scores one of them in its own folder and goes on wherever it was interrupted; what is finished is
left as it is. Nothing here knows which table asks.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from detector.config import BASELINES, DEFAULTS, TrainConfig
from eval.benchmarks.tables import processes
from eval.benchmarks.tables.conditions import Conditions, slug
from eval.benchmarks.tables.views import beginnings, some_minutes
from remasc import Corpus
from remasc.atomic import write_text
from remasc.parallel import default_workers
from remasc.protocol import partitions
from remasc.schema import name_of

SPEED = "speed.json"
SPEED_CLIPS = 12
QUICK_EPOCHS = 2
_TURN = threading.Lock()  # a cluster's worker may have threads; torch's random numbers are the process's


Place = tuple[str, str, str]  # section, row, column
BEGINNING = 1.0  # seconds of a command that is only begun
EDGE, BEGUN = "edge", "first-second"  # variants of our detector that its trainer knows; others: `ablation`


class Scored(NamedTuple):
    """What is scored: an array's trials, after `minutes` of adaptation, by their first `seconds` (0: all)."""

    corpus: Path
    array: str
    minutes: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Training:
    """A system and a seed on the train and dev partitions of a corpus, or on what the conditions leave of them.

    `array` is "all" for one set of weights for every array. `only` keeps, `without` holds out (`remasc.protocol`);
    `minutes` of `target`, an array, are added back. `channels` are the microphones heard ("1-4"), None all.
    `variant` is what our detector is trained without, empty for all of it.
    """

    corpus: Path
    system: str
    array: str
    seed: int
    only: Conditions = ()
    without: Conditions = ()
    target: str = ""
    minutes: float = 0.0
    filters: int = 64
    channels: str | None = None
    variant: str = ""

    @property
    def selection(self) -> str:
        """Which part of the corpus, as a name for a folder; empty for all of it."""
        words = [f"only-{slug(self.only)}" if self.only else "", slug(self.without, "without-")]
        words.append(f"{self.minutes:g}min-{self.target}" if self.minutes else "")
        return "-".join(word for word in words if word)

    @property
    def name(self) -> str:
        """Of its folder."""
        words = [self.system, self.array, self.variant, self.selection]
        words += [f"P{self.filters}" if self.filters != 64 else "", f"ch{self.channels or ''}"]
        words.append(f"seed{self.seed}")
        return "-".join(word for word in words if word not in ("", "ch"))

    def config(self, heard: Path, out: Path, *, scale: float, quick: bool, device: str) -> TrainConfig:
        """The trainer's config, on the corpus `heard` that holds what is left."""
        epochs = DEFAULTS[self.system].get("epochs")
        if epochs is not None:
            epochs = QUICK_EPOCHS if quick else max(1, round(scale * epochs))
        only_nn = {"filters": self.filters} if self.system.startswith("nn-") else {}
        if self.channels is not None:
            only_nn["channels"] = self.channels
        known = {EDGE: {"backbone": "edge"}, BEGUN: {"seconds": BEGINNING}}.get(self.variant, {})
        return TrainConfig(
            heard,
            runs_folder(out, self.corpus) / self.name,
            system=self.system,
            array=self.array,
            seed=self.seed,
            epochs=epochs,
            cache=out / "prepared",
            device=device,
            **only_nn | known,
        )


@dataclass(frozen=True)
class Test:
    """The trials of an array of a corpus, those that `only` keeps, or that `without` held out of training; judged
    after `minutes` of the array's own recordings (of train) adapted the detector to it, 0 as it was trained, and by
    their first `seconds`, 0 by all of them."""

    __test__ = False  # no test of pytest's

    corpus: Path
    array: str
    only: Conditions = ()
    without: Conditions = ()
    minutes: float = 0.0
    seconds: float = 0.0

    @property
    def scored(self) -> Scored:
        """What is scored, once, for all tests of the same recordings."""
        return Scored(self.corpus, self.array, self.minutes, self.seconds)


@dataclass(frozen=True)
class Cell:
    """Where a training's test stands in a table; cells of one place are averaged."""

    section: str
    row: str
    column: str
    training: Training
    test: Test

    @property
    def place(self) -> Place:
        return self.section, self.row, self.column


def undertrained(system: str, epochs: int, record: dict[str, Any]) -> bool:
    """Whether a training was cut short of its own schedule: allowed fewer epochs, and not stopped by itself
    before. A cosine that was made shorter ends anyway, so that it always is."""
    own = DEFAULTS[system].get("epochs")
    if own is None or epochs >= own:
        return False
    return DEFAULTS[system].get("schedule") == "cosine" or record["epochs"] >= epochs


def runs_folder(out: Path, corpus: Path) -> Path:
    """Of all trainings on a corpus."""
    return out / "runs" / corpus.resolve().name


def score_folder(config: TrainConfig, scored: Scored, split: str) -> Path:
    root, array, minutes, seconds = scored
    begun = f"-first-{seconds:g}s" if seconds else ""
    return config.out / f"{split}-{root.resolve().name}-{array}{_after(minutes)}{begun}"


def _after(minutes: float) -> str:
    return f"-after-{minutes:g}min" if minutes else ""


@dataclass(frozen=True)
class How:
    """How cells are run: the partition that is tested; `alone` where no other cell runs beside this one, `shown`
    with bars of its own; `processes` that train a network together."""

    split: str
    alone: bool = True
    shown: bool = False
    processes: int = 1


def run(config: TrainConfig, tests: list[Scored], how: How, variant: str = "") -> dict[str, Any]:
    """Train what is not trained and score what is not scored: the run.json, and the speed (CPU seconds for a second
    of sound) by folder of scores."""
    with _TURN, _beside(not how.alone), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "this .* was trained on .*, not on")  # which is the question
        folder = _trained(config, how, variant)
        with _held(folder / ".scoring.lock"):  # another benchmark may test the same training
            speeds = {score_folder(config, test, how.split).name: _score(config, test, how) for test in tests}
    return json.loads((folder / "run.json").read_text(encoding="utf-8")) | {"speeds": speeds}


def _trained(config: TrainConfig, how: How, variant: str) -> Path:
    """The folder of the training, which is finished then."""
    from detector.train import train
    from eval.benchmarks.tables import ablation

    network = ablation.NETWORKS.get(variant)
    if not (config.out / "run.json").exists():
        _prepare(config, how.shown, network)
        if how.processes > 1 and config.system not in BASELINES and network is None:
            threads = max(1, default_workers() // how.processes) if how.alone else 1
            processes.train(config, how.processes, threads)
    if network is None:
        train(config, progress=how.shown)
    else:  # `replayguard train` does not know it, so that it is trained in this process
        ablation.train(config, variant, progress=how.shown)
    return config.out


def _score(config: TrainConfig, test: Scored, how: How) -> float:
    """Score what is not scored; the speed."""
    from detector.batch import score_corpus

    corpus, folder, out = Corpus.from_meta(test.corpus), config.out, score_folder(config, test, how.split)
    detector = _adapted(folder, corpus, test.array, test.minutes) if test.minutes else folder
    with ExitStack() as stack:
        if test.seconds and not (out / SPEED).exists():
            place = stack.enter_context(TemporaryDirectory(prefix=".begun.", suffix=".partial", dir=folder))
            corpus = beginnings(Path(place), corpus, how.split, test.array, test.seconds)
        options = {"split": how.split, "arrays": [test.array], "progress": how.shown}
        score_corpus(str(detector), corpus, out, workers=None if how.alone else 1, **options)
        return _speed(detector, corpus, out / SPEED, how.split, test.array)


def _adapted(folder: Path, corpus: Corpus, array: str, minutes: float) -> Path:
    """The detector in `folder` adapted to an array by `replayguard adapt`; made once and kept."""
    from detector.adapt import adapt

    out = folder / f"adapted-{array}{_after(minutes)}"
    if not (out / "run.json").exists():
        text = io.StringIO()
        rows = csv.writer(text)
        rows.writerow(["file", "label", "speaker"])
        for r in some_minutes(partitions(corpus)["train"], array, minutes):
            rows.writerow([r.path.resolve(), name_of(r.label), r.speaker])
        listed = folder / f"{out.name}.csv"
        write_text(listed, text.getvalue())
        adapt(folder, listed, array, out, progress=False)
    return out


@contextmanager
def _beside(others: bool) -> Iterator[None]:
    """While it lasts a cell takes one core where `others` run beside it, so that it is the same whatever their
    number; what it would give to processes of its own goes to threads."""
    if not others:
        yield
        return
    from joblib import parallel_config

    from detector.team import one_thread

    with one_thread(), parallel_config(backend="threading"):
        yield


def _prepare(config: TrainConfig, shown: bool, variant: Callable[[], Any] | None = None) -> None:
    """Fill the cache that cells share, one cell at a time: two builders would take each other's files."""
    from detector.loading import build_examples, training_parts
    from detector.systems import build_network, specify
    from remasc import ARRAYS

    specification = specify(config.system, tuple(ARRAYS[name] for name in config.arrays), config.microphones)
    network = variant() if variant else build_network({"specification": specification.as_dict()})
    parts = training_parts(config, Corpus.from_meta(config.corpus))
    config.cache.mkdir(parents=True, exist_ok=True)
    with _held(config.cache / ".lock"):
        build_examples(config, parts, network, specification, progress=shown)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Wait for the lock; a killed process loses it by itself."""
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _speed(folder: Path, corpus: Corpus, path: Path, split: str, array: str) -> float:
    """Seconds of processor time for a second of sound, on one thread; measured once and kept."""
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))["real_time_factor"]
    from detector.score import load
    from detector.team import one_thread
    from remasc import read_audio

    clips = [read_audio(r.path) for r in list(partitions(corpus)[split].filter(array=[array]))[:SPEED_CLIPS]]
    detector = load(folder)
    with one_thread():
        detector.score(*clips[0], array)  # the first call prepares what later ones share
        begun = time.process_time()
        for waveform, rate in clips:
            detector.score(waveform, rate, array)
        spent = time.process_time() - begun
    factor = spent / sum(waveform.shape[1] / rate for waveform, rate in clips)
    write_text(path, json.dumps({"real_time_factor": factor, "clips": len(clips), "threads": 1}) + "\n")
    return factor
