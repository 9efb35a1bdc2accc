"""The white-box expert: it hears the whole command and follows the victim's gradient, moments and waveforms free.

Projected gradient descent (Madry et al., arXiv 1706.06083) on the pulses themselves, averaged over the victim's own
randomness (expectation over transformation, Athalye et al., arXiv 1707.07397). Where a victim passes no gradients,
they are estimated from its scores. It is a campaign's upper bound because it also begins at whatever served
the other attacks best (`baselines`), not because a descent never ends in a poor minimum.
Shapes: M microphones, T samples, n pulses, P samples of a pulse, L taps of the path.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from streaming.attack.environment import Clip, Environment
from streaming.attack.pulses import kept


def pgd(
    environment: Environment,
    clip: Clip,
    *,
    iterations: int = 20,
    seed: int = 0,
    begin_at: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Starts (n,) in samples and waveforms (n, P) that drive the odds of the truth down.

    In the first third of the iterations the moments are chosen anew each time, where the gradient promises most;
    from `begin_at` (samples) on, the pulses there are kept, as they were, to begin with, and only such as these
    leave over are placed by the gradient. Of all iterations the best is returned, the beginning among them. (A
    victim that draws numbers answers with the mean of its own `draws`.)
    """
    device = environment.victim.device
    length, samples = len(environment.pulse), clip.waveform.shape[1]
    x = torch.from_numpy(np.ascontiguousarray(clip.waveform)).to(device)
    path = None if clip.path is None else torch.from_numpy(clip.path).to(device)
    top = environment.budget.amplitude(clip.level)
    rng = np.random.default_rng(seed)
    fixed = np.empty(0, np.int64) if begin_at is None else _admitted(begin_at, environment, samples)
    starts, played = fixed, np.zeros(samples, np.float32)
    for start in starts:
        part = played[start : start + length]
        part[:] = environment.waveforms(clip, 1)[0][: len(part)]
    best, best_odds = (np.empty(0, np.int64), np.empty((0, length), np.float32)), np.inf
    inside: np.ndarray | None = None
    for iteration in range(iterations):
        choosing = iteration == 0 or (begin_at is None and iteration <= iterations // 3)
        value, slope = _slope(environment, clip, x, path, played, rng, None if choosing else inside)
        if value < best_odds:
            best, best_odds = (starts, _cut_out(played, starts, length)), value
        if choosing:
            starts = _promising(slope, environment, length, fixed)
        inside = np.zeros(samples, bool)
        for start in starts:
            inside[start : start + length] = True
        rate = np.float32(top * (1.0 if iteration == 0 else 0.5 if iteration < iterations // 2 else 0.15))
        played = np.clip(played - rate * np.sign(slope), -top, top) * inside
        played = _affordable(played, environment, clip.level)
    if len(starts):
        value = _odds(environment, clip, x, path, played)
        if value < best_odds:
            best = (starts, _cut_out(played, starts, length))
    return best


def _admitted(starts: np.ndarray, environment: Environment, samples: int) -> np.ndarray:
    """Of planned starts (n,) those that are played at all, and within the clip."""
    starts = np.sort(np.asarray(starts, dtype=np.int64))
    played = kept(starts[None], len(environment.pulse), environment.pulses)[0]
    return starts[played & (starts < samples)]


def _odds(environment: Environment, clip: Clip, x: Tensor, path: Tensor | None, played: np.ndarray) -> float:
    heard = (x + through(torch.from_numpy(played).to(x.device), path)).clamp(-1, 1)
    return float(environment.victim.odds(heard[None], clip.truth)[0])


def _slope(
    environment: Environment,
    clip: Clip,
    x: Tensor,
    path: Tensor | None,
    played: np.ndarray,
    rng: np.random.Generator,
    inside: np.ndarray | None,
) -> tuple[float, np.ndarray]:
    """The odds and their gradient (T,) by what is played; `inside` (T,) bool is all that will be asked of it."""
    sound = torch.from_numpy(played).to(x.device).requires_grad_()
    heard = (x + through(sound, path)).clamp(-1, 1)
    try:
        odds = environment.victim.gradient_odds(heard[None], clip.truth)
    except ValueError:
        return _estimated(environment, clip, x, path, played, rng, inside)
    (gradient,) = torch.autograd.grad(odds[0], sound)
    return float(odds[0].detach()), torch.nan_to_num(gradient).cpu().numpy()


def _estimated(
    environment: Environment,
    clip: Clip,
    x: Tensor,
    path: Tensor | None,
    played: np.ndarray,
    rng: np.random.Generator,
    inside: np.ndarray | None,
    pairs: int = 16,
) -> tuple[float, np.ndarray]:
    """The gradient from scores alone, by pairs of steps along random directions (evolution strategies)."""
    step = 0.3 * environment.budget.amplitude(clip.level)
    directions = rng.standard_normal((pairs, len(played))).astype(np.float32)
    if inside is not None:  # with fewer directions to tell apart the estimate is better
        directions *= inside
    around = np.concatenate([played + step * directions, played - step * directions, played[None]])
    with torch.no_grad():
        heard = torch.stack(
            [(x + through(torch.from_numpy(p).to(x.device), path)).clamp(-1, 1) for p in around]
        )
        odds = environment.victim.odds(heard, clip.truth).double().cpu().numpy()
    weights = (odds[:pairs] - odds[pairs:-1]) / (2 * step * pairs)
    return float(odds[-1]), (weights @ directions).astype(np.float32)


def through(played: Tensor, path: Tensor | None) -> Tensor:
    """What the microphones hear (M, T) or (1, T) of what is played (T,)."""
    if path is None:
        return played[None]
    samples = len(played)
    size = 1 << (samples + path.shape[1] - 1).bit_length()
    return torch.fft.irfft(torch.fft.rfft(path, size) * torch.fft.rfft(played, size), size)[:, :samples]


def _promising(slope: np.ndarray, environment: Environment, length: int, fixed: np.ndarray) -> np.ndarray:
    """Start samples of pulses: the `fixed` ones, and more on the grid of steps, none overlapping, whose windows
    hold most of the gradient."""
    grid = np.arange(0, max(1, len(slope) - length), environment.step)
    summed = np.concatenate([[0.0], np.cumsum(np.abs(slope, dtype=np.float64))])
    promise = summed[np.minimum(grid + length, len(slope))] - summed[grid]
    chosen = fixed.tolist()
    for number in np.argsort(-promise, kind="stable"):
        if len(chosen) >= environment.pulses:
            break
        if all(abs(int(grid[number]) - other) >= length for other in chosen):
            chosen.append(int(grid[number]))
    return np.array(sorted(chosen), dtype=np.int64)


def _cut_out(played: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """The pulses (n, P) that stand in a played signal (T,)."""
    padded = np.pad(played, (0, length))
    return (
        np.stack([padded[s : s + length] for s in starts])
        if len(starts)
        else np.empty((0, length), np.float32)
    )


def _affordable(played: np.ndarray, environment: Environment, level: float) -> np.ndarray:
    """Turned down where the energy would exceed the budget's."""
    energy = environment.budget.energy
    if energy is None:
        return played
    spent = float(np.square(played, dtype=np.float64).sum()) / environment.rate / max(level, 1e-12) ** 2
    return played * np.float32(np.sqrt(energy / spent) * (1 - 1e-6)) if spent > energy else played
