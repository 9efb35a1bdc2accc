"""Sound files as a person names them: files, folders, patterns, a list of them."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from remasc.audio import SUFFIXES, sound_files_below
from remasc.sentences import quoted


def sound_files(patterns: Iterable[str], file_list: Path | None = None) -> list[Path]:
    """Files in the order given; folders are walked, patterns expanded, nothing twice.

    `file_list` is a text file with one path a line; empty lines and those that begin with # are skipped. A
    missing file is kept, to be reported with the others. ValueError where a name stands for nothing.
    """
    found: dict[Path, None] = {}
    for name in [*patterns, *(() if file_list is None else _listed(file_list))]:
        found.update(dict.fromkeys(_meant(name)))
    if not found:
        raise ValueError("nothing to score: give sound files, folders or patterns, or --corpus ROOT")
    return list(found)


def _listed(file_list: Path) -> list[str]:
    try:
        lines = file_list.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{file_list}: not UTF-8 text; expected one path a line") from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _meant(name: str) -> list[Path]:
    """The files that one name stands for."""
    path = Path(name)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise ValueError(f"{quoted(name)}: {error.strerror}; expected a sound file or a folder") from None
    if is_folder:
        inside = sound_files_below(path)
        if not inside:
            raise ValueError(f"{name}: the folder holds no sound files ({', '.join(sorted(SUFFIXES))})")
        return inside
    if exists or not glob.has_magic(name):
        return [path]
    matches = sorted(map(Path, glob.glob(name, recursive=True)))
    if not matches:
        raise ValueError(f"{quoted(name)}: no file matches this pattern")
    return matches
