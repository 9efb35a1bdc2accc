"""The attacks by name, from doing nothing to seeing everything, behind one call.

none; random, fixed: moments drawn evenly over the command, or evenly spaced; static: the moments that do most harm
to training clips on average; imitation (published) and listening (ours): in real time, from the past alone; expert:
evolved for this very clip, by score queries; pgd: by gradients, waveforms free.
Only imitation and listening could be run on a command that nobody knows yet, and only for these does the reaction
delay mean anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from remasc.identity import scene_rng
from streaming.attack.environment import Attempt, Clip, Environment
from streaming.attack.expert import Evolution, expert
from streaming.attack.gradient import pgd
from streaming.attack.policy import ChoosyListener, ImitatingListener

ATTACKS = ("none", "random", "fixed", "static", "imitation", "listening", "expert", "pgd")
REAL_TIME = ("imitation", "listening")


@dataclass
class Arsenal:
    """What attacks need besides the environment: moments and networks that were learnt, and how hard to search."""

    evolution: Evolution
    iterations: int = 20
    seed: int = 0
    static_steps: np.ndarray | None = None
    imitating: ImitatingListener | None = None
    choosy: ChoosyListener | None = None
    _known: dict[tuple, np.ndarray] = field(default_factory=dict)

    def attempt(self, name: str, environment: Environment, clip: Clip, draw: int = 0) -> Attempt:
        """One attack on one clip; `draw` numbers repetitions of those that draw numbers."""
        if name not in ATTACKS:
            raise ValueError(f"unknown attack {name!r}; expected one of {', '.join(ATTACKS)}")
        acts: dict[str, Callable[[Environment, Clip, int], Attempt]] = {
            "none": self._none,
            "random": self._random,
            "fixed": self._fixed,
            "static": self._static,
            "imitation": self._imitation,
            "listening": self._listening,
            "expert": self._expert,
            "pgd": self._pgd,
        }
        return acts[name](environment, clip, draw)

    def _none(self, environment: Environment, clip: Clip, draw: int) -> Attempt:
        return environment.play_steps(clip, np.empty(0, np.int64))

    def _random(self, environment: Environment, clip: Clip, draw: int) -> Attempt:
        return environment.play_steps(clip, random_steps(environment, clip, self.seed, draw))

    def _fixed(self, environment: Environment, clip: Clip, draw: int) -> Attempt:
        places = (np.arange(environment.pulses) + 0.5) / max(1, environment.pulses)
        return environment.play_steps(clip, (places * environment.steps(clip)).astype(np.int64))

    def _static(self, environment: Environment, clip: Clip, draw: int) -> Attempt:
        return environment.play_steps(clip, _learnt(self.static_steps, "static"))

    def _imitation(self, environment: Environment, clip: Clip, draw: int) -> Attempt:
        return environment.stream(clip, _learnt(self.imitating, "imitation"), seed=self.seed)

    def _listening(self, environment: Environment, clip: Clip, draw: int) -> Attempt:
        return environment.stream(clip, _learnt(self.choosy, "listening"), seed=self.seed)

    def _expert(self, environment: Environment, clip: Clip, draw: int) -> Attempt:
        return environment.play_steps(clip, self._evolved(environment, clip))

    def _evolved(self, environment: Environment, clip: Clip) -> np.ndarray:
        """The expert's steps; pgd begins at them too, so they are kept."""
        key = (clip.name, environment.budget, environment.shape)
        if key not in self._known:
            self._known[key] = expert(environment, clip, self.evolution).steps
        return self._known[key]

    def _pgd(self, environment: Environment, clip: Clip, draw: int) -> Attempt:
        """The better of two beginnings: where the gradient points, and the evolved moments."""
        tries = []
        for begin in (None, self._evolved(environment, clip) * environment.step):
            starts, waveforms = pgd(
                environment, clip, iterations=self.iterations, seed=self.seed, begin_at=begin
            )
            tried = environment.play(clip, starts, waveforms)
            odds = float(environment.victim.odds(torch.from_numpy(tried.waveform)[None], clip.truth)[0])
            tries.append((odds, tried))
        return min(tries, key=lambda one: one[0])[1]


def random_steps(environment: Environment, clip: Clip, seed: int, draw: int) -> np.ndarray:
    """Start steps that do not overlap, uniform over the clip; drawn from the clip's name."""
    rng = scene_rng("random moments", clip.name, str(seed), str(draw))
    gap = environment.limits().gap
    room = max(1, environment.steps(clip) // gap)
    return np.sort(rng.choice(room, size=min(environment.pulses, room), replace=False)) * gap


def _learnt(value, name: str):
    if value is None:
        raise ValueError(f"the attack {name!r} was not learnt yet; fit it on training clips first")
    return value
