"""The folder of a classifier's training or of a pretraining: one run's, finished, begun, or free."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from detector.rundir import BEGUN, FINISHED, _locked
from detector.runlog import LOG
from detector.state import STATE
from remasc.atomic import write_text

LEARNT = (STATE, f"member-*/{STATE}", f"member-*/{FINISHED}")  # what a run has learnt so far


@contextlib.contextmanager
def claimed(
    out: Path,
    wanted: Mapping[str, Any],
    finished: Callable[[Path], tuple[Mapping[str, Any], dict[str, Any]]],
    *,
    resume: bool,
    beside: Mapping[str, str] | None = None,
) -> Iterator[dict[str, Any] | None]:
    """Take the folder for the run that `wanted` describes; yields the run.json of one that is finished, else None.

    `finished` reads what a finished run was, and its run.json; `beside` are texts that stand beside
    `training.json` from the start. A run that fails before it has learnt anything leaves the folder free.
    ValueError where the folder holds another run, or another process is at work in it.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: a file is in the way; give a folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    wanted = json.loads(json.dumps(wanted))
    with _locked(out):
        if not resume:
            for name in (FINISHED, BEGUN, LOG, *LEARNT):
                for path in out.glob(name):
                    path.unlink()
        if (out / FINISHED).exists():
            there, run = finished(out)
            _refuse_other(out, there, wanted)
            yield run
            return
        begun = {BEGUN: json.dumps(wanted, indent=1) + "\n"} | dict(beside or {})
        if (out / BEGUN).exists():
            _refuse_other(out, read_table(out / BEGUN), wanted)
        else:
            (out / STATE).unlink(missing_ok=True)
            for name, text in reversed(begun.items()):  # training.json is last
                write_text(out / name, text)
        try:
            yield None
        except (ValueError, OSError):
            if not any(path for name in LEARNT for path in out.glob(name)):
                for name in begun:
                    (out / name).unlink(missing_ok=True)
            raise


def read_table(path: Path) -> dict[str, Any]:
    """The table of a JSON file; ValueError, in one sentence, where it holds none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("no table")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable ({error}); start anew with --no-resume") from None
    return values


def _refuse_other(out: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing = [key for key in {**there, **wanted} if there.get(key) != wanted.get(key)]
    if not differing:
        return
    named = {key: f"{key} ({there.get(key)} there, {wanted.get(key)} here)" for key in differing[:3]}
    words = ", ".join("the clips or their splits" if key == "splits" else named[key] for key in named)
    raise ValueError(
        f"{out}: holds a run that differs in {words}; give another --out, the same values to go on, or --no-resume"
    )
