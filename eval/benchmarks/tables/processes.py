"""A training in several processes by torchrun: the command that a person would give, waited for.

The trainer shares every batch out over its processes (`detector.team`), so a finished run is the same kind of
folder; run.json says how many processes there were.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from detector.config import TrainConfig

LOG = "processes.log"  # what the processes say, kept where they fail
ROOT = Path(__file__).parents[3]


def train(config: TrainConfig, processes: int, threads: int) -> None:
    """Train as `config` says in so many processes of `threads` threads; ValueError with their sentence."""
    command = [sys.executable, "-m", __name__, "--standalone", f"--nproc-per-node={processes}"]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}
    config.out.mkdir(parents=True, exist_ok=True)
    log = config.out / LOG
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(
            [*command, "-m", "replayguard", "train", *command_line(config)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
        ).returncode
    if code:
        # where processes speak at once, one's sentence may stand behind another's in a line
        words = log.read_text(encoding="utf-8", errors="replace")
        said = re.search(r"replayguard train: (.+?)(?=replayguard train: |$)", words, re.MULTILINE)
        raise ValueError(said[1] if said else f"torchrun ended with code {code}; {log} has its words")
    log.unlink()


def command_line(config: TrainConfig) -> list[str]:
    """The arguments of `replayguard train` for which it makes this config."""
    words = []
    for name, value in config.to_dict().items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None:
            words += [f"--{option}", str(value)]
    return words


def main(arguments: list[str]) -> None:
    """torchrun, which ends with the process that asked for it, however that one dies."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    from torch.distributed.run import main as torchrun

    torchrun(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
