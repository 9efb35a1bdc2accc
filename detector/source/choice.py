"""A smaller set of recordings that stands for a large one: the same on every machine, and spread over scenes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from remasc import Recording
from remasc.identity import position_of


def chosen(recordings: Iterable[Recording], count: int | None) -> list[Recording]:
    """At most `count` of the recordings, half of each class where there are enough, by a hash of their names.

    None takes all. Recordings of one scene by several arrays differ in their names, so scenes are spread too.
    """
    recordings = list(recordings)
    if count is None or count >= len(recordings):
        return recordings
    by_label = defaultdict(list)
    for recording in recordings:
        by_label[recording.label].append(recording)
    kept: list[Recording] = []
    for i, label in enumerate(sorted(by_label, key=lambda label: len(by_label[label]))):
        share = -(-(count - len(kept)) // (len(by_label) - i))
        ranked = sorted(by_label[label], key=lambda r: position_of(f"source {r.trial_id}"))
        kept += ranked[:share]
    wanted = {r.trial_id for r in kept}
    return [r for r in recordings if r.trial_id in wanted]
