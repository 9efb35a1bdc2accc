"""The attacks by name, from doing nothing to seeing everything, behind one call.

none; random, fixed: moments drawn evenly over the command, or evenly spaced; static: the moments that do most harm
to training clips on average; imitation (published) and listening (ours): in real time, from the past alone; expert:
evolved for this very clip, by score queries; pgd: by gradients, waveforms free, begun anew, evenly spread, and at
the best of the others.
Only imitation and listening could be run on a command that nobody knows yet, and only for these does the reaction
delay mean anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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

    def attempt(
        self,
        name: str,
        environment: Environment,
        clip: Clip,
        draw: int = 0,
        known: Sequence[np.ndarray] = (),
    ) -> Attempt:
        """One attack on one clip; `draw` numbers repetitions of those that draw numbers, `known` are starts
        (samples) that other attacks came to on this clip, for the one that makes use of them."""
        if name not in ATTACKS:
            raise ValueError(f"unknown attack {name!r}; expected one of {', '.join(ATTACKS)}")
        if name == "pgd":
            return self._pgd(environment, clip, known)
        acts: dict[str, Callable[[Environment, Clip, int], Attempt]] = {
            "none": self._none,
            "random": self._random,
            "fixed": self._fixed,
            "static": self._static,
            "imitation": self._imitation,
            "listening": self._listening,
            "expert": self._expert,
        }
        return acts[name](environment, clip, draw)

    def _none(self, environment: Environment, clip: Clip, draw: int) -> Attempt:
        return environment.play_steps(clip, np.empty(0, np.int64))

    def _random(self, environment: Environment, clip: Clip, draw: int) -> Attempt:
        return environment.play_steps(clip, random_steps(environment, clip, self.seed, draw))

    def _fixed(self, environment: Environment, clip: Clip, draw: int) -> Attempt:
        return environment.play_steps(clip, even_steps(environment, clip))

    def _static(self, environment: Environment, clip: Clip, draw: int) -> Attempt:
        return environment.play_steps(clip, _learnt(self.static_steps, "static"))

    def _imitation(self, environment: Environment, clip: Clip, draw: int) -> Attempt:
        return environment.stream(clip, _learnt(self.imitating, "imitation"), seed=self.seed)

    def _listening(self, environment: Environment, clip: Clip, draw: int) -> Attempt:
        return environment.stream(clip, _learnt(self.choosy, "listening"), seed=self.seed)

    def _expert(self, environment: Environment, clip: Clip, draw: int) -> Attempt:
        return environment.play_steps(clip, expert(environment, clip, self.evolution).steps)

    def _pgd(self, environment: Environment, clip: Clip, known: Sequence[np.ndarray]) -> Attempt:
        """The best of: the strongest of the known attempts; descents from there, from where the gradient points and
        from moments spread evenly, which a gradient at rest does not point at: alone, one place gains most.

        Best is what the finished system gets wrong, then what leaves the lowest odds: a descent that drives a
        recording into clipping is refused, however low its odds.
        """

        def odds(tried: Attempt) -> float:
            return float(environment.victim.odds(torch.from_numpy(tried.waveform)[None], clip.truth)[0])

        def descended(begin: np.ndarray | None) -> Attempt:
            found = pgd(environment, clip, iterations=self.iterations, seed=self.seed, begin_at=begin)
            return environment.play(clip, *found)

        tries = [descended(None), descended(even_steps(environment, clip) * environment.step)]
        if known:
            begun = [environment.play(clip, one, environment.waveforms(clip, len(one))) for one in known]
            strongest = min(begun, key=odds)
            tries += [strongest, descended(strongest.starts)]
        return min(
            tries, key=lambda one: (environment.victim.verdict(one.waveform, clip.truth)[1], odds(one))
        )


def even_steps(environment: Environment, clip: Clip) -> np.ndarray:
    """Start steps spread evenly over the clip."""
    places = (np.arange(environment.pulses) + 0.5) / max(1, environment.pulses)
    return (places * environment.steps(clip)).astype(np.int64)


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
