"""Seeded damage to files, and the law that every reader is held to.

`damaged_bytes`, `damaged_table` and `damaged_tree` make a mutant of a healthy file from a `random.Random`.
`Law.hold` feeds mutants to a reader and counts: "error" is a ValueError or OSError of one printable sentence,
"sound" a result that the test's own check believes, "wrong" is anything else: another exception, more than
`CPU_SECONDS`, an allocation beyond `HEADROOM`, a result that the check refuses. A wrong one fails the test with
the number of its case, and the same number always is the same mutant.
"""

from __future__ import annotations

import copy
import json
import math
import os
import random
import resource
import signal
import struct
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CPU_SECONDS, WALL_SECONDS = 5.0, 120.0
HEADROOM = 2**30  # bytes of address space above what the process has: hundreds of times any file here
LONGEST_SENTENCE = 600
SHOWN = 4
REFUSED = "refused"  # what a check returns of a command that refused with its exit code

INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    16,
    127,
    128,
    255,
    256,
    2**15 - 1,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
FLOATS = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 1e-40, 5e-39, 9.0, 1e38, -3e38)
WORDS = (
    "", " ", "-", "-1", "0", "1", "3", "4", "11", "nan", "NaN", "inf", "-inf", "1e999", "1e308", "-1e308", "5e-324",
    "0.5", "1.5", "0x10", "1_000", "٣", "１", "9" * 20, "9" * 5000, "-0", "\0", "\u2028", "\ufeff", "\u202e", "é",
    "\t", '"', "'", ",", ";", "../../../etc/passwd", "/", "<script>", "A" * 5000, "\x1b[31m", "true", "None",
    "genuine", "replay", "eval", "dev", "\x85", "\x1c", "\r", "\n", "=1+1", "{}", "%s", "\U0001f399",
)  # fmt: skip
ODD = (
    None, True, False, 0, 1, -1, 2, 3, 5, 64, 65, 100_000, 0.5, -0.5, 1.5, 2**31 - 1, 2**31, 2**63, 10**30, 10**400,
    1e308, -1e308, 5e-324, math.inf, -math.inf, math.nan, "", "x", "nan", "-inf", "1", "A" * 5000, "9" * 5000, "\0",
    "a\nb", "\x1b[31m", "\u2028", "é", [], [[]], {}, [1], [1, 2], {"a": 1}, [None], ["x"], {"": {}},
)  # fmt: skip


def damaged_bytes(
    data: bytes, rng: random.Random, *, fields: Sequence[tuple[int, str]] = (), reach: int | None = None
) -> bytes:
    """One to three damages within the first `reach` bytes. `fields` are (offset, struct format) of a header."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        end = max(1, min(len(content), reach or len(content)))
        at, span = rng.randrange(end), rng.randint(1, 40)
        match rng.randrange(10 if fields else 8):
            case 0:
                for _ in range(rng.randint(1, 4)):
                    at = rng.randrange(end)
                    if at < len(content):
                        content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at : at + span] = bytes([rng.choice((0, 255, 127, 128))]) * span
            case 2:
                content[at : at + span] = rng.randbytes(span)
            case 3:
                del content[rng.randrange(len(content) + 1) :]
            case 4:
                del content[at : at + span]
            case 5:
                content[at:at] = rng.randbytes(span) if rng.random() < 0.7 else bytes(span)
            case 6:
                size = rng.randint(1, max(1, len(content) // 4))
                content[at:at] = content[at : at + size]
            case 7:
                number = struct.pack("<f", rng.choice(FLOATS))
                content[at : at + 4] = number if rng.random() < 0.5 else _packed("<I", rng.choice(INTEGERS))
            case _:
                offset, form = rng.choice(fields)
                content[offset : offset + struct.calcsize(form)] = _packed(form, rng.choice(INTEGERS))
    return bytes(content)


def _packed(form: str, number: int) -> bytes:
    size = struct.calcsize(form)
    return (number % 256**size).to_bytes(size, "big" if form[0] == ">" else "little")


def damaged_table(text: str, rng: random.Random, separator: str) -> bytes:
    """One to three damages to the cells, columns, rows and characters of a table, as bytes."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        rows = [line.split(separator) for line in text.split("\n")]
        row = rng.choice(rows)
        cell = rng.randrange(len(row))
        match rng.randrange(12):
            case 0 | 1 | 2:
                row[cell] = rng.choice(WORDS)
            case 3:
                row[cell] += rng.choice(WORDS)
            case 4:
                one, other = rng.randrange(len(row)), rng.randrange(len(row))
                for cells in rows if rng.random() < 0.5 else [row]:
                    if max(one, other) < len(cells):
                        cells[one], cells[other] = cells[other], cells[one]
            case 5:
                del row[cell]
            case 6:
                row.insert(cell, rng.choice(WORDS))
            case 7:
                rows.insert(rng.randrange(len(rows)), list(rng.choice(rows)))
            case 8:
                rows.remove(row)
            case 9:
                rng.shuffle(rows)
            case 10:
                row[cell] = rng.choice("1xé\0") * rng.choice((1000, 200_000))
            case _:
                row[cell] = rng.choice(rng.choice(rows))
        text = "\n".join(separator.join(cells) for cells in rows)
        if not text:
            break
    match rng.randrange(12):
        case 0:
            return damaged_bytes(text.encode(), rng) if text else b""
        case 1:
            return rng.choice(
                (text.replace("\n", "\r\n"), text.replace("\n", "\r"), "\ufeff" + text)
            ).encode()
        case 2:
            return text.encode(rng.choice(("utf-16", "latin-1")), "replace")
    return text.encode()


