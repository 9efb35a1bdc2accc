"""How fast expert clips are made: batched, memoised evolution against SciPy one at a time.

Both evolve the same clips against the same victim with the same settings and seed, without polishing, so that both
judge the same genomes; the script stops where they do not find the same moments. It prints clips per second, and
their ratio, and the floor: what the victim alone takes for the genomes that were asked, in batches of a generation.
Nothing that leaves the victim as it is can be faster than that, so floor / one at a time bounds the ratio.
Why a ratio is what it is depends on the machine: a batch costs a GPU what one clip costs it, while a CPU that is
busy with one clip gains little more than what lies around the victim.

    python -m eval.benchmarks.expert_generation --clips 3 --generations 10 [--device cuda --together 32]
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from scipy.optimize import differential_evolution

from detector.score import load
from remasc.atomic import write_text
from streaming.attack.environment import Clip, Environment
from streaming.attack.expert import Evolution, Found, experts, genome_steps
from streaming.attack.pulses import Budget
from streaming.attack.victims import DetectorVictim


@dataclass(frozen=True)
class Arguments:
    """Args:
    detector: The victim: a bundled detector's name or a checkpoint folder.
    clips: Clips of noise (what they hold costs the same).
    seconds: Length of a clip.
    mics: Its microphones.
    generations: Of the evolution (published 75).
    individuals: Times the number of genes (published 10).
    pulses: Genes.
    together: Clips that evolve at once in the batched way; more than 1 pays on a GPU.
    device: cpu or cuda.
    out: JSON file for the result.
    """

    detector: str = "default"
    clips: int = 3
    seconds: float = 1.0
    mics: int = 2
    generations: int = 75
    individuals: int = 10
    pulses: int = 5
    together: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    out: Path | None = None


def one_at_a_time(environment: Environment, clip: Clip, evolution: Evolution) -> Found:
    """SciPy as it comes: a genome is a call of the victim."""

    def judge(genome: np.ndarray) -> float:
        return float(environment.odds(clip, genome_steps(genome)[None])[0])

    settings = evolution.settings(environment.steps(clip), environment.pulses)
    found = differential_evolution(judge, vectorized=False, **settings)
    return Found(genome_steps(found.x), float(found.fun), int(found.nfev), int(found.nfev))


def main(arguments: Arguments) -> dict:
    torch.set_grad_enabled(False)
    victim = DetectorVictim(load(arguments.detector, device=arguments.device), threshold=0.0)
    environment = Environment(victim, Budget(below_db=-6, pulses=arguments.pulses))
    evolution = Evolution(arguments.generations, arguments.individuals)
    samples = round(arguments.seconds * victim.sample_rate)
    clips = []
    for number in range(arguments.clips):
        x = np.random.default_rng(number).normal(0, 0.05, (arguments.mics, samples)).astype(np.float32)
        clips.append(Clip(f"noise-{number}", x, 0, 0.05))
    environment.odds(
        clips[0], np.zeros((4, arguments.pulses), np.int64)
    )  # whatever is made at the first call
    slow, slow_seconds = timed(lambda: [one_at_a_time(environment, clip, evolution) for clip in clips])
    fast, fast_seconds = timed(lambda: experts(environment, clips, evolution, arguments.together))
    asked = sum(one.asked for one in fast)
    floor_seconds = floor(environment, clips[0], evolution) * asked
    same = [a.steps.tolist() == b.steps.tolist() for a, b in zip(slow, fast, strict=True)]
    if arguments.device == "cpu" and not all(same):
        raise ValueError("the two ways found different moments, so they did not do the same work; no ratio")
    result = {
        "clips_per_second_one_at_a_time": len(clips) / slow_seconds,
        "clips_per_second_batched": len(clips) / fast_seconds,
        "clips_per_second_floor": len(clips) / floor_seconds,
        "ratio": slow_seconds / fast_seconds,
        "ratio_floor": slow_seconds / floor_seconds,
        "evaluations_per_clip": slow[0].evaluations,
        "of_these_asked_batched": float(np.mean([one.asked for one in fast])),
        "same_moments": f"{sum(same)} of {len(same)}",
        "torch_threads": torch.get_num_threads(),
        "machine": torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU",
        **{name: str(value) for name, value in asdict(arguments).items()},
    }
    if arguments.out:
        write_text(arguments.out, json.dumps(result, indent=1) + "\n")
    return result


def floor(environment: Environment, clip: Clip, evolution: Evolution, repeats: int = 5) -> float:
    """Seconds of the victim for a genome, in batches of a generation: the least of some."""
    population = max(5, evolution.individuals * environment.pulses)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, environment.steps(clip), (population, environment.pulses))
    batch = environment.candidates(clip, rows)
    return min(timed(lambda: [environment.victim.odds(batch, 0)])[1] for _ in range(repeats)) / population


def timed(work) -> tuple[list, float]:
    """What the work gives, and the processor's seconds on a CPU (others may be busy there), else the clock's."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    found = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return found, clock() - start


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Arguments)), indent=1))
