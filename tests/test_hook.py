"""A hook can refuse and never accept; whatever it does, it is over in time."""

import json
import sys
import time

import pytest

from streaming.decision import Decision
from streaming.hook import Hook

YES = Decision(0.0, 1.0, 2.0, 2.0, True)
NO = Decision(0.0, 1.0, -2.0, -2.0, False)
UNDECIDED = Decision(0.0, 1.0, None, None, None, ("silent",))


def python(code):
    import shlex

    return f"{shlex.quote(sys.executable)} -S -c {shlex.quote(code)}"


def test_it_reads_the_decision_as_one_line_of_json(tmp_path):
    kept = tmp_path / "heard"
    hook = Hook(python(f"import sys; open({str(kept)!r}, 'a').write(sys.stdin.read())"))
    for said in (YES, NO, UNDECIDED):
        assert hook(said) is said
        assert hook.failure == ""
    assert [json.loads(line) for line in kept.read_text().splitlines()] == [
        said.as_dict() for said in (YES, NO, UNDECIDED)
    ]


REFUSALS = {
    "exit 1": "raise SystemExit(1)",
    "exit 255": "raise SystemExit(255)",
    "a signal": "import os; os.kill(os.getpid(), 9)",
    "an error": "1 / 0",
}


@pytest.mark.parametrize("code", REFUSALS.values(), ids=REFUSALS)
def test_whatever_is_no_exit_0_refuses(code, capfd):
    hook = Hook(python(code))
    said = hook(YES)
    assert said.genuine is None
    assert said.reasons == ("hook",)
    assert hook.failure in said.detail
    assert said.score == YES.score
    assert hook(NO).genuine is False
    assert hook(UNDECIDED).genuine is None
    assert capfd.readouterr().out == ""


def test_no_hook_makes_a_person_of_a_loudspeaker():
    hook = Hook(python("print('genuine')"))
    assert hook(NO) is NO
    assert hook(UNDECIDED) is UNDECIDED


def test_a_hook_that_hangs_is_stopped_with_its_children(tmp_path):
    mark = tmp_path / "alive"
    child = f"import time; time.sleep(2); open({str(mark)!r}, 'w')"
    hook = Hook(
        python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"), timeout=0.5
    )
    began = time.monotonic()
    assert hook(YES).genuine is None
    assert time.monotonic() - began < 1.9
    time.sleep(2.2)
    assert not mark.exists()


def test_a_growing_command_is_none_of_its_business(tmp_path):
    hook = Hook(python(f"open({str(tmp_path / 'ran')!r}, 'w')"))
    hook(Decision(0.0, 1.0, 2.0, 2.0, None, ("growing",), kind="provisional"))
    assert not (tmp_path / "ran").exists()
    hook(Decision(0.0, 1.0, 2.0, 2.0, True, kind="early"))
    assert (tmp_path / "ran").exists()


def test_a_program_that_goes_away_refuses(tmp_path):
    program = tmp_path / "hook.sh"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o700)
    hook = Hook(str(program))
    assert hook(YES).genuine is True
    program.unlink()
    assert hook(YES).genuine is None
    program.write_text("no interpreter")
    program.chmod(0o700)
    assert hook(YES).genuine is None


def test_it_runs_without_a_shell(tmp_path):
    hook = Hook(f"{sys.executable} -S -c 'raise SystemExit(3)' ; true")
    assert hook(YES).genuine is None


@pytest.mark.parametrize("command", ["", "  ", "no-such-program-here --x", "'open", "/etc/passwd"])
def test_what_cannot_run_is_said_at_once(command):
    with pytest.raises(ValueError, match="--hook") as refused:
        Hook(command)
    assert "\n" not in str(refused.value)


def test_a_time_that_is_none_is_refused():
    for seconds in (0, -1, float("nan"), 1e9):
        with pytest.raises(ValueError, match="seconds"):
            Hook("true", timeout=seconds)
