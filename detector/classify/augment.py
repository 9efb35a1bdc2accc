"""What happens to a batch before it is learnt: SpecAugment, shifts, mixup. The draws come from a generator on the
CPU, so that they are the same on every device.

Shapes: B batch, T samples, N frames, F mel bands, K classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MIX = 10.0  # both parameters of the published Beta distribution of a mixture's shares


def spec_augment(
    spectra: Tensor, frames: Tensor, freq_mask: int, time_mask: int, generator: torch.Generator
) -> Tensor:
    """(B, N, F) with one band range of 0 to `freq_mask` and one frame range of 0 to `time_mask` set to the mean.

    Each item has its own, the frames within its real ones (B,). (Published code sets them to 0 before the
    normalisation, which is louder than most cells.)
    """
    bands = torch.full((len(spectra),), spectra.shape[2])
    hidden = torch.zeros(spectra.shape, dtype=torch.bool)
    if time_mask > 0:
        hidden |= _range(spectra.shape[1], frames.cpu(), time_mask, generator)[:, :, None]
    if freq_mask > 0:
        hidden |= _range(spectra.shape[2], bands, freq_mask, generator)[:, None, :]
    return spectra.masked_fill(hidden.to(spectra.device), 0)


def rolled(spectra: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """(B, N, F), each item shifted by -most to most frames around its ends."""
    shifts = torch.randint(-most, most + 1, (len(spectra),), generator=generator)
    index = (torch.arange(spectra.shape[1]) - shifts[:, None]) % spectra.shape[1]
    return spectra.gather(1, index.to(spectra.device)[..., None].expand_as(spectra))


def mixed(
    x: Tensor, lengths: Tensor, targets: Tensor, share: float, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Waveforms (B, T), their lengths and targets (B, K), a `share` of them mixed with another of the batch.

    The shares are drawn from Beta(10, 10) and the targets mixed alike, as published; the partner is another of
    the same batch, not of all clips.
    """
    rng = np.random.default_rng(seed)
    partner = torch.from_numpy(rng.permutation(len(x)))
    part = torch.from_numpy(rng.beta(MIX, MIX, len(x)).astype(np.float32))
    part = torch.where(torch.from_numpy(rng.random(len(x)) < share), part, 1.0)[:, None]
    lengths = torch.where(part[:, 0] < 1, torch.maximum(lengths, lengths[partner]), lengths)
    return part * x + (1 - part) * x[partner], lengths, part * targets + (1 - part) * targets[partner]


def _range(size: int, within: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """True in one range of 0 to `most` places of each item: (B, size)."""
    count = len(within)
    width = torch.randint(most + 1, (count,), generator=generator).minimum(within)
    start = (torch.rand(count, generator=generator) * (within - width + 1)).long()
    place = torch.arange(size)
    return (place >= start[:, None]) & (place < (start + width)[:, None])
