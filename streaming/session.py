"""A live session: one thread listens, another judges, a third (the caller's) reads what is said.

The sound path is callback -> ring -> voice activity; judging takes as long as it takes beside it. Where it falls
behind, looks at growing commands are left out; a finished command never is, and what cannot be held any more is
undecided. Shapes: M microphones.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from remasc.sentences import reason
from streaming.blocks import Block
from streaming.decision import Decision
from streaming.notices import Notice
from streaming.online import Heard, StreamingDetector
from streaming.watch import Watch

MOST_WAITING = 8  # commands that wait to be judged; each may hold half a minute of sound


@dataclass(frozen=True)
class Said:
    """A decision with the samples it is of, and how long after its last sample it came (seconds, wall clock)."""

    decision: Decision
    heard: Heard
    sample_rate: int
    latency: float = 0.0


@dataclass
class View:
    """What a dashboard shows; written by the session's threads, read by whoever draws."""

    seconds: float = 0.0
    speaking: bool = False
    levels: np.ndarray | None = None  # (M,) dB of full scale
    peaks: np.ndarray | None = None
    listen_busy: float = 0.0  # seconds of work
    judge_busy: float = 0.0
    judge_seconds: float = 0.0  # the last scoring
    latency: float | None = None
    scores: deque[tuple[float, float, str]] = field(default_factory=lambda: deque(maxlen=60))
    azimuth: float | None = None  # radians, positive to the array's right
    waiting: int = 0

    @property
    def real_time_factor(self) -> float:
        return (self.listen_busy + self.judge_busy) / self.seconds if self.seconds else 0.0


@dataclass
class _Job:
    heard: Heard
    ears: StreamingDetector
    clock: float


