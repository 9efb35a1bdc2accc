"""Which recordings a benchmark takes where it does not take all: a draw that anybody can repeat."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from remasc import Label, Recording


def drawn(recordings: Iterable[Recording], seed: int = 0) -> list[Recording]:
    """All of them in the order of a hash of seed and trial."""

    def key(recording: Recording) -> bytes:
        return hashlib.sha256(f"{seed}:{recording.trial_id}".encode()).digest()

    return sorted(recordings, key=key)


def few(recordings: Iterable[Recording], most: int, seed: int = 0) -> list[Recording]:
    """At most `most` of each array and class: fewer lie within more."""
    kept: dict[tuple[str | None, Label | None], list[Recording]] = {}
    for recording in drawn(recordings, seed):
        group = kept.setdefault((recording.array, recording.label), [])
        if len(group) < most:
            group.append(recording)
    return [recording for group in kept.values() for recording in group]
