"""Whether a recording can come from the array that it is said to come from: channels that live, are their own,
in time, of one polarity and gain, in the claimed order, at plausible distances. Some seconds of speech suffice;
speech from several sides tells more.

Shapes: M microphones, T samples, W windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from remasc import MicArray
from streaming.array_order import fit_order
from streaming.delays import BAND_HZ, SLACK_SECONDS, SPEED_OF_SOUND, aperture, coarse, measure, pairs_of
from streaming.watch import DEAD_BELOW_DB, DEAD_DBFS

WINDOW_SECONDS = 0.5
LONGEST_SECONDS = 30.0  # of a recording that are looked at
LATE_SECONDS = 0.25  # how far a channel that comes late is looked for
COPY_DB = -50.0  # what two channels differ by above 1 kHz: rooms and microphones differ by more
GAIN_DB = 3.0  # matched capsules differ by less
SEARCHED = 3.0  # times the longest delay that the distances allow, so that a larger array is seen to be one
NEAREST_METRES = 0.5  # a talker so near is louder at one side of the array
PEAK, CLOSURE_SECONDS = 0.1, 25e-6  # windows with less in common, or whose pairs disagree, say nothing

State = Literal["ok", "fault", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One question and its answer; `channels`, from 1, are those at fault or in question."""

    question: str
    state: State
    detail: str
    channels: tuple[int, ...] = ()


@dataclass(frozen=True)
class ArrayReport:
    """The findings in the order in which they were asked. `sound`: nothing is wrong; `sure`: all could be told."""

    array: str
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        return all(finding.state != "fault" for finding in self.findings)

    @property
    def sure(self) -> bool:
        return all(finding.state == "ok" for finding in self.findings)

    def of(self, question: str) -> Finding:
        return next(finding for finding in self.findings if finding.question == question)


def check_array(waveform: np.ndarray, sample_rate: int, array: MicArray) -> ArrayReport:
    """Samples (M, T) of speech against the geometry. ValueError where the number of channels is another."""
    waveform = np.asarray(waveform, dtype=np.float32)
    if waveform.ndim != 2 or len(waveform) != array.num_mics or waveform.shape[1] == 0:
        raise ValueError(
            f"the recording has shape {waveform.shape}, but the array {array.name} has {array.num_mics} "
            "microphones; pick its channels by --channels"
        )
    waveform = waveform[:, : int(LONGEST_SECONDS * sample_rate)]
    waveform = waveform - waveform.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    alive, living = _alive(waveform)
    findings = [living]
    own, copies = _own(waveform, sample_rate, alive)
    findings.append(copies)
    bound = aperture(array.positions) / SPEED_OF_SOUND + SLACK_SECONDS
    in_time, late = _in_time(waveform, sample_rate, own, bound)
    findings.append(late)
    windows = _windows(waveform[in_time], sample_rate, SEARCHED * bound) if len(in_time) > 1 else []
    findings += [
        _polarity(windows, in_time),
        _gain(waveform, sample_rate, alive, array),
        *_order_and_geometry(windows, in_time, array, sample_rate),
    ]
    return ArrayReport(array.name, tuple(findings))


def _names(channels: np.ndarray | list[int]) -> tuple[int, ...]:
    return tuple(int(channel) + 1 for channel in channels)


def listed(channels: tuple[int, ...]) -> str:
    """Channels in words.

    >>> listed((1,)), listed((1, 2, 5))
    ('channel 1', 'channels 1, 2 and 5')
    """
    if len(channels) == 1:
        return f"channel {channels[0]}"
    return f"channels {', '.join(map(str, channels[:-1]))} and {channels[-1]}"


def _alive(waveform: np.ndarray) -> tuple[np.ndarray, Finding]:
    level = 10 * np.log10(np.mean(np.square(waveform, dtype=np.float64), axis=1) + 1e-30)
    dead = (level < DEAD_DBFS) | (level < np.median(level) - DEAD_BELOW_DB)
    alive, which = np.flatnonzero(~dead), _names(np.flatnonzero(dead))
    if which:
        return alive, Finding("alive", "fault", f"{listed(which)} gave no sound", which)
    return alive, Finding("alive", "ok", f"all {len(level)} channels give sound")


def _band(waveform: np.ndarray, sample_rate: int, low: float, high: float) -> np.ndarray:
    """Spectra (M, F) between two frequencies."""
    hertz = np.fft.rfftfreq(waveform.shape[1], 1 / sample_rate)
    return np.fft.rfft(waveform, axis=1)[:, (hertz >= low) & (hertz <= min(high, 0.45 * sample_rate))]


