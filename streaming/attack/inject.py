"""How pulses reach the microphones: in a stream, block by block, or into a whole recording; sample by sample alike.

A pulse goes through a path (M, L), the impulse responses from where it is played to the microphones, as the
command does; without a path all microphones hear it as it is.
Shapes: M microphones, T samples, t of one block, P of a pulse, R = P + L - 1 of what is heard of it, S candidates.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import signal

from streaming.attack.pulses import Budget, Meter


def heard(pulse: np.ndarray, path: np.ndarray | None, mics: int) -> np.ndarray:
    """What the microphones hear of a pulse (P,): (M, R) float32."""
    if path is None:
        return np.repeat(pulse[None].astype(np.float32), mics, axis=0)
    return signal.fftconvolve(path, pulse[None], axes=-1).astype(np.float32)


class Injector:
    """The streaming injection: `feed` blocks of the command, `play` pulses that begin now or later.

    What was fed is past: a pulse that would begin before is a ValueError. The budget is the injector's own, so
    that no attacker can exceed it. `feed` returns what the microphones hear.

    >>> injector = Injector(1, 16000, Budget(below_db=0, seconds=0.001), level=0.5)
    >>> injector.play(2, np.ones(3))
    True
    >>> injector.feed(np.zeros((1, 4), np.float32)).tolist(), injector.feed(np.zeros((1, 2), np.float32)).tolist()
    ([[0.0, 0.0, 0.5, 0.5]], [[0.5, 0.0]])
    """

    def __init__(self, mics: int, rate: int, budget: Budget, level: float, path: np.ndarray | None = None):
        if path is not None and (path.ndim != 2 or len(path) != mics):
            raise ValueError(
                f"a path of shape {path.shape}; expected ({mics}, taps), one for each microphone"
            )
        self.mics, self.rate, self.budget, self.level, self.path = mics, rate, budget, level, path
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next sample is number 0, and the budget is whole."""
        self.now = 0
        self.meter = Meter(self.budget, self.level, self.rate)
        self.played: list[tuple[int, np.ndarray]] = []
        self._ahead = np.zeros((self.mics, 0), np.float32)  # what is heard from `now` on

    def play(self, start: int, waveform: np.ndarray) -> bool:
        """Play a pulse (P,) from absolute sample `start` on; False where the budget does not hold it."""
        if start < self.now:
            raise ValueError(
                f"a pulse at sample {start}, but {self.now} are past already; what was heard stays as it was"
            )
        pulse = self.meter.admit(start, np.asarray(waveform))
        if pulse is None:
            return False
        self.played.append((start, pulse))
        sound = heard(pulse, self.path, self.mics)
        first = start - self.now
        missing = first + sound.shape[1] - self._ahead.shape[1]
        if missing > 0:
            self._ahead = np.pad(self._ahead, ((0, 0), (0, missing)))
        self._ahead[:, first : first + sound.shape[1]] += sound
        return True

    def play_all(self, starts: np.ndarray, waveforms: np.ndarray) -> None:
        """Play pulses (n,), (n, P) in the order of their starts, as far as the budget goes."""
        for number in np.argsort(starts, kind="stable"):
            self.play(int(starts[number]), waveforms[number])

    def feed(self, block: np.ndarray) -> np.ndarray:
        """(M, t) of the command -> (M, t) with what was played, saturating at full scale."""
        count = block.shape[1]
        out = block.astype(np.float32)
        ready = min(count, self._ahead.shape[1])
        out[:, :ready] += self._ahead[:, :ready]
        self._ahead = self._ahead[:, ready:]
        self.now += count
        return np.clip(out, -1, 1, out=out)


def inject(
    x: np.ndarray,
    starts: np.ndarray,
    waveforms: np.ndarray,
    rate: int,
    budget: Budget,
    level: float,
    path: np.ndarray | None = None,
) -> np.ndarray:
    """The offline injection of pulses (n,), (n, P) into (M, T): what the stream gives, to the last bit."""
    injector = Injector(len(x), rate, budget, level, path)
    injector.play_all(starts, waveforms)
    return injector.feed(x)


def place(x: torch.Tensor, starts: np.ndarray, played: np.ndarray, sound: torch.Tensor) -> torch.Tensor:
    """Candidates in one go: (M, T), starts (S, n), which of them are played (S, n), and what is heard of a pulse
    (M, R) -> (S, M, T). Within rounding what `inject` gives."""
    mics, samples = x.shape
    reach = sound.shape[-1]
    out = x.new_zeros(len(starts), mics, samples + reach)
    ahead = torch.arange(reach, device=x.device)
    for k in range(starts.shape[1]):
        # a pulse that is not played, or begins after the end, lands behind it
        at = np.where(played[:, k] & (starts[:, k] < samples), starts[:, k], samples)
        index = torch.as_tensor(at, device=x.device)[:, None, None] + ahead
        out.scatter_add_(2, index.expand(-1, mics, -1), sound.expand(len(starts), -1, -1))
    return (out[..., :samples] + x).clamp_(-1, 1)
