"""From recordings to batches.

`Examples` is what a network trains on: `len`, `[i] -> features (..., N)`, `labels` (n,) with genuine = 1, and
`recordings`. A network class with `build_examples(recordings, folder, **options)` prepares its own; any other
gets what it hears of each recording (`window` samples at most), through the memory-mapped cache.
Shapes: B batch, N the padded last axis.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from detector.config import TrainConfig
from detector.systems import Specification
from remasc import Corpus, Recording
from remasc.cache import PreparedCache
from remasc.protocol import partitions

PARTS = ("train", "dev")


class Examples(Protocol):
    labels: Any  # (n,) integers, genuine = 1
    recordings: Sequence[Recording]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...


class ClipExamples:
    """Prepared windows (M, T) of a network that hears waveforms, out of a `PreparedCache`."""

    def __init__(
        self,
        recordings: Sequence[Recording],
        cache: PreparedCache,
        network: nn.Module,
        specification: Specification,
    ) -> None:
        self.recordings = list(recordings)
        self.labels = np.array([int(r.label) for r in self.recordings], dtype=np.int64)
        self._numbers = [cache.number(r.trial_id) for r in self.recordings]
        # a copy of its own: the network moves to a GPU, the loading processes stay on the CPU
        self._cache, self._front, self._specification = cache, copy.deepcopy(network).cpu(), specification

    def __len__(self) -> int:
        return len(self.recordings)

    @torch.no_grad()
    def __getitem__(self, index: int) -> Tensor:
        waveform = self._specification.channels_of(self._cache[self._numbers[index]])
        return self._front.prepare(torch.from_numpy(np.ascontiguousarray(waveform))[None])[0]


def training_parts(config: TrainConfig, corpus: Corpus) -> dict[str, Corpus]:
    """Train, dev and eval of the run's arrays. The whole corpus is parted first: every array has the same dev
    speakers. A test run takes a few clips of each class."""
    parts = partitions(corpus, dev_share=config.dev_share, seed=config.protocol_seed)
    if config.array != "all":  # all: also arrays that have no name, those of the recipe random-arrays
        parts = {name: part.filter(array=list(config.arrays)) for name, part in parts.items()}
    if config.test_run:
        parts = {name: _few(part) for name, part in parts.items()}
    return parts


def _few(part: Corpus, most: int = 4) -> Corpus:
    """Up to `most` trials of each array and class."""
    kept, counts = [], {}
    for recording in part:
        key = (recording.array, recording.label)
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= most:
            kept.append(recording)
    return part.replace(kept)


def build_examples(
    config: TrainConfig,
    parts: dict[str, Corpus],
    network: nn.Module,
    specification: Specification,
    *,
    progress: bool = True,
) -> dict[str, Examples]:
    """Prepare train and dev, or open what is prepared already."""
    folder = config.cache or config.out / "prepared"
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(type(network), "build_examples"):
        options = {"seconds": config.seconds, "progress": progress}
        build = type(network).build_examples
        return {name: build(parts[name], folder, training=name == "train", **options) for name in PARTS}
    recordings = [recording for name in PARTS for recording in parts[name]]
    seconds = network.window / network.sample_rate
    longer = "" if seconds == 1 else f"-{seconds:g}s"
    rate = specification.sample_rate
    key = hashlib.sha256("\n".join(r.trial_id for r in recordings).encode()).hexdigest()[:16]
    cache = PreparedCache.build(
        recordings,
        folder / f"clips-{config.array}-{rate}-{key}{longer}",
        sample_rate=rate,
        seconds=seconds,
        progress=progress,
    )
    return {name: ClipExamples(parts[name], cache, network, specification) for name in PARTS}


def check_examples(examples: dict[str, Examples]) -> None:
    """Both classes in train and in dev, or there is nothing to learn or to choose by."""
    for name in PARTS:
        labels = torch.as_tensor(examples[name].labels)
        genuine = int((labels == 1).sum())
        if not 0 < genuine < len(labels) or len(labels) != len(examples[name]):
            raise ValueError(
                f"the {name} partition holds {genuine} genuine and {len(labels) - genuine} replayed trials; "
                "expected both classes: choose another array or corpus, or list partitions in partitions.tsv"
            )


class _Numbered(Dataset):
    """Each item with its number, so that a batch knows which trials it holds."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        return int(index), self.examples[int(index)]


def collate(items: Sequence[tuple[int, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Features (B, ..., N) padded with zeros on the last axis, their real lengths (B,), and numbers (B,)."""
    lengths = torch.tensor([features.shape[-1] for _, features in items])
    first = items[0][1]
    batch = first.new_zeros(len(items), *first.shape[:-1], int(lengths.max()))
    for row, (_, features) in zip(batch, items, strict=True):
        row[..., : features.shape[-1]] = features
    return batch, lengths, torch.tensor([number for number, _ in items])


def batches(
    examples: Examples, order: Sequence[np.ndarray], workers: int, *, pin: bool = False
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The batches of clip numbers, in order, whatever the number of workers."""
    loader = DataLoader(
        _Numbered(examples),
        batch_sampler=[part.tolist() for part in order],
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        generator=torch.Generator(),  # of its own: the global one belongs to the steps
    )
    return iter(loader)
