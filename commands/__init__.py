"""The jobs of the front door, one file each: a function is a sub-command, its arguments and docstring its help.

They join the rooms and print; how anything is done is in the rooms. What is heavy is imported inside a function,
so that `--help` answers at once. A function returns its exit code (None is 0).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

Files = Annotated[tuple[str, ...], tyro.conf.Positional]
Folder = Annotated[Path, tyro.conf.Positional]
AsJson = Annotated[bool, tyro.conf.arg(name="json")]


def configured_by(place: str) -> Callable[[Callable], Callable]:
    """Mark a command whose command line is a dataclass, "module:Name", imported when the command is called."""

    def mark(command: Callable) -> Callable:
        command.config = place
        return command

    return mark
