"""What is said of a command, when, and how sure. Fail closed: only `genuine is True` opens a door."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from detector import quality

Kind = Literal["provisional", "early", "final"]

REASONS = quality.REASONS | {
    "growing": "the command is not over yet",
    "interrupted": "samples were lost within the command",
    "failed": "the detector could not score it",
    "overloaded": "commands came faster than they could be scored",
    "rate": "the microphone does not give as many samples a second as it says",
    "hook": "the hook did not agree",
}


@dataclass(frozen=True)
class Decision:
    """Of the span `start` to `end`, in seconds since the stream began.

    `genuine` is True (a living person), False (a playback device) or None: not decided, not to be accepted.
    `score` and `llr` as `detector.Judgement` has them: higher = more genuine, None where there is none.
    `reasons` are words of `REASONS`, empty where it was decided; `detail` may say more.
    `at` is the time in the stream, in seconds, by which the decision was due: it knows of nothing that came later.
    kind "provisional": the command still grows, the score may be watched, nothing is decided;
    "early": it still grows, but the evidence suffices by the stated margin; "final": it is over. A final decision
    that takes back an early one is `revised`.
    """

    start: float
    end: float
    score: float | None
    llr: float | None
    genuine: bool | None
    reasons: tuple[str, ...] = ()
    detail: str = ""
    kind: Kind = "final"
    at: float = 0.0
    revised: bool = False

    @property
    def final(self) -> bool:
        return self.kind == "final"

    @property
    def provisional(self) -> bool:
        """Whether a later decision of the same command follows: a final one."""
        return self.kind != "final"

    @property
    def sentence(self) -> str:
        """The decision in words."""
        verdict = {True: "a living person", False: "a playback device", None: "undecided"}[self.genuine]
        because = self.detail or "; ".join(REASONS.get(reason, reason) for reason in self.reasons)
        score = "" if self.score is None else f", score {self.score:+.3f}"
        when = {"early": ", decided early", "provisional": ", still growing"}.get(self.kind, "")
        when += ", revised" * self.revised
        return f"{self.start:.2f} to {self.end:.2f} s: {verdict}{score}{when}" + f" ({because})" * bool(
            because
        )

    def as_dict(self) -> dict[str, object]:
        return asdict(self) | {"reasons": list(self.reasons)}

    def as_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.as_dict(), allow_nan=False)


def genuine_of(decision: str) -> bool | None:
    """`Judgement.decision` as `Decision.genuine`; a word that is not known accepts nothing.

    >>> [genuine_of(word) for word in ("genuine", "replay", "undecided")]
    [True, False, None]
    """
    return {"genuine": True, "replay": False}.get(decision)


def suffices(llr: float | None, llr_at_threshold: float | None, margin: float | None) -> bool:
    """Whether the evidence is so far from the threshold that a growing command may be decided.

    `margin` is in natural logarithms of likelihood ratios; None decides nothing early.
    """
    if margin is None or llr is None or llr_at_threshold is None:
        return False
    return abs(llr - llr_at_threshold) >= margin
