"""Silero's voice activity detector (MIT; the package `silero-vad` brings its weights) behind the same two verbs.

It hears 16 kHz in windows of 512 samples, ours are frames of 20 ms at the stream's rate: a frame is speech when the
last window that was whole by its end was. Shapes: M microphones, n frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd
from typing import Any

import numpy as np

from remasc.resampling import resample

RATE, WINDOW = 16000, 512
LONGEST_FRAME_SECONDS = 0.05
ON, OFF = 0.5, 0.35  # probability at which speech begins, and below which it ends: the package's own defaults
DELAY = 40  # samples at 16 kHz by which resampling looks back, so that it never needs what is to come


@dataclass
class SileroState:
    """Beside the network's own memory."""

    past: np.ndarray  # (frame,) the frame before, at the stream's rate
    waiting: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.float32))  # at 16 kHz
    voiced: bool = False


class SileroVad:
    """Speech after Silero, of the mean over the microphones. The same in whatever blocks it is fed."""

    def __init__(self, sample_rate: int):
        step = sample_rate // gcd(sample_rate, RATE)  # samples that are a whole number at 16 kHz
        self.frame = step * max(1, round(0.02 * sample_rate / step))
        if self.frame > LONGEST_FRAME_SECONDS * sample_rate:
            raise ValueError(
                f"--vad silero cannot take {sample_rate} Hz; record at 16000 or 44100 Hz, or use --vad energy"
            )
        self.sample_rate = sample_rate
        self._network = _network()
        self.reset()

    def reset(self) -> None:
        self.state = SileroState(np.zeros(self.frame, dtype=np.float32))
        self._network.reset_states()

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """(M, n * frame) samples -> (n,) bool."""
        frames = samples.mean(axis=0, dtype=np.float32).reshape(-1, self.frame)
        return np.fromiter((self._step(frame) for frame in frames), dtype=bool, count=len(frames))

    def _step(self, frame: np.ndarray) -> bool:
        state = self.state
        state.waiting = np.concatenate([state.waiting, self._at_16k(frame)])
        while len(state.waiting) >= WINDOW:
            window, state.waiting = state.waiting[:WINDOW], state.waiting[WINDOW:]
            probability = self._probability(window)
            state.voiced = probability >= (OFF if state.voiced else ON)
        return state.voiced

    def _at_16k(self, frame: np.ndarray) -> np.ndarray:
        if self.sample_rate == RATE:
            return frame
        state, size = self.state, self.frame * RATE // self.sample_rate
        both, state.past = np.concatenate([state.past, frame]), frame
        heard = resample(both[None], self.sample_rate, RATE)[0]
        return heard[size - DELAY : 2 * size - DELAY].astype(np.float32)

    def _probability(self, window: np.ndarray) -> float:
        import torch

        with torch.inference_mode():
            return float(self._network(torch.from_numpy(np.ascontiguousarray(window)), RATE))


def _network() -> Any:
    """The package's TorchScript network; it sets torch to one thread when it is imported, which is undone."""
    import torch

    threads = torch.get_num_threads()
    try:
        from silero_vad import load_silero_vad

        return load_silero_vad()
    except ImportError:
        raise ValueError(
            "--vad silero needs the package silero-vad; install it by `pip install 'replayguard[vad]'`"
        ) from None
    finally:
        torch.set_num_threads(threads)
