"""Where sound is speech (`EnergyVad`) and where a command begins and ends (`Segmenter`).

Both step through frames of 20 ms counted from the stream's first sample, so that nothing depends on how the
stream was cut into blocks, and both look back only.
Shapes: M microphones, n frames of `frame` samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from detector import quality

FRAME_SECONDS = 0.02
BAND_HZ = (250.0, 4000.0)  # below it cars and wind are loud, above it hiss
LOWEST_DB = -80.0  # of full scale; a floor below it is a converter that is switched off
ON_DB, OFF_DB = 7.0, 4.0  # above the floor: speech begins, speech is still there
MIN_ON_DB = quality.SILENT_DBFS  # what the detector could never judge is no speech
GROWTH = 8  # a growing command is looked at again when it is an eighth longer
FLOOR_PARTS, PART_FRAMES = 16, 25  # the floor is the least level of the last 16 half seconds


class VoiceActivity(Protocol):
    """What the streaming detector asks of a voice activity detector."""

    frame: int

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """(M, n * frame) samples that follow the last ones -> (n,) bool, from the past only."""

    def reset(self) -> None: ...


@dataclass
class VadState:
    """What the energy detector remembers. Levels are in dB of full scale."""

    parts: list[float] = field(
        default_factory=lambda: [np.inf] * FLOOR_PARTS
    )  # least level of each half second
    counted: int = 0  # frames counted into the floor
    waiting: float | None = None  # the level of the frame before, where it may be counted
    sounding: bool = False  # whether the frame before was no digital silence
    voiced: bool = False


class EnergyVad:
    """Speech is what rises above the adaptive floor, with hysteresis.

    The level of a frame is the median over the microphones, so that one that is dead or screams decides
    nothing, of the power between 250 and 4000 Hz. The floor is the least level of the last 8 s: a pause lowers
    it, and a noise that was switched on is taken for speech no longer than that. Frames of digital silence are no
    floor, nor are their neighbours, which it may have cut: a microphone that wakes up is not a voice.

    >>> vad = EnergyVad(16000)
    >>> noise = np.random.default_rng(0).normal(0, 1e-3, (2, 50 * vad.frame)).astype(np.float32)
    >>> noise[:, 20 * vad.frame : 40 * vad.frame] *= 30
    >>> np.flatnonzero(vad.feed(noise))[[0, -1]].tolist()
    [20, 39]
    """

    def __init__(self, sample_rate: int):
        self.frame = round(FRAME_SECONDS * sample_rate)
        hertz = np.fft.rfftfreq(self.frame, 1 / sample_rate)
        self._band = np.flatnonzero((hertz >= BAND_HZ[0]) & (hertz <= BAND_HZ[1]))[[0, -1]] + [0, 1]
        window = np.hanning(self.frame)
        # so that a sine of amplitude 1 has a power of 1/2, as its mean square
        self._window = (window * np.sqrt(2 / (self.frame * np.square(window).sum()))).astype(np.float32)
        self.state = VadState()

    def reset(self) -> None:
        self.state = VadState()

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """(M, n * frame) samples -> (n,) bool: was there speech in the frame?"""
        levels = self.levels(samples)
        return np.fromiter((self._step(level) for level in levels.tolist()), dtype=bool, count=len(levels))

    def levels(self, samples: np.ndarray) -> np.ndarray:
        """Level (n,) in dB of full scale; of the frames alone, whatever came before."""
        frames = samples.reshape(len(samples), -1, self.frame)
        first, last = self._band
        spectrum = np.fft.rfft(frames * self._window, axis=-1)[..., first:last]
        power = np.sort((spectrum.real**2 + spectrum.imag**2).sum(axis=-1), axis=0)
        middle = len(power) // 2
        median = (power[middle] + power[-middle - 1]) / 2
        return 10 * np.log10(np.maximum(median, 1e-20))

    def _step(self, level: float) -> bool:
        state = self.state
        if level > LOWEST_DB:
            if state.waiting is not None:
                self._count(state.waiting)
            state.waiting = level if state.sounding else None
        else:
            state.waiting = None
        state.sounding = level > LOWEST_DB
        floor = min(state.parts)  # infinite before there was any sound
        state.voiced = level > max(floor + (OFF_DB if state.voiced else ON_DB), MIN_ON_DB)
        return state.voiced

    def _count(self, level: float) -> None:
        state = self.state
        part, place = divmod(state.counted, PART_FRAMES)
        part %= FLOOR_PARTS
        state.parts[part] = level if place == 0 else min(level, state.parts[part])
        state.counted += 1


class Span(NamedTuple):
    """Frames `first` to `last` (excluded) of a command: it "grows" or it "ends"."""

    kind: str
    first: int
    last: int


@dataclass
class SpanState:
    """What the segmenter remembers; all in frames since the stream began."""

    now: int = 0  # frames taken
    run: int = 0  # frames of speech in a row, up to now
    free: int = 0  # what lies before belongs to earlier commands
    cool: int = 0  # no command begins before
    open: bool = False
    first: int = 0  # of the open command: where its span begins,
    last: int = 0  # one past its last frame of speech,
    voiced: int = 0  # its frames of speech,
    due: int = 0  # and when it is to be looked at again


class Segmenter:
    """Commands from frames of speech; every setting is a number of frames.

    `onset` frames of speech in a row begin a command; its span reaches from `pre` frames before them to `post`
    behind its last frame of speech. It is over when `hang` frames were none, and cut when it exceeds `longest`.
    With less than `shortest` frames of speech it is dropped. After an end none begins for `cool` frames; speech
    that goes on beyond them is taken from its beginning. Spans never overlap.
    A growing command is looked at `look` frames after its onset, then every `every`, or an eighth of its length.
    """

    def __init__(
        self, *, onset: int, pre: int, post: int, hang: int, shortest: int, longest: int, cool: int,
        look: int, every: int,
    ):  # fmt: skip
        assert onset >= 1, onset
        assert post <= hang, (post, hang)
        self.onset, self.pre, self.post, self.hang = onset, pre, post, hang
        self.shortest, self.longest, self.cool = shortest, longest, cool
        self.look, self.every = look, every
        self.state = SpanState()

    def reset(self) -> None:
        self.state = SpanState()

    def step(self, voiced: bool) -> Span | None:
        """One more frame; what is to be scored after it."""
        state = self.state
        state.now += 1
        state.run = state.run + 1 if voiced else 0
        if not state.open:
            if state.run >= self.onset and state.now > state.cool:
                self._begin()
            return None
        if voiced:
            state.last = state.now
            state.voiced += 1
        if state.now - state.first > self.longest:
            return self._end(state.now)
        if state.now - state.last >= self.hang:
            return self._end(state.last + self.post)
        enough = state.voiced >= self.shortest and state.now - state.last <= self.post
        if enough and state.now >= state.due:
            # looks become rarer as a command grows, so that their cost grows with its length, not its square
            state.due = state.now + max(self.every, (state.now - state.first) // GROWTH)
            return Span("grows", state.first, state.now)
        return None

    def flush(self) -> Span | None:
        """The open command ends here."""
        state = self.state
        return self._end(min(state.last + self.post, state.now)) if state.open else None

    def drop(self, *, torn: bool = False) -> Span | None:
        """The open command is given up; its span so far, if there was one. Nothing reaches back behind now, nor
        into the next frame where that is `torn`."""
        state = self.state
        dropped = Span("ends", state.first, state.now) if state.open else None
        state.open, state.run, state.free = False, 0, state.now + torn
        return dropped

    def _begin(self) -> None:
        state = self.state
        start = max(state.now - state.run, state.free)
        state.open = True
        state.first = max(start - self.pre, state.free)
        state.last, state.voiced = state.now, state.now - start
        state.due = start + self.look

    def _end(self, last: int) -> Span | None:
        state = self.state
        state.open = False
        if state.voiced < self.shortest:
            return None
        state.free, state.cool = last, state.now + self.cool
        return Span("ends", state.first, last)
