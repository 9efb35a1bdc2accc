"""What the live view shows is what was said; it draws any state and any text of a stranger."""

import io
import math
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from remasc.audio import write_wav
from streaming.dashboard import Story, arrow, bar, picture, sparkline
from streaming.decision import Decision
from streaming.notices import Notice
from streaming.session import View

ROOT = Path(__file__).parent.parent


def text(view, story, width=100, threshold=1.5):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(picture(view, story, title="replayguard live: mic", threshold=threshold))
    return console.file.getvalue()


def busy():
    view = View(seconds=12.5, speaking=True, latency=0.123, judge_seconds=0.08, azimuth=-0.5, waiting=1)
    view.levels, view.peaks = np.array([-20.0, -40.0, -120.0]), np.array([-6.0, 0.0, -120.0])
    view.listen_busy, view.judge_busy = 0.5, 0.75
    view.scores.extend([(1.0, -2.0, "provisional"), (2.0, 3.0, "final")])
    story = Story()
    story.add(Decision(1.0, 2.0, 3.0, 2.9, True))
    story.add(Decision(4.0, 5.0, -3.0, -2.9, False, revised=True))
    story.add(Decision(6.0, 7.0, None, None, None, ("interrupted",)))
    story.add(Decision(8.0, 9.0, 0.5, 0.4, None, ("growing",), kind="provisional"))
    story.add(Notice("clipping", at=3.0, channels=(2,)))
    return view, story


def test_all_that_matters_is_shown():
    shown = text(*busy())
    for words in (
        "mic 1", "mic 3", "-20.0 dB", "CLIPPED", "● speech", "29° left", "a living person", "a playback device",
        "revised", "samples were lost", "listening", "the command is not over yet", "+3.00", "123 ms", "80 ms",
        "real-time factor 0.100", "microphone 2", "from +1.50 on", "12.5 s",
    ):  # fmt: skip
        assert words in shown, words


@pytest.mark.parametrize("width", [40, 80, 200])
def test_nothing_runs_over_the_edge(width):
    assert all(len(line) <= width for line in text(*busy(), width=width).splitlines())


def test_before_anything_is_heard():
    shown = text(View(), Story(), threshold=None)
    assert "waiting for sound" in shown
    assert "no command yet" in shown


def test_no_text_of_a_stranger_moves_the_cursor():
    story = Story()
    story.add(Notice("waiting", "device\x1b[2J\nname [bold]x[/bold] [/]"))
    shown = text(View(), story)
    assert "\x1b" not in shown
    assert "[bold]x[/bold] [/]" in shown


def test_the_last_word_ends_the_growing_one():
    story = Story()
    story.add(Decision(8.0, 9.0, 0.5, 0.4, None, ("growing",), kind="provisional"))
    story.add(Decision(8.0, 9.5, 0.5, 0.4, False))
    assert story.growing is None
    assert len(story.decisions) == 1


@pytest.mark.parametrize("level", [-math.inf, -200.0, -80.0, -33.3, 0.0, 20.0])
def test_a_bar_has_its_width(level):
    assert len(bar(level, 10)) == 10
    assert bar(level, 10).count("█") <= bar(0.0, 10).count("█") == 10


def test_heights_are_in_order():
    assert sparkline([0, 1, 2, 3], 0, 3) == "".join(sorted(sparkline([0, 1, 2, 3], 0, 3)))
    assert len(sparkline([5, 5], 5, 5)) == 2


def test_directions_are_as_the_array_sees_them():
    assert arrow(-1.5).startswith("←")
    assert "right" in arrow(0.7)


@pytest.mark.slow
def test_it_is_drawn_where_standard_output_is_a_terminal(tmp_path):
    """In a pseudo-terminal: the view; in a pipe: plain lines."""
    from tests.test_online import RATE, bursts
    from tests.test_score import checkpoint

    write_wav(tmp_path / "a.wav", bursts(1.2), RATE, "FLOAT")
    name = str(checkpoint(tmp_path / "detector"))
    command = [sys.executable, "-m", "replayguard", "live", "--from", str(tmp_path / "a.wav"), "--real-time"]
    command += ["--array", "D1", "--detector", name]
    ours, theirs = pty.openpty()
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=subprocess.PIPE, env=env)
    os.close(theirs)
    shown, end = b"", time.monotonic() + 120
    while time.monotonic() < end:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other side was closed
            break
    assert process.wait(timeout=30) in (0, 1)
    for words in ("mic 2", "real-time factor", "decisions", "no speech"):
        assert words in shown.decode(), words
    plain = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert len(plain.stdout.splitlines()) == 1
    assert "╭" not in plain.stdout
    assert "\x1b" not in plain.stdout
