"""replayguard: Tells whether a voice command came from a living person or from a playback device.

This is the front door: it finds the sub-command (a function of `commands/`) and runs it. Errors at the border are
one sentence on stderr and exit code 2.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterable

import tyro

from commands import (
    adapt,
    array,
    attack,
    benchmark,
    classify,
    corpus,
    demo,
    devices,
    evaluate,
    export,
    live,
    score,
    serve,
    simulate,
    source,
    train,
)

COMMANDS: dict[str, Callable[..., int | None]] = {
    "demo": demo.demo,
    "score": score.score,
    "source": source.source,
    "source train": source.train,
    "live": live.live,
    "array check": array.check,
    "devices": devices.devices,
    "serve": serve.serve,
    "evaluate": evaluate.evaluate,
    "train": train.train,
    "adapt": adapt.adapt,
    "export": export.export,
    "simulate": simulate.simulate,
    "classify train": classify.train,
    "classify distill": classify.distill,
    "classify pretrain": classify.pretrain,
    "classify adapt": classify.adapt,
    "classify predict": classify.predict,
    "attack": attack.attack,
    **benchmark.COMMANDS,
    "corpus summary": corpus.summary,
    "corpus check": corpus.check,
    "corpus probe": corpus.probe,
}


def main(argv: Iterable[str] | None = None) -> int:
    """Run one sub-command; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that knows no "≥" still gets its line
    try:
        try:
            return _main(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()  # now, and not when the interpreter has nobody left to tell
    except BrokenPipeError:  # the reader of our output (head, less) went away: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] in ("--version", "-V"):
        from importlib.metadata import version

        print(f"replayguard {version('replayguard')}")
        return 0
    for name in (" ".join(arguments[:2]), arguments[0]):
        if name in COMMANDS:
            return _guarded(name, arguments[len(name.split()) :])
    inside = [name for name in COMMANDS if name.startswith(f"{arguments[0]} ")]
    if inside and arguments[1:] in ([], ["-h"], ["--help"]):
        print(_help(inside))
        return 0 if arguments[1:] else 2
    close = difflib.get_close_matches(" ".join(arguments[:2]), COMMANDS, n=1, cutoff=0.5)
    close = close or difflib.get_close_matches(arguments[0], COMMANDS, n=1, cutoff=0.5)
    hint = f"; did you mean `replayguard {close[0]}`?" if close else "."
    said = " ".join(arguments[: 2 if inside else 1])
    print(f"replayguard: unknown command {said!r}{hint} See `replayguard --help`.", file=sys.stderr)
    return 2


def _guarded(name: str, arguments: list[str]) -> int:
    """Run a command; an error at the border becomes one sentence and exit code 2."""
    try:
        return _run(COMMANDS[name], arguments, prog=f"replayguard {name}") or 0
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        if os.environ.get("REPLAYGUARD_DEBUG"):
            raise
        from remasc.sentences import plain

        fact = (
            f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        )
        print(f"replayguard {name}: {plain(str(fact))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"replayguard {name}: stopped; run it again to go on from what was finished", file=sys.stderr)
        return 130


def _run(command: Callable[..., int | None], arguments: list[str], prog: str) -> int | None:
    """Read the command line by the function's own arguments, or by the dataclass that it is `configured_by`."""
    if place := getattr(command, "config", None):
        module, _, name = place.partition(":")
        config = getattr(importlib.import_module(module), name)
        # checked outside of tyro, which would put a box of its own around what the config refuses
        unchecked = type(name, (config,), {"__post_init__": lambda self: None, "__doc__": config.__doc__})
        given = tyro.cli(unchecked, args=arguments, prog=prog, description=command.__doc__)
        return command(config(**vars(given)))
    return tyro.cli(command, args=arguments, prog=prog)


def _help(names: Iterable[str] = COMMANDS) -> str:
    width = max(map(len, names)) + 2
    lines = ["usage: replayguard COMMAND [...]", "", (__doc__ or "").split("\n")[0].partition(": ")[2], ""]
    for name in names:
        lines.append(f"  {name:<{width}}{(COMMANDS[name].__doc__ or '').splitlines()[0]}")
    return "\n".join(
        [*lines, "", "replayguard COMMAND --help explains each; replayguard --version tells the version."]
    )


if __name__ == "__main__":
    sys.exit(main())
