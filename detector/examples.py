"""What a network trains on, prepared once: each recording's planes in memory-mapped shards.

The front end of the compact detector has no parameters, so its planes (C, K, N) are computed once for each
recording, in parallel, and kept as float16 in shards of `SHARD` recordings. A shard is written whole under its
name; an interrupted build goes on with the shards that are missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from detector import augment
from detector.frontends.planes import CovariancePlanes
from detector.team import one_thread
from remasc import Recording, read_audio
from remasc.atomic import whole_file, write_text
from remasc.audio import resample
from remasc.parallel import tracked, unordered

SHARD = 64


class PlaneExamples(Sequence):
    """`examples[i]` -> planes (C, K, N) float32 of recording i; `labels` (n,) int64, genuine = 1."""

    def __init__(self, recordings: Sequence[Recording], folder: Path, frames: list[int]):
        self.recordings = list(recordings)
        self.labels = np.array([int(r.label) for r in self.recordings], dtype=np.int64)
        self.lengths = frames
        self._offsets = np.concatenate([[0], np.cumsum(frames)])
        self._shards = []
        for start in range(0, len(self.recordings), SHARD):
            self._shards.append(np.load(_shard_path(folder, start), mmap_mode="r"))

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> torch.Tensor:
        if not 0 <= index < len(self):
            raise IndexError(index)
        offset = int(self._offsets[index] - self._offsets[index - index % SHARD])
        planes = self._shards[index // SHARD][:, :, offset : offset + self.lengths[index]]
        return torch.from_numpy(planes.astype(np.float32))

    @classmethod
    def build(
        cls,
        recordings: Sequence[Recording],
        folder: Path,
        *,
        seconds: float = 4.0,
        training: bool = False,
        workers: int | None = None,
        progress: bool = True,
    ) -> PlaneExamples:
        """Prepare the first `seconds` of each recording, or open what is already prepared in `folder`.

        For `training` some recordings are padded, gated or filtered first (`detector.augment`).

        The folder's name carries a hash of the recordings' files and of the front end's settings, so that
        other ones never meet.
        """
        recordings = list(recordings)
        settings = CovariancePlanes.settings() | {"seconds": seconds}
        settings["handling"] = augment.VERSION if training else None
        folder = Path(folder) / f"planes-{_key(recordings, settings)}"
        folder.mkdir(parents=True, exist_ok=True)
        starts = range(0, len(recordings), SHARD)
        missing = [n for n in starts if _frames(folder, n, len(recordings[n : n + SHARD])) is None]
        jobs = [(recordings[n : n + SHARD], folder, seconds, training, n) for n in missing]
        done = len(recordings) - sum(len(job[0]) for job in jobs)
        if jobs:
            built = unordered(_build_shard, jobs, workers)
            for _ in tracked(built, "preparing planes", len(recordings), done, progress):
                pass
        frames = [_frames(folder, start, len(recordings[start : start + SHARD])) for start in starts]
        if None in frames:
            raise ValueError(f"{folder}: changes while it is read; is another program writing there?")
        return cls(recordings, folder, [count for shard in frames for count in shard])


def _build_shard(
    recordings: list[Recording], folder: Path, seconds: float, training: bool, start: int
) -> tuple[int, int]:
    """Write one shard and its frame counts; returns (recordings, start)."""
    with one_thread():  # one shard, one core; this may be the caller's own process
        planes = [_planes(recording, seconds, training) for recording in recordings]
    with whole_file(_shard_path(folder, start)) as temporary:
        np.save(temporary, np.concatenate(planes, axis=-1))
    # the frame counts are written last: they say that the shard is complete
    write_text(_frames_path(folder, start), json.dumps([p.shape[-1] for p in planes]))
    return len(recordings), start


def _frames(folder: Path, start: int, count: int) -> list[int] | None:
    """The frame counts of a shard; None where it is missing, torn or damaged, and so to be made again."""
    try:
        frames = json.loads(_frames_path(folder, start).read_text(encoding="utf-8"))
        planes = np.load(_shard_path(folder, start), mmap_mode="r")
        shape = (CovariancePlanes.count, CovariancePlanes.bands, sum(frames))
        whole = len(frames) == count and all(type(n) is int and n > 0 for n in frames)
        return frames if whole and planes.shape == shape and planes.dtype == np.float16 else None
    except (OSError, ValueError, TypeError, EOFError, RecursionError):
        return None


def _planes(recording: Recording, seconds: float, training: bool) -> np.ndarray:
    waveform, rate = read_audio(recording.path, seconds=seconds)
    if training:
        waveform = augment.handled(waveform, rate, recording.trial_id)
    x = torch.from_numpy(np.ascontiguousarray(resample(waveform, rate, CovariancePlanes.sample_rate)))
    return CovariancePlanes()(x[None])[0].numpy().astype(np.float16)


def _shard_path(folder: Path, start: int) -> Path:
    return folder / f"{start:07d}.npy"


def _frames_path(folder: Path, start: int) -> Path:
    return folder / f"{start:07d}.json"


def _key(recordings: Sequence[Recording], settings: dict) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for recording in recordings:
        status = recording.path.stat()
        digest.update(f"{recording.trial_id} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
