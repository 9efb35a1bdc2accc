"""What a cue is: its name, its group, its unit and how its value is said."""

from __future__ import annotations

import math
from dataclasses import dataclass
from string import Formatter


@dataclass(frozen=True)
class Cue:
    """`phrase` says a value in words and its unit ("voice at {:.0f} Hz"). `judged` is False for what is told to
    a person but kept from the classifiers, because it says where somebody stands and not what they are.
    `checkable` is False for coefficients, which nobody can hear or see alone. `reach` is the frequency in Hz up to
    which a recording must go for the value to mean the same; below, the cue is undefined."""

    name: str
    group: str
    unit: str
    phrase: str
    judged: bool = True
    checkable: bool = True
    reach: float = 0.0

    def say(self, value: float) -> str:
        """The phrase with a value in it; an undefined value is said to be so."""
        if not math.isnan(value):
            return self.phrase.format(value)
        parts = [(text, name is not None) for text, name, _, _ in Formatter().parse(self.phrase)]
        return "".join(text + "?" * here for text, here in parts) + ", undefined"

    def number(self, value: float) -> str:
        """The value alone, written as in the phrase."""
        spec = next(spec for _, name, spec, _ in Formatter().parse(self.phrase) if name is not None)
        return format(value, spec or "")


def listed(group: str, reach: float = 0.0, **cues: tuple[str, str]) -> tuple[Cue, ...]:
    """Cues of one group and one reach from name=(unit, phrase)."""
    return tuple(Cue(name, group, *facts, reach=reach) for name, facts in cues.items())
