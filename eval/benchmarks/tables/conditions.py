"""Conditions of recordings: which of them a corpus has, what a person asks to be held out, and their words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from remasc import Corpus
from remasc.sentences import quoted

# ((condition, (word, ...)), ...) as `Corpus.filter` takes them
Conditions = tuple[tuple[str, tuple[str, ...]], ...]
CONDITIONS = ("environment", "playback_device", "source_recorder", "position", "array")


def of(condition: str, values: tuple[str, ...]) -> Conditions:
    """One condition; none where no value is given."""
    return ((condition, values),) if values else ()


def slug(conditions: Conditions, before: str = "") -> str:
    """Conditions as part of a folder's name; empty for none."""
    found = "-".join(f"{name}={'+'.join(values)}" for name, values in conditions)
    return before + found if found else ""


def words(conditions: Conditions) -> str:
    """Conditions as a person reads them."""
    return ", ".join(f"{name.replace('_', ' ')} {' '.join(values)}" for name, values in conditions)


def present(corpus: Corpus, condition: str) -> tuple[str, ...]:
    """The words of a condition that its trials have."""
    found = {r.conditions()[condition] for r in corpus.trials()} - {"-"}
    return tuple(sorted(found, key=lambda word: (len(word), word) if condition == "position" else (0, word)))


def protocol(corpus: Corpus) -> str:
    """Closed (rooms and devices shared, as in ReMASC) or open, as the recipe of a simulated corpus says."""
    recipe = corpus.card.get("recipe")
    return str(recipe.get("protocol", "open")) if recipe else "closed"


def held_out(asked: Sequence[str], corpus: Corpus) -> Iterator[Conditions]:
    """Each condition to be held out in turn; ValueError where one is unknown or not in the corpus."""
    for word in asked:
        name, _, value = word.partition("=")
        name = name.strip().replace("-", "_")
        if name not in CONDITIONS:
            raise ValueError(
                f"unknown condition {quoted(word)}; expected of {', '.join(CONDITIONS)}, or one with its value, "
                "such as environment=vehicle"
            )
        held = present(corpus, name)
        if value and value not in held:
            raise ValueError(
                f"{corpus.root}: holds no trial with {name} {quoted(value)}; expected of {', '.join(held)}"
            )
        if name == "position" and not value:
            yield from _placements(corpus)
        else:
            yield from (of(name, (one,)) for one in ((value,) if value else held))


def _placements(corpus: Corpus) -> Iterator[Conditions]:
    """The positions of indoor-1 by where the array stands (corner, wall, centre): the first of two digits."""
    held = present(corpus.filter(environment="indoor-1"), "position")
    for placement in "123":
        found = tuple(word for word in held if len(word) == 2 and word[0] == placement)
        if found:
            yield (*of("environment", ("indoor-1",)), *of("position", found))