def _own(waveform: np.ndarray, sample_rate: int, alive: np.ndarray) -> tuple[np.ndarray, Finding]:
    """The living channels without the copies of earlier ones."""
    spectra = _band(waveform, sample_rate, 1000.0, BAND_HZ[1])
    copies: dict[int, int] = {}
    for i, j in alive[pairs_of(len(alive))]:
        energy = np.vdot(spectra[i], spectra[i]).real
        gain = np.vdot(spectra[i], spectra[j]).real / max(energy, 1e-30)
        rest = np.square(np.abs(spectra[j] - gain * spectra[i])).sum()
        if rest < 10 ** (COPY_DB / 10) * np.square(np.abs(spectra[j])).sum():
            copies.setdefault(int(j), int(i))
    own = np.array([channel for channel in alive if channel not in copies], dtype=int)
    if not copies:
        return own, Finding("own signals", "ok", "no channel is a copy of another")
    told = ", ".join(f"{copy + 1} of {source + 1}" for copy, source in copies.items())
    which = _names(sorted({*copies, *copies.values()}))
    return own, Finding("own signals", "fault", f"channels are copies: {told}", which)


def _in_time(
    waveform: np.ndarray, sample_rate: int, own: np.ndarray, bound: float
) -> tuple[np.ndarray, Finding]:
    """The channels that come no later than sound takes across the array."""
    question = "synchronous"
    if len(own) < 2:
        return own, Finding(question, "unknown", "fewer than two channels have a signal of their own")
    delay, peak = coarse(waveform[own], sample_rate, LATE_SECONDS)
    width = min(BAND_HZ[1], 0.45 * sample_rate) - BAND_HZ[0]
    heard = np.abs(peak) > 6 / math.sqrt(2 * width * waveform.shape[1] / sample_rate)
    matrix = np.full((len(own), len(own)), np.nan)
    for (i, j), seconds, common in zip(pairs_of(len(own)), delay, heard, strict=True):
        if common:
            matrix[i, j], matrix[j, i] = seconds, -seconds
    alone = np.isnan(matrix).all(axis=1)
    if alone.all():
        return own[:0], Finding(
            question, "unknown", "the channels hear nothing in common; speak to the array"
        )
    later = np.array(
        [0.0 if lonely else np.nanmedian(row) for row, lonely in zip(matrix, alone, strict=True)]
    )
    late = np.abs(later) > bound + 1 / sample_rate
    if len(own) == 2 and late.any():
        which = _names(own)
        detail = f"{listed(which)} lie {1e3 * abs(later[0]):.2f} ms apart, sound takes {1e3 * bound:.2f} ms at most"
        return own[:0], Finding(question, "fault", detail, which)
    told = [
        f"channel {own[k] + 1} comes {1e3 * abs(later[k]):.2f} ms {'late' if later[k] > 0 else 'early'} "
        f"({abs(later[k]) * sample_rate:.0f} samples)"
        for k in np.flatnonzero(late)
    ] + [f"channel {own[k] + 1} hears something else" for k in np.flatnonzero(alone)]
    if told:
        return own[~late & ~alone], Finding(question, "fault", "; ".join(told), _names(own[late | alone]))
    return own, Finding(
        question, "ok", f"no channel comes later than sound takes across ({1e6 * bound:.0f} µs)"
    )


def _windows(waveform: np.ndarray, sample_rate: int, bound: float) -> list:
    """Delays of the windows in which somebody speaks and the pairs agree."""
    size = int(WINDOW_SECONDS * sample_rate)
    starts = range(0, max(waveform.shape[1] - size, 0) + 1, size)
    power = np.array([np.square(waveform[:, start : start + size]).mean() for start in starts])
    loud = power > power.max() * 1e-2
    measured = [
        measure(waveform[:, start : start + size], sample_rate, bound)
        for start, speaks in zip(starts, loud, strict=True)
        if speaks
    ]
    return [
        one
        for one in measured
        if one and np.median(np.abs(one.peak)) > PEAK and one.closure < CLOSURE_SECONDS
    ]


