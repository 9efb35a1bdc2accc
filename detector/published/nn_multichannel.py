"""NN-Multichannel of arXiv 2003.08225 at its published size, and its one-channel and dummy variants.

Shapes: B batch, M microphones, T samples, N frames, P filters. Waveforms (B, M, T) float32 in [-1, 1].
Non-overlapping frames of 20 ms -> one bank of P filters per channel, summed over channels -> maximum over
positions, ReLU -> per frame Conv1d, pooling, Linear -> three LSTM layers -> last step -> [genuine, replay].

The same class is NN-Single (one channel, fed with channel 1) and NN-Dummy (M channels, all fed with
channel 1): the control that has all the parameters of NN-Multichannel and no spatial information.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.published.filter_bank import filter_bank_max
from detector.published.network import PublishedNetwork

FRAME_SECONDS = 0.02


class NNMultichannel(PublishedNetwork):
    """A replay detector for one array: (B, M, T) at `sample_rate` -> score (B,), higher = more genuine.

    Bank i of the `channels` banks of `filters` filters hears channel i. Names and sizes of the parameters are
    the published ones; 16,177,666 parameters with 2 channels at 44.1 kHz.

    >>> sum(p.numel() for p in NNMultichannel(2, 44100).parameters())
    16177666
    """

    def __init__(self, channels: int, sample_rate: int, filters: int = 64) -> None:
        super().__init__(channels, sample_rate, filters=filters)
        self.filters = self.arguments["filters"]
        self.frame = int(FRAME_SECONDS * self.sample_rate)  # 882 samples at 44.1 kHz, 320 at 16 kHz
        self.taps = int(self.frame / 3.5 * 2.5)  # 630, 228
        pooled = (self.filters + 1) // 3  # Conv1d(8, padding 4) adds one position, the pooling divides by 3
        self.front_tconv = nn.ModuleList(nn.Conv1d(1, self.filters, self.taps) for _ in range(self.channels))
        self.fconv = nn.Conv1d(1, 256, 8, padding=4)
        self.fc1 = nn.Linear(256 * pooled, 256)
        self.lstm = nn.LSTM(256, 832, num_layers=3, batch_first=True)
        self.fc3 = nn.Linear(832, 2)

    def embed(self, x: Tensor) -> Tensor:
        """Prepared windows (B, channels, T) -> the LSTM's last step (B, 832)."""
        wanted = f"a prepared window (B, {self.channels}, at least {self.frame} samples)"
        x = self._real(x, wanted)
        if x.shape[-1] < self.frame:
            raise ValueError(f"expected {wanted}, got shape {tuple(x.shape)}; `prepare` makes one")
        if len(x) == 0:
            return x.new_zeros(0, self.lstm.hidden_size)
        batch, count = len(x), x.shape[-1] // self.frame  # an incomplete last frame is dropped
        frames = x[..., : count * self.frame].unflatten(-1, (count, self.frame))
        frames = frames.transpose(1, 2).flatten(0, 1)  # (B * N, channels, frame)
        weight = torch.cat([bank.weight for bank in self.front_tconv], dim=1)
        bias = torch.stack([bank.bias for bank in self.front_tconv]).sum(dim=0)
        z = filter_bank_max(frames, weight, bias).relu()  # (B * N, P)
        h = F.max_pool1d(self.fconv(z[:, None]).relu(), 3).flatten(1)
        h = self.fc1(h).relu().view(batch, count, -1)
        return self.lstm(h)[0][:, -1]

    def logits(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Prepared windows (B, channels, T) -> (B, 2) in the published order [genuine, replay].

        `lengths` is accepted for the common interface and unused: prepared windows are all one second.
        """
        return self.fc3(self.embed(x))
