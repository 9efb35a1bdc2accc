"""Hours of sound through the live detector, as fast as it takes them, checked against offline all along.

    python -m eval.benchmarks.soak --detector edge --hours 24 [--corpus ROOT] [--array D1] --out FOLDER

What is fed are the chapters of `eval.benchmarks.soak_sound`, in blocks of 1 sample to 10 s. What is asked:
- no command without a final decision;
- every look at a command, growing ones too, where and when the voice activity has it in the chapter as a recording
  of its own, to the sample: what came before moves nothing, be it a day;
- every final score, verdict and reason what `Detector.judge` says of the same samples: a share of them judged
  offline, the others compared with the first copy of the same sound;
- no growth of memory.
Prints and writes JSON and Markdown, the latter also along the way; Ctrl-C or SIGTERM ends it with what was heard so
far. Exit code 0 where all held. How many commands are judged right is no matter of this: its sound is made up.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from eval.benchmarks.soak_checks import LONGEST_BLOCK, SAME, Listener, growth
from eval.benchmarks.soak_sound import CHAPTERS, Book, commands_of
from remasc import get_array
from remasc.atomic import write_text
from remasc.parallel import tracked
from streaming.memory import keep_no_lengths
from streaming.online import StreamingDetector

WRITTEN_EVERY = 20  # chapters


@dataclass(frozen=True)
class Soak:
    """What is fed, and what is allowed.

    Args:
        out: Folder of soak-DETECTOR.json and .md.
        detector: A bundled detector's name or a checkpoint folder.
        hours: Of sound.
        corpus: Simulated corpus whose commands are fed; default: a small one, made by the embedded voices.
        array: The array that recorded them.
        share: Of the final decisions that are judged offline, where they come first.
        growth_mib: Memory that the process may gain after every chapter was heard once (an hour).
        threads: Of torch.
        seed: Another sound.
    """

    out: Path
    detector: str = "default"
    hours: float = 4.0
    corpus: Path | None = None
    array: str = "D1"
    share: float = 0.2
    growth_mib: float = 16.0
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.hours < float("inf") or not 0 <= self.share <= 1:
            raise ValueError(
                f"--hours is {self.hours:g} and --share {self.share:g}; expected some hours and a share of 0 to 1"
            )


def report(listener: Listener, options: Soak, ended: bool) -> dict[str, Any]:
    """All figures; "checks" maps what was asked to [what was found, what is allowed]."""
    tally, rate = listener.tally, listener.ears.sample_rate
    seconds = tally.samples / rate
    gained, slope = growth(tally.memory)
    checks = {
        "samples that the clock is off": [abs(round(listener.ears.seconds * rate) - tally.samples), 0],
        "commands without a decision": [tally.missed, 0],
        "looks that are not offline's": [tally.moved, 0],
        "final decisions that are not offline's": [tally.contradicted, 0],
        "largest difference of a final score": [tally.difference, SAME],
        "MiB gained": [round(gained, 2), options.growth_mib],
    }
    return {
        "detector": options.detector,
        "array": options.array,
        "channels": listener.book.array.num_mics,
        "rate": rate,
        "threads": options.threads,
        "commands from": "the embedded voices" if options.corpus is None else options.corpus.name,
        "hours asked": options.hours,
        "hours": round(seconds / 3600, 4),
        "ended": ended,
        "held": all(found <= allowed for found, allowed in checks.values()),
        "samples": tally.samples,
        "beyond 2^31 samples": tally.samples > 2**31,
        "chapters": tally.chapters,
        "commands": tally.commands,
        "looks": tally.looks,
        "final decisions": tally.finals,
        "judged offline": tally.judged,
        "compared with an earlier copy": tally.copies,
        "every chapter twice": tally.chapters >= 2 * CHAPTERS,
        "checks": checks,
        "faults": tally.faults,
        "MiB per hour of sound": round(slope, 3),
        "MiB along the way": [
            [round(hour, 2), round(mib)] for hour, mib in tally.memory[:: max(1, len(tally.memory) // 24)]
        ],
        "real-time factor": {k: round(getattr(tally, k) / max(seconds, 1e-9), 4) for k in ("wall", "cpu")},
        "load of the machine": round(os.getloadavg()[0], 2),
    }


def markdown(figures: dict[str, Any]) -> str:
    """The figures as a page."""
    told = figures
    short = "" if told["ended"] else f", ended before the {told['hours asked']:g} h that were asked for"
    side = "beyond" if told["beyond 2^31 samples"] else "below"
    factor = told["real-time factor"]
    lines = [
        f"# Soak: the detector `{told['detector']}`, {told['hours']:.2f} hours of sound{short}",
        "",
        f"{told['channels']} channels at {told['rate']} Hz (array {told['array']}), {told['samples']:,} samples "
        f"({side} 2^31), in blocks of 1 sample to {LONGEST_BLOCK:g} s: {told['chapters']:,} chapters with "
        f"{told['commands']:,} simulated commands ({told['commands from']}) and noises. {told['looks']:,} looks at "
        f"commands were compared with the voice activity of each chapter alone; of {told['final decisions']:,} "
        f"final decisions {told['judged offline']:,} with offline scoring, "
        f"{told['compared with an earlier copy']:,} with an earlier copy of the same sound.",
        "",
        "| asked | found | allowed | held |",
        "|---|---|---|---|",
    ]
    for name, (found, allowed) in told["checks"].items():
        lines.append(f"| {name} | {found:.3g} | {allowed:g} | {'yes' if found <= allowed else 'NO'} |")
    early = "" if told["every chapter twice"] else " (too early to tell: not every chapter was heard twice)"
    lines += [
        "",
        f"Memory: {told['MiB per hour of sound']:+.3f} MiB per hour of sound{early}. Real-time factor, scoring "
        f"included: {factor['cpu']:.3f} of work, {factor['wall']:.3f} as it passed (load of the machine "
        f"{told['load of the machine']:g}, threads: {told['threads']}).",
        *(f"- {fault}" for fault in told["faults"]),
    ]
    return "\n".join(lines) + "\n"


def soak(listener: Listener, options: Soak, *, progress: bool = True) -> dict[str, Any]:
    """Feed as much as was asked for, or until a signal; write the figures every now and then."""
    stopped = False

    def stop(number: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True
        signal.signal(number, before[number])

    def chapters() -> Iterator[tuple[int, None]]:
        tally, rate, total = listener.tally, listener.ears.sample_rate, options.hours * 3600
        while not stopped and tally.samples < total * rate:
            heard = listener.hear(tally.chapters) // rate
            tally.memory.append((tally.samples / rate / 3600, _own_mib()))
            if tally.chapters % WRITTEN_EVERY == 0:
                write(report(listener, options, ended=False), options.out)
            yield heard, None

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for _ in tracked(chapters(), "seconds of sound", round(options.hours * 3600), 0, progress):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    figures = report(listener, options, ended=not stopped)
    write(figures, options.out)
    return figures


def write(figures: dict[str, Any], out: Path) -> None:
    name = f"soak-{Path(figures['detector']).name}"
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / f"{name}.json", json.dumps(figures, indent=1) + "\n")
    write_text(out / f"{name}.md", markdown(figures))


def _own_mib() -> float:
    """Memory of this process that is no file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status tells no RssAnon; the soak measures memory on Linux alone")


def main(options: Soak) -> int:
    keep_no_lengths()  # as `live` does
    import torch

    torch.set_num_threads(options.threads)
    array = get_array(options.array)
    ears = StreamingDetector(options.detector, array, array.sample_rate)
    kept, recordings = commands_of(options.corpus, array)
    with kept:
        book = Book(recordings, array, ears.vad.frame, seed=options.seed)
        figures = soak(Listener(ears, book, options.share), options)
    print(markdown(figures))
    return int(not figures["held"])


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Soak, description=__doc__)))