def _polarity(windows: list, channels: np.ndarray) -> Finding:
    question = "polarity"
    if not windows:
        return Finding(question, "unknown", "too little speech that all channels hear")
    agree = np.zeros((len(channels), len(channels)))
    pairs = windows[0].pairs
    agree[pairs[:, 0], pairs[:, 1]] = np.mean([one.peak for one in windows], axis=0)
    agree += agree.T
    signs = np.sign(np.linalg.eigh(agree)[1][:, -1])
    signs *= 1 if (signs > 0).sum() * 2 >= len(signs) else -1
    inverted = np.flatnonzero(signs < 0)
    if len(inverted) == 0:
        return Finding(question, "ok", "all channels have the same polarity")
    which = _names(channels[inverted])
    if 2 * len(inverted) == len(signs):
        both = _names(channels)
        detail = (
            f"half of the channels ({listed(which)}) are inverted against the others; either may be wrong"
        )
        return Finding(question, "fault", detail, both)
    return Finding(question, "fault", f"{listed(which)} inverted", which)


def _gain(waveform: np.ndarray, sample_rate: int, alive: np.ndarray, array: MicArray) -> Finding:
    question = "gain"
    if len(alive) < 2:
        return Finding(question, "unknown", "fewer than two channels give sound")
    spectra = _band(waveform[alive], sample_rate, *BAND_HZ)
    level = 10 * np.log10(np.square(np.abs(spectra)).sum(axis=1) + 1e-30)
    half = min(aperture(array.positions) / 2, 0.8 * NEAREST_METRES)
    allowed = GAIN_DB + 20 * math.log10((NEAREST_METRES + half) / (NEAREST_METRES - half))
    off = level - np.median(level)
    apart = np.abs(off) > allowed if len(alive) > 2 else np.full(2, np.ptp(level) > allowed)
    if apart.any():
        told = ", ".join(f"channel {alive[k] + 1} by {off[k]:+.1f} dB" for k in np.flatnonzero(apart))
        return Finding(question, "fault", f"other levels than the rest: {told}", _names(alive[apart]))
    return Finding(question, "ok", f"levels within {np.ptp(level):.1f} dB")


def _order_and_geometry(
    windows: list, channels: np.ndarray, array: MicArray, sample_rate: int
) -> list[Finding]:
    if not windows:
        detail = "too little speech that all channels hear at once; speak for some seconds, not far away"
        return [Finding("order", "unknown", detail), Finding("geometry", "unknown", detail)]
    onsets = np.stack([one.onsets for one in windows])
    fit = fit_order(onsets, array.positions[channels])
    order, geometry = _order(fit, channels), _geometry(fit, channels, sample_rate)
    if geometry.state == "fault" and order.state == "ok":
        order = Finding("order", "unknown", "the delays do not fit the geometry, see there")
    return [order, geometry]


def _order(fit, channels: np.ndarray) -> Finding:
    if fit.moved:
        which = _names(channels[list(fit.moved)])
        places = ", ".join(
            f"what is channel {channels[here] + 1} should be {channels[there] + 1}"
            for here, there in fit.moves
        )
        verb = "are swapped" if len(which) == 2 else "are out of order"
        return Finding(
            "order", "fault", f"{listed(which)} {verb} ({places}), or a mirror image of that", which
        )
    if not fit.telling:
        detail = f"{len(channels)} microphones placed so have no order that delays could tell"
        return Finding("order", "unknown", detail)
    if fit.alike:
        pairs = ", ".join(f"{channels[a] + 1} and {channels[b] + 1}" for a, b in fit.alike[:4])
        more = f" and {len(fit.alike) - 4} more pairs" * (len(fit.alike) > 4)
        detail = f"cannot tell apart {pairs}{more}: speak from other sides as well"
        return Finding(
            "order",
            "unknown",
            detail,
            _names(sorted({c for pair in fit.alike for c in channels[list(pair)]})),
        )
    return Finding(
        "order", "ok", "as the geometry claims, up to its symmetries (which side is left cannot be heard)"
    )


def _geometry(fit, channels: np.ndarray, sample_rate: int) -> Finding:
    misfit = f"{1e6 * fit.misfit:.1f} µs"
    if fit.offset is not None:
        channel, seconds = fit.offset
        detail = (
            f"channel {channels[channel] + 1} comes {1e6 * abs(seconds):.0f} µs "
            f"({abs(seconds) * sample_rate:.1f} samples) {'late' if seconds > 0 else 'early'}, or it sits elsewhere"
        )
        return Finding("geometry", "fault", detail, _names([channels[channel]]))
    if fit.reach > 1.15:
        detail = (
            f"delays are {fit.reach:.2f} times what the distances allow: the microphones are further apart than "
            "claimed, or the sample rate is another"
        )
        return Finding("geometry", "fault", detail)
    if fit.unexplained:
        return Finding("geometry", "fault", f"the delays fit no far source in any order ({misfit} left over)")
    return Finding("geometry", "ok", f"delays fit the distances, {misfit} left over")
