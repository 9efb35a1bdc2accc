"""What a file said, inside of a sentence for a person: short, on one line, nothing that a terminal obeys."""

from __future__ import annotations

import reprlib
from typing import Any

MOST = 80  # characters of somebody else's text in one of our sentences

_short = reprlib.Repr()
_short.maxlevel, _short.maxlist, _short.maxdict, _short.maxtuple = 2, 3, 3, 3
_short.maxstring, _short.maxlong, _short.maxother = MOST, 30, MOST


def quoted(value: Any) -> str:
    """A value from a file as Python writes it, shortened in its middle.

    >>> quoted("a\\tb"), len(quoted("x" * 5000))
    ("'a\\\\tb'", 80)
    """
    try:
        text = _short.repr(value)
    except ValueError:  # an integer of more digits than Python writes
        text = f"a {type(value).__name__}"
    return text if len(text) <= MOST else f"{text[: MOST // 2]}...{text[-MOST // 2 + 3 :]}"


def reason(error: BaseException) -> str:
    """The words of another library's error, at most two such lengths."""
    text = "".join(c if c.isprintable() else " " for c in str(error))
    text = " ".join(text.split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 2 * MOST else text[: 2 * MOST - 3] + "..."


def counted(number: int, word: str) -> str:
    """
    >>> counted(1, "channel"), counted(2, "channel")
    ('1 channel', '2 channels')
    """
    return f"{number:,} {word}{'s' * (number != 1)}"


def plain(text: str) -> str:
    """A text with what a terminal or a table would obey (line breaks, tabs, control characters) written out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def is_name(text: Any) -> bool:
    """Whether a text may be printed as it is: one line, at most 200 characters, no control characters."""
    return isinstance(text, str) and 0 < len(text) <= 200 and text.isprintable()
