"""The live side of the page: a session in a thread of its own, and whoever watches it.

Messages are dicts, ready for JSON, with a `type`: "view" (ten times a second), "decision", "notice", "ended".
Shapes: M microphones.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from remasc import MicArray
from streaming.notices import Notice
from streaming.online import Heard, StreamingDetector
from streaming.session import Said, Session
from streaming.sources import Source
from streaming.web.bearing import bearing

VIEWS_PER_SECOND = 10
KEPT = 50  # decisions that a late viewer still sees
PAUSE_SECONDS = 1.0  # between two rounds of a looped file
BEARING_SECONDS = 1.0  # the direction shown is that of the last so many seconds of a command


class Hub:
    """Hands each message to all viewers; lives in the event loop, `publish` is called from any thread."""

    def __init__(self) -> None:
        self.viewers: set[asyncio.Queue[dict[str, Any]]] = set()
        self.past: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.loop: asyncio.AbstractEventLoop | None = None

    def publish(self, message: dict[str, Any]) -> None:
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody watches any more
                self.loop.call_soon_threadsafe(self.give, message)

    def give(self, message: dict[str, Any]) -> None:
        """As `publish`, from within the event loop."""
        if message["type"] == "decision" and message["kind"] == "final":
            self.past.append(message)
        for queue in self.viewers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(message)


class Feed:
    """Sessions over `open_source()`, one after the other where `again`; what they say goes to the hub."""

    def __init__(
        self,
        open_source: Callable[[], Source],
        make_ears: Callable[[int], StreamingDetector],
        array: MicArray | None,
        *,
        again: bool = False,
    ):
        self._open, self._make_ears, self.array, self._again = open_source, make_ears, array, again
        self.hub = Hub()
        self._origin = 0.0  # seconds that the rounds before took
        # at once: a device or a file that is not there is an error before anything is served
        self._source = open_source()
        self.num_mics = self._source.num_mics
        self.ended: dict[str, Any] | None = None  # the last word, once there is nothing more to hear
        self.session = self._session(self._source)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.hub.loop = loop
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self.session.stop()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    async def watch(self) -> None:
        """Tell the viewers ten times a second what is heard; ends with its task."""
        while True:
            await asyncio.sleep(1 / VIEWS_PER_SECOND)
            if self.hub.viewers and self._thread.is_alive():
                self.hub.give(seen(self.session))

    def _session(self, source: Source) -> Session:
        return Session(source, self._ears, study=self._study)

    def _ears(self, sample_rate: int) -> StreamingDetector:
        ears = self._make_ears(sample_rate)
        ears.origin = self._origin
        return ears

    def _study(self, heard: Heard, sample_rate: int) -> tuple[list[Notice], float | None]:
        """The direction of what was just heard, azimuth in radians."""
        if self.array is None:
            return [], None
        last = heard.waveform[:, -round(BEARING_SECONDS * sample_rate) :]
        found = bearing(last, sample_rate, self.array)
        angle = None if found is None else found.typical
        return [], None if angle is None else math.radians(angle)

    def _run(self) -> None:
        why = "the sound has ended"
        try:
            self._hear_all()
        except Exception as error:  # the page says so, and goes on to serve
            why = f"listening failed: {error}"
        self.ended = {"type": "ended", "detail": why}
        self.hub.publish(self.ended)

    def _hear_all(self) -> None:
        while True:
            for said in self.session:
                if said is not None:
                    self.hub.publish(told(said))
            if not self._again or self._stopped.wait(PAUSE_SECONDS):
                return
            self._origin = self.session.view.seconds + PAUSE_SECONDS
            before, self._source = self.session.view, self._open()
            self.session = self._session(self._source)
            # its seconds go on from `_origin`: so must the work that they took
            self.session.view.listen_busy, self.session.view.judge_busy = (
                before.listen_busy,
                before.judge_busy,
            )


def told(said: Said | Notice) -> dict[str, Any]:
    """A decision or a notice as a message."""
    if isinstance(said, Notice):
        return {"type": "notice", "sentence": said.sentence, **said.as_dict()}
    decision = said.decision
    return {"type": "decision", **decision.as_dict(), "sentence": decision.sentence,
            "latency": round(said.latency, 4)}  # fmt: skip


def seen(session: Session) -> dict[str, Any]:
    """What is heard at this moment."""
    view = session.view
    return {
        "type": "view",
        "seconds": round(view.seconds, 2),
        "speaking": view.speaking,
        "levels": _rounded(view.levels),
        "peaks": _rounded(view.peaks),
        "azimuth": None if view.azimuth is None else round(math.degrees(view.azimuth), 1),
        "load": round(view.real_time_factor, 4),
        "latency": None if view.latency is None else round(view.latency, 4),
    }


def _rounded(levels: np.ndarray | None) -> list[float]:
    return [] if levels is None else [round(float(level), 1) for level in levels]
