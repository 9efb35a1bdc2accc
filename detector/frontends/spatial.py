"""Planes of the spatial covariance that no rotation, order or geometry of the microphones can change.

A loudspeaker differs from a mouth in how it radiates: several coherent drivers, an extent, a hiss and a
recorded room that come from the loudspeaker's place also in the pauses. All of that changes the covariance of
the microphones in a cell of time and frequency. Its eigenvalues, and how well its principal direction agrees
with that of the whole clip, do not depend on where the microphones stand in the list; they exist for any
number of microphones.

Shapes: B batch, M microphones, F bins, N frames, K bands.
"""

from __future__ import annotations

import torch

PLANES = ("level", "principal", "second", "match", "spread")
EPS = 1e-10
BLOCK = 256  # frames worked on at once: 16 microphones have 256 complex numbers in each cell
FLOOR = 1e-7  # of the loud frames' power, -70 dB: no microphone is so quiet, so what lies below is not sound


def band_covariance(spectrum: torch.Tensor, bands: torch.Tensor, smooth: int) -> torch.Tensor:
    """Covariance per band and frame: (B, M, F, N) complex, (K, F) -> (B, K, N, M, M) complex.

    `R = sum over the band's bins and `smooth` neighbouring frames of w x x^H`. Frames outside of the clip count
    as absent (the mean is over those that exist).
    """
    batch, mics, _, frames = spectrum.shape
    rows, cols = torch.triu_indices(mics, mics, device=spectrum.device)
    products = spectrum[:, rows] * spectrum[:, cols].conj()  # (B, pairs, F, N); the rest is its conjugate
    planes = torch.view_as_real(products).permute(0, 1, 4, 2, 3)  # (B, pairs, 2, F, N)
    planes = torch.matmul(bands.to(planes), planes)  # (B, pairs, 2, K, N)
    flat = planes.reshape(batch, -1, frames)
    flat = torch.nn.functional.avg_pool1d(flat, smooth, 1, smooth // 2, count_include_pad=False)
    upper = torch.view_as_complex(
        flat.reshape(batch, len(rows), 2, bands.shape[0], frames).permute(0, 3, 4, 1, 2).contiguous()
    )
    covariance = upper.new_zeros(*upper.shape[:-1], mics, mics)
    covariance[..., cols, rows] = upper.conj()
    covariance[..., rows, cols] = upper
    return covariance


def long_covariance(spectrum: torch.Tensor, bands: torch.Tensor, smooth: int) -> torch.Tensor:
    """`band_covariance` block by block, so that memory does not grow with what lies between; the same numbers."""
    frames, halo = spectrum.shape[-1], smooth // 2
    if frames <= BLOCK + 2 * halo:
        return band_covariance(spectrum, bands, smooth)
    parts = []
    for start in range(0, frames, BLOCK):
        first, last = max(0, start - halo), min(frames, start + BLOCK + halo)
        part = band_covariance(spectrum[..., first:last], bands, smooth)
        parts.append(part[:, :, start - first : start - first + min(BLOCK, frames - start)])
    return torch.cat(parts, dim=2)


def principal(covariance: torch.Tensor, squarings: int = 5) -> torch.Tensor:
    """Unit principal eigenvector (..., M) of Hermitian (..., M, M), by squaring the matrix: R^(2^squarings).

    Where two eigenvalues are nearly equal any vector between them is returned, as it should be.
    """
    power = covariance
    for _ in range(squarings):
        power = power / power.diagonal(dim1=-2, dim2=-1).real.sum(-1)[..., None, None].clamp(min=EPS)
        power = power @ power
    norms = torch.linalg.vector_norm(power, dim=-2)  # the longest column is the best-conditioned one
    column = norms.argmax(dim=-1)[..., None, None].expand(*power.shape[:-1], 1)
    vector = power.gather(-1, column)[..., 0]
    return vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True).clamp(min=EPS)


def quadratic(vector: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """`v^H R v`, real, for broadcastable (..., M) and (..., M, M)."""
    return torch.einsum("...i,...ij,...j->...", vector.conj(), covariance, vector).real


def covariance_planes(covariance: torch.Tensor) -> torch.Tensor:
    """The planes named in `PLANES`: (B, K, N, M, M) -> (B, 5, K, N) float32.

    level: log of the mean power over the microphones, natural log, less its mean over the clip's loudest tenth
      of the frames, so that a gain on all microphones changes nothing;
    principal: log of the principal eigenvalue's share of the trace, <= 0;
    second: log of the remaining eigenvalues' norm over the principal eigenvalue;
    match: log of the share of power that lies along the clip's own principal direction in that band, <= 0;
    spread: standard deviation over the microphones of the log power.
    With one microphone only `level` says anything: the others are 0.
    """
    mics = covariance.shape[-1]
    power = covariance.diagonal(dim1=-2, dim2=-1).real.clamp(min=0)  # (B, K, N, M)
    trace = power.sum(-1)
    level = relative_level(trace / mics)
    if mics == 1:
        nothing = torch.zeros_like(level)
        return torch.stack([level, nothing, nothing, nothing, nothing], dim=1)
    floor = EPS * trace.amax(dim=(1, 2), keepdim=True) + 1e-20
    normed = covariance / (trace + floor)[..., None, None]
    first = torch.cat([quadratic(principal(part), part) for part in normed.split(BLOCK, dim=2)], dim=2)
    first = first.clamp(min=1 / mics, max=1)
    rest = (torch.linalg.matrix_norm(normed).square() - first.square()).clamp(min=1e-8).sqrt()
    # every audible frame weighs the same: pauses speak as loud as speech, padding says nothing
    whole = (normed * audible(level)[..., None, None]).mean(dim=2, keepdim=True)
    match = quadratic(principal(whole), normed).clamp(min=1e-4, max=1)
    log_power = torch.log(power + floor[..., None] / mics)
    planes = [level, first.log(), (rest / first).log(), match.log(), log_power.std(dim=-1)]
    return torch.stack(planes, dim=1)


def audible(level: torch.Tensor) -> torch.Tensor:
    """How much of a cell is sound and not floor, 0..1, of the plane `level`: one half at `FLOOR`."""
    return (1 - FLOOR * torch.exp(-level)).clamp(min=0)


def relative_level(power: torch.Tensor) -> torch.Tensor:
    """Log power (B, K, N) -> the same less the log of the mean power of the loudest tenth of the frames,
    floored at `FLOOR`."""
    frames = power.sum(1)  # (B, N)
    loud = frames.topk(max(1, frames.shape[-1] // 10), dim=-1).values.mean(-1) / power.shape[1]
    loud = loud.clamp(min=1e-20)[:, None, None]
    return torch.log(power / loud + FLOOR)
