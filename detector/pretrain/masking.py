"""Which patches a pretraining step hides, drawn for a whole batch at once.

Shapes: B batch, R x S patch grid (rows of frequency, columns of time), n masked patches. A patch's index is
row * S + column; -1 fills the rows of items that hide fewer than n.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SHARE = 400 / 512  # of the patches are hidden, as published
SIDES = (3, 5)  # the least and the greatest side of a cluster


def draw_masks(
    grid: tuple[int, int],
    batch: int,
    *,
    share: float = SHARE,
    sides: tuple[int, int] | None = SIDES,
    columns: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Masked patches (B, n) int64, no patch twice, n = round(share * R S).

    `sides` is the range that each item draws the side of its square clusters from; None hides single patches
    (frames, where the grid has one row). With `columns` (B,), the real columns of each item, only real patches
    are hidden, the same share of them, at least one.

    >>> draw_masks((8, 64), 3).shape
    torch.Size([3, 400])
    """
    rows, across = grid
    if not (rows >= 1 and across >= 1 and batch >= 0 and 0 < share <= 1):
        raise ValueError(
            f"masks of {batch} x {rows} x {across} patches, share {share}: expected a share in (0, 1]"
        )
    order = _cluster_order(rows, across, batch, sides, generator) if sides else torch.rand(
        batch, rows, across, generator=generator
    )  # fmt: skip
    if columns is None:
        return _first(order.flatten(1), max(1, round(share * rows * across)))
    columns = columns.to("cpu", torch.int64)
    if columns.shape != (batch,) or (batch and not (1 <= int(columns.min()) <= int(columns.max()) <= across)):
        raise ValueError(f"real columns {columns.tolist()}: expected {batch} numbers of 1 to {across}")
    beyond = torch.arange(across) >= columns[:, None]
    order = order.masked_fill(beyond[:, None], torch.inf)
    counts = (share * rows * columns).round().long().clamp(min=1)
    masks = _first(order.flatten(1), int(counts.max()) if batch else 0)
    return masks.masked_fill(torch.arange(masks.shape[1]) >= counts[:, None], -1)


def hidden(masked: Tensor, patches: int) -> Tensor:
    """Indices (B, n), -1 for none -> True where a patch is hidden (B, patches)."""
    spare = torch.where(masked < 0, patches, masked)
    empty = torch.zeros(len(masked), patches + 1, dtype=torch.bool, device=masked.device)
    return empty.scatter(1, spare, True)[:, :patches]


def _cluster_order(
    rows: int, across: int, batch: int, sides: tuple[int, int], generator: torch.Generator | None
) -> Tensor:
    """When each patch is first hidden (B, R, S), as clusters are laid down one after the other in random order.

    Every square that touches the grid has a random time; a patch is hidden at the earliest time of the squares
    that cover it, a minimum over a window. A random fraction orders the patches of one square, so that the
    square that reaches the count is cut at random. The published code draws until enough are hidden, lets
    squares wrap around the end of a row, never hides patch 0 and keeps the lowest indices; this does not.
    """
    least, most = sides
    if not 1 <= least <= most:
        raise ValueError(f"cluster sides {sides}: expected the least and the greatest, from 1")
    squares = (rows + most - 1) * (across + most - 1)
    times = torch.rand(batch, squares, generator=generator).argsort(dim=1).float()
    times = times.unflatten(1, (rows + most - 1, across + most - 1))
    orders = []
    for side in range(least, most + 1):  # squares of this side that touch the grid, by their last corner
        touching = times[:, : rows + side - 1, : across + side - 1]
        orders.append(-F.max_pool2d(-touching[:, None], side, stride=1)[:, 0])
    drawn = torch.randint(least, most + 1, (batch,), generator=generator) - least
    order = torch.stack(orders, dim=1)[torch.arange(batch), drawn]
    return order + torch.rand(batch, rows, across, generator=generator) * 0.99


def _first(order: Tensor, count: int) -> Tensor:
    """The `count` patches that come first, as indices in ascending order of time (B, count)."""
    return order.argsort(dim=1)[:, :count]
