"""Sound files as the spectrograms that pretraining hears; nothing is stored on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from detector.classify.sound import KEPT_BYTES, Waveforms
from detector.frontends.fbank import AUDIOSET_DEVIATION, AUDIOSET_MEAN, FRAME_SECONDS, FilterBank, normalised
from remasc.audio import audio_info


class FilterBankClips:
    """`clips[i]` is the normalised log mel spectrogram (N, F) of the first channel of file i at 16 kHz.

    `seconds` bounds what is read of a file; spectrograms are kept in memory as far as `kept_bytes` go. A file
    that is none, or is shorter than one frame of 25 ms, is a ValueError at once.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        mels: int = 128,
        *,
        seconds: float = 30.0,
        mean: float = AUDIOSET_MEAN,
        deviation: float = AUDIOSET_DEVIATION,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self.waveforms = Waveforms(paths, kept_bytes=0, seconds=seconds)
        self.mean, self.deviation = mean, deviation
        self._kept: dict[int, Tensor] = {}
        self._room = kept_bytes
        self.bank = FilterBank(mels)
        for path in self.waveforms.paths:
            if (length := audio_info(path).seconds) < FRAME_SECONDS:
                raise ValueError(
                    f"{path}: {length:.3f} s hold no frame of {FRAME_SECONDS} s; leave it out, or pad it"
                )

    def __len__(self) -> int:
        return len(self.waveforms)

    @torch.no_grad()
    def __getitem__(self, index: int) -> Tensor:
        if index in self._kept:
            return self._kept[index]
        spectrogram = normalised(self.bank(self.waveforms[index]), self.mean, self.deviation)
        if (size := spectrogram.numel() * spectrogram.element_size()) <= self._room:
            self._kept[index], self._room = spectrogram, self._room - size
        return spectrogram
