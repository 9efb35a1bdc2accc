"""What a training tells while it runs: a progress bar with the time left, `log.jsonl`, TensorBoard events."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from remasc.atomic import write_text

LOG = "log.jsonl"


class RunLog:
    """One line of `log.jsonl` per epoch, the same as events where TensorBoard is installed, and a bar.

    The file is written whole each time from the run's history, so that a resumed run leaves neither gaps nor
    doubles. Silent (`on=False`) in every process but the first.
    """

    def __init__(self, folder: Path, *, on: bool, bar: bool) -> None:
        self.folder, self.on = folder, on
        self._bar = _Bar() if on and bar else None
        self._events: Any = None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._events:
            self._events.close()

    def say(self, text: str) -> None:
        if self._bar:
            self._bar.say(text)

    def stop(self) -> None:
        """The bar goes; `say` goes on."""
        if self._bar:
            self._bar.stop()

    def start(self, epochs: int, steps_per_epoch: int, done: int) -> None:
        if self.on:
            self._events = _event_writer(self.folder, first_epoch=done // steps_per_epoch + 1)
        if self._bar:
            self._bar.start(epochs, steps_per_epoch, done)

    def step(self, done: int, epoch: int, loss: float) -> None:
        if self._bar:
            self._bar.step(done, f"epoch {epoch} loss {loss:.4f}")

    def epoch(self, history: list[dict[str, Any]]) -> None:
        """The last entry of `history` is new."""
        if not self.on:
            return
        write_text(self.folder / LOG, "".join(json.dumps(row) + "\n" for row in history))
        row = history[-1]
        if self._events:
            for name in ("loss", "learning_rate", "dev_eer", "dev_loss", "seconds"):
                self._events.add_scalar(name, row[name], row["epoch"])
            self._events.flush()
        if self._bar:
            self._bar.result(min(entry["dev_eer"] for entry in history))
            if row["best"]:
                self.say(
                    f"epoch {row['epoch']}: loss {row['loss']:.4f}, dev EER {100 * row['dev_eer']:.2f} % (best)"
                )


class _Bar:
    """Rich's bar on stderr; imported here so that a training without one needs none of it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[eer]}"),
            TimeElapsedColumn(),
            TextColumn("left at most"),  # an early stop comes sooner
            TimeRemainingColumn(),
            console=self._console,
            speed_estimate_period=600,
        )
        self._task: Any = None

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def start(self, epochs: int, steps_per_epoch: int, done: int) -> None:
        total = epochs * steps_per_epoch
        self._task = self._progress.add_task("training", total=total, completed=done, eer="")
        self._progress.start()

    def step(self, done: int, text: str) -> None:
        self._progress.update(self._task, completed=done, description=text)

    def result(self, best: float) -> None:
        self._progress.update(self._task, eer=f"best dev EER {100 * best:.2f} %")

    def stop(self) -> None:
        with contextlib.suppress(Exception):  # a broken terminal must not cost a finished run
            self._progress.stop()


def _event_writer(folder: Path, first_epoch: int) -> Any:
    """TensorBoard's writer, or None where it is not installed. What a killed run wrote past its last state is
    hidden."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=first_epoch)
