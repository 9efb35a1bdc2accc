"""Planes of the spatial covariance that no rotation, order or geometry of the microphones can change.

A loudspeaker differs from a mouth in how it radiates: several coherent drivers, an extent, a hiss and a
recorded room that come from the loudspeaker's place also in the pauses. All of that changes the covariance of
the microphones in a cell of time and frequency. Its eigenvalues, and how well its principal direction agrees
with that of the whole clip, do not depend on where the microphones stand in the list; they exist for any
number of microphones.

Shapes: B batch, M microphones, F bins, N frames, K bands.
A Hermitian matrix R per cell is kept `packed`, (M, M, ...) float32: Re R_ij in row i of column j >= i, Im R_ij in
row j of column i < j. The cells lie innermost: matrices are so small that what is fast runs along the cells, and
every number is kept once.
"""

from __future__ import annotations

import torch

PLANES = ("level", "principal", "second", "match", "spread")
EPS = 1e-10
BLOCK = 12_500  # numbers per band worked on at once, 255 frames of 7 microphones: what the caches hold
FLOOR = 1e-7  # of the loud frames' power, -70 dB: no microphone is so quiet, so what lies below is not sound


def packed_outer(real: torch.Tensor, imag: torch.Tensor) -> torch.Tensor:
    """`x x^H` of vectors (M, ...) -> packed (M, M, ...)."""
    mics = len(real)
    packed = real.new_empty(mics, *real.shape)
    for i in range(mics):
        packed[i, i:] = real[i] * real[i:]
        packed[i, i:].addcmul_(imag[i], imag[i:])
        packed[i + 1 :, i] = imag[i] * real[i + 1 :]
        packed[i + 1 :, i].addcmul_(real[i], imag[i + 1 :], value=-1)
    return packed


