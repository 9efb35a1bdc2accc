"""The progress of a training on stderr; silent unless wanted."""

from __future__ import annotations

import contextlib
from typing import Any


class Progress:
    """A bar of steps with the time left, and a line for each better epoch. Rich is imported when it is wanted."""

    def __init__(self, on: bool, name: str = "training") -> None:
        self.name, self._bar, self._task = name, None, None
        self._best = -1.0
        if on:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._console = Console(stderr=True, highlight=False)
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Bar(*columns, TimeRemainingColumn(), console=self._console, speed_estimate_period=600)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, total: int, done: int = 0) -> None:
        if self._bar:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(self.name, total=total, completed=done)
            self._bar.start()

    def step(self, done: int, epoch: int | None = None, loss: float | None = None) -> None:
        if self._bar and self._task is not None:
            words = self.name if epoch is None else f"{self.name}: epoch {epoch} loss {loss:.4f}"
            self._bar.update(self._task, completed=done, description=words)

    def epoch(self, row: dict[str, Any], epochs: int) -> None:
        accuracy = row.get("dev_accuracy")
        if accuracy is not None and accuracy > self._best:
            self._best = accuracy
            self.say(
                f"epoch {row['epoch']} of {epochs}: loss {row['loss']:.4f}, dev accuracy {100 * accuracy:.1f} %"
            )

    def say(self, text: str) -> None:
        if self._bar:
            self._console.print(text, markup=False, soft_wrap=True)

    def stop(self) -> None:
        if self._bar:
            with contextlib.suppress(Exception):  # a broken terminal must not cost a finished run
                self._bar.stop()
