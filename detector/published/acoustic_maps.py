"""Acoustic maps of arXiv 2602.16399: where the sound comes from, in four bands, as pictures for a small network.

Shapes: B batch, M microphones, T samples, F bins, N frames, P pairs of microphones, D = 41 x 91 directions,
Q nodes. Waveforms (B, M, T). Cross-spectral matrix averaged over the clip -> delay-and-sum power in every
direction, summed over a band, scaled to 0..1 -> four maps (41 elevations, 91 azimuths) -> depthwise-separable
network -> [genuine, replay].

The power a^H R a / a^H a is a sum over pairs of Re(R_ij exp(j w tau)), which depends on the direction through
the delay tau of the pair alone. As a function of tau it has no faster part than w_max tau_max, so that a few dozen
Chebyshev nodes carry it to rounding error; 3,731 directions are then one small matrix product.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from detector.published.network import PublishedNetwork
from remasc import MicArray
from remasc.arrays import get_array

N_FFT, HOP = 2048, 1024
BANDS_HZ = ((100, 500), (500, 3000), (3000, 8000), (8000, 22050))
ELEVATIONS, AZIMUTHS = 41, 91  # both -90..90 degrees
SPEED_OF_SOUND = 343.0
MAX_SECONDS = 30.0  # of a recording; no command is longer
MAX_COLUMNS = 16000  # nodes of all pairs together: 240 MB


class AcousticMaps(PublishedNetwork):
    """A replay detector for one array: (B, M, T) at the array's rate -> score (B,), higher = more genuine.

    `array` is a MicArray, the name of one, or the path of its file. Its geometry stands in `arguments`, and so in
    every checkpoint. 5,702 parameters. Open in the paper, and chosen here: the layers (four depthwise-separable
    blocks of 16, 32, 48, 48 channels, batch norm, ELU, pooling by 2 between them), a Hann window, each map's
    own minimum and maximum as 0 and 1 (a map without any contrast is all 0), and that a band above half the
    sample rate has such a map.

    >>> sum(p.numel() for p in AcousticMaps("D2").parameters())
    5702
    """

    def __init__(self, array: MicArray | str) -> None:
        array = array if isinstance(array, MicArray) else get_array(array)
        super().__init__(array.num_mics, array.sample_rate)
        self.array = array
        self.arguments = {"positions": array.positions.tolist()}
        self.window = int(
            MAX_SECONDS * self.sample_rate
        )  # the clip is the whole command, not its first second
        self.pairs = np.triu_indices(self.channels, k=1)
        phases, directions = _steering(array)
        self.register_buffer("phases", phases, persistent=False)  # (P, F, Q) complex
        self.register_buffer("directions", directions, persistent=False)  # (P, Q, D)
        widths = (len(BANDS_HZ), 16, 32, 48, 48)
        self.blocks = nn.Sequential(*(_block(a, b) for a, b in pairwise(widths)))
        self.fc = nn.Linear(widths[-1], 2)

    def prepare(self, x: Tensor | np.ndarray) -> Tensor:
        """(B, M, T), any real type -> maps (B, 4, 41, 91) in 0..1, elevation and azimuth rising.

        Frames of 2048 samples every 1024, not centred; a clip shorter than one frame gets zeros at its end.
        """
        x = self._real(x, f"waveforms (B, {self.channels}, T)")[..., : self.window]
        x = nn.functional.pad(x.to(self.directions.dtype), (0, max(0, N_FFT - x.shape[-1])))
        peak = x.abs().amax(dim=(-2, -1), keepdim=True)
        # the maps do not know the level, but rounding does
        x = x / torch.where(peak > 0, peak, torch.ones_like(peak))
        window = torch.hann_window(N_FFT, dtype=x.dtype, device=x.device)
        s = torch.stft(x.flatten(0, 1), N_FFT, HOP, window=window, center=False, return_complex=True)
        s = s.unflatten(0, x.shape[:2])  # (B, M, F, N)
        s = s.transpose(1, 2)  # (B, F, M, N)
        matrix = (s @ s.mH / s.shape[-1])[:, :, *self.pairs].transpose(1, 2)  # (B, P, F)
        return _scaled(torch.stack([self._map(matrix, band) for band in self._bands()], dim=1))

    def _bands(self) -> list[slice]:
        """The bins of each band, below half the sample rate."""
        frequency = np.arange(N_FFT // 2) * self.sample_rate / N_FFT
        edges = [[int(np.searchsorted(frequency, edge)) for edge in band] for band in BANDS_HZ]
        return [slice(low, high) for low, high in edges]

    def _map(self, matrix: Tensor, band: slice) -> Tensor:
        """Cross-spectra (B, P, F) -> the power (B, 41, 91) less the sum of the microphones' own, which is the same
        in every direction."""
        nodes = torch.einsum("bpf,pfq->bpq", matrix[..., band], self.phases[:, band]).real
        power = torch.einsum("bpq,pqd->bd", nodes, self.directions) * (2 / self.channels)
        return power.unflatten(-1, (ELEVATIONS, AZIMUTHS))

    def embed(self, x: Tensor) -> Tensor:
        """Maps (B, 4, 41, 91) -> (B, 48)."""
        shape = (len(BANDS_HZ), ELEVATIONS, AZIMUTHS)
        if not isinstance(x, Tensor) or x.shape[1:] != shape:
            raise ValueError(
                f"expected maps (B, 4, {ELEVATIONS}, {AZIMUTHS}), got {tuple(getattr(x, 'shape', ()))}; `prepare` "
                "makes them"
            )
        return self.blocks(x.to(self.fc.weight.dtype)).mean(dim=(-2, -1))

    def logits(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Maps (B, 4, 41, 91) -> (B, 2) in the order [genuine, replay]. `lengths` is unused: maps have one size."""
        return self.fc(self.embed(x))


