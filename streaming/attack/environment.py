"""Where an attack happens: a command that streams by, an attacker who hears the past, a victim who judges.

Time goes in steps of 10 ms. Once a step is over the attacker has heard it, and may play a pulse that begins
`delay` later at the earliest; what was heard before cannot be changed any more.
Shapes: M microphones, T samples, N steps, S candidates, n pulses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from remasc import Recording, read_audio
from remasc.audio import resample
from streaming.attack.inject import Injector, heard, place
from streaming.attack.pulses import Budget, command_level, kept, shape_of
from streaming.attack.victims import Victim

STEP_SECONDS = 0.01


@dataclass(frozen=True, eq=False)
class Clip:
    """A command before a victim. `waveform` (M, T) at the victim's rate; `truth` the true class's number.

    `level` is the command's level at the microphones (1 = full scale), known beforehand as to anybody who plays
    it at a volume of their choice. `path` (M, L): see `inject`; None = heard as it is. `speaker` is who is heard,
    "" where nobody knows: clips of one speaker succeed and fail together, so intervals draw speakers.
    """

    name: str
    waveform: np.ndarray
    truth: int
    level: float
    path: np.ndarray | None = None
    speaker: str = ""


class Attempt(NamedTuple):
    """What was played (starts (n,) samples, waveforms (n, P)) and what the victim's microphones heard (M, T)."""

    starts: np.ndarray
    waveforms: np.ndarray
    waveform: np.ndarray


class Limits(NamedTuple):
    """What a listening attacker knows before it hears anything: so many pulses, each `gap` steps long, the next one
    heard `delay` steps (rounded up) after it is decided upon; `seed` for what it draws itself."""

    pulses: int
    gap: int
    delay: int
    seed: int


class Listener(Protocol):
    """A real-time attacker: hears step after step, and says after each whether to play a pulse."""

    def begin(self, limits: Limits) -> None: ...

    def hear(self, step: np.ndarray) -> bool:
        """(samples,) of the command, mean over the microphones -> play a pulse after the delay?"""


def check_delay(seconds: float) -> None:
    if not 0 <= seconds <= 60:
        raise ValueError(f"a reaction delay of {seconds} seconds; expected 0 to 60")


