"""How long the live detector takes: a block without scoring, one scoring, and all of it against real time.

    python -m eval.benchmarks.streaming [--detector default] [--channels 7] [--rate 44100] [--seconds 60]

The stream is noise with a command of 2 s every 5 s (bursts in syllables: the work is that of speech, the verdicts
mean nothing), in blocks of 10 ms. Times are given as they passed (wall) and as this thread worked (cpu), which
is what a busy machine still tells. Prints JSON; the final decisions are compared with offline scoring of the same
samples, so that the benchmark is also a proof.
"""

from __future__ import annotations

import json
import resource
import time
from dataclasses import asdict, dataclass, field

import numpy as np
import tyro

BLOCK_SECONDS = 0.01
COMMAND_SECONDS, EVERY_SECONDS = 2.0, 5.0


@dataclass
class Clock:
    """Times of single calls in seconds, as they passed and as the thread worked."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def time(self, call, *arguments):
        wall, cpu = time.perf_counter(), time.thread_time()
        result = call(*arguments)
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.thread_time() - cpu)
        return result

    def percentiles(self) -> dict[str, dict[str, float]]:
        """In ms: {"wall": {"p50", "p99", "max"}, "cpu": {...}}."""
        return {
            name: {
                key: round(1e3 * float(np.percentile(values, share)), 3)
                for key, share in (("p50", 50), ("p99", 99), ("max", 100))
            }
            for name, values in (("wall", self.wall), ("cpu", self.cpu))
            if values
        }


@dataclass(frozen=True)
class Stream:
    """What is fed.

    Args:
        detector: A bundled detector's name or a checkpoint folder.
        array: By name; default: any array of so many channels.
        channels: Microphones.
        rate: Hz.
        seconds: Of sound.
        threads: Of torch.
    """

    detector: str = "default"
    array: str | None = None
    channels: int = 7
    rate: int = 44100
    seconds: float = 60.0
    threads: int = 1


def main(options: Stream) -> None:
    started = time.perf_counter()
    import torch

    torch.set_num_threads(options.threads)
    imported, memory = time.perf_counter() - started, peak_mib()
    from streaming import StreamingDetector

    live = StreamingDetector(options.detector, options.array, options.rate)
    ready = time.perf_counter() - started
    report = measure(live, options.channels, options.seconds)
    start = {"import torch": round(imported, 2), "listening": round(ready, 2)}
    grown = {"above import torch": round(peak_mib() - memory), "in all": round(peak_mib())}
    given = {"seconds to start": start, "peak memory in MiB": grown}
    print(json.dumps(asdict(options) | report | given, indent=1))


def measure(live, channels: int, seconds: float) -> dict[str, object]:
    """The figures of one stream, fed in blocks of 10 ms."""
    rate = live.sample_rate
    period = one_period(channels, rate)
    block, silent, scoring = round(BLOCK_SECONDS * rate), Clock(), Clock()
    said, samples = [], round(seconds * rate)
    for start in range(0, samples, block):
        taken = stretch(period, start, min(start + block, samples))
        clock = Clock()
        decisions = clock.time(live.feed, taken)
        kept = scoring if decisions else silent
        kept.wall += clock.wall
        kept.cpu += clock.cpu
        said += decisions
    return {
        "feed without scoring, ms": silent.percentiles(),
        "feed with a scoring, ms": scoring.percentiles(),
        "real-time factor": {
            name: round((sum(getattr(silent, name)) + sum(getattr(scoring, name))) / seconds, 4)
            for name in ("wall", "cpu")
        },
        "share of speech": COMMAND_SECONDS / EVERY_SECONDS,
        "commands": sum(decision.final for decision in said),
        "decisions": len(said),
        "largest difference from offline": largest_difference(live, period, said),
    }


def one_period(channels: int, rate: int) -> np.ndarray:
    """(M, T) float32 of 5 s: noise at -60 dBFS, and 2 s at -30 dBFS in syllables of 4 Hz, 1 s before the end."""
    t = np.arange(round(EVERY_SECONDS * rate)) / rate
    burst = (t >= EVERY_SECONDS - COMMAND_SECONDS - 1) & (t < EVERY_SECONDS - 1)
    level = 1e-3 + 0.03 * burst * (0.55 + 0.45 * np.sin(8 * np.pi * t))
    noise = np.random.default_rng(0).standard_normal((channels, len(t)), dtype=np.float32)
    return noise * level.astype(np.float32)


def stretch(period: np.ndarray, start: int, end: int) -> np.ndarray:
    """Samples `start` to `end` of the period that comes again and again."""
    return np.take(period, np.arange(start, end), axis=1, mode="wrap")


def largest_difference(live, period: np.ndarray, said: list) -> float:
    """Of the final scores from those of the same samples offline."""
    rate, differences = live.sample_rate, [0.0]
    for decision in said:
        if decision.final:
            span = stretch(period, round(decision.start * rate), round(decision.end * rate))
            differences.append(abs(live.detector.judge(span, rate, live.array).score - decision.score))
    return max(differences)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(tyro.cli(Stream, description=__doc__))
