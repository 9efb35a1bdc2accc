"""Other sample rates: polyphase, the same filter on every microphone. Shapes: M microphones, T samples."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np

LONGEST = 20_000  # neither number of a ratio is larger: 1.3 million taps, a tenth of a second


def resample(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """(..., M, T) float32 at `from_rate` -> (..., M, ceil(T to/from)) float32 at `to_rate`, both in Hz.

    Polyphase, linear phase, the same filter on every microphone: time differences between them are kept.
    Within 0.01 dB up to 0.89 of the lower Nyquist frequency, 60 dB down from 1.01 of it on (39 dB at it). At
    equal rates the input itself comes back. Rates with almost no common factor (44101 and 16000 Hz, say) are
    converted by the nearest `ratio` of smaller numbers: pitch and length are then off by at most 25 ppm, less
    than the clock of a sound card.
    """
    up, down = ratio(from_rate, to_rate)
    if up == down:
        return waveform
    from scipy.signal import resample_poly  # imported late: half of this package never resamples

    resampled = resample_poly(np.asarray(waveform, np.float32), up, down, axis=-1, window=_lowpass(up, down))
    return np.ascontiguousarray(resampled, np.float32)


def ratio(from_rate: int, to_rate: int) -> tuple[int, int]:
    """to/from as (up, down) of at most 20,000 each: exact where that is possible, else within 25 ppm.

    Neighbours among the fractions below 1 with denominators up to N lie at most a share of 1/N apart, so the
    nearest is within half of that.

    >>> ratio(44100, 16000), ratio(383999, 16000)
    ((160, 441), (1, 24))
    """
    if not (from_rate >= 1 and to_rate >= 1):
        raise ValueError(f"cannot resample from {from_rate} to {to_rate} Hz; expected positive sample rates")
    low, high = sorted((int(from_rate), int(to_rate)))
    nearest = Fraction(low, high).limit_denominator(LONGEST)
    shorter, longer = nearest.numerator, nearest.denominator
    return (shorter, longer) if to_rate < from_rate else (longer, shorter)


@lru_cache(maxsize=8)
def _lowpass(up: int, down: int) -> np.ndarray:
    from scipy.signal import firwin

    widest = max(up, down)
    return firwin(64 * widest + 1, 0.95 / widest, window=("kaiser", 6.0)).astype(np.float32)