def damaged_tree(tree: Any, rng: random.Random) -> Any:
    """One to three damages to a tree of dicts and lists: values, keys, types, structure."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            return rng.choice(ODD)
        if len(places) > 20_000:
            break
        parent, key = rng.choice(places)
        value = parent[key]
        match rng.randrange(9):
            case 0 | 1 | 2:
                parent[key] = copy.deepcopy(rng.choice(ODD))
            case 3:
                del parent[key]
            case 4:
                number = type(value) in (int, float) and abs(value) < 1e100
                parent[key] = value * rng.choice((-1, 0, 2, 1000, 10**6, 1e-9)) if number else [value]
            case 5:
                other, name = rng.choice(places)
                if name in other if isinstance(other, dict) else name < len(other):
                    parent[key] = copy.deepcopy(other[name])
            case 6 if isinstance(parent, dict):
                parent[rng.choice((str(key) + "x", "", "unknown", "A" * 5000, "a\nb"))] = value
            case 7 if isinstance(parent, list):
                parent.insert(key, copy.deepcopy(value))
            case _:
                parent[key] = (
                    str(value) if rng.random() < 0.5 else [copy.deepcopy(value)] * rng.choice((2, 5000))
                )
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def json_bytes(tree: Any, rng: random.Random) -> bytes:
    """JSON as written by somebody careless: NaN, 1e999, and now and then damaged or endlessly nested."""
    text = json.dumps(tree, indent=rng.choice((None, 1)), ensure_ascii=rng.random() < 0.5)
    text = text.replace("Infinity", "1e999") if rng.random() < 0.5 else text
    match rng.randrange(12):
        case 0:
            return damaged_bytes(text.encode(), rng)
        case 1:
            return rng.choice(
                (b"", b"null", b"[" * 100_000, b'{"a":' * 9000, b"\xff\xfe", b"1e999", b'"\\ud800"')
            )
    return text.encode()


def toml_bytes(tree: dict[str, Any], rng: random.Random) -> bytes:
    """TOML of a tree (None becomes an empty string), now and then damaged or endlessly nested."""
    if not isinstance(tree, dict):
        tree = {"value": tree}
    text = "".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in tree.items())
    match rng.randrange(12):
        case 0:
            return damaged_bytes(text.encode() or b"x", rng)
        case 1:
            return rng.choice((b"", b"a = " + b"[" * 50_000, b"\xff\xfe", b"a = 1979-05-27", b"a = 1\na = 2"))
    return text.encode()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps("" if value is None else value)


class TooSlow(BaseException):
    """No Exception, so that no reader catches it by accident."""


@contextmanager
def limits() -> Iterator[None]:
    """CPU time, waiting time and address space of one case."""
    signals = (
        (signal.SIGPROF, signal.ITIMER_PROF, CPU_SECONDS),
        (signal.SIGALRM, signal.ITIMER_REAL, WALL_SECONDS),
    )
    before = [signal.signal(number, _too_slow) for number, _, _ in signals]
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = Path("/proc/self/statm")
    if pages.exists():
        now = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + HEADROOM, hard))
    for _, timer, seconds in signals:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for _, timer, _ in signals:
            signal.setitimer(timer, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        for (number, _, _), handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _too_slow(number: int, frame: Any) -> None:
    limit = f"{CPU_SECONDS:g} s of CPU" if number == signal.SIGPROF else f"waiting {WALL_SECONDS:g} s"
    used = resource.getrusage(resource.RUSAGE_SELF)
    raise TooSlow(
        f"no end after {limit} (the process so far: user {used.ru_utime:.1f} s, system {used.ru_stime:.1f} s) at "
        f"{frame.f_code.co_filename}:{frame.f_lineno}"
    )


def is_sentence(text: str) -> bool:
    """What a person may be told: short, on one line, nothing that a terminal would obey, no plain out-of-memory."""
    return 0 < len(text) < LONGEST_SENTENCE and text.isprintable() and "allocate" not in text


class Law:
    """Counts by reader and outcome; `factor` multiplies the number of cases."""

    def __init__(self) -> None:
        self.factor = float(os.environ.get("REPLAYGUARD_FUZZ") or 1)
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)

    def hold(
        self,
        reader: str,
        cases: int,
        prepare: Callable[[random.Random], Any],
        read: Callable[[Any], Any],
        check: Callable[[Any, Any], str | None],
        *,
        names: str = "",
        healthy: Callable[[], Any] | None = None,
    ) -> None:
        """`read(mutant)` for the mutants that `prepare` makes; `check(mutant, result)` asserts that a result is
        sound. A refusal must hold the word `names` (of the file, say). What `healthy()` gives (without it: at
        least one mutant) must be sound, so that nothing passes by refusing everything."""
        wrong, sound = [], 0
        if healthy is not None:
            outcome, fact = self._outcome(healthy(), read, check, names)
            assert outcome == "sound", f"{reader}: the healthy file: {fact}"
            sound = 1
        for number in range(max(1, round(cases * self.factor))):
            mutant = prepare(random.Random(f"{reader} {number}"))
            outcome, fact = self._outcome(mutant, read, check, names)
            self.counts[reader][outcome] += 1
            sound += outcome == "sound"
            if outcome == "wrong":
                wrong.append(f"{reader}, case {number}: {fact}\n    of {_shown(mutant)}")
        shown = "\n".join(wrong[:SHOWN])
        assert not wrong, f"{len(wrong)} wrong of {self.counts[reader].total()}:\n{shown}"
        assert sound, f"{reader}: every mutant was refused, so nothing was shown"

    @staticmethod
    def _outcome(mutant: Any, read: Callable, check: Callable, names: str) -> tuple[str, str]:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # NumPy's: a number went wrong and nobody noticed
            try:
                with limits():
                    result = read(mutant)
            except (ValueError, OSError) as error:
                sentence = str(error)
                if is_sentence(sentence) and names in sentence:
                    return "error", sentence
                return "wrong", f"no sentence for a person: {type(error).__name__}: {_shown(sentence)}"
            except (Exception, TooSlow) as error:
                return "wrong", f"{type(error).__name__}: {_shown(error)}{_last_place(error)}"
        try:
            if check(mutant, result) is REFUSED:
                return "error", ""
        except AssertionError as error:
            return "wrong", f"unsound: {_shown(error)}"
        return "sound", ""

    def table(self) -> str:
        width = max(map(len, self.counts), default=6)
        lines = [f"{'reader':<{width}}  cases  error  sound  wrong"]
        total: Counter[str] = Counter()
        for reader, found in self.counts.items():
            total.update(found)
            lines.append(_row(reader, found, width))
        return "\n".join([*lines, _row("all", total, width)])


def _row(reader: str, found: Counter[str], width: int) -> str:
    return f"{reader:<{width}}  {found.total():5}  {found['error']:5}  {found['sound']:5}  {found['wrong']:5}"


def _last_place(error: BaseException) -> str:
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return f" ({Path(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno})" if last else ""


def _shown(value: Any, most: int = 400) -> str:
    text = repr(value) if not isinstance(value, BaseException) else str(value)
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"
