"""What an attacker may add to a command, and what it looks like: short pulses within a budget.

Shapes: n pulses, P samples of a pulse, S candidates. Starts are samples from the recording's first, sorted.
Levels: 1 is full scale; an amplitude is stated in dB below the command's level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy import signal

SHAPES = ("noise", "constant", "chirp")
ACTIVE_DB = 25.0  # speech is what lies so near to the loud frames


@dataclass(frozen=True)
class Budget:
    """What may be played on top of a command.

    below_db: the largest |sample| of the perturbation lies so far below the command's level (its active RMS);
        negative = louder. At full scale as "level" the published amplitude of 0.25 is 12.04 dB.
    pulses: at most so many, and no two at once.
    seconds: each at most so long.
    energy: in all at most that of so many seconds of the command at its level; None = whatever the rest allows.
    """

    below_db: float = 0.0
    pulses: int = 5
    seconds: float = 0.01
    energy: float | None = None

    def __post_init__(self) -> None:
        if not -60 <= self.below_db <= 120:
            raise ValueError(f"an amplitude {self.below_db} dB below the command; expected -60 to 120")
        if not 0 <= self.pulses <= 1000 or self.pulses != int(self.pulses):
            raise ValueError(f"{self.pulses} pulses; expected a whole number from 0 to 1000")
        if not 1e-4 <= self.seconds <= 10:
            raise ValueError(f"pulses of {self.seconds} seconds; expected 0.0001 to 10")
        if self.energy is not None and not (self.energy >= 0 and math.isfinite(self.energy)):
            raise ValueError(f"an energy of {self.energy} command seconds; expected 0 or more")

    def amplitude(self, level: float) -> float:
        """The largest |sample| that may be played on top of a command of this level."""
        return level * 10 ** (-self.below_db / 20)

    def samples(self, rate: int) -> int:
        """The longest pulse."""
        return max(1, int(self.seconds * rate + 1e-6))

    def most(self, shape: np.ndarray, rate: int) -> int:
        """How many pulses of `shape` (P,), at full amplitude, the budget pays for. (None? Lower the amplitude.)"""
        if self.energy is None:
            return self.pulses
        one = float(np.square(shape, dtype=np.float64).sum()) * 10 ** (-self.below_db / 10) / rate
        return self.pulses if one <= 0 else min(self.pulses, int(self.energy / one + 1e-9))

    def check(self, starts: np.ndarray, waveforms: np.ndarray, level: float, rate: int) -> None:
        """ValueError where pulses (n,), (n, P) exceed the budget."""
        played = np.square(waveforms, dtype=np.float64).sum() / rate
        ends = starts[:-1] + _lengths(waveforms)[:-1]
        allowed = math.inf if self.energy is None else self.energy * level**2
        facts = {
            f"{len(starts)} pulses": len(starts) <= self.pulses,
            f"pulses of {waveforms.shape[-1]} samples": waveforms.shape[-1] <= self.samples(rate),
            "an amplitude": np.abs(waveforms, dtype=np.float64).max(initial=0)
            <= self.amplitude(level) * (1 + 1e-6),
            f"an energy of {played:.3g}": played <= allowed * (1 + 1e-6) + 1e-30,
            "pulses that overlap": bool((starts[1:] >= ends).all()),
        }
        if broken := [fact for fact, kept in facts.items() if not kept]:
            raise ValueError(f"the perturbation has {broken[0]} beyond its budget {self}; nothing was played")


def _lengths(waveforms: np.ndarray) -> np.ndarray:
    """Samples of each pulse (n,) up to its last one that is not zero."""
    sounding = waveforms != 0
    return np.where(sounding.any(-1), waveforms.shape[-1] - sounding[:, ::-1].argmax(-1), 0)


@dataclass
class Meter:
    """Pays for pulses one after the other; what the budget no longer holds is not played.

    The one place where a budget is enforced, in a stream and offline alike.
    """

    budget: Budget
    level: float
    rate: int
    count: int = 0
    spent: float = 0.0  # command seconds
    free: int = field(default=-(2**62))  # the last pulse ends here

    def admit(self, start: int, waveform: np.ndarray) -> np.ndarray | None:
        """The pulse (P,) float32 as it may be played: cut in length and amplitude; None where it may not."""
        pulse = waveform[: self.budget.samples(self.rate)]
        if not np.isfinite(pulse).all():
            raise ValueError(
                "a pulse holds NaN or infinite samples; expected finite ones, which can be paid for"
            )
        top = np.float32(self.budget.amplitude(self.level))
        pulse = np.clip(pulse, -top, top).astype(np.float32)
        energy = float(np.square(pulse, dtype=np.float64).sum()) / self.rate / max(self.level, 1e-12) ** 2
        poor = self.budget.energy is not None and self.spent + energy > self.budget.energy * (1 + 1e-9)
        if self.count >= self.budget.pulses or start < self.free or poor:
            return None
        self.count, self.spent, self.free = self.count + 1, self.spent + energy, start + len(pulse)
        return pulse


def shape_of(kind: str, seconds: float, rate: int) -> np.ndarray:
    """One pulse (P,) float32 with a peak of 1: "noise" (300 to 6500 Hz, always the same), "constant" (as
    published), or "chirp" (300 to 6500 Hz)."""
    samples = max(1, int(seconds * rate + 1e-6))
    if kind == "constant":
        return np.ones(samples, np.float32)
    high = min(6500.0, 0.45 * rate)
    if kind == "chirp":
        t = np.arange(samples) / rate
        return signal.chirp(t, 300.0, samples / rate, high, phi=-90).astype(np.float32)
    if kind != "noise":
        raise ValueError(f"unknown shape of a pulse {kind!r}; expected one of {', '.join(SHAPES)}")
    noise = np.random.default_rng(0).standard_normal(samples + 256)
    noise = signal.sosfilt(signal.butter(2, [300, high], "bandpass", fs=rate, output="sos"), noise)[256:]
    return (noise / np.abs(noise).max()).astype(np.float32)


def kept(starts: np.ndarray, length: int, most: int) -> np.ndarray:
    """Which of sorted starts (S, n) are played as pulses of `length` samples, (S, n) bool: what `Meter` admits."""
    free = np.full(len(starts), -(2**62))
    count = np.zeros(len(starts), dtype=np.int64)
    played = np.zeros(starts.shape, dtype=bool)
    for k in range(starts.shape[1]):
        played[:, k] = (starts[:, k] >= free) & (count < most)
        free = np.where(played[:, k], starts[:, k] + length, free)
        count += played[:, k]
    return played


def command_level(waveform: np.ndarray, rate: int) -> float:
    """RMS of (M, T) over all channels where somebody speaks: 20 ms frames within `ACTIVE_DB` of the loud ones."""
    size = max(1, rate // 50)
    count = waveform.shape[-1] // size
    if count == 0:
        return float(np.sqrt(np.square(waveform, dtype=np.float64).mean()))
    frames = waveform[:, : count * size].reshape(len(waveform), count, size)
    power = np.square(frames, dtype=np.float64).mean(axis=(0, 2))
    active = power > np.percentile(power, 95) * 10 ** (-ACTIVE_DB / 10)
    return float(np.sqrt(power[active].mean() if active.any() else power.mean()))