class Environment:
    """A victim, a budget, a reaction delay in seconds, and the shape of a pulse.

    Silence of its own: the attacker's pulses are not in what it hears back (it knows what it plays).
    """

    def __init__(
        self, victim: Victim, budget: Budget | None = None, *, delay: float = 0.0, shape: str = "noise"
    ):
        check_delay(delay)
        self.victim, self.budget, self.delay, self.shape = victim, budget or Budget(), delay, shape
        self.rate = victim.sample_rate
        self.step = round(STEP_SECONDS * self.rate)
        self.delay_samples = int(np.ceil(delay * self.rate - 1e-6))
        self.pulse = shape_of(shape, self.budget.seconds, self.rate)
        self.pulses = self.budget.most(self.pulse, self.rate)

    def limits(self, seed: int = 0) -> Limits:
        gap = -(-len(self.pulse) // self.step)
        return Limits(self.pulses, gap, -(-self.delay_samples // self.step), seed)

    def steps(self, clip: Clip) -> int:
        """Whole steps in a clip, at least one."""
        return max(1, clip.waveform.shape[1] // self.step)

    def waveforms(self, clip: Clip, count: int) -> np.ndarray:
        """`count` pulses (n, P) at the full amplitude that the budget allows."""
        pulse = self.pulse * np.float32(self.budget.amplitude(clip.level))
        return np.repeat(pulse[None], count, axis=0)

    def candidates(self, clip: Clip, steps: np.ndarray) -> torch.Tensor:
        """What would be heard: start steps (S, n) -> (S, M, T)."""
        starts = np.sort(np.asarray(steps, dtype=np.int64), axis=1) * self.step
        sound = heard(self.waveforms(clip, 1)[0], clip.path, len(clip.waveform))
        played = kept(starts, len(self.pulse), self.pulses)
        device = self.victim.device
        x = torch.from_numpy(np.ascontiguousarray(clip.waveform)).to(device)
        return place(x, starts, played, torch.from_numpy(sound).to(device))

    def odds(self, clip: Clip, steps: np.ndarray) -> np.ndarray:
        """The victim's log-odds of the truth (S,) float64 for pulses at start steps (S, n)."""
        return self.victim.odds(self.candidates(clip, steps), clip.truth).double().cpu().numpy()

    def clean_odds(self, clip: Clip) -> float:
        x = torch.from_numpy(np.ascontiguousarray(clip.waveform))[None]
        return float(self.victim.odds(x.to(self.victim.device), clip.truth)[0])

    def play(self, clip: Clip, starts: np.ndarray, waveforms: np.ndarray) -> Attempt:
        """Offline: play what was planned, as far as the budget goes; the rest is no part of the attempt."""
        injector = self.injector(clip)
        injector.play_all(starts, waveforms)
        return self.attempt(injector, injector.feed(clip.waveform))

    def injector(self, clip: Clip) -> Injector:
        return Injector(len(clip.waveform), self.rate, self.budget, clip.level, clip.path)

    def attempt(self, injector: Injector, waveform: np.ndarray) -> Attempt:
        """What an injector played, beside what was heard (M, T)."""
        starts = np.array([start for start, _ in injector.played], dtype=np.int64)
        pulses = [pulse for _, pulse in injector.played]
        return Attempt(starts, np.array(pulses, np.float32).reshape(len(pulses), len(self.pulse)), waveform)

    def play_steps(self, clip: Clip, steps: np.ndarray) -> Attempt:
        """Offline: pulses at start steps (n,)."""
        return self.play(clip, np.sort(np.asarray(steps)) * self.step, self.waveforms(clip, len(steps)))

    def live(self, clip: Clip, listener: Listener, seed: int = 0) -> Live:
        """The stream of a clip with an attacker who listens."""
        return Live(self, clip, listener, seed)

    def stream(self, clip: Clip, listener: Listener, *, seed: int = 0, block: int | None = None) -> Attempt:
        """Run a clip through `live` in blocks of `block` samples (default: all at once)."""
        live = self.live(clip, listener, seed)
        size = block or clip.waveform.shape[1]
        parts = [live.feed(clip.waveform[:, i : i + size]) for i in range(0, clip.waveform.shape[1], size)]
        return self.attempt(live.injector, np.concatenate(parts, axis=1))


class Live:
    """One command as it streams by. `feed` takes blocks of any size and returns what the microphones hear."""

    def __init__(self, environment: Environment, clip: Clip, listener: Listener, seed: int):
        self.environment, self.listener = environment, listener
        self.injector = environment.injector(clip)
        self._pulse = environment.waveforms(clip, 1)[0]
        self._step = np.zeros(environment.step, np.float32)
        self._filled = 0
        listener.begin(environment.limits(seed))

    def feed(self, block: np.ndarray) -> np.ndarray:
        out, taken = [block[:, :0].astype(np.float32)], 0
        while taken < block.shape[1]:
            part = block[:, taken : taken + len(self._step) - self._filled]
            out.append(self.injector.feed(part))
            self._step[self._filled : self._filled + part.shape[1]] = part.mean(axis=0)
            self._filled += part.shape[1]
            taken += part.shape[1]
            if self._filled == len(self._step):
                self._filled = 0
                if self.listener.hear(self._step.copy()):
                    self.injector.play(self.injector.now + self.environment.delay_samples, self._pulse)
        return np.concatenate(out, axis=1)


def clip_of(
    recording: Recording, rate: int, *, path: np.ndarray | None = None, seconds: float = 30.0
) -> Clip:
    """A recording of a corpus as a clip at the victim's rate; genuine = 1."""
    waveform, own_rate = read_audio(recording.path, seconds=seconds)
    waveform = np.ascontiguousarray(resample(waveform, own_rate, rate), dtype=np.float32)
    level = command_level(waveform, rate)
    return Clip(recording.trial_id, waveform, int(recording.label), level, path, str(recording.speaker))
