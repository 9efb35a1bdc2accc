"""The tables: what each asks, its cells, and what was published beside it.

A function of a `Plan` gives the cells, seed by seed, so that a first whole table stands early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from detector.config import ANY_ARRAY, ARRAY_NAMES, DEFAULTS
from eval.benchmarks.tables import published
from eval.benchmarks.tables.cells import BEGINNING, BEGUN, EDGE, Cell, Test, Training
from eval.benchmarks.tables.conditions import Conditions, held_out, of, present, protocol, words
from eval.benchmarks.tables.options import Options
from remasc import ARRAYS, Corpus

ONE_FOR_ALL = ("compact",)  # trained once on all arrays together
UNSEEDED = ("void", "sub-bass", "gcc")  # nothing in them is drawn: one run says all
FILTERS = (4, 8, 16, 32, 64, 128)
MINUTES = 10.0


@dataclass(frozen=True)
class Plan:
    """What a table is made of: the options, and the corpora that they name."""

    options: Options
    corpora: tuple[Corpus, ...]
    systems: tuple[str, ...]

    def arrays(self, corpus: Corpus) -> tuple[str, ...]:
        """Those asked for; ValueError where the corpus lacks one."""
        held = present(corpus, "array")
        for name in self.options.arrays or ():
            if name not in held:
                raise ValueError(f"{corpus.root}: holds no trial of {name}; expected of {', '.join(held)}")
        chosen = self.options.arrays or tuple(name for name in ARRAY_NAMES if name in held)
        return chosen[:2] if self.options.quick and not self.options.arrays else chosen

    def seeds(self, system: str) -> tuple[int, ...]:
        return self.options.drawn[:1] if system in UNSEEDED else self.options.drawn

    def each(self) -> Iterator[tuple[int, str]]:
        """Every (seed, system) that is trained."""
        for seed in self.options.drawn:
            yield from ((seed, system) for system in self.systems if seed in self.seeds(system))


@dataclass(frozen=True)
class Table:
    """One benchmark. `mean`: over its columns, where all of a row are finished. `only`: its rows are of the
    systems that it has, and of no other. `reference`: the row that the means of others are compared with."""

    name: str
    title: str
    columns: str  # what they are
    systems: tuple[str, ...]
    cells: Callable[[Plan], Iterator[Cell]]
    published: published.Figures = field(default_factory=dict)
    mean: bool = True
    only: bool = False
    reference: str = ""
    corpora: int = 0  # how many it needs; 0: any number
    notes: tuple[str, ...] = ()


def _training(corpus: Corpus, system: str, array: str, seed: int, **options) -> Training:
    """Of a system that hears one array at a time on this array, of one for all on all."""
    return Training(corpus.root, system, "all" if system in ONE_FOR_ALL else array, seed, **options)


def _section(plan: Plan, corpus: Corpus, more: str = "") -> str:
    """The corpus where there are several, and what else divides the table."""
    return ", ".join(word for word in (corpus.name if len(plan.corpora) > 1 else "", more) if word)


def _systems_by_array(plan: Plan) -> Iterator[Cell]:
    for seed, system in plan.each():
        for corpus in plan.corpora:
            for array in plan.arrays(corpus):
                training = _training(corpus, system, array, seed)
                yield Cell(_section(plan, corpus), system, array, training, Test(corpus.root, array))


def _channels(plan: Plan) -> Iterator[Cell]:
    for seed, system in plan.each():
        for corpus in plan.corpora:
            for array in plan.arrays(corpus):
                for row, order in _orders(array):
                    for count in range(1, len(order) + 1):
                        heard = None if count == len(order) else "-".join(str(c + 1) for c in order[:count])
                        training = _training(corpus, system, array, seed, channels=heard)
                        if count == 1:  # the same network by its own name
                            training = _training(corpus, "nn-single", array, seed)
                        cell = Cell(
                            _section(plan, corpus), row, str(count), training, Test(corpus.root, array)
                        )
                        yield cell


def _orders(array: str) -> list[tuple[str, tuple[int, ...]]]:
    """The orders in which the paper adds an array's channels (from 0), with their names."""
    paper = ARRAYS[array].channel_order
    orders = [paper, tuple(range(len(paper)))] if array == "D2" else [paper]
    return [(f"{array}, {'-'.join(str(c + 1) for c in order)}", order) for order in orders]


def _filters(plan: Plan) -> Iterator[Cell]:
    for seed, system in plan.each():
        for corpus in plan.corpora:
            for array in plan.arrays(corpus):
                for filters in FILTERS:
                    training = _training(corpus, system, array, seed, filters=filters)
                    test = Test(corpus.root, array)
                    yield Cell(_section(plan, corpus), f"P = {filters}", array, training, test)


def _environments(plan: Plan) -> Iterator[Cell]:
    for seed, system in plan.each():
        for corpus in plan.corpora:
            names = present(corpus, "environment")
            for array in plan.arrays(corpus):
                section = _section(plan, corpus, array)
                for row, only, test in _trained_and_tested(names):
                    training = _training(corpus, system, array, seed, only=of("environment", only))
                    yield Cell(
                        section,
                        f"{system}, {row}",
                        test,
                        training,
                        Test(corpus.root, array, of("environment", (test,))),
                    )


