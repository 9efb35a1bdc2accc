"""A process that listens keeps no memory for each length of a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streaming.memory import KEPT, keep_no_lengths

JUDGES = """
from streaming.memory import keep_no_lengths
keep_no_lengths()
import numpy as np, torch
from detector.score import load
from eval.benchmarks.soak import _own_mib
torch.set_num_threads(1)
judge, g = load("default"), np.random.default_rng(0)
x = 0.05 * g.standard_normal((2, 29 * 16000), dtype=np.float32)
judge.judge(x, 16000)
before = _own_mib()
for seconds in g.uniform(1, 29, 40):
    judge.judge(x[:, : int(seconds * 16000)], 16000)
print(_own_mib() - before)
"""


def test_what_the_user_has_set_stays(monkeypatch):
    first, second = KEPT
    monkeypatch.setenv(first, "77")
    monkeypatch.delenv(second, raising=False)
    keep_no_lengths()
    assert (os.environ[first], os.environ[second]) == ("77", KEPT[second])


@pytest.mark.slow
def test_commands_of_all_lengths_take_the_memory_of_the_longest():
    environment = {name: value for name, value in os.environ.items() if name not in KEPT}
    done = subprocess.run(
        [sys.executable, "-c", JUDGES], cwd=Path(__file__).parent.parent,
        env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(done.stdout) < 48
