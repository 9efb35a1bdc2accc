"""What a cue is: its name, its group, its unit and how its value is said."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cue:
    """`phrase` says a value in words and its unit ("voice at {:.0f} Hz"). `judged` is False for what is told to
    a person but kept from the classifiers, because it says where somebody stands and not what they are."""

    name: str
    group: str
    unit: str
    phrase: str
    judged: bool = True

    def say(self, value: float) -> str:
        return self.phrase.format(value)


def listed(group: str, **cues: tuple) -> tuple[Cue, ...]:
    """Cues of one group from name=(unit, phrase)."""
    return tuple(Cue(name, group, *facts) for name, facts in cues.items())
