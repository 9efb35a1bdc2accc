"""`--test-run`: proves in seconds that a training will work here, before it is left alone for hours.

A few clips, one epoch: interrupted after a step, resumed, finished, loaded as a detector, asked again.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import torch

from detector.config import TrainConfig
from detector.loading import Examples
from detector.team import Team

FOLDER = "test-run"


def prove(
    config: TrainConfig,
    examples: dict[str, Examples] | None,
    team: Team,
    device: torch.device,
    progress: bool,
) -> object:
    """Run the whole way in `config.out`/test-run, which is removed first; returns the TrainResult."""
    from detector.fitting import Interrupted
    from detector.train import run

    quick = {"epochs": 1, "batch_size": 4}
    small = replace(
        config,
        out=config.out / FOLDER,
        cache=None,
        checkpoint_minutes=0.0,
        resume=True,
        **{name: value for name, value in quick.items() if getattr(config, name) is not None},
    )
    if team.first:
        shutil.rmtree(small.out, ignore_errors=True)
    team.wait()
    try:
        run(small, examples, team, device, progress=False, stop_after=1)
    except Interrupted:
        result = run(small, examples, team, device, progress)
    else:
        raise ValueError("a test run needs more than 4 training clips; give a corpus with more trials")
    again = run(small, examples, team, device, progress=False)
    if not again.already_finished or not math.isfinite(result.dev_eer):
        raise ValueError(f"{small.out}: the test run did not end as a finished run; look into its log.jsonl")
    if team.first:
        from detector.score import load

        load(small.out)
    return result
