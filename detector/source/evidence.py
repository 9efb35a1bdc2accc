"""How much a recording lets one say: what of it could be heard, and whether that is like anything in training.

What is undefined tells nothing, so fewer cues give weaker ratios; how weak, dev says, with the cues hidden that a
recording of such a kind cannot have. Too few cues, or cues as no person had them, leave it undecided.
Shapes: n recordings, C cues; NaN is undefined.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.source.cues import CUES

NARROW_RATE, NARROW_HZ = (
    8000,
    3600.0,
)  # what has nothing above 6 kHz is heard as a recording of that rate and reach
WIDE, NARROW, MONO, NARROW_MONO = "whole", "narrow-band", "one-microphone", "narrow-band, one-microphone"
SPACE = ("coherence", "direction", "extent", "direct sound")  # groups that need several microphones
FEWEST = 30  # cues
REASONS = {
    "few-cues": f"fewer than {FEWEST} cues could be measured",
    "unlike-speech": "too many cues lie where hardly any person's did in training; no voice, or no such recording",
}


def hidden(values: np.ndarray, names: Sequence[str], condition: str) -> np.ndarray:
    """Cues (n, C) as a recording of that condition has them: the rest is undefined."""
    absent = np.zeros(len(names), bool)
    if condition in (NARROW, NARROW_MONO):
        absent |= np.array([CUES[name].reach > NARROW_HZ for name in names])
    if condition in (MONO, NARROW_MONO):
        absent |= np.array([CUES[name].group in SPACE for name in names])
    return np.where(absent, np.float32(np.nan), values)


def condition_of(values: np.ndarray, names: Sequence[str]) -> str:
    """Which condition cues (C,) are of, by what is defined."""
    defined = np.isfinite(values)
    wide = defined[[CUES[name].reach > NARROW_HZ for name in names]].any()
    space = defined[[CUES[name].group in SPACE for name in names]].any()
    return {(1, 1): WIDE, (0, 1): NARROW, (1, 0): MONO, (0, 0): NARROW_MONO}[int(wide), int(space)]


def strangeness(values: np.ndarray, human: np.ndarray) -> np.ndarray:
    """Share (n,) of the defined cues (n, C) that lie outside of what nine in ten people had, (C, 3) percentiles;
    NaN where none is defined."""
    known = np.isfinite(values) & np.isfinite(human).all(axis=1)
    with np.errstate(invalid="ignore"):
        outside = known & ((values < human[:, 0]) | (values > human[:, 2]))
        return outside.sum(axis=1) / known.sum(axis=1)


def fault(values: np.ndarray, human: np.ndarray, strangest: float) -> str:
    """The first of `REASONS` that applies to cues (C,), or none."""
    if np.isfinite(values).sum() < FEWEST:
        return "few-cues"
    return "unlike-speech" if strangeness(values[None], human)[0] > strangest else ""
