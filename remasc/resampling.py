"""Other sample rates: polyphase, the same filter on every microphone. Shapes: M microphones, T samples."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

LONGEST = 20_000  # neither number of a ratio is larger: 1.3 million taps, a tenth of a second
OUTPUTS = 64  # samples made by one matrix product: few, and it is slow; many, and it multiplies zeros
ALIKE = 16  # periods multiplied at once, always: one shape rounds alike, in a whole and in its parts
ROWS = 128 * ALIKE  # copied at once, so that memory does not grow with the recording


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
    x = np.asarray(waveform, np.float32)
    length = -(-x.shape[-1] * up // down)
    made = _filtered(x.reshape(-1, x.shape[-1]), up, down, length)
    return made.reshape(*x.shape[:-1], length)


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


class _Part(NamedTuple):
    """Outputs `first` to `last` of each period, from the input samples `start` to `start + len(weights)` of it."""

    first: int
    last: int
    start: int
    weights: np.ndarray  # (inputs, outputs)


class _Bank(NamedTuple):
    """A period is `outputs` samples made of `inputs`; all periods are made by the same parts.

    It takes in `reach` samples, `before` of them before its own.
    """

    outputs: int
    inputs: int
    parts: tuple[_Part, ...]
    before: int
    reach: int


class Resampler:
    """`resample` of a recording that becomes longer: what is made once is not made again.

    >>> x = np.random.default_rng(0).normal(0, 0.1, (2, 5000)).astype(np.float32)
    >>> resampler = Resampler(2, 44100, 16000)
    >>> (one, _), (other, rest) = resampler.feed(x[:, :3000]), resampler.feed(x[:, 3000:])
    >>> bool(np.abs(np.hstack([one, other, rest]) - resample(x, 44100, 16000)).max() < 1e-6)
    True
    """

    def __init__(self, mics: int, from_rate: int, to_rate: int):
        self.up, self.down = ratio(from_rate, to_rate)
        self._bank = None if self.up == self.down else _bank(self.up, self.down)
        before = 0 if self._bank is None else self._bank.before
        self._held = np.zeros((mics, before), np.float32)  # what outputs to come will need
        self._fed = self._made = 0

    def feed(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The next samples (M, t) float32 -> those at the other rate that nothing to come will change, and those
        that follow them if the recording ends here; (M, t') each. The latter are made anew the next time."""
        if self._bank is None:
            return samples, samples[:, :0]
        self._fed += samples.shape[1]
        held = np.concatenate([self._held, samples], axis=1)
        length = -(-self._fed * self.up // self.down) - self._made
        made = _periods(held, self._bank, _count(length, self._bank))[:, :length]
        certain = max(0, (held.shape[1] - self._bank.reach) // self._bank.inputs + 1) // ALIKE * ALIKE
        self._held = held[:, certain * self._bank.inputs :]
        self._made += certain * self._bank.outputs
        return np.split(made, [certain * self._bank.outputs], axis=1)


def _filtered(x: np.ndarray, up: int, down: int, length: int) -> np.ndarray:
    """(C, T) -> (C, length): output n is the sum over k of x[k] h[n down - k up], as matrix products."""
    bank = _bank(up, down)
    made = _periods(np.pad(x, ((0, 0), (bank.before, 0))), bank, _count(length, bank))
    return np.ascontiguousarray(made[:, :length])


def _count(length: int, bank: _Bank) -> int:
    """Periods that hold so many outputs."""
    return -(-length // (bank.outputs * ALIKE)) * ALIKE


def _periods(x: np.ndarray, bank: _Bank, periods: int) -> np.ndarray:
    """(C, T) -> (C, periods * outputs); x begins `before` samples before the first period, zeros follow it.

    `ALIKE` divides the periods.
    """
    missing = (periods - 1) * bank.inputs + bank.reach - x.shape[1]
    padded = np.pad(x, ((0, 0), (0, max(0, missing))))
    made = np.empty((len(x), periods, bank.outputs), np.float32)
    for part in bank.parts:
        windows = np.lib.stride_tricks.sliding_window_view(
            padded[:, bank.before + part.start :], len(part.weights), axis=1
        )[:, :: bank.inputs]
        for channel, rows in enumerate(windows):
            for start in range(0, periods, ROWS):
                some = np.ascontiguousarray(rows[start : start + ROWS])
                products = some.reshape(-1, ALIKE, len(part.weights)) @ part.weights
                made[channel, start : start + ROWS, part.first : part.last] = products.reshape(len(some), -1)
    return made.reshape(len(x), -1)


@lru_cache(maxsize=8)
def _bank(up: int, down: int) -> _Bank:
    taps = _lowpass(up, down)
    half = len(taps) // 2
    times = -(-OUTPUTS // up)  # a short period is repeated
    parts = []
    for first in range(0, up * times, OUTPUTS):
        last = min(first + OUTPUTS, up * times)
        start, end = -((half - first * down) // up), ((last - 1) * down + half) // up + 1
        place = half + np.arange(first, last) * down - np.arange(start, end)[:, None] * up
        weights = np.where((place >= 0) & (place < len(taps)), taps[place.clip(0, len(taps) - 1)], 0)
        parts.append(_Part(first, last, start, weights.astype(np.float32)))
    before = -min(part.start for part in parts)
    reach = before + max(part.start + len(part.weights) for part in parts)
    return _Bank(up * times, down * times, tuple(parts), before, reach)


def _lowpass(up: int, down: int) -> np.ndarray:
    """Windowed sinc (Kaiser, beta 6), its sum `up`: a zero crossing each 1/0.95 samples of the lower rate."""
    widest = max(up, down)
    time = np.arange(-32 * widest, 32 * widest + 1)
    taps = np.sinc(0.95 / widest * time) * np.kaiser(len(time), 6.0)
    return taps * (up / taps.sum())
