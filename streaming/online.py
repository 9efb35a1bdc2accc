"""Commands found and judged in a stream of blocks, the same in whatever blocks it comes.

Shapes: M microphones, t samples of one block. Polarity: higher = more genuine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detector import quality
from detector.growing import growing
from remasc import MicArray, get_array
from remasc.sentences import quoted
from streaming.blocks import checked, checked_rate, pieces
from streaming.decision import Decision, genuine_of, suffices
from streaming.ring import Ring
from streaming.sources import Source
from streaming.vad import EnergyVad, Segmenter, Span, VoiceActivity

if TYPE_CHECKING:
    from detector.score import Detector

PIECE_SECONDS = 0.5  # longer blocks are worked through in such parts


@dataclass(frozen=True)
class Settings:
    """When a command begins, ends and is looked at; seconds.

    pre_roll, post_roll: silence kept around the speech, as the detectors were trained (0.1 to 0.6 s of it);
    onset: so much speech in a row begins a command; hang_over: so much silence ends it;
    shortest: with less speech than this it is a click, and dropped; cool_down: after an end none begins;
    first, every: when a growing command is scored first, and how often after (an eighth of its length at least);
    margin: distance of the llr from the threshold (natural logarithm) at which a growing command is decided
    early; None (the default) decides at the end alone. threshold: score to accept at; None = the detector's own.
    """

    pre_roll: float = 0.3
    post_roll: float = 0.4
    onset: float = 0.06
    hang_over: float = 0.6
    shortest: float = 0.2
    cool_down: float = 0.3
    first: float = 1.0
    every: float = 0.5
    margin: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value, free = getattr(self, name), name in ("margin", "threshold")
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not (number or (free and value is None)):
                raise ValueError(f"the setting {name} is {quoted(value)}; expected a finite number")
            if number and name != "threshold" and not 0 <= value <= quality.MAX_SECONDS:
                raise ValueError(f"the setting {name} is {value:g}; expected 0 to {quality.MAX_SECONDS:g}")
        if self.post_roll > self.hang_over:
            raise ValueError(
                f"post_roll is {self.post_roll:g} s, hang_over {self.hang_over:g}; expected no more silence to be "
                "kept than is waited for"
            )


@dataclass(frozen=True)
class Opinion:
    """What the detector says of a span, be it over or not."""

    score: float | None = None
    llr: float | None = None
    genuine: bool | None = None
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Heard:
    """A stretch that is to be judged: samples (M, T) of a span, and the frame by which the judgement is due.

    `lost` is a word of `decision.REASONS` where it cannot be judged any more. `origin` is when its stream began.
    """

    span: Span
    at: int
    waveform: np.ndarray
    lost: str = ""
    origin: float = 0.0

    @property
    def growing(self) -> bool:
        return self.span.kind == "grows"


@dataclass
class OnlineState:
    """What is remembered beside ring, voice activity and segmenter."""

    early: bool | None = None  # what was decided early of the open command
    command: tuple[float, int] | None = None  # that was judged last while it grew: origin and first frame,
    detector: Any = None  # and the detector that goes on with it


class StreamingDetector:
    """Three verbs. `feed` takes the next block and gives the decisions that it allows, `flush` says that the
    stream ended, `reset` begins a new one. Memory is constant: the last half minute of sound.

    `detector` is what `detector.load()` returns, a bundled name or a checkpoint folder; `array` a MicArray, a
    name or an array file, or None where it is not known and the detector does not ask for it: then the first
    block says how many channels there are. Scoring happens within `feed`, in the caller's thread.

    The last word on a command is its "final" decision: score, llr, decision and abstention of
    `Detector.judge` on samples [start, end) of the stream.
    """

    def __init__(
        self,
        detector: Detector | str | Path,
        array: MicArray | str | Path | None,
        sample_rate: int,
        *,
        settings: Settings | None = None,
        vad: VoiceActivity | None = None,
    ):
        if isinstance(detector, str | Path):
            from detector.score import load

            detector = load(detector)
        array = get_array(array) if isinstance(array, str | Path) else array
        _check_kinds(detector, array, settings)
        self.detector, self.array = detector, array
        self.sample_rate = checked_rate(sample_rate)
        self.settings = settings or Settings()
        self.vad = vad or EnergyVad(self.sample_rate)
        self.segmenter = Segmenter(**self._in_frames())
        self.state = OnlineState()
        self.origin = 0.0  # seconds that a stream before this one took (a microphone that changed its rate)
        self._llr_at_threshold = self._reference()
        self._ring: Ring | None = None
        if self.array is not None:
            self._open(self.array.num_mics)

    @property
    def seconds(self) -> float:
        """How much was fed since the stream began."""
        return 0.0 if self._ring is None else self._ring.end / self.sample_rate

    @property
    def speaking(self) -> bool:
        """Whether a command is being heard."""
        return self.segmenter.state.open

    def feed(self, block: np.ndarray) -> list[Decision]:
        """The next samples (M, t), t >= 0. A block that is refused (ValueError) leaves everything as it was."""
        return [self.decide(heard) for heard in self.hear(block)]

    def flush(self) -> list[Decision]:
        """The stream ended: the open command is judged as it is, but for samples that do not fill a frame of 20 ms.
        More may be fed: it follows."""
        return [self.decide(heard) for heard in self.hear_end()]

    def interrupt(self) -> list[Decision]:
        """Samples were lost: what follows does not join what was. The open command stays undecided."""
        return [self.decide(heard) for heard in self.hear_loss()]

    def hear(self, block: np.ndarray) -> Iterator[Heard]:
        """`feed` without its judging, which `decide` does, in the same order and if need be in another thread."""
        block = checked(block, None if self._ring is None else self._ring.num_mics)
        if self._ring is None:
            self._open(len(block))
        for piece in pieces(block, round(PIECE_SECONDS * self.sample_rate)):
            self._ring.feed(piece)
            for voiced in self._heard():
                yield from self._to_judge(self.segmenter.step(voiced))

    def hear_end(self) -> list[Heard]:
        """`flush` without its judging."""
        return self._to_judge(self.segmenter.flush())

    def hear_loss(self) -> list[Heard]:
        """`interrupt` without its judging."""
        return self._to_judge(self.segmenter.drop(torn=self._pending() > 0), lost="interrupted")

    def decide(self, heard: Heard) -> Decision:
        """What is said of a stretch. A growing one may be left out; of the others none."""
        opinion = Opinion(reason=heard.lost) if heard.lost else self._judge(heard)
        return self._growing(heard, opinion) if heard.growing else self._final(heard, opinion)

    def reset(self) -> None:
        """Forget everything; the next sample is the first of a new stream."""
        self.vad.reset()
        self.segmenter.reset()
        self.state = OnlineState()
        if self.array is None:
            self._ring = None
        else:
            self._ring.reset()

    def _open(self, num_mics: int) -> None:
        """Make room for the longest command; ValueError where the detector cannot take so many channels."""
        specification = getattr(self.detector, "specification", None)
        if specification is not None:
            specification.check(num_mics, self.array)
        frames = self.segmenter.longest + 2
        self._ring = Ring(num_mics, frames * self.vad.frame + round(PIECE_SECONDS * self.sample_rate))

    def _pending(self) -> int:
        """Samples fed that do not fill a frame yet, or were not listened to yet."""
        return 0 if self._ring is None else self._ring.end - self.segmenter.state.now * self.vad.frame

    def _heard(self) -> list[bool]:
        """For each frame that is now whole: is it speech?"""
        count = self._pending() // self.vad.frame
        if count == 0:
            return []
        start = self.segmenter.state.now * self.vad.frame
        return self.vad.feed(self._ring.read(start, start + count * self.vad.frame)).tolist()

    def _to_judge(self, span: Span | None, lost: str = "") -> list[Heard]:
        if span is None:
            return []
        waveform = self._ring.read(span.first * self.vad.frame, span.last * self.vad.frame)
        return [Heard(span, self.segmenter.state.now, waveform, lost, self.origin)]

    def _judge(self, heard: Heard) -> Opinion:
        state, command = self.state, (heard.origin, heard.span.first)
        if command != state.command:
            state.detector = growing(self.detector)
        state.command = None  # should it be interrupted: what it then knows of the command may be half of it
        # one that hears all of a command each time knows of nothing provisional
        more = {} if state.detector is self.detector else {"provisional": heard.growing}
        try:
            judged = state.detector.judge(
                heard.waveform, self.sample_rate, self.array, threshold=self.settings.threshold, **more
            )
        except Exception as error:  # of whatever kind (onnxruntime has its own): the stream goes on
            return Opinion(reason="failed", detail=str(error))  # and nothing is accepted
        state.command = command
        return Opinion(judged.score, judged.llr, genuine_of(judged.decision), judged.reason, judged.detail)

    def _growing(self, heard: Heard, opinion: Opinion) -> Decision:
        enough = suffices(opinion.llr, self._llr_at_threshold, self.settings.margin)
        if enough and opinion.genuine is not None and self.state.early is None:
            self.state.early = opinion.genuine
            return self._said(heard, opinion, opinion.genuine, (), kind="early")
        reasons = ("growing", opinion.reason) if opinion.reason else ("growing",)
        return self._said(heard, opinion, None, reasons, kind="provisional")

    def _final(self, heard: Heard, opinion: Opinion) -> Decision:
        early, self.state = self.state.early, OnlineState()
        reasons = (opinion.reason,) if opinion.reason else ()
        revised = early is not None and early is not opinion.genuine
        return self._said(heard, opinion, opinion.genuine, reasons, revised=revised)

    def _said(
        self, heard: Heard, opinion: Opinion, genuine: bool | None, reasons: tuple[str, ...], **more
    ) -> Decision:
        start, end, at = (
            heard.origin + seconds_of(frame * self.vad.frame, self.sample_rate)
            for frame in (heard.span.first, heard.span.last, heard.at)
        )
        return Decision(
            start, end, opinion.score, opinion.llr, genuine, reasons, opinion.detail, at=at, **more
        )

    def _reference(self) -> float | None:
        """The llr at the threshold, where commands may be decided early."""
        if self.settings.margin is None:
            return None
        threshold = self.settings.threshold
        threshold = getattr(self.detector, "threshold", None) if threshold is None else threshold
        calibration = getattr(self.detector, "calibration", None)
        if threshold is None or calibration is None:
            raise ValueError(
                "a margin was given to decide early, but the detector has no calibration or no threshold; leave "
                "the margin out, or take a detector that was trained with `replayguard train`"
            )
        return float(calibration.llr(threshold))

    def _in_frames(self) -> dict[str, int]:
        """The settings as the segmenter counts them."""

        def frames(seconds: float) -> int:
            return round(seconds * self.sample_rate / self.vad.frame)

        settings = self.settings
        # a span is cut when it has one frame more, so that `Detector.judge` itself says that it was too long
        longest = int(quality.MAX_SECONDS * self.sample_rate) // self.vad.frame
        return {
            "onset": max(1, frames(settings.onset)),
            "pre": frames(settings.pre_roll),
            "post": frames(settings.post_roll),
            "hang": max(1, frames(settings.hang_over)),
            "shortest": frames(settings.shortest),
            "longest": longest,
            "cool": frames(settings.cool_down),
            "look": frames(settings.first),
            "every": max(1, frames(settings.every)),
        }


def _check_kinds(detector: object, array: object, settings: object) -> None:
    """What is given in Python has no type yet; an AttributeError in mid-stream would be no way to say so."""
    if not callable(getattr(detector, "judge", None)):
        raise ValueError(
            f"the detector is of type {type(detector).__name__}; expected what `detector.load()` returns, a "
            "bundled name or a checkpoint folder"
        )
    if not isinstance(array, MicArray | None):
        raise ValueError(
            f"the array is of type {type(array).__name__}; expected a MicArray, an array's name or file, or None "
            "where it is not known"
        )
    if not isinstance(settings, Settings | None):
        raise ValueError(
            f"the settings are of type {type(settings).__name__}; expected `streaming.Settings(...)` or None"
        )


def seconds_of(sample: int, sample_rate: int) -> float:
    """When a sample is, so that `int(seconds * sample_rate)` is that very sample, as `round` is anyway.

    >>> int(35 * 441 / 22050 * 22050), int(seconds_of(35 * 441, 22050) * 22050)
    (15434, 15435)
    """
    seconds = sample / sample_rate
    return seconds if int(seconds * sample_rate) == sample else math.nextafter(seconds, math.inf)


def listen(source: Source, live: StreamingDetector) -> Iterator[Decision]:
    """The decisions of all that a source gives, as they come."""
    for block in source:
        if block.lost:
            yield from live.interrupt()
        yield from live.feed(block.samples)
    yield from live.flush()
