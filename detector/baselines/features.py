"""Features of recordings on disk, computed once: an interrupted extraction goes on where it stopped.

`features-SYSTEM/HASH.safetensors` holds a few recordings' features, float32, under their number. The hash is of
what they depend on (version, trials, sizes and times of the sound files), so that a changed file is computed anew,
and runs on the same corpus share what they can.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from detector.quality import MAX_SECONDS
from remasc import ARRAYS, Recording
from remasc.atomic import whole_file
from remasc.audio import load_clip
from remasc.parallel import default_workers, tracked, unordered

if TYPE_CHECKING:
    from detector.baselines.baseline import Baseline

VERSION = 1  # of the features: raise it whenever one of them changes
CHUNK = 32  # recordings in a file: what an interruption may cost


class FeatureExamples:
    """`len`, `[i]` -> features (N, D) or (D,) float32, `labels` (n,) with genuine = 1, and `recordings`."""

    def __init__(self, recordings: Sequence[Recording], files: Sequence[Path]) -> None:
        self.recordings = list(recordings)
        self.labels = np.array([int(r.label) for r in self.recordings], dtype=np.int64)
        self._files = list(files)

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> Tensor:
        with safe_open(self._files[index // CHUNK], framework="pt") as file:
            return file.get_tensor(str(index % CHUNK))


def build_features(
    kind: type[Baseline], recordings: Sequence[Recording], folder: Path, *, progress: bool = True
) -> FeatureExamples:
    """Compute what is not there yet, on all cores."""
    recordings = list(recordings)
    folder = folder / f"features-{kind.system}"
    folder.mkdir(parents=True, exist_ok=True)
    chunks = [recordings[i : i + CHUNK] for i in range(0, len(recordings), CHUNK)]
    files = [folder / f"{_identity(kind, chunk)}.safetensors" for chunk in chunks]
    todo = [
        (kind, chunk, path) for chunk, path in zip(chunks, files, strict=True) if not _whole(path, len(chunk))
    ]
    done = len(recordings) - sum(len(chunk) for _, chunk, _ in todo)
    results = unordered(_extract, todo, default_workers())
    counted = ((count, count) for count in results)
    for _ in tracked(counted, f"{kind.system} features", len(recordings), done, progress and bool(todo)):
        pass
    return FeatureExamples(recordings, files)


def features_of(kind: type[Baseline], recording: Recording) -> Tensor:
    """Of a recording's file: (N, D) or (D,) float32."""
    rate = kind.rate or ARRAYS[recording.array].sample_rate
    clip = load_clip(recording.path, sample_rate=rate, seconds=MAX_SECONDS, channels=kind.channels_heard)
    found = torch.from_numpy(np.ascontiguousarray(kind.features(clip, rate), dtype=np.float32))
    if not torch.isfinite(found).all():
        raise ValueError(f"{recording.path}: its {kind.system} features are not finite; look at the file")
    return found


def _extract(kind: type[Baseline], recordings: Sequence[Recording], path: Path) -> int:
    tensors = {str(number): features_of(kind, recording) for number, recording in enumerate(recordings)}
    with whole_file(path) as temporary:
        save_file(tensors, temporary)
    return len(recordings)


def _whole(path: Path, count: int) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return len(file.keys()) == count
    except (OSError, SafetensorError):
        return False


def _identity(kind: type[Baseline], recordings: Sequence[Recording]) -> str:
    digest = hashlib.sha256(f"{kind.system} {VERSION}\n".encode())
    for recording in recordings:
        found = recording.path.stat()
        digest.update(f"{recording.trial_id} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]
