"""Which order of the microphones explains the times at which a far source arrives at them.

A far source in direction u arrives at onsets = -positions @ u / c. What a direction cannot explain is left over;
the right order leaves the least over in all windows at once. Orders that are mirror images or turns of the array
leave the same, and are not told apart. Shapes: M microphones, W windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np

from streaming.delays import SPEED_OF_SOUND

MOST_PERMUTED = 7  # microphones of which all orders are tried; of more, exchanges of two
FLOOR_SECONDS = 4e-6  # what rooms and capsules leave over at the best of times
RATIO = 2.0  # so many times more left over, and the order is another
WORST_SECONDS = 15e-6  # more left over than this is no far source
MOST_REACH = 1.15  # of the longest delay that the distances allow


@dataclass(frozen=True)
class OrderFit:
    """Indices count the given microphones from 0.

    moves: (here, there) of what should be where, empty where the order is right; alike: pairs that could be
    exchanged without being noticed; telling: whether the geometry has an order to tell at all; misfit: seconds
    left over in the claimed order; reach: how long the delays are against what the distances allow; offset: a
    microphone that is late by itself, and by how many seconds; unexplained: nothing explains the delays.
    """

    moves: tuple[tuple[int, int], ...]
    alike: tuple[tuple[int, int], ...]
    telling: bool
    misfit: float
    reach: float
    offset: tuple[int, float] | None
    unexplained: bool

    @property
    def moved(self) -> tuple[int, ...]:
        return tuple(sorted(here for here, _ in self.moves))


def fit_order(onsets: np.ndarray, positions: np.ndarray) -> OrderFit:
    """Onsets (W, M) in seconds of microphones said to be at positions (M, 3)."""
    count = len(positions)
    solve, unexplained = _projectors(positions)
    telling = np.linalg.matrix_rank(unexplained, tol=1e-6) > 0 and count > 2
    claimed = np.arange(count)[None]
    misfit = float(_left_over(onsets, claimed, unexplained, solve)[0])
    reach = float(np.quantile(_reach(onsets, solve), 0.75))  # a talker in front says nothing of it
    if not telling:
        return OrderFit((), (), False, misfit, reach, None, False)
    orders = _orders(count)
    left = _left_over(onsets, orders, unexplained, solve)
    # of the orders that explain it about as well, the one that moves the fewest
    good = np.flatnonzero(left <= left.min() + 0.3 * FLOOR_SECONDS)
    best = good[np.lexsort((left[good], (orders[good] != claimed).sum(axis=1)))[0]]
    moves, offset = (), None
    if _worse(misfit, left[best]):
        late = _latecomer(onsets, positions)
        if late is not None and _worse(left[best], late[2]):
            offset = late[:2]
        else:
            # order[place] is the microphone whose sound was found to belong at that place
            moves = tuple((int(here), int(there)) for there, here in enumerate(orders[best]) if here != there)
    elif misfit > WORST_SECONDS:
        late = _latecomer(onsets, positions)
        offset = None if late is None or not _worse(misfit, late[2]) else late[:2]
    swaps = [_exchanged(count, a, b) for a, b in combinations(range(count), 2)]
    after = _left_over(onsets, np.array(swaps), unexplained, solve)
    alike = tuple(
        pair
        for pair, over in zip(combinations(range(count), 2), after, strict=True)
        if not _worse(over, misfit)
    )
    lost = not moves and offset is None and misfit > WORST_SECONDS
    return OrderFit(moves, () if moves else alike, True, misfit, reach, offset, lost)


def _worse(one: float, other: float) -> bool:
    return one + FLOOR_SECONDS > RATIO * (other + FLOOR_SECONDS)


def _projectors(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3, M) from onsets to the direction, and (M, M) from onsets to what no direction explains."""
    centred = positions - positions.mean(axis=0)
    inverse = np.linalg.pinv(centred, rcond=1e-3)
    explained = centred @ inverse + 1 / len(positions)
    return -SPEED_OF_SOUND * inverse, np.eye(len(positions)) - explained


def _left_over(
    onsets: np.ndarray, orders: np.ndarray, unexplained: np.ndarray, solve: np.ndarray
) -> np.ndarray:
    """Seconds (K,) left over by each order (K, M): root mean square over microphones, median over windows.

    An order that needs delays which the distances do not allow explains nothing."""
    left = np.empty((len(onsets), len(orders)))
    for window, onset in enumerate(onsets):
        moved = onset[orders]  # (K, M)
        rest = np.sqrt(np.mean((moved @ unexplained.T) ** 2, axis=1))
        too_far = np.linalg.norm(moved @ solve.T, axis=1) > MOST_REACH
        left[window] = np.where(too_far, np.maximum(rest, moved.std(axis=1)), rest)
    return np.median(left, axis=0)


def _reach(onsets: np.ndarray, solve: np.ndarray) -> np.ndarray:
    """Length (W,) of the direction that explains the onsets best; of a far source at most 1."""
    return np.linalg.norm(onsets @ solve.T, axis=1)


def _orders(count: int) -> np.ndarray:
    """Orders (K, M) that are tried, the claimed one first."""
    if count <= MOST_PERMUTED:
        return np.array(list(permutations(range(count))))
    pairs = combinations(range(count), 2)
    return np.array([list(range(count)), *(_exchanged(count, a, b) for a, b in pairs)])


def _exchanged(count: int, a: int, b: int) -> list[int]:
    order = list(range(count))
    order[a], order[b] = order[b], order[a]
    return order


def _latecomer(onsets: np.ndarray, positions: np.ndarray) -> tuple[int, float, float] | None:
    """The microphone without which the others fit best, its delay against them, and what they leave over."""
    count, found = len(positions), None
    for one in range(count):
        others = np.delete(np.arange(count), one)
        solve, unexplained = _projectors(positions[others])
        if np.linalg.matrix_rank(unexplained, tol=1e-6) == 0:
            return None
        left = float(_left_over(onsets[:, others], np.arange(count - 1)[None], unexplained, solve)[0])
        if found is None or left < found[2]:
            towards = onsets[:, others] @ solve.T  # (W, 3)
            here = positions[one] - positions[others].mean(axis=0)
            expected = onsets[:, others].mean(axis=1) - towards @ here / SPEED_OF_SOUND
            found = (one, float(np.median(onsets[:, one] - expected)), left)
    return found
