"""Clips per second from the prepared cache against decoding each time, and the memory that reading takes.

    uv run python -m eval.benchmarks.loading [--corpus ROOT] [--clips 2000] [--array D4] [--rate 16000]

Without --corpus the recordings are noise with the array's channels and rate, written to a temporary folder.
All figures are of one process; `loader` is a torch DataLoader with --workers processes and batches of 64.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from remasc import ARRAYS, Corpus
from remasc.audio import load_clip, write_wav
from remasc.cache import PreparedCache
from remasc.dataset import RecordingDataset, collate
from remasc.schema import Recording

BATCH = 64


def make_noise(root: Path, array: str, clips: int, seconds: float) -> Corpus:
    """`clips` recordings of noise in ReMASC's layout. Not speech: how fast a file loads does not depend on it."""
    geometry = ARRAYS[array]
    (root / "data").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(clips):
        noise = rng.normal(0, 0.1, (geometry.num_mics, round(seconds * geometry.sample_rate)))
        write_wav(root / "data" / f"{1000000 + number}.wav", np.clip(noise, -1, 1), geometry.sample_rate)
        rows.append(f"{1000000 + number},2,{1 + number % 40},2,11,-1,-1,{array[1]},{seconds}")
    (root / "meta.csv").write_text("\n".join(rows) + "\n")
    return Corpus.from_meta(root)


def clips_per_second(read: Callable[[int], object], numbers: Sequence[int]) -> float:
    start = time.perf_counter()
    for number in numbers:
        read(number)
    return len(numbers) / (time.perf_counter() - start)


def resident_mib() -> dict[str, float]:
    """This process's own memory and its share of mapped files (page cache, given back when others need it)."""
    found = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in ("RssAnon", "RssFile"):
            found[key] = int(value.split()[0]) / 1024
    return found


def measure(recordings: Sequence[Recording], folder: Path, rate: int, seconds: float, workers: int) -> dict:
    start = time.perf_counter()
    cache = PreparedCache.build(recordings, folder, sample_rate=rate, seconds=seconds, workers=workers)
    built = time.perf_counter() - start
    order = np.random.default_rng(1).permutation(len(recordings)).tolist()
    before = resident_mib()
    cached = clips_per_second(cache.__getitem__, order)
    after = resident_mib()
    some = order[: max(1, min(len(order), 500))]
    decoded = clips_per_second(
        lambda number: load_clip(recordings[number].path, sample_rate=rate, seconds=seconds), some
    )
    options = {"sample_rate": rate, "seconds": seconds}
    return {
        "clips": len(recordings),
        "cache_mib": round(sum(path.stat().st_size for path in folder.glob("*.bin")) / 2**20),
        "build_clips_per_s": round(len(recordings) / built),
        "decode_clips_per_s": round(decoded),
        "cache_clips_per_s": round(cached),
        "cache_batches_clips_per_s": round(in_batches(cache, order)),
        "ratio": round(cached / decoded, 1),
        "loader_decode_clips_per_s": round(through_loader(RecordingDataset(recordings, **options), workers)),
        "loader_cache_no_processes_clips_per_s": round(
            through_loader(RecordingDataset(recordings, cache=cache, **options), 0)
        ),
        "loader_cache_clips_per_s": round(
            through_loader(RecordingDataset(recordings, cache=cache, **options), workers)
        ),
        "private_memory_grew_mib": round(after["RssAnon"] - before["RssAnon"], 1),
        "largest_clip_mib": round(max(cache.channels * cache.lengths) * 4 / 2**20, 2),
    }


def in_batches(cache: PreparedCache, order: Sequence[int]) -> float:
    """One process, one buffer used again: what a training loop without loader processes gets."""
    buffer = np.empty((BATCH, int(cache.channels.max()), int(cache.lengths.max())), np.float32)
    batches = [order[start : start + BATCH] for start in range(0, len(order) - BATCH + 1, BATCH)]
    return BATCH * clips_per_second(lambda n: cache.batch(batches[n], out=buffer), range(len(batches)))


def through_loader(dataset: RecordingDataset, workers: int) -> float:
    from torch.utils.data import DataLoader

    loader = DataLoader(dataset, BATCH, shuffle=True, collate_fn=collate, num_workers=workers)
    batches = iter(loader)
    next(batches)  # the start of the processes is not the loading
    start = time.perf_counter()
    clips = sum(len(batch) for batch in batches)
    return clips / (time.perf_counter() - start)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, help="a corpus with audio; without it noise is written")
    parser.add_argument("--array", default="D4", choices=list(ARRAYS))
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rate", type=int, default=16000, help="sample rate to prepare")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        if given.corpus is None:
            corpus = make_noise(root / "noise", given.array, given.clips, 2 * given.seconds)
        else:
            corpus = Corpus.from_meta(given.corpus).filter(array=given.array).trials()[: given.clips]
        found = measure(corpus, root / "cache", given.rate, given.seconds, given.workers)
    found = {
        "array": given.array,
        "rate": given.rate,
        "seconds": given.seconds,
        "workers": given.workers,
        **found,
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(f"from the cache {found['ratio']:g} times as fast as decoding each time\n")


if __name__ == "__main__":
    main()
