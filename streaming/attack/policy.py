"""The real-time attacker's networks: what was heard so far in, what to play next out. All are causal.

`Imitator` is the published network, `Listening` ours. Both hear steps of 10 ms; a step's output depends on it and
on those before alone, and `forward` over a whole command gives what `hear` gives step by step.
Shapes: B clips, N steps, s samples of a step, n pulses, K bands, D hidden.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from streaming.attack.environment import Limits

PUBLISHED_WIDTHS = (16, 32, 48, 64)
TINY = 1e-6


def running_peak(steps: Tensor, before: Tensor | None = None) -> Tensor:
    """The largest |sample| heard until the end of each step: (B, N, s) -> (B, N).

    The published code divides by the peak of the whole second, which a real-time attacker cannot know.
    """
    peaks = steps.abs().amax(dim=-1)
    if before is not None:
        peaks = torch.cat([before[:, None], peaks], dim=1)
    peaks = peaks.cummax(dim=1).values
    return peaks if before is None else peaks[:, 1:]


class Imitator(nn.Module):
    """The published policy: per step four convolutions of 40 taps (16 to 64 filters; ReLU; pooled by 2), two LSTM
    layers of 256, 256 and 128 units, and the start times of `pulses` pulses, in hundreds of steps.

    Left open there: padding (here: the same length) and what the 256 between LSTM and 128 are (a ReLU layer).
    """

    def __init__(self, step: int = 160, pulses: int = 5):
        super().__init__()
        self.arguments = {"step": step, "pulses": pulses}
        widths = (1, *PUBLISHED_WIDTHS)
        self.convolutions = nn.ModuleList(nn.Conv1d(one, other, 40) for one, other in pairwise(widths))
        self.lstm = nn.LSTM(widths[-1] * (step // 16), 256, num_layers=2, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, pulses)
        )

    def forward(self, steps: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """(B, N, s), state -> times (B, N, n) in steps, state."""
        peak, memory = (None, None) if state is None else state
        peaks = running_peak(steps, peak)
        x = (steps / peaks.clamp(min=TINY)[..., None]).flatten(0, 1)[:, None]
        for convolution in self.convolutions:
            x = nn.functional.max_pool1d(torch.relu(convolution(nn.functional.pad(x, (19, 20)))), 2)
        hidden, memory = self.lstm(x.flatten(1).reshape(*steps.shape[:2], -1), memory)
        return 100 * self.head(hidden), (peaks[:, -1], memory)


class Listening(nn.Module):
    """Ours: log band levels against the loudest so far, a GRU, and how much a pulse would change the victim's odds
    if it were played after the delay (negative = towards the attacker's aim)."""

    bands = 24

    def __init__(self, step: int = 160, hidden: int = 96):
        super().__init__()
        self.arguments = {"step": step, "hidden": hidden}
        edges = torch.tensor(np.unique(np.geomspace(1, step, self.bands + 1).round().astype(int)))
        bins = torch.arange(step + 1)
        filters = ((bins >= edges[:-1, None]) & (bins < edges[1:, None])).float()
        self.register_buffer("filters", filters / filters.sum(1, keepdim=True), persistent=False)
        self.register_buffer("window", torch.hann_window(2 * step), persistent=False)
        self.inputs = nn.Linear(len(filters) + 2, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True)
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        # what is said is `offset + slope * what was learnt`: set on clips that nothing was learnt from
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("slope", torch.ones(()))

    def forward(self, steps: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """(B, N, s), state -> effects (B, N), state."""
        if state is None:
            state = (torch.zeros_like(steps[:, 0]), steps.new_full((len(steps),), TINY), 0, None)
        last, loudest, count, memory = state
        pairs = torch.cat([torch.cat([last[:, None], steps[:, :-1]], dim=1), steps], dim=2)
        power = torch.fft.rfft(pairs * self.window).abs().square() @ self.filters.T
        total = torch.cat([loudest[:, None], power.mean(-1)], dim=1).cummax(dim=1).values
        levels = torch.log(power / total[:, 1:, None] + 1e-7) / 4 + 1.5
        place = torch.arange(count, count + steps.shape[1], device=steps.device) / 300
        rise = torch.log(total[:, 1:] / total[:, :-1]).clamp(max=5)
        extra = torch.stack([place.expand(len(steps), -1), rise], dim=-1)
        hidden, memory = self.gru(torch.relu(self.inputs(torch.cat([levels, extra], dim=-1))), memory)
        effects = self.offset + self.slope * self.head(hidden)[..., 0]
        return effects, (steps[:, -1], total[:, -1], count + steps.shape[1], memory)


def as_steps(mono: np.ndarray, step: int) -> Tensor:
    """(T,) -> whole steps (1, N, s)."""
    count = len(mono) // step
    return torch.from_numpy(np.ascontiguousarray(mono[: count * step], dtype=np.float32)).reshape(
        1, count, step
    )


class ImitatingListener:
    """The published walk: when a pulse's predicted time has come, it is played, once; one pulse at a time.

    A pulse decided upon now is heard after the delay, so the prediction is compared with that moment.
    """

    def __init__(self, network: Imitator):
        self.network = network.eval()

    def begin(self, limits: Limits) -> None:
        self.limits, self.state, self.now, self.busy = limits, None, 0, 0
        self.left = list(range(min(limits.pulses, self.network.arguments["pulses"])))

    @torch.inference_mode()
    def hear(self, step: np.ndarray) -> bool:
        times, self.state = self.network(torch.from_numpy(step)[None, None], self.state)
        self.now += 1
        due = [k for k in self.left if float(times[0, 0, k]) <= self.now + self.limits.delay]
        if not due or self.now < self.busy:
            return False
        self.left.remove(min(due, key=lambda k: float(times[0, 0, k])))
        self.busy = self.now + self.limits.gap
        return True


class ChoosyListener:
    """Plays where the effect that `Listening` expects beats what waiting is worth (see `learning.worth`), and then
    pauses for at least so many steps."""

    def __init__(self, network: Listening, bar: np.ndarray, pause: int = 0):
        self.network, self.bar, self.pause = network.eval(), bar, pause  # bar (pulses + 1, N): least gain

    def begin(self, limits: Limits) -> None:
        self.limits, self.state, self.now, self.busy = limits, None, 0, 0
        self.left = min(limits.pulses, len(self.bar) - 1)

    @torch.inference_mode()
    def hear(self, step: np.ndarray) -> bool:
        effects, self.state = self.network(torch.from_numpy(step)[None, None], self.state)
        place = min(self.now, self.bar.shape[1] - 1)
        self.now += 1
        if self.left == 0 or self.now < self.busy or -float(effects[0, 0]) < self.bar[self.left, place]:
            return False
        self.left -= 1
        self.busy = self.now + max(self.limits.gap, self.pause)
        return True
