"""Clips as waveforms for the network. Shapes: B batch, T samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from remasc.audio import audio_info, read_audio
from remasc.resampling import resample

RATE = 16000
LONGEST = 30.0  # seconds that are read of a file
KEPT_BYTES = 1 << 30  # decoded clips that are kept in memory; the others are decoded again


class Waveforms:
    """`waveforms[i]` is the first channel (T,) of file i at 16 kHz, its first `seconds` at most."""

    def __init__(self, paths: Sequence[Path], kept_bytes: int = KEPT_BYTES, seconds: float = LONGEST) -> None:
        self.paths, self.seconds = list(paths), seconds
        self._kept: dict[int, Tensor] = {}
        self._room = kept_bytes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        if index in self._kept:
            return self._kept[index]
        waveform, rate = read_audio(self.paths[index], seconds=self.seconds)
        clip = torch.from_numpy(np.ascontiguousarray(resample(waveform[:1], rate, RATE)[0]))
        if not len(clip):
            raise ValueError(f"{self.paths[index]}: holds no sound; expected at least one sample")
        if (size := clip.numel() * clip.element_size()) <= self._room:
            self._kept[index], self._room = clip, self._room - size
        return clip


class Readable(Waveforms):
    """Waveforms of which some files cannot be read: silence instead, and why in `faults` by their number."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(paths)
        self.faults: dict[int, str] = {}

    def __getitem__(self, index: int) -> Tensor:
        try:
            return super().__getitem__(index)
        except (OSError, ValueError) as error:
            self.faults[index] = _fault(self.paths[index], error)
        return torch.zeros(1)


def collate(
    clips: Sequence[Tensor], samples: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Clips (T,) of any lengths -> (B, samples), padded with zeros, and their real lengths (B,).

    A longer clip is cut where the generator draws; without one at its end, as published.
    """
    cut = []
    for clip in clips:
        spare = max(0, len(clip) - samples)
        start = 0 if generator is None else int(torch.randint(spare + 1, (), generator=generator))
        cut.append(clip[start : start + samples])
    lengths = torch.tensor([len(clip) for clip in cut])
    return torch.stack([F.pad(clip, (0, samples - len(clip))) for clip in cut]), lengths


def longest_seconds(paths: Sequence[Path]) -> float:
    """The length of the longest file by its header, at most 30 s."""
    return min(LONGEST, max(audio_info(path).seconds for path in paths))


def check_readable(parts: Sequence[Waveforms], tell: Callable[[int], None]) -> None:
    """Decode every clip (they are kept where there is room); `tell(done)` after each.

    ValueError, in one sentence, where some cannot be read: told now, not when eval is heard after hours.
    """
    faults, done = [], 0
    for part in parts:
        for index, path in enumerate(part.paths):
            try:
                part[index]
            except (OSError, ValueError) as error:
                faults.append(_fault(path, error))
            tell(done := done + 1)
    if len(faults) == 1:
        raise ValueError(faults[0])
    if faults:
        raise ValueError(f"{len(faults):,} of {done:,} files cannot be read, the first: {faults[0]}")


def _fault(path: Path, error: Exception) -> str:
    """Why a file cannot be read, with its name."""
    return f"{path}: {error.strerror or error}" if isinstance(error, OSError) else str(error)
