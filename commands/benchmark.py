"""`replayguard benchmark ...`: the tables of the literature and ours, one command each."""

import sys
from collections.abc import Callable
from pathlib import Path

from commands import configured_by

HOW_LONG = (
    "An interrupted benchmark goes on where it stopped. It writes NAME.md, NAME.json, two pictures and all "
    "scores into --out. How long: on a CPU the published networks train at 7 to 17 clips a second and core, so "
    "that one of up to 100 epochs on 5,000 clips takes 8 to 20 hours on a core; a system without a network takes "
    "minutes. --quick shows all of it in minutes on two cores, and is no result."
)
# name -> what it asks and how many trainings that takes (a line), and what else is to be known
TABLES = {
    "table2": ("One microphone, the same repeated, or all: 3 trainings an array and seed", ""),
    "table3": ("What each further microphone adds: 2 to 7 trainings an array and seed", ""),
    "table4": ("How many filters NN-Multichannel needs: 6 trainings an array and seed", ""),
    "environments": (
        "Environments trained on, and others: 9 trainings a system, array and seed",
        "By default for one peer without a network, one with, and ours.",
    ),
    "arrays": (
        "Arrays trained on, others, and ten minutes of a new one: 1 to 3 trainings a system, array and seed",
        "",
    ),
    "peers": (
        "All detectors on the same trials: 11 trainings an array and seed, as many a held-out condition",
        "Give a closed and an open corpus to have both protocols in one page, and --held-out environment "
        "playback_device source_recorder position array for what was never heard in training.",
    ),
    "ablation": (
        "What our detector is without space, spectrum, augmentation, length, size: 6 trainings a seed",
        "One for all arrays each; that of the whole detector is also one of peers.",
    ),
    "positions": (
        "What place alone tells: 10 trainings an array and seed",
        "--corpus takes two: the one whose classes stand in different places (recipe negative-places, remasc-sim), "
        "then the matched one. Each is trained on, and tested on both.",
    ),
}


def _table(name: str) -> Callable[..., int]:
    """The command of a table."""

    @configured_by("eval.benchmarks.tables.options:Options")
    def command(options) -> int:
        from eval.benchmarks.tables.engine import run

        found = run(name, options, say=_say, shown=sys.stderr.isatty())
        print((options.folder / f"{name}.md").read_text(encoding="utf-8"))
        print(options.folder / f"{name}.md")
        for what, why in found.failed.items():
            print(f"replayguard benchmark {name}: {what} failed: {why}", file=sys.stderr)
        return 1 if found.failed else 0

    asks, more = TABLES[name]
    command.__doc__ = f"{asks}.\n\n{more} {HOW_LONG}"
    return command


def leaks(
    corpus: tuple[Path, ...],
    out: Path | None = None,
    quick: bool = False,
    workers: int | None = None,
) -> int:
    """Whether what is not the attack solves a corpus, which voids its tables: minutes.

    What was found stands in every page of the same --out; exit 1 on a leak.

    Args:
        corpus: Folder of a corpus with train, dev and eval; several.
        out: Folder of the tables; default: runs/benchmark (with --quick runs/benchmark-quick) beside you.
        quick: A smoke test on a few clips. No result, and marked so.
        workers: Processes; default: one per core.
    """
    from eval.benchmarks.tables.leaks import report
    from eval.benchmarks.tables.options import Options

    options = Options(corpus, out, quick=quick, workers=workers)
    text, failed = report(options, shown=sys.stderr.isatty())
    print(text)
    return int(failed)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


COMMANDS: dict[str, Callable[..., int]] = {
    **{f"benchmark {name}": _table(name) for name in TABLES},
    "benchmark leaks": leaks,
}
