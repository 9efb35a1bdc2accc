"""A block of live sound, and what may enter: every other part of this room takes what was checked here.

Shapes: M microphones, t samples of one block. Samples are float in [-1, 1], full scale = 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from remasc.audio import MAX_CHANNELS, MAX_PEAK, MAX_RATE, MIN_RATE
from remasc.sentences import quoted


@dataclass(frozen=True)
class Block:
    """What a source gives: samples (M, t), and how many were lost just before them (an overflow, a reconnect).

    After a loss the samples no longer follow each other: the listener is told by `StreamingDetector.interrupt`.
    """

    samples: np.ndarray
    lost: int = 0


def checked(block: np.ndarray, num_mics: int | None) -> np.ndarray:
    """The block as (M, t) float32, t >= 0; ValueError of one sentence where it cannot be listened to.

    `num_mics` None stands for a number that is not known before the first block.
    """
    block = np.asarray(block)
    if block.ndim != 2 or not 1 <= len(block) <= MAX_CHANNELS:
        raise ValueError(
            f"a block has shape {block.shape}; expected (microphones, samples) with 1 to {MAX_CHANNELS} "
            "microphones, (1, samples) for one"
        )
    if num_mics is not None and len(block) != num_mics:
        raise ValueError(
            f"a block has {len(block)} channels, the array {num_mics}; pick the array's channels, or transpose it"
        )
    if block.dtype.kind != "f":
        raise ValueError(
            f"a block holds {block.dtype} numbers; expected float in [-1, 1], int16 divided by 32768 for example"
        )
    peak = np.abs(block).max(initial=0.0)
    if not peak <= MAX_PEAK:  # false for NaN, too
        raise ValueError(
            f"a block's largest sample is {peak:g}; expected finite ones in [-1, 1], mend or drop the block"
        )
    return block.astype(np.float32, copy=False)


def checked_rate(sample_rate: object) -> int:
    """A sample rate in Hz as a whole number."""
    number = isinstance(sample_rate, int | float | np.number) and not isinstance(sample_rate, bool)
    if not number or not MIN_RATE <= sample_rate <= MAX_RATE or sample_rate != int(sample_rate):
        raise ValueError(
            f"the sample rate is {quoted(sample_rate)}; expected a whole number from {MIN_RATE} to {MAX_RATE} Hz"
        )
    return int(sample_rate)


def pieces(block: np.ndarray, longest: int) -> Iterator[np.ndarray]:
    """The block (M, t) in order, in parts of at most `longest` samples; nothing where it is empty."""
    for start in range(0, block.shape[1], longest):
        yield block[:, start : start + longest]