def _block(width: int, wider: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        nn.Conv2d(width, wider, 1, bias=False),
        nn.BatchNorm2d(wider),
        nn.ELU(),
        nn.MaxPool2d(2),
    )


def _scaled(maps: Tensor) -> Tensor:
    """Each map (..., 41, 91) to 0..1. What varies by no more than rounding is no picture: 0."""
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    span = high - low
    there = span > 1e-5 * maps.abs().amax(dim=(-2, -1), keepdim=True)
    return torch.where(
        there, (maps - low) / torch.where(there, span, torch.ones_like(span)), torch.zeros_like(maps)
    )


def directions() -> np.ndarray:
    """Unit vectors (41 * 91, 3) towards the grid's directions: elevation by elevation, x right, y up, z ahead."""
    elevation, azimuth = np.meshgrid(
        np.radians(np.linspace(-90, 90, ELEVATIONS)),
        np.radians(np.linspace(-90, 90, AZIMUTHS)),
        indexing="ij",
    )
    towards = (np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation))
    return np.stack(towards, axis=-1).reshape(-1, 3)


def _steering(array: MicArray) -> tuple[Tensor, Tensor]:
    """The phases at the nodes (P, F, Q) complex64, and what carries the nodes to the directions (P, Q, D)."""
    one, other = np.triu_indices(array.num_mics, k=1)
    baselines = array.positions[one] - array.positions[other]  # (P, 3)
    reach = np.linalg.norm(baselines, axis=1) / SPEED_OF_SOUND  # the largest |tau| of each pair, in seconds
    highest = min(array.sample_rate / 2, BANDS_HZ[-1][1])  # what lies above is in no band
    fastest = 2 * math.pi * highest * float(reach.max(initial=0.0))
    nodes = math.ceil(fastest + 3 * fastest ** (1 / 3)) + 16  # the series ends soon after its fastest part
    if nodes * len(reach) > MAX_COLUMNS:
        raise ValueError(
            f"array {array.name!r}: {len(reach)} pairs up to {reach.max() * SPEED_OF_SOUND:.2g} m apart at "
            f"{array.sample_rate} Hz need {nodes * len(reach)} nodes; acoustic maps take {MAX_COLUMNS}: choose "
            "fewer or closer microphones"
        )
    angle = math.pi * (np.arange(nodes) + 0.5) / nodes
    bins = math.ceil(highest * N_FFT / array.sample_rate) + 1
    omega = 2 * math.pi * np.arange(bins) * array.sample_rate / N_FFT
    # t_i - t_j = -(p_i - p_j) . u / c, and R_ij = S_i S_j* turns by -w (t_i - t_j): steering turns it back
    tau = reach[:, None] * np.cos(angle)  # (P, Q)
    phases = np.exp(1j * omega[None, :, None] * tau[:, None])
    delay = -baselines @ directions().T / SPEED_OF_SOUND  # (P, D)
    unit = np.clip(delay / np.where(reach > 0, reach, 1)[:, None], -1, 1)
    order = np.arange(nodes)
    analysis = (
        np.cos(order[:, None] * angle) * (2 - (order == 0))[:, None] / nodes
    )  # values at nodes -> series
    carried = np.empty((len(reach), nodes, delay.shape[1]), np.float32)
    for pair, row in enumerate(unit):
        carried[pair] = analysis.T @ np.cos(order[:, None] * np.arccos(row))
    return torch.from_numpy(phases.astype(np.complex64)), torch.from_numpy(carried)
