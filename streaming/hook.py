"""A command of the user's that has a say in every decision. Fail closed: it can refuse, and never accept.

The rule: a decision whose `genuine` is True stays so only where the hook ran and exited with 0 in time. Whatever
else happens (another exit code, a signal, no time left, a program that is gone) makes it None with the reason
"hook". A decision that is False or None stays what it is, whatever the hook says.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

from remasc.sentences import quoted, reason
from streaming.decision import Decision

TIMEOUT_SECONDS = 5.0


class Hook:
    """`command` is split as a shell would and run without one, for every decision that is not provisional.

    The decision is one line of JSON on its standard input; what it prints goes to our standard error, so that it
    never mixes with a stream of JSON lines. After `timeout` seconds it is killed, with what it started.
    """

    def __init__(self, command: str, *, timeout: float = TIMEOUT_SECONDS):
        try:
            self.arguments = shlex.split(command)
        except ValueError as error:
            raise ValueError(
                f"--hook {quoted(command)} cannot be split ({reason(error)}); close its quotes"
            ) from None
        if not self.arguments or shutil.which(self.arguments[0]) is None:
            raise ValueError(
                f"--hook {quoted(command)} names no program that can be run; give an executable file, and its "
                "arguments if it takes some"
            )
        if not 0 < timeout <= 600:
            raise ValueError(f"a hook may take {timeout:g} seconds; expected more than 0 and at most 600")
        self.timeout = timeout
        self.failure = ""  # of the last run, in words; empty where it agreed

    def __call__(self, decision: Decision) -> Decision:
        """The decision after the hook was heard."""
        if decision.kind == "provisional":
            return decision
        self.failure = self._run(decision.as_json())
        if not self.failure or decision.genuine is not True:
            return decision
        return replace(
            decision, genuine=None, reasons=(*decision.reasons, "hook"), detail=f"the hook {self.failure}"
        )

    def _run(self, line: str) -> str:
        try:
            process = subprocess.Popen(
                self.arguments,
                stdin=subprocess.PIPE,
                stdout=_standard_error(),
                stderr=_standard_error(),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return f"did not start ({reason(error)})"
        try:
            process.communicate(line.encode() + b"\n", timeout=self.timeout)
        except subprocess.TimeoutExpired:
            _kill(process)
            return f"took more than {self.timeout:g} s and was stopped"
        except OSError as error:
            _kill(process)
            return f"could not be told of the decision ({reason(error)})"
        code = process.returncode
        return "" if code == 0 else f"exited with {code}" if code > 0 else f"was ended by signal {-code}"


def _standard_error() -> int:
    try:
        return sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        return subprocess.DEVNULL


def _kill(process: subprocess.Popen) -> None:
    """The hook and its children, which share its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        process.kill()
    process.wait()
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
