"""Sound files as the spectrograms that pretraining hears; nothing is stored on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from detector.classify.sound import Waveforms
from detector.frontends.fbank import AUDIOSET_DEVIATION, AUDIOSET_MEAN, FRAME_SECONDS, FilterBank, normalised
from remasc.audio import audio_info


class FilterBankClips:
    """`clips[i]` is the normalised log mel spectrogram (N, F) of the first channel of file i at 16 kHz.

    `seconds` bounds what is read of a file; decoded clips are kept in memory as far as there is room. A file that
    is none, or is shorter than one frame of 25 ms, is a ValueError at once.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        mels: int = 128,
        *,
        seconds: float = 30.0,
        mean: float = AUDIOSET_MEAN,
        deviation: float = AUDIOSET_DEVIATION,
    ) -> None:
        self.waveforms, self.mean, self.deviation = Waveforms(paths, seconds=seconds), mean, deviation
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
        return normalised(self.bank(self.waveforms[index]), self.mean, self.deviation)