def _trained_and_tested(names: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """(row, environments of the training; none: all, environment of the test)."""
    for test in names:
        others = tuple(name for name in names if name != test)
        yield "trained there", (test,), test
        yield "trained on all", (), test
        if len(others) > 1:
            yield "trained on the others", others, test
        yield from (("trained on another", (other,), test) for other in others)


def _arrays(plan: Plan) -> Iterator[Cell]:
    for seed, system in plan.each():
        for corpus in plan.corpora:
            held = tuple(name for name in ARRAY_NAMES if name in present(corpus, "array"))
            for array in plan.arrays(corpus):
                others = of("array", tuple(name for name in held if name != array))
                for row, training, test in _seen_and_unseen(corpus, system, array, seed, others):
                    yield Cell(_section(plan, corpus), f"{system}, {row}", array, training, test)


def _seen_and_unseen(
    corpus: Corpus, system: str, array: str, seed: int, others: Conditions
) -> Iterator[tuple[str, Training, Test]]:
    test = Test(corpus.root, array)
    if system not in ANY_ARRAY or not others:
        yield "trained on it alone", Training(corpus.root, system, array, seed), test
        return
    unseen = Training(corpus.root, system, "all", seed, only=others)
    yield "trained on the others", unseen, test
    if system in ONE_FOR_ALL:
        yield "adapted by 10 min of it", unseen, Test(corpus.root, array, minutes=MINUTES)
    joined = Training(corpus.root, system, "all", seed, only=others, target=array, minutes=MINUTES)
    yield "trained on the others and 10 min of it", joined, test
    yield "trained on all", Training(corpus.root, system, "all", seed), test


def _peers(plan: Plan) -> Iterator[Cell]:
    for seed, system in plan.each():
        for corpus in plan.corpora:
            for array in plan.arrays(corpus):
                for without in ((), *held_out(plan.options.held_out, corpus)):
                    one_array = without and without[0][0] == "array"
                    if one_array and (system not in ANY_ARRAY or without[0][1] != (array,)):
                        continue  # a network of one array has no unseen one
                    said = f"{'the tested array' if one_array else words(without)} held out"
                    training = _training(
                        corpus, system, "all" if one_array else array, seed, without=tuple(without)
                    )
                    yield Cell(
                        _section(plan, corpus, said if without else protocol(corpus)),
                        system,
                        array,
                        training,
                        Test(corpus.root, array, without=tuple(without)),
                    )


def _positions(plan: Plan) -> Iterator[Cell]:
    names = ("class-specific", "matched")
    for seed, system in plan.each():
        arrays = [array for array in plan.arrays(plan.corpora[0]) if array in plan.arrays(plan.corpora[1])]
        for array in arrays:
            for trained, heard in zip(names, plan.corpora, strict=True):
                for tested, corpus in zip(names, plan.corpora, strict=True):
                    training = _training(heard, system, array, seed)
                    test = Test(corpus.root, array)
                    yield Cell(array, system, f"{trained} → {tested}", training, test)


ABLATION = {  # row -> what the training is without, and the seconds of each command that are tested (0: all)
    "compact": ("", 0.0),
    "without space": ("without-space", 0.0),
    "without spectrum": ("without-spectrum", 0.0),
    "without augmentation": ("without-augmentation", 0.0),
    "first second only": (BEGUN, BEGINNING),
    "tested on the first second": ("", BEGINNING),
    "edge variant": (EDGE, 0.0),
}


def _ablation(plan: Plan) -> Iterator[Cell]:
    for seed, system in plan.each():
        for corpus in plan.corpora:
            for array in plan.arrays(corpus):
                for row, (variant, seconds) in ABLATION.items():
                    training = _training(corpus, system, array, seed, variant=variant)
                    test = Test(corpus.root, array, seconds=seconds)
                    yield Cell(_section(plan, corpus), row, array, training, test)


NN = ("nn-single", "nn-dummy", "nn-multichannel")
TABLES = {
    table.name: table
    for table in (
        Table(
            "table2",
            "One microphone, the same repeated, and all",
            "array",
            NN,
            _systems_by_array,
            published.TABLE2,
        ),
        Table(
            "table3",
            "Number of microphones",
            "microphones",
            ("nn-multichannel",),
            _channels,
            published.TABLE3,
            mean=False,
            only=True,
        ),
        Table(
            "table4",
            "Number of filters",
            "array",
            ("nn-multichannel",),
            _filters,
            published.TABLE4,
            only=True,
        ),
        Table(
            "environments",
            "Environments that were trained on, and others",
            "tested environment",
            ("cqcc-gmm", "malrad", "compact"),
            _environments,
            published.ENVIRONMENTS,
            notes=("Of what is trained on another environment, a column is the mean over these.",),
        ),
        Table(
            "arrays",
            "Arrays that were trained on, and others",
            "tested array",
            ("compact", "lfcc-gmm", "cqcc-gmm", "void", "sub-bass", "nn-single", "nn-multichannel", "malrad"),
            _arrays,
            notes=(
                "The ten minutes are of the tested array's train partition, both classes. Adapted is what "
                "`replayguard adapt` makes of the detector that was trained on the others. A network of one array "
                "is trained on the tested one alone.",
            ),
        ),
        Table("peers", "All detectors", "array", tuple(DEFAULTS), _peers, published.PEERS),
        Table(
            "ablation",
            "What the parts of our detector are worth",
            "array",
            ("compact",),
            _ablation,
            only=True,
            reference="compact",
            notes=(
                "Every row has the schedule and the seeds of compact. Without space the level alone is seen, the "
                "mean over the microphones; without spectrum only how they agree. Both have the "
                "parameters and the time of the whole. Without augmentation nothing is varied in training. First "
                "second only is so in training and in the test.",
            ),
        ),
        Table(
            "positions",
            "How much of the gain is position",
            "trained → tested",
            ("nn-single", "nn-dummy", "nn-multichannel", "malrad", "compact"),
            _positions,
            mean=False,
            corpora=2,
            notes=(
                "The first corpus has its classes in different places, the second has not. Speakers have one home "
                "in all simulated corpora; the embedded voices (no --speech) have not, and may be in the training "
                "of one and in the test of the other.",
            ),
        ),
    )
}
