"""A microphone array without hardware: a PulseAudio server of the test's own, with a null sink whose monitor
PortAudio records, all channels in order. The recipe is in CONTRIBUTING.md."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHANNELS = "front-left,front-right,rear-left,rear-right,front-center,lfe"
PROGRAMS = ("pulseaudio", "pactl", "paplay")
ASOUNDRC = """pcm.!default { type pulse }
pcm.mic6 { type pulse device "mic6.monitor" }
"""


class VirtualArray:
    """A server in a temporary home; `plug` and `unplug` load and unload the array, `play` speaks into it."""

    def __init__(self, home: Path, rate: int):
        self.home, self.rate = home, rate
        self.started: list[subprocess.Popen] = []
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PULSE_", "ALSA_", "DBUS_"))
        }
        self.env = kept | {
            "HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "XDG_CONFIG_HOME": str(home / "config"),
            "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        (home / "run").mkdir(mode=0o700)
        (home / ".asoundrc").write_text(ASOUNDRC)
        script = home / "server.pa"
        script.write_text("load-module module-native-protocol-unix\n")
        self.server = subprocess.Popen(
            ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "-F", str(script)],
            env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 20
        while self._pactl("info").returncode:
            if self.server.poll() is not None or time.monotonic() > end:
                self.close()
                pytest.skip("PulseAudio does not start here")
            time.sleep(0.1)
        self.plug()

    def _pactl(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["pactl", *arguments], env=self.env, capture_output=True, text=True, timeout=20)

    def plug(self) -> None:
        settings = ("sink_name=mic6", "channels=6", f"rate={self.rate}", f"channel_map={CHANNELS}")
        done = self._pactl("load-module", "module-null-sink", *settings)
        assert done.returncode == 0, done.stderr

    def unplug(self) -> None:
        self._pactl("unload-module", "module-null-sink")

    def player(self, path: Path) -> subprocess.Popen:
        return subprocess.Popen(
            ["paplay", "-d", "mic6", "--no-remix", "--latency-msec=1000", f"--channel-map={CHANNELS}", str(path)],
            env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def play(self, path: Path) -> None:
        """And wait until it is over."""
        assert self.player(path).wait(timeout=120) == 0

    def replayguard(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "replayguard", *arguments]
        return subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=180)

    def end_all(self) -> None:
        """What a failed test left running."""
        for process in self.started:
            process.kill()
            process.wait()
        self.started.clear()

    def close(self) -> None:
        self.end_all()
        self.server.terminate()
        try:
            self.server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()
        shutil.rmtree(self.home, ignore_errors=True)


@contextmanager
def virtual_array(rate: int) -> Iterator[VirtualArray]:
    """Or a skip that says what is missing."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no virtual array without {', '.join(missing)} (Debian: pulseaudio pulseaudio-utils)")
    try:
        import sounddevice  # noqa: F401
    except OSError:
        pytest.skip("no virtual array without PortAudio (Debian: libportaudio2)")
    array = VirtualArray(
        Path(tempfile.mkdtemp(prefix="rg-", dir="/tmp")), rate
    )  # a socket's path must be short
    try:
        if "mic6" not in array.replayguard("devices", "--json").stdout:
            pytest.skip("ALSA does not know PulseAudio (Debian: libasound2-plugins)")
        yield array
    finally:
        array.close()


class Live:
    """`replayguard live --json` on the virtual array, and what it said so far."""

    def __init__(self, array: VirtualArray, *arguments: str):
        command = [sys.executable, "-m", "replayguard", "live", "--device", "mic6", "--json", *arguments]
        self.said: list[dict] = []
        self.errors: list[str] = []
        self.process = subprocess.Popen(
            command, env=array.env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        array.started.append(self.process)
        for stream, take in ((self.process.stdout, self._line), (self.process.stderr, self.errors.append)):
            threading.Thread(target=self._read, args=(stream, take), daemon=True).start()
        self.until(lambda: any("listening" in line for line in self.errors), 120)

    @staticmethod
    def _read(stream, take) -> None:
        for line in stream:
            take(line)

    def _line(self, line: str) -> None:
        self.said.append(json.loads(line))

    @property
    def finals(self) -> list[dict]:
        return [line for line in self.said if line["kind"] == "final"]

    @property
    def notices(self) -> list[str]:
        return [line["notice"] for line in self.said if line["kind"] == "notice"]

    def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.said[-5:], self.errors[-5:])
            assert self.process.poll() is None, self.errors
            time.sleep(0.05)

    def freeze(self, seconds: float) -> None:
        """The whole program stands still, its callback as well."""
        os.kill(self.process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(self.process.pid, signal.SIGCONT)

    def end(self) -> int:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=30)
        finally:
            self.process.kill()
