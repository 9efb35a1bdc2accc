"""Recordings as examples for a network: torch tensors, collated with a mask over microphones.

Shapes: B batch, M microphones, T samples. Decodes each time, or reads a `PreparedCache`; both give the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from remasc.arrays import get_array
from remasc.audio import check_clip, load_clip
from remasc.cache import PreparedCache
from remasc.schema import Recording

UNKNOWN = -1  # the label of a source recording


@dataclass(frozen=True)
class Example:
    """`waveform` (M, T) float32; `label` 1 genuine, 0 replay; `number` counts the dataset's recordings."""

    waveform: torch.Tensor
    label: int
    number: int


@dataclass(frozen=True)
class Batch:
    """Examples padded with zeros to the longest T and the largest M.

    waveform (B, M, T) float32; microphones (B, M) bool, True where there is one; lengths (B,) int64 in
    samples; labels (B,) int64; numbers (B,) int64.
    """

    waveform: torch.Tensor
    microphones: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor
    numbers: torch.Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = True) -> Batch:
        return Batch(*(getattr(self, name).to(device, non_blocking=non_blocking) for name in self._names()))

    def pin_memory(self) -> Batch:
        """DataLoader calls this where `pin_memory=True`."""
        return Batch(*(getattr(self, name).pin_memory() for name in self._names()))

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return tuple(cls.__dataclass_fields__)


class RecordingDataset(Dataset):
    """The first `seconds` of recordings at one rate, with some of their channels.

    sample_rate: Hz; None is that of the recordings' array, which must be the same for all: what lies in one
    batch was sampled alike. seconds: None keeps all.
    channels: None keeps all in file order; a number takes so many in the order in which the paper adds them;
    a sequence names the file's channels (from 0, repeats allowed). dummy: channel 1 repeated `channels` times
    (or as often as the array has microphones), the control without spatial information.
    cache: prepared with all channels, the same rate, and at least these seconds, from a corpus that holds the
    recordings, whose files did not change since.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        *,
        sample_rate: int | None = None,
        seconds: float | None = None,
        channels: int | Sequence[int] | None = None,
        dummy: bool = False,
        cache: PreparedCache | None = None,
    ) -> None:
        check_clip(
            sample_rate=sample_rate, seconds=seconds, channels=None if isinstance(channels, int) else channels
        )
        self.recordings = recordings
        self.sample_rate = sample_rate
        self._rate = _one_rate(recordings) if sample_rate is None else sample_rate
        self.seconds = seconds
        self.channels = channels
        self.dummy = dummy
        self.cache = cache
        self._numbers = None if cache is None else self._numbers_in(cache)

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, number: int) -> Example:
        recording = self.recordings[number]
        channels = channels_of(recording, self.channels, dummy=self.dummy)
        if self.cache is None:
            clip = load_clip(recording.path, sample_rate=self._rate, seconds=self.seconds, channels=channels)
        else:
            clip = self._from_cache(number, channels)
        label = UNKNOWN if recording.label is None else int(recording.label)
        return Example(torch.from_numpy(np.ascontiguousarray(clip)), label, number)

    def labels(self) -> np.ndarray:
        """(K,) int64, without opening a file: for class weights and samplers."""
        return np.array([UNKNOWN if r.label is None else int(r.label) for r in self.recordings], np.int64)

    def _from_cache(self, number: int, channels: Sequence[int] | None) -> np.ndarray:
        clip = self.cache[self._numbers[number]]
        if self.seconds != self.cache.parameters["seconds"]:
            clip = clip[:, : max(1, round(self.seconds * self._rate))]
        if channels is None:
            return clip
        if max(channels) >= len(clip):
            raise ValueError(
                f"{self.recordings[number].trial_id}: channel {max(channels) + 1} is wanted, the cache has "
                f"{len(clip)}; prepare it with all channels"
            )
        return clip[list(channels)]

    def _numbers_in(self, cache: PreparedCache) -> np.ndarray:
        made = cache.parameters
        if made["sample_rate"] != self.sample_rate:
            raise ValueError(
                f"{cache.folder}: prepared at {made['sample_rate']} Hz, wanted is {self.sample_rate}; "
                "prepare another cache"
            )
        if made["seconds"] is not None and (self.seconds is None or self.seconds > made["seconds"]):
            raise ValueError(
                f"{cache.folder}: holds the first {made['seconds']:g} s, wanted are "
                f"{'all' if self.seconds is None else self.seconds}; prepare a longer cache"
            )
        if made["channels"] is not None and (self.channels is not None or self.dummy):
            raise ValueError(
                f"{cache.folder}: holds the channels {made['channels']} only; prepare a cache of all "
                "channels to choose among them"
            )
        cache.check_sources(self.recordings)
        return np.array([cache.number(recording.trial_id) for recording in self.recordings], np.int64)


def _one_rate(recordings: Sequence[Recording]) -> int | None:
    """The sample rate of the arrays that recorded these, without opening a file; None where there is nothing."""
    first: dict[int, Recording] = {}
    for recording in recordings:
        if recording.array is None:
            raise ValueError(
                f"{recording.trial_id}: the rate of a source recording is unknown; name a sample_rate"
            )
        first.setdefault(get_array(recording.array).sample_rate, recording)
    if len(first) > 1:
        (rate, one), (other_rate, other) = list(first.items())[:2]
        raise ValueError(
            f"{one.trial_id} was recorded at {rate} Hz and {other.trial_id} at {other_rate} Hz; name a "
            "sample_rate for both, or take the arrays of one rate"
        )
    return next(iter(first), None)


def channels_of(
    recording: Recording, channels: int | Sequence[int] | None, *, dummy: bool = False
) -> tuple[int, ...] | None:
    """The file's channels (from 0) that `RecordingDataset` takes; None where all are taken as they come."""
    if channels is None and not dummy:
        return None
    if channels is None or isinstance(channels, int):
        if recording.array is None:
            raise ValueError(f"{recording.trial_id}: a source recording has no array; name its channels")
        return get_array(recording.array).channels(channels, dummy=dummy)
    return (0,) * len(channels) if dummy else tuple(channels)


def collate(examples: Sequence[Example]) -> Batch:
    """Pad T and M with zeros. Examples of one shape are stacked without a detour."""
    waveforms = [example.waveform for example in examples]
    shapes = {tuple(waveform.shape) for waveform in waveforms}
    mics = torch.tensor([len(waveform) for waveform in waveforms])
    lengths = torch.tensor([waveform.shape[-1] for waveform in waveforms])
    if len(shapes) == 1:
        padded = torch.stack(waveforms)
    else:
        padded = torch.zeros(len(waveforms), int(mics.max()), int(lengths.max()))
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform), : waveform.shape[-1]] = waveform
    return Batch(
        waveform=padded,
        microphones=torch.arange(padded.shape[1]) < mics[:, None],
        lengths=lengths,
        labels=torch.tensor([example.label for example in examples]),
        numbers=torch.tensor([example.number for example in examples]),
    )
