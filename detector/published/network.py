"""What the networks of the literature share: the first second, the score, and how published weights are read.

Shapes: B batch, M microphones, T samples. Waveforms (B, M, T) in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.published.weights import misfit, published_tensors
from remasc.sentences import quoted

WINDOW_SECONDS = 1.0


class PublishedNetwork(nn.Module):
    """A replay detector for one array: (B, M, T) at `sample_rate` -> score (B,), higher = more genuine.

    `arguments` with the specification builds the network again. A subclass adds `logits(prepared, lengths)`.
    """

    def __init__(self, channels: int, sample_rate: int, **arguments: int) -> None:
        super().__init__()
        numbers = (
            (channels, 1, 64),
            (sample_rate, 1000, 384000),
            *((n, 2, 4096) for n in arguments.values()),
        )
        words = "".join(f", {name}={quoted(value)}" for name, value in arguments.items())
        self._called = f"{type(self).__name__}({quoted(channels)}, {quoted(sample_rate)}{words})"
        if not all(isinstance(n, Integral) and low <= n <= high for n, low, high in numbers):
            raise ValueError(
                f"{self._called}: expected whole numbers, 1 to 64 channels, a sample rate of 1000 to 384000 Hz"
                + "".join(f", 2 to 4096 {name}" for name in arguments)
            )
        self.channels, self.sample_rate = int(channels), int(sample_rate)
        self.arguments = {name: int(value) for name, value in arguments.items()}
        self.window = int(WINDOW_SECONDS * self.sample_rate)

    def prepare(self, x: Tensor | np.ndarray) -> Tensor:
        """(B, M, T), any real type -> (B, M, window): the first second, each clip divided by its largest
        |sample| over all channels. Silence stays silence.

        The papers leave shorter clips open: they get zeros at their end, so that a clip scores the same alone
        as in a batch padded to the longest.
        """
        x = self._real(x, f"waveforms (B, {self.channels}, T)")[..., : self.window]
        x = F.pad(x, (0, self.window - x.shape[-1]))
        peak = x.abs().amax(dim=(-2, -1), keepdim=True)
        return x / torch.where(peak > 0, peak, torch.ones_like(peak))

    def forward(self, x: Tensor) -> Tensor:
        """Recordings (B, M, T) -> score (B,), the genuine logit less the replay logit."""
        logits = self.logits(self.prepare(x))
        return logits[:, 0] - logits[:, 1]

    def load_published(self, source: Mapping[str, Tensor] | str | Path):
        """Load a published state dict, or the `.pth` or `.safetensors` file that holds one. Returns self.

        Prefixes `module.` are stripped. Raises ValueError, in one sentence, on anything that does not fit.
        """
        tensors, name = published_tensors(source)
        if fault := misfit(tensors, self.state_dict()):
            raise ValueError(
                f"{name} does not fit {self._called}: {fault}; check what the network is built with"
            )
        self.load_state_dict(tensors)
        return self

    def _real(self, x: Tensor | np.ndarray, wanted: str) -> Tensor:
        """(B, channels, T) as the weights' floating-point type; ValueError on anything else."""
        if isinstance(x, np.ndarray) and x.dtype.kind in "iuf":
            x = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
        if not isinstance(x, Tensor) or x.dtype in (torch.bool, torch.complex64, torch.complex128):
            kind = getattr(x, "dtype", type(x).__name__)
            raise ValueError(f"expected {wanted} as a tensor or array of real numbers, got {kind}")
        if x.ndim != 3 or x.shape[1] != self.channels:
            raise ValueError(
                f"expected {wanted}, got shape {tuple(x.shape)}; this network takes {self.channels} channels at "
                f"{self.sample_rate} Hz"
            )
        return x.to(next(self.parameters()).dtype)
