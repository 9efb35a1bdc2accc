"""What pooled facts tell of a simulated recording, for `eval.benchmarks.space` and `knobs`: heard once and kept.

Shapes: M microphones, T samples, C planes, K bands, N frames, D facts, n recordings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from remasc import Corpus, Label, Recording, read_audio
from remasc.atomic import whole_file
from remasc.audio import resample
from remasc.parallel import tracked, unordered
from remasc.protocol import partitions
from remasc.simulate.layout import by_file, read_scenes, scene_of

_CHUNK = 16
_TOGETHER = 4  # neighbouring bands whose spatial facts are averaged: a hundred facts a view, not five
# what scenes have by themselves, and what a scene has of each
KNOBS: dict[str, Callable[[dict], float]] = {
    "SNR (dB)": lambda scene: scene["noise"]["snr_db"],
    "distance (m)": lambda scene: scene["distance"],
    "RT60 at 1 kHz (s)": lambda scene: scene["room"]["rt60"][3],
}


@dataclass(frozen=True)
class Facts:
    """Of the n recordings of one array.

    partition, truth (genuine?) and voice: (n,). knobs: what the scenes have of `KNOBS`, (n, 3). spectrum: (n, 5 K).
    spatial: (n, 12 K); copied: the same where every microphone is a copy of the first.
    """

    partition: np.ndarray
    truth: np.ndarray
    voice: np.ndarray
    knobs: np.ndarray
    spectrum: np.ndarray
    copied: np.ndarray
    spatial: np.ndarray

    def views(self) -> dict[str, np.ndarray]:
        """What each view may see, (n, D)."""
        spatial, copied = wide_bands(self.spatial), wide_bands(self.copied)
        return {
            "single": self.spectrum,
            "dummy": np.hstack([self.spectrum, copied]),
            "spatial": spatial,
            "both": np.hstack([self.spectrum, spatial]),
        }


def facts_of(corpus: Corpus, array: str, kept: Path, workers: int | None = None) -> Facts:
    """The facts of one array of a simulated corpus, taken from the file `kept` or heard and kept there."""
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        found = _hear(corpus, array, workers)
        columns: dict[str, Any] = {field.name: getattr(found, field.name) for field in fields(Facts)}
        with whole_file(kept) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **columns)
    return kept_facts(kept)


def kept_facts(kept: Path) -> Facts:
    """The facts that `facts_of` kept; the corpus may be gone."""
    with np.load(kept, allow_pickle=False) as columns:
        return Facts(**{field.name: columns[field.name] for field in fields(Facts)})


def _hear(corpus: Corpus, array: str, workers: int | None) -> Facts:
    parts = {name: list(part.filter(array=array)) for name, part in partitions(corpus).items()}
    everything = [recording for part in parts.values() for recording in part]
    jobs = [(everything[i : i + _CHUNK], i) for i in range(0, len(everything), _CHUNK)]
    rows: list[Any] = [None] * len(everything)
    done = ((len(found), (first, found)) for first, found in unordered(_heard, jobs, workers))
    for first, found in tracked(done, f"hearing {array}", len(everything), 0, True):
        rows[first : first + len(found)] = found
    scenes = by_file(read_scenes(corpus.root))
    told = [scene for recording in everything if (scene := scene_of(recording.file_id, scenes)) is not None]
    return Facts(
        partition=np.repeat(list(parts), [len(part) for part in parts.values()]),
        truth=np.array([recording.label is Label.GENUINE for recording in everything]),
        voice=np.array([scene["voice"] for scene in told]),
        knobs=np.array([[of(scene) for of in KNOBS.values()] for scene in told]),
        **{view: np.array([row[view] for row in rows], np.float32) for view in rows[0]},
    )


def _heard(recordings: list[Recording], first: int) -> tuple[int, list[dict[str, np.ndarray]]]:
    import torch

    from detector.frontends.planes import CovariancePlanes

    torch.set_num_threads(1)
    front, out = CovariancePlanes(), []
    for recording in recordings:
        waveform, rate = read_audio(recording.path)
        x = torch.from_numpy(np.ascontiguousarray(resample(waveform, rate, front.sample_rate)))
        planes = front(x[None])[0].numpy()
        copied = front(x[None, :1].expand(-1, len(x), -1))[0].numpy()
        alone = front(x[None, :1])[0].numpy()[0]
        out.append({"spectrum": spectrum(alone), "copied": space(copied), "spatial": space(planes)})
    return first, out


def _loud_and_quiet(level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the louder half of the frames and of the quietest fifth, by the mean level (K, N)."""
    order = np.argsort(level.mean(axis=0))
    return order[-max(3, len(order) // 2) :], order[: max(3, len(order) // 5)]


def spectrum(level: np.ndarray) -> np.ndarray:
    """What one channel tells, (5 K,): level per band (K, N) in loud frames, what the quiet ones lie below it, its
    spread, its change from frame to frame, and how far the peaks stand out; without the overall level."""
    loud, quiet = _loud_and_quiet(level)
    shape = level - level.mean()
    return np.concatenate(
        [
            shape[:, loud].mean(axis=1),
            shape[:, quiet].mean(axis=1) - shape[:, loud].mean(axis=1),
            level[:, loud].std(axis=1),
            np.diff(level, axis=1).std(axis=1),
            np.percentile(shape, 95, axis=1) - np.median(shape, axis=1),
        ]
    )


def space(planes: np.ndarray) -> np.ndarray:
    """What the covariance's invariants tell, (12 K,): each of the four spatial planes (C, K, N) in loud frames, in
    quiet ones, and its spread in the loud ones."""
    loud, quiet = _loud_and_quiet(planes[0])
    return np.concatenate(
        [
            part
            for plane in planes[1:5]
            for part in (
                plane[:, loud].mean(axis=1),
                plane[:, quiet].mean(axis=1),
                plane[:, loud].std(axis=1),
            )
        ]
    )


def wide_bands(spatial: np.ndarray) -> np.ndarray:
    """Spatial facts (n, 12 K) averaged over neighbouring bands, (n, 12 K / 4)."""
    return spatial.reshape(len(spatial), -1, _TOGETHER).mean(axis=2)
