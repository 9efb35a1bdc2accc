"""What `eval.benchmarks.soak` counts: a stream of chapters against each chapter as a recording of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from eval.benchmarks.soak_sound import CHAPTERS, Book, Chapter
from remasc.identity import position_of, scene_rng
from streaming.decision import Decision, genuine_of
from streaming.online import StreamingDetector

LONGEST_BLOCK = 10.0  # seconds
SAME = 1e-5  # times max(1, |offline|)
TOLD = 20  # faults that are told one by one


@dataclass(frozen=True)
class Look:
    """Of a chapter as a recording of its own: one look at a command, in samples since the chapter began."""

    start: int
    end: int
    at: int
    final: bool


@dataclass(frozen=True)
class Opinion:
    """What was said of a command, by the stream or offline."""

    score: float | None
    genuine: bool | None
    reasons: tuple[str, ...]
    offline: bool = False

    def far_from(self, expected: Opinion) -> float:
        """The difference of the scores, as a share of max(1, |expected|); 1 where only one of the two has one."""
        if self.score is None or expected.score is None:
            return float(self.score is not expected.score)
        return abs(self.score - expected.score) / max(1.0, abs(expected.score))


@dataclass
class Tally:
    """What was counted so far."""

    samples: int = 0
    chapters: int = 0
    commands: int = 0
    missed: int = 0
    looks: int = 0
    moved: int = 0  # looks that are not offline's, missing and superfluous ones too
    finals: int = 0
    judged: int = 0  # of them against offline
    copies: int = 0  # of them against the first copy of the same sound
    difference: float = 0.0  # the largest, as a share of max(1, |offline|)
    contradicted: int = 0  # final decisions with another score, verdict or reason
    wall: float = 0.0  # seconds within feed
    cpu: float = 0.0
    memory: list[tuple[float, float]] = field(default_factory=list)  # hours of sound, MiB of this process
    faults: list[str] = field(default_factory=list)


class Listener:
    """Feeds chapter after chapter to one detector and counts what is not as it must be."""

    def __init__(self, ears: StreamingDetector, book: Book, share: float):
        self.ears, self.book, self.share = ears, book, share
        self.tally = Tally()
        self._looks: dict[int, list[Look]] = {}
        self._opinions: dict[tuple[int, int], Opinion] = {}  # by chapter and look
        self._sizes = scene_rng("soak", "blocks")

    def hear(self, number: int) -> int:
        """One chapter; the samples that it had."""
        tally, number = self.tally, number % CHAPTERS
        chapter = self.book.chapter(number)
        if number not in self._looks:
            self._looks[number] = self._offline(number, chapter.samples)
        began = tally.samples
        self._compare(number, chapter, self._fed(chapter.samples), began)
        tally.chapters += 1
        tally.samples = began + chapter.samples.shape[1]
        return chapter.samples.shape[1]

    def _fed(self, samples: np.ndarray) -> list[Decision]:
        said, here = [], 0
        most = np.log(LONGEST_BLOCK * self.ears.sample_rate)
        wall, cpu = time.perf_counter(), time.thread_time()
        while here < samples.shape[1]:
            size = int(np.exp(self._sizes.uniform(0.0, most)))
            said += self.ears.feed(samples[:, here : here + size])
            here += size
        self.tally.wall += time.perf_counter() - wall
        self.tally.cpu += time.thread_time() - cpu
        return said

    def _offline(self, number: int, samples: np.ndarray) -> list[Look]:
        """The voice activity over the whole chapter at once; a share of what it found is judged."""
        ears, looks = self.ears, []
        alone = StreamingDetector(ears.detector, ears.array, ears.sample_rate, settings=ears.settings)
        frame = alone.vad.frame
        for heard in alone.hear(samples):
            first, last = heard.span.first * frame, heard.span.last * frame
            if not heard.growing and position_of(f"{number} {len(looks)}") < self.share:
                judged = ears.detector.judge(
                    samples[:, first:last], ears.sample_rate, ears.array, threshold=ears.settings.threshold
                )
                reasons = (judged.reason,) if judged.reason else ()
                verdict = genuine_of(judged.decision)
                self._opinions[number, len(looks)] = Opinion(judged.score, verdict, reasons, offline=True)
            looks.append(Look(first, last, heard.at * frame, not heard.growing))
        return looks

    def _compare(self, number: int, chapter: Chapter, said: list[Decision], began: int) -> None:
        tally, expected = self.tally, self._looks[number]
        found = [self._look(decision, began) for decision in said]
        tally.looks += len(expected)
        if found != expected:
            wrong = sorted(set(found) ^ set(expected), key=lambda look: look.at)
            tally.moved += max(1, len(set(expected) - set(found)), len(set(found) - set(expected)))
            self._fault(f"chapter {tally.chapters}: {wrong[:2]} of the stream or of offline, not of both")
        for first, last in chapter.commands:
            tally.commands += 1
            if not any(look.final and look.start < last and look.end > first for look in found):
                tally.missed += 1
                self._fault(f"chapter {tally.chapters}: no decision on the command at sample {began + first}")
        for place, (decision, look) in enumerate(zip(said, found, strict=True)):
            if look.final and place < len(expected) and look == expected[place]:
                self._check(number, place, decision)

    def _look(self, decision: Decision, began: int) -> Look:
        start, end, at = (
            round(seconds * self.ears.sample_rate) - began
            for seconds in (decision.start, decision.end, decision.at)
        )
        return Look(start, end, at, decision.final)

    def _check(self, number: int, place: int, decision: Decision) -> None:
        tally = self.tally
        tally.finals += 1
        said = Opinion(decision.score, decision.genuine, decision.reasons)
        expected = self._opinions.setdefault((number, place), said)
        tally.judged += expected.offline
        tally.copies += not expected.offline and expected is not said
        far = said.far_from(expected)
        tally.difference = max(tally.difference, far)
        if not far <= SAME or (said.genuine, said.reasons) != (expected.genuine, expected.reasons):
            tally.contradicted += 1
            self._fault(f"chapter {tally.chapters}: {decision.sentence}; expected {expected}")

    def _fault(self, text: str) -> None:
        if len(self.tally.faults) < TOLD:
            self.tally.faults.append(text)


def growth(memory: list[tuple[float, float]]) -> tuple[float, float]:
    """(MiB gained, MiB per hour of sound) by a straight line through what was measured after each chapter.

    Until every chapter was heard once memory rises to what the longest command needs. A run too short for a second
    copy of each is looked at after its first quarter, and may show that rise.
    """
    first = CHAPTERS if len(memory) >= 2 * CHAPTERS else len(memory) // 4
    settled = np.array(memory[first:]).reshape(-1, 2)
    if len(settled) < 3:
        return 0.0, 0.0
    slope = float(np.polyfit(settled[:, 0], settled[:, 1], 1)[0])
    return slope * float(np.ptp(settled[:, 0])), slope
