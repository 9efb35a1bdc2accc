"""Prepared clips on disk, memory-mapped: decoded, cut and resampled once, then read by every epoch.

A folder holds `manifest.json` (what was prepared and how; written first) and the shards of `remasc.shards`.
Nothing is lost: a clip whose samples are exactly 16-bit values is stored as int16, any other as float32.
Shapes: M microphones, T samples, K clips.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from remasc.atomic import write_text
from remasc.audio import check_clip
from remasc.parallel import tracked, unordered
from remasc.schema import Recording
from remasc.sentences import quoted, reason
from remasc.shards import (
    FULL_SCALE,
    SHARD,
    build_shard,
    is_whole,
    read_entry,
    samples_path,
    sealed,
    source_of,
    unsealed,
)

FORMAT = 2
_INDEX = np.dtype(
    [("shard", "i4"), ("offset", "i8"), ("mics", "i4"), ("frames", "i8"), ("exact16", "?"), ("crc", "u4")]
)


class PreparedCache(Sequence[np.ndarray]):
    """Clips by number: `cache[i]` is (M, T) float32 in [-1, 1], T its real length.

    `trials` names the clips, `lengths` (K,) int64 holds T of each in samples, `parameters` how they were
    prepared. Only the clips asked for are read into memory. Safe to hand to DataLoader workers. A clip is
    compared with its checksum when it is read for the first time; one that is damaged is a ValueError.
    """

    def __init__(self, folder: Path, parameters: dict[str, Any], shards: list[dict[str, Any]]) -> None:
        self.folder = folder
        self.parameters = parameters
        self.trials: tuple[str, ...] = tuple(trial for shard in shards for trial in shard["trials"])
        rows = [(n, *clip) for n, shard in enumerate(shards) for clip in shard["clips"]]
        self._index = np.array(rows, dtype=_INDEX)
        self._sources = np.array([s for shard in shards for s in shard["sources"]], np.int64).reshape(-1, 2)
        self._proved = np.zeros(len(rows), bool)  # clips whose checksum this process has seen to be right
        self._maps: dict[int, np.ndarray] = {}
        self._number: dict[str, int] | None = None

    @classmethod
    def build(
        cls,
        recordings: Sequence[Recording],
        folder: str | Path,
        *,
        sample_rate: int | None,
        seconds: float | None,
        channels: Sequence[int] | None = None,
        workers: int | None = None,
        progress: bool = True,
    ) -> PreparedCache:
        """Prepare the first `seconds` of the recordings at `sample_rate` (None: each file's own) and open it.

        Killed at any moment and called again it goes on with the missing shards; shards that are damaged, or
        whose source files' sizes or times differ, are made again. A folder prepared with other parameters is
        a ValueError.
        """
        check_clip(sample_rate=sample_rate, seconds=seconds, channels=channels)
        folder = Path(folder)
        manifest = _manifest(recordings, sample_rate, seconds, channels)
        if (folder / "manifest.json").exists():
            _expect(folder, _read_json(folder / "manifest.json"), manifest)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "manifest.json", sealed(manifest))
        parts = [recordings[start : start + SHARD] for start in range(0, len(recordings), SHARD)]
        todo = _missing(folder, parts)
        jobs = [(folder, n, list(parts[n]), sample_rate, seconds, channels) for n in todo]
        done = len(recordings) - sum(len(parts[n]) for n in todo)
        if jobs:
            built = unordered(build_shard, jobs, workers)
            for _ in tracked(built, "preparing clips", len(recordings), done, progress):
                pass
        for left_over in folder.glob(".*.partial*"):  # of runs that were killed
            left_over.unlink(missing_ok=True)
        return cls.open(folder)

    @classmethod
    def open(
        cls, folder: str | Path, *, recordings: Sequence[Recording] | None = None, **parameters: Any
    ) -> PreparedCache:
        """Open a finished cache. What is given (recordings, sample_rate, seconds, channels) must be what it
        was built with, the recordings' files too (`check_sources`); a missing, unfinished or altered cache is
        a ValueError. Without the recordings nothing is known of their files."""
        folder = Path(folder)
        manifest = _read_json(folder / "manifest.json")
        expected = {**manifest, "format": FORMAT}
        if unknown := set(parameters) - {"sample_rate", "seconds", "channels"}:
            raise ValueError(f"unknown parameter {min(unknown)!r}; known: sample_rate, seconds, channels")
        expected.update(_plain(parameters))
        if recordings is not None:
            expected["recordings"] = _fingerprint(recordings)
        _expect(folder, manifest, expected)
        shards = [read_entry(folder, n) for n in range(-(-manifest["clips"] // SHARD))]
        cache = cls(folder, {key: manifest[key] for key in ("sample_rate", "seconds", "channels")}, shards)
        if len(cache) != manifest["clips"] or _hash(cache.trials) != manifest["recordings"]:
            raise ValueError(
                f"{folder}: its shards are not those of its manifest; remove it and prepare again"
            )
        if recordings is not None:
            cache.check_sources(recordings)
        return cache

    def check_sources(self, recordings: Sequence[Recording]) -> None:
        """A ValueError where a recording's file has another size or time than when it was prepared. A file
        that is not there is no error: a finished cache needs no corpus."""
        for recording in recordings:
            if source_of(recording) not in (None, self._sources[self.number(recording.trial_id)].tolist()):
                raise ValueError(
                    f"{recording.path}: changed since it was prepared in {self.folder} (another size or time); "
                    "build the cache again, which prepares only what changed anew"
                )

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, number: int) -> np.ndarray:  # type: ignore[override]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        stored = self._stored(number)
        clip = np.empty(stored.shape, np.float32)
        _decode(stored, clip)
        return clip

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[number] for number in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # maps are opened again by each process

    @property
    def lengths(self) -> np.ndarray:
        return self._index["frames"].copy()

    @property
    def channels(self) -> np.ndarray:
        """The number of microphones M of each clip, (K,) int64."""
        return self._index["mics"].astype(np.int64)

    def number(self, trial: str) -> int:
        """The number of a trial's clip, so that a cache of the whole corpus serves every partition."""
        if self._number is None:
            self._number = {name: n for n, name in enumerate(self.trials)}
        if trial not in self._number:
            raise ValueError(
                f"{self.folder}: holds no clip of {trial}; prepare the cache from the whole corpus"
            )
        return self._number[trial]

    def batch(self, numbers: Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Clips side by side, (B, M, T) float32, padded with zeros to the most microphones and samples.

        `out` of that shape (or larger in M and T) is filled and returned: a loop that gives the same buffer
        again needs no memory of its own.
        """
        stored = [self._stored(number) for number in numbers]
        if out is None:
            mics, samples = (max(clip.shape[axis] for clip in stored) for axis in (0, 1))
            out = np.empty((len(stored), mics, samples), np.float32)
        for row, clip in zip(out, stored, strict=True):
            mics, samples = clip.shape
            _decode(clip, row[:mics, :samples])
            row[mics:] = 0
            row[:mics, samples:] = 0
        return out

    def verify(self) -> None:
        """Read every clip and compare its checksum; a ValueError names the first that is damaged."""
        for number in range(len(self)):
            self._prove(number, self._raw(number))

    def _stored(self, number: int) -> np.ndarray:
        """A clip as it lies on disk, (M, T) int16 or float32, a view of the map."""
        raw = self._raw(number)
        if not self._proved[number]:
            self._prove(number, raw)
        clip = self._index[number]
        return raw.view("<i2" if clip["exact16"] else "<f4").reshape(clip["mics"], clip["frames"])

    def _raw(self, number: int) -> np.ndarray:
        shard, offset, mics, frames, exact16, _ = self._index[number].item()
        return self._shard(shard)[offset : offset + mics * frames * (2 if exact16 else 4)]

    def _prove(self, number: int, raw: np.ndarray) -> None:
        if zlib.crc32(raw) != self._index[number]["crc"]:
            raise ValueError(
                f"{samples_path(self.folder, int(self._index[number]['shard']))}: damaged (the checksum of "
                f"{self.trials[number]} differs); remove it and build the cache again, which makes only this "
                "shard anew"
            )
        self._proved[number] = True

    def _shard(self, shard: int) -> np.ndarray:
        if shard not in self._maps:
            self._maps[shard] = np.memmap(samples_path(self.folder, shard), np.uint8, "r")
        return self._maps[shard]


def _missing(folder: Path, parts: list[Sequence[Recording]]) -> list[int]:
    """The shards to make. A finished cache is believed by sizes and times, a half-built one by checksums."""
    todo = [n for n, part in enumerate(parts) if not is_whole(folder, n, part, checksum=False)]
    if not todo:
        return todo
    return [n for n, part in enumerate(parts) if n in todo or not is_whole(folder, n, part, checksum=True)]


def _decode(stored: np.ndarray, out: np.ndarray) -> None:
    if stored.dtype == np.int16:
        np.multiply(stored, np.float32(1 / FULL_SCALE), out=out)
    else:
        out[...] = stored


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters as JSON gives them back."""
    plain = dict(parameters)
    if plain.get("channels") is not None:
        plain["channels"] = [int(channel) for channel in plain["channels"]]
    if plain.get("seconds") is not None:
        plain["seconds"] = float(plain["seconds"])
    if plain.get("sample_rate") is not None:
        plain["sample_rate"] = int(plain["sample_rate"])
    return plain


def _manifest(recordings: Sequence[Recording], rate: Any, seconds: Any, channels: Any) -> dict[str, Any]:
    if not len(recordings):
        raise ValueError("no recordings to prepare; expected at least one")
    return {
        "format": FORMAT,
        "clips": len(recordings),
        "recordings": _fingerprint(recordings),
        **_plain({"sample_rate": rate, "seconds": seconds, "channels": channels}),
    }


def _fingerprint(recordings: Sequence[Recording]) -> str:
    return _hash(recording.trial_id for recording in recordings)


def _hash(trials: Any) -> str:
    return hashlib.sha256("\n".join(trials).encode()).hexdigest()


def _expect(folder: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    for key in ("format", "sample_rate", "seconds", "channels", "clips", "recordings"):
        if found[key] != expected[key]:
            raise ValueError(
                f"{folder}: this cache was prepared with {key} {quoted(found[key])}, wanted is "
                f"{quoted(expected[key])}; "
                "give another folder or remove this one"
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = unsealed(path.read_text(encoding="utf-8"))
        keys = ("format", "clips", "recordings", "sample_rate", "seconds", "channels")
        if any(key not in found for key in keys):
            raise ValueError("its entries are incomplete")
        if not isinstance(found["clips"], int) or not 0 < found["clips"] < 10**9:
            raise ValueError("its number of clips is impossible")
    except FileNotFoundError:
        raise ValueError(f"{path.parent}: no prepared cache is there; build one first") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not the manifest of a prepared cache ({reason(error)}); remove the folder"
        ) from None
    return found
