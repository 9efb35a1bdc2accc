"""Which partition a name belongs to: decided by the name alone.

A speaker (or a noise clip) has the same home in every corpus, whatever else lies in the folder, so that a
detector trained on one corpus never meets its training voices in the evaluation part of another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from remasc.identity import position_of
from remasc.protocol import PARTITIONS


def home_of(name: str, shares: Mapping[str, float]) -> str:
    """The partition of `name`: where the hash of the name falls among the cumulated shares of all three."""
    total = sum(shares.get(p, 0.0) for p in PARTITIONS)
    place, end = position_of(name) * total, 0.0
    for partition in PARTITIONS:
        end += shares.get(partition, 0.0)
        if place < end:
            return partition
    return max(PARTITIONS, key=lambda p: shares.get(p, 0.0))


def split(
    names: Sequence[str],
    shares: Mapping[str, float],
    wanted: Sequence[str],
    key: Callable[[str], str] = str,
    needed: Sequence[str] | None = None,
) -> tuple[dict[str, list[str]], bool]:
    """The names of each wanted partition, sorted, disjoint; and whether each went to the home of its `key`.

    Where a needed partition (all wanted ones by default) would stay empty, for there are few names, the names are
    dealt to the needed ones in the order of their hashes instead, at least one each: still disjoint within this
    corpus, but no longer the same in every corpus. There must be as many names as needed partitions.
    """
    needed = wanted if needed is None else needed
    parts: dict[str, list[str]] = {p: [] for p in wanted}
    for name in sorted(names):
        home = home_of(key(name), shares)
        if home in parts:
            parts[home].append(name)
    if all(parts[p] for p in needed):
        return parts, True
    parts = {p: [] for p in wanted}
    order = sorted(names, key=lambda name: (position_of(key(name)), name))
    weights = [max(shares.get(p, 0.0), 1e-9) for p in needed]
    free, start = len(order) - len(needed), 0
    counts = [1 + int(free * w / sum(weights)) for w in weights]
    counts[0] += len(order) - sum(counts)
    for partition, count in zip(needed, counts, strict=True):
        parts[partition] = sorted(order[start : start + count])
        start += count
    return parts, False