def unpacked(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Real and imaginary part, each (M, M, ...), of packed (M, M, ...)."""
    real, imag = torch.empty_like(packed), torch.zeros_like(packed)
    for i in range(len(packed)):
        real[i, i:], real[i + 1 :, i] = packed[i, i:], packed[i, i + 1 :]
        imag[i, i + 1 :], imag[i + 1 :, i] = packed[i + 1 :, i], -packed[i + 1 :, i]
    return real, imag


def inner(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`tr(R S)` of two packed (M, M, ...) -> real (...): `v^H R v` where S = v v^H, `||R||^2` where S = R."""
    products = one * other  # each number off the diagonal stands for two
    return 2 * products.sum(dim=(0, 1)) - products.diagonal().sum(-1)


def band_covariance(spectrum: torch.Tensor, bands: torch.Tensor, smooth: int) -> torch.Tensor:
    """Covariance per band and frame: (B, M, F, N) complex, (K, F) -> packed (M, M, B, K, N).

    `R = mean over `smooth` neighbouring frames, sum over the band's bins of w x x^H`. Frames outside of the clip
    count as absent (the mean is over those that exist).
    """
    parts = torch.view_as_real(spectrum).movedim(1, 0)
    summed = []
    for part in parts.split(_block(len(parts)), dim=-2):  # memory does not grow with what lies between
        outer = packed_outer(part[..., 0].contiguous(), part[..., 1].contiguous())
        summed.append(torch.matmul(bands.to(outer), outer))
    return smoothed(torch.cat(summed, dim=-1), smooth)


def smoothed(x: torch.Tensor, width: int) -> torch.Tensor:
    """Mean of (..., N) over `width` (odd) neighbouring frames, of those that exist."""
    frames, total = x.shape[-1], x.clone()
    count = x.new_ones(frames)
    for shift in range(1, min(width // 2, frames - 1) + 1):
        total[..., shift:] += x[..., :-shift]
        total[..., :-shift] += x[..., shift:]
        count[shift:] += 1
        count[:-shift] += 1
    return total / count


def squared(real: torch.Tensor, imag: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`R R` of Hermitian R = real + i imag, each (M, M, ...).

    real is symmetric and imag antisymmetric, so three real products are enough: the imaginary part is
    `real imag + imag real = U - U^T`, U = real imag.
    """
    square, mixed = torch.zeros_like(real), torch.zeros_like(imag)
    for k in range(len(real)):
        square.addcmul_(real[:, k, None], real[k]).addcmul_(imag[:, k, None], imag[k], value=-1)
        mixed.addcmul_(real[:, k, None], imag[k])
    return square, mixed - mixed.transpose(0, 1)


def principal(covariance: torch.Tensor, squarings: int = 5) -> torch.Tensor:
    """Packed projector `v v^H` on the principal eigenvector v, of packed (M, M, ...): v is the longest column of
    R^(2^squarings).

    Where two eigenvalues are nearly equal v is any vector between their own, as it should be.
    """
    real, imag = unpacked(covariance)
    for _ in range(squarings):
        trace = real.diagonal().sum(-1).clamp(min=EPS)
        real, imag = squared(real / trace, imag / trace)
    lengths = (real.square() + imag.square()).sum(0)
    longest, column = lengths.max(dim=0)
    column = column.expand(len(real), 1, *column.shape)
    outer = packed_outer(real.gather(1, column)[:, 0], imag.gather(1, column)[:, 0])
    return outer / longest.clamp(min=EPS * EPS)


def covariance_planes(
    covariance: torch.Tensor, shares: tuple[torch.Tensor, torch.Tensor] | None = None, least: float = 1e-20
) -> torch.Tensor:
    """The planes named in `PLANES`: packed (M, M, B, K, N) -> (B, 5, K, N) float32.

    level: log of the mean power over the microphones, natural log, less its mean over the clip's loudest tenth
      of the frames, so that a gain on all microphones changes nothing;
    principal: log of the principal eigenvalue's share of the trace, <= 0;
    second: log of the remaining eigenvalues' norm over the principal eigenvalue;
    match: log of the share of power that lies along the clip's own principal direction in that band, <= 0;
    spread: standard deviation over the microphones of the log power.
    With one microphone only `level` says anything: the others are 0.
    `shares`, where they are known already, are `cell_shares(covariance)`: all that costs much and does not depend
    on the clip. No power is told from `least`.
    """
    mics, frames = len(covariance), covariance.shape[-1]
    power = covariance.diagonal().movedim(-1, 0).clamp(min=0)  # (M, B, K, N)
    trace = power.sum(0)
    level = relative_level(trace / mics, least)
    if mics == 1:
        nothing = torch.zeros_like(level)
        return torch.stack([level, nothing, nothing, nothing, nothing], dim=1)
    floor = EPS * trace.amax(dim=(1, 2), keepdim=True) + least
    first, rest = cell_shares(covariance) if shares is None else shares
    first, rest = _above_floor(first, rest, trace / (trace + floor), 1 / mics)
    # every audible frame weighs the same: pauses speak as loud as speech, padding says nothing
    weights = audible(level) / (trace + floor)
    whole = (covariance * weights).sum(dim=-1, keepdim=True) / frames
    along = (covariance * _counted(principal(whole))).sum(dim=(0, 1))
    match = (along / (trace + floor)).clamp(min=1e-4, max=1)
    log_power = torch.log(power + floor / mics)
    spread = (log_power - log_power.mean(dim=0)).square().sum(dim=0).div(mics - 1).clamp(min=1e-12).sqrt()
    planes = [level, first.log(), (rest / first).log(), match.log(), spread]
    return torch.stack(planes, dim=1)


def cell_shares(covariance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each cell's trace: the principal eigenvalue's share, and what it leaves, squared; (B, K, N) each.

    They are the cell's own, whatever clip it is in.
    """
    found = [_shares(part) for part in covariance.split(_block(len(covariance)), dim=-1)]
    first, rest = (torch.cat(parts, dim=-1) for parts in zip(*found, strict=True))
    return first, rest


def _block(mics: int) -> int:
    """Frames worked on at once."""
    return max(32, BLOCK // mics**2)


def _shares(covariance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    normed = covariance / covariance.diagonal().sum(-1).clamp(min=1e-37)
    projector = principal(normed)
    first = inner(projector, normed)
    # the norm of the difference, not the difference of the norms: that would leave nothing but rounding errors
    left = normed - first * projector
    return first, inner(left, left)


def _above_floor(
    first: torch.Tensor, rest: torch.Tensor, share: torch.Tensor, least: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`cell_shares` of trace + floor, the principal one at least `least`, and the norm of what that leaves.

    What is left is orthogonal to the principal direction, so what is added along it adds to its square.
    """
    owned = share * first
    first = owned.clamp(min=least, max=1)
    return first, (share.square() * rest + (first - owned).square()).clamp(min=1e-8).sqrt()


def _counted(packed: torch.Tensor) -> torch.Tensor:
    """Packed (M, M, ...) with each number off the diagonal twice, as an inner product counts it."""
    return 2 * packed - torch.diag_embed(packed.diagonal()).movedim((-2, -1), (0, 1))


def audible(level: torch.Tensor) -> torch.Tensor:
    """How much of a cell is sound and not floor, 0..1, of the plane `level`: one half at `FLOOR`."""
    return (1 - FLOOR * torch.exp(-level)).clamp(min=0)


def relative_level(power: torch.Tensor, least: float = 1e-20) -> torch.Tensor:
    """Log power (B, K, N) -> the same less the log of the mean power of the loudest tenth of the frames (`least`,
    if it is less), floored at `FLOOR`."""
    frames = power.sum(1)  # (B, N)
    loud = frames.topk(max(1, frames.shape[-1] // 10), dim=-1).values.mean(-1) / power.shape[1]
    loud = loud.clamp(min=least)[:, None, None]
    return torch.log(power / loud + FLOOR)
