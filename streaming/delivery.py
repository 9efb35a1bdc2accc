"""Decisions and notices as lines of JSON, to every outlet; utterances to the recorder. What fails is said, and
nothing else stops for it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from remasc.sentences import reason
from streaming.notices import Notice
from streaming.outlets import Outlet
from streaming.record import Recorder
from streaming.session import Said


class Delivery:
    """`take` sends what was said and gives the notices that came of it, already sent."""

    def __init__(
        self, outlets: Iterable[Outlet] = (), recorder: Recorder | None = None, *, live: bool = False
    ):
        self.outlets, self.recorder, self.live = list(outlets), recorder, live
        self._failing: dict[int, str] = {}  # outlets that failed when last used, so that it is said once
        self.finals = self.undecided = 0

    def take(self, said: Said | Notice) -> list[Notice]:
        if isinstance(said, Notice):
            return self._send(said.as_dict(), said.at)
        decision = said.decision
        self.finals += decision.final
        self.undecided += decision.final and decision.genuine is None
        told = decision.as_dict()
        if self.live:
            told |= {"time": _moment(said), "latency": round(said.latency, 3)}
        notices = self._keep(said) if decision.final else []
        return self._send(told, decision.at) + notices

    def close(self) -> None:
        for outlet in self.outlets:
            outlet.close()

    def _keep(self, said: Said) -> list[Notice]:
        if self.recorder is None or said.heard.waveform.shape[1] == 0:
            return []
        more = {"time": _moment(said)} if self.live else {}
        try:
            self.recorder.keep(said.decision, said.heard.waveform, said.sample_rate, **more)
        except (OSError, ValueError) as error:
            notice = Notice("record", f"an utterance could not be kept ({reason(error)})", said.decision.at)
            return [notice, *self._send(notice.as_dict(), notice.at)]
        return []

    def _send(self, told: dict[str, object], at: float) -> list[Notice]:
        line, notices = json.dumps(told, allow_nan=False), []
        for number, outlet in enumerate(self.outlets):
            try:
                outlet.send(line)
                self._failing.pop(number, None)
            except BrokenPipeError:
                raise  # nobody reads our output any more: the front door knows what to do
            except OSError as error:
                if number not in self._failing:
                    notices.append(Notice("outlet", reason(error), at))
                self._failing[number] = reason(error)
        return notices


def _moment(said: Said) -> str:
    """When the span ended, UTC, by the computer's clock: the decision's own times count from the stream's begin."""
    ago = said.latency + said.decision.at - said.decision.end
    return f"{datetime.now(UTC) - timedelta(seconds=ago):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