class Session:
    """Iterate over it: `Said` and `Notice` as they come, None ten times a second while nothing does.

    A source may have `notice` (set to a function that takes what befalls it), `stop`, and `rate_is_wrong`.
    `make_ears(sample_rate)` gives the `StreamingDetector`, again where the source changes its rate.
    `study(waveform, sample_rate)` is called beside the sound path with what was judged: it may give notices and
    the direction (azimuth in radians) for the view.
    """

    def __init__(
        self,
        source: Any,
        make_ears: Callable[[int], StreamingDetector],
        *,
        gate: Callable[[Decision], Decision] | None = None,
        study: Callable[[Heard, int], tuple[list[Notice], float | None]] | None = None,
    ):
        self.source, self._make_ears, self._gate, self._study = source, make_ears, gate, study
        if hasattr(source, "notice"):
            source.notice = self.notice
        self.view = View()
        self._ears = make_ears(source.sample_rate)
        # an empty block: channels that do not fit are an error here and now, not a notice with every block
        list(self._ears.hear(np.zeros((source.num_mics, 0), dtype=np.float32)))
        self._watch = Watch(source.num_mics, source.sample_rate)
        self._out: queue.SimpleQueue[Said | Notice | BaseException | None] = queue.SimpleQueue()
        self._jobs: deque[_Job | None] = deque()
        self._ready = threading.Condition()
        self._overloaded = False
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=work.__name__, daemon=True)
            for work in (self._listen, self._judge)
        ]

    def notice(self, notice: Notice) -> None:
        """Say something; from any thread."""
        self._out.put(notice)

    def __iter__(self) -> Iterator[Said | Notice | None]:
        for thread in self._threads:
            thread.start()
        ended = 0
        try:
            while ended < len(self._threads):
                try:
                    said = self._out.get(timeout=0.1)
                except queue.Empty:
                    yield None
                    continue
                if isinstance(said, BaseException):
                    raise said
                if said is None:
                    ended += 1
                else:
                    yield said
        finally:
            self.stop()

    def stop(self) -> None:
        """End the source, if it can be ended, and wait a moment for the threads."""
        getattr(self.source, "stop", lambda: None)()
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(timeout=5)

    def _guarded(self, work: Callable[[], None]) -> None:
        """An error in a thread is one in the caller's."""
        try:
            work()
        except BaseException as error:  # so that nobody waits for a thread that is gone
            self._out.put(error)
        else:
            self._out.put(None)
        finally:
            if work == self._listen:
                self._queue(None)

    def _listen(self) -> None:
        for block in self.source:
            began = time.thread_time()
            clock = time.monotonic()
            if self.source.sample_rate != self._ears.sample_rate:
                self._change_rate(clock)
            if block.lost:
                self._hand_on(self._ears.hear_loss(), clock)
            self._hear(block, clock)
            self.view.listen_busy += time.thread_time() - began
        self._hand_on(self._ears.hear_end(), time.monotonic())

    def _hear(self, block: Block, clock: float) -> None:
        view, ears = self.view, self._ears
        if block.samples.shape[1] == 0:
            return
        try:
            self._hand_on(ears.hear(block.samples), clock)
        except ValueError as error:  # samples that are no numbers: the device is broken, the stream is torn
            self.notice(Notice("refused", reason(error), at=round(view.seconds, 3)))
            self._hand_on(ears.hear_loss(), clock)
            return
        for notice in self._watch.feed(block.samples):
            self.notice(replace(notice, at=round(ears.origin + ears.seconds, 3)))
        view.seconds, view.speaking = ears.origin + ears.seconds, ears.speaking
        view.levels, view.peaks = self._watch.levels, self._watch.peaks

    def _change_rate(self, clock: float) -> None:
        """Begin anew where the old stream ended: spans keep their place in time."""
        self._hand_on(self._ears.hear_loss(), clock)
        origin = self._ears.origin + self._ears.seconds
        self._ears = self._make_ears(self.source.sample_rate)
        self._ears.origin = origin
        self._watch = Watch(self.source.num_mics, self.source.sample_rate)

    def _hand_on(self, heard: Any, clock: float) -> None:
        for one in heard:
            self._queue(_Job(replace(one, lost=one.lost or self._doubt()), self._ears, clock))

    def _doubt(self) -> str:
        """Why nothing may be decided of what is heard now, a word of `decision.REASONS`, or "".

        A microphone that is nearly dead leaves the others an array that nobody trained for; where all are silent
        there is no command, and what wakes them up must not be held against it.
        """
        if getattr(self.source, "rate_is_wrong", False):
            return "rate"
        dead = self._watch.sick("dead")
        return "dead-channel" if dead.any() and not dead.all() else ""

    def _queue(self, job: _Job | None) -> None:
        """Later looks at a growing command take the place of earlier ones that nobody had time for."""
        with self._ready:
            jobs = self._jobs
            if job is not None and jobs and jobs[-1] is not None and jobs[-1].heard.growing:
                jobs.pop()
            if job is not None and len(jobs) >= MOST_WAITING:
                lost = replace(job.heard, lost="overloaded", waveform=job.heard.waveform[:, :0])
                job = None if job.heard.growing else replace(job, heard=lost)
                if not self._overloaded:
                    self.notice(Notice("overloaded", at=round(self.view.seconds, 3)))
                self._overloaded = True
                if job is None:
                    return
            jobs.append(job)
            self.view.waiting = len(jobs)
            self._ready.notify()

    def _judge(self) -> None:
        while True:
            with self._ready:
                while not self._jobs:
                    self._overloaded = False
                    self._ready.wait()
                job = self._jobs.popleft()
                self.view.waiting = len(self._jobs)
            if job is None:
                return
            self._judge_one(job)

    def _judge_one(self, job: _Job) -> None:
        view, began, clock = self.view, time.thread_time(), time.monotonic()
        decision = job.ears.decide(job.heard)
        view.judge_busy += time.thread_time() - began
        view.judge_seconds = time.monotonic() - clock
        if self._gate is not None:
            decision = self._gate(decision)
        said = Said(decision, job.heard, job.ears.sample_rate, time.monotonic() - job.clock)
        view.latency = said.latency
        if decision.score is not None:
            view.scores.append((decision.at, decision.score, decision.kind))
        self._out.put(said)
        if self._study is not None and not job.heard.lost:
            began = time.thread_time()
            notices, view.azimuth = self._study(job.heard, job.ears.sample_rate)
            for notice in notices:
                self.notice(replace(notice, at=decision.at))
            view.judge_busy += time.thread_time() - began
