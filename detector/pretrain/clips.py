"""Sound files as the spectrograms that pretraining hears; nothing is stored on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from detector.frontends.fbank import AUDIOSET_DEVIATION, AUDIOSET_MEAN, FilterBank, normalised
from remasc.audio import read_audio
from remasc.resampling import resample


class FilterBankClips:
    """`clips[i]` is the normalised log mel spectrogram (N, F) of the first channel of file i at 16 kHz.

    `seconds` bounds what is read of a file. A file shorter than one frame of 25 ms is a ValueError when it is
    read.
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
        self.paths, self.seconds, self.mean, self.deviation = list(paths), seconds, mean, deviation
        self.bank = FilterBank(mels)

    def __len__(self) -> int:
        return len(self.paths)

    @torch.no_grad()
    def __getitem__(self, index: int) -> Tensor:
        waveform, rate = read_audio(self.paths[index], seconds=self.seconds)
        first = resample(waveform[:1], rate, self.bank.sample_rate)
        try:
            return normalised(self.bank(torch.from_numpy(first)), self.mean, self.deviation)[0]
        except ValueError as error:
            raise ValueError(f"{self.paths[index]}: {error}") from None
