"""The live view in a terminal: microphones, direction, speech, scores, decisions with their reasons, delay.

`picture` draws what it is given and knows of no device; `draw` keeps it up to date. Shapes: M microphones.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from remasc.sentences import plain
from streaming.decision import REASONS, Decision
from streaming.notices import Notice

if TYPE_CHECKING:
    from streaming.delivery import Delivery
    from streaming.session import Session, View

FRAMES_PER_SECOND = 10
FLOOR_DB = -80.0  # where a bar begins
BAR, TRACE = 30, 60  # characters
EIGHTHS = " ▏▎▍▌▋▊▉█"
HEIGHTS = "▁▂▃▄▅▆▇█"
LATEST = 5
VERDICTS = {
    True: ("a living person", "bold green"),
    False: ("a playback device", "bold red"),
    None: ("undecided", "yellow"),
}


@dataclass
class Story:
    """What was said lately."""

    decisions: deque[Decision] = field(default_factory=lambda: deque(maxlen=LATEST))
    growing: Decision | None = None
    notices: deque[Notice] = field(default_factory=lambda: deque(maxlen=LATEST))

    def add(self, said: Decision | Notice) -> None:
        if isinstance(said, Notice):
            self.notices.append(said)
        elif said.final:
            self.decisions.append(said)
            self.growing = None
        else:
            self.growing = said


def picture(view: View, story: Story, *, title: str, threshold: float | None) -> RenderableType:
    """One frame."""
    parts: list[RenderableType] = [
        Panel(_microphones(view), title=plain(title), title_align="left"),
        Panel(_trace(view, threshold), title="score, higher is more genuine", title_align="left"),
        Panel(_decisions(story), title="decisions", title_align="left"),
    ]
    if story.notices:
        lines = Text("\n".join(plain(notice.sentence) for notice in story.notices), style="yellow")
        parts.append(Panel(lines, title="notices", title_align="left"))
    return Group(*parts, _footer(view))


def bar(level: float, width: int = BAR) -> str:
    """A level in dB of full scale as a bar; full at 0 dB.

    >>> bar(-80.0, 4), bar(-40.0, 4), bar(0.0, 4)
    ('    ', '██  ', '████')
    """
    share = min(max(1 - level / FLOOR_DB, 0.0), 1.0)
    eighths = round(8 * width * share)
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8] * (eighths % 8 > 0)).ljust(width)


def sparkline(values: Iterable[float], low: float, high: float) -> str:
    """Values as heights.

    >>> sparkline([-9, -1, 0, 1, 9], -1, 1)
    '▁▁▅██'
    """
    reach = max(high - low, 1e-9)
    places = (round((value - low) / reach * (len(HEIGHTS) - 1)) for value in values)
    return "".join(HEIGHTS[min(max(place, 0), len(HEIGHTS) - 1)] for place in places)


def arrow(azimuth: float | None) -> str:
    """Where the talker stands as the array sees it, from its left to its right.

    >>> arrow(None), arrow(0.0), arrow(math.pi / 2), arrow(-math.pi / 4)
    ('?', '↑ in front', '→ 90° right', '↖ 45° left')
    """
    if azimuth is None:
        return "?"
    degrees = round(math.degrees(azimuth))
    pointer = "←↖↑↗→"[min(max(round(degrees / 45) + 2, 0), 4)]
    side = "in front" if abs(degrees) < 5 else f"{abs(degrees)}° {'right' if degrees > 0 else 'left'}"
    return f"{pointer} {side}"


def _microphones(view: View) -> RenderableType:
    if view.levels is None or view.peaks is None:
        return Text("waiting for sound", style="dim")
    table = Table.grid(padding=(0, 1))
    for number, (level, peak) in enumerate(zip(view.levels, view.peaks, strict=True), start=1):
        clipped = peak > -0.1
        style = "red" if clipped else "green" if level > FLOOR_DB else "dim"
        table.add_row(
            f"mic {number}", Text(bar(level), style=style), f"{level:6.1f} dB", f"peak {peak:6.1f}",
            Text("CLIPPED" if clipped else "", style="bold red"),
        )  # fmt: skip
    speech = Text("● speech", style="bold cyan") if view.speaking else Text("○ no speech", style="dim")
    direction = Text(f"   direction of the last command: {arrow(view.azimuth)}")
    return Group(table, Text.assemble(speech, direction))


def _trace(view: View, threshold: float | None) -> RenderableType:
    scores = list(view.scores)[-TRACE:]
    if not scores:
        return Text("no command yet", style="dim")
    values = np.array([score for _, score, _ in scores])
    middle = 0.0 if threshold is None else threshold
    reach = max(float(np.abs(values - middle).max()), 1.0)
    line = Text()
    for value, (_, _, kind) in zip(values, scores, strict=True):
        style = "green" if value >= middle else "red"
        line.append(
            sparkline([value], middle - reach, middle + reach),
            style=f"bold {style}" * (kind == "final") or style,
        )
    line.append(f"  last {values[-1]:+.2f}")
    if threshold is not None:
        line.append(f", a living person from {threshold:+.2f} on", style="dim")
    return line


def _decisions(story: Story) -> RenderableType:
    if not story.decisions and story.growing is None:
        return Text("none yet", style="dim")
    table = Table.grid(padding=(0, 1))
    shown = [*story.decisions, *([story.growing] if story.growing is not None else [])]
    for decision in shown:
        words, style = VERDICTS[decision.genuine]
        if decision.kind == "provisional":
            words, style = "listening", "cyan"
        score = "" if decision.score is None else f"{decision.score:+.2f}"
        because = decision.detail or "; ".join(REASONS.get(word, word) for word in decision.reasons)
        marks = ["decided early"] * (decision.kind == "early") + ["revised"] * decision.revised
        table.add_row(
            f"{decision.start:8.2f} to {decision.end:.2f} s", Text(words, style=style), score,
            Text(plain("; ".join(filter(None, [*marks, because]))), style="dim"),
        )  # fmt: skip
    return table


def _footer(view: View) -> RenderableType:
    latency = "-" if view.latency is None else f"{1e3 * view.latency:.0f} ms"
    return Text(
        f"heard {view.seconds:.1f} s   decision after {latency}   scoring {1e3 * view.judge_seconds:.0f} ms   "
        f"real-time factor {view.real_time_factor:.3f}   waiting {view.waiting}   Ctrl-C ends",
        style="dim",
    )


def draw(session: Session, delivery: Delivery, *, title: str, threshold: float | None) -> Story:
    """Show a session until it ends, on standard output; what was decided stays there."""
    story, console = Story(), Console()
    with Live(
        picture(session.view, story, title=title, threshold=threshold),
        console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False,
    ) as live:  # fmt: skip
        drawn = 0.0
        for said in session:
            if said is not None:
                for notice in delivery.take(said):
                    story.add(notice)
                story.add(said if isinstance(said, Notice) else said.decision)
            now = time.monotonic()
            if now - drawn >= 1 / FRAMES_PER_SECOND:
                live.update(picture(session.view, story, title=title, threshold=threshold), refresh=True)
                drawn = now
        live.update(picture(session.view, story, title=title, threshold=threshold), refresh=True)
    return story
