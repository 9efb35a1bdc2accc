"""How the real-time attackers learn: by imitation of the expert, or from the victim's own answers.

Shapes: B clips, N steps, n pulses. Lists of clips may have different lengths; what lies behind an end is masked.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from streaming.attack.environment import Clip, Environment
from streaming.attack.policy import Imitator, Listening, as_steps


def heard_steps(clips: Sequence[Clip], step: int) -> tuple[Tensor, Tensor]:
    """What the attacker hears of clips, zero padded: (B, N, s), and each one's steps (B,)."""
    parts = [as_steps(clip.waveform.mean(axis=0), step)[0] for clip in clips]
    lengths = torch.tensor([len(part) for part in parts])
    return nn.utils.rnn.pad_sequence(parts, batch_first=True), lengths


def imitate(
    network: Imitator,
    clips: Sequence[Clip],
    times: np.ndarray,
    *,
    epochs: int = 150,
    batch: int = 64,
    rate: float = 1e-3,
    seed: int = 0,
) -> Iterator[float]:
    """Fit the published policy to the expert's sorted start steps (B, n) at every step; each item taken from it is
    the RMSE, in steps, of one more epoch. Adam 1e-3, batches of 64 and 150 epochs as published."""
    steps, lengths = heard_steps(clips, network.arguments["step"])
    target = torch.from_numpy(np.asarray(times, dtype=np.float32))
    mask = torch.arange(steps.shape[1])[None] < lengths[:, None]

    def loss_of(rows: Tensor) -> Tensor:
        longest = int(lengths[rows].max())
        found, _ = network(steps[rows, :longest])
        wrong = (found - target[rows, None]).square().mean(-1)[mask[rows, :longest]]
        return (wrong.mean() + 1e-12).sqrt()

    return _fit(network, loss_of, len(clips), epochs, batch, rate, seed)


def effects(environment: Environment, clip: Clip, stride: int = 3) -> np.ndarray:
    """How a single pulse at each step changes the victim's odds, (N,) float32; NaN where it was not asked.

    Every `stride`-th step is asked for, from the victim's scores alone.
    """
    steps = np.arange(0, environment.steps(clip), stride)
    odds = environment.odds(clip, steps[:, None])
    out = np.full(environment.steps(clip), np.nan, np.float32)
    out[steps] = odds - environment.clean_odds(clip)
    return out


def held_out(count: int, seed: int = 0, share: float = 0.25) -> tuple[list[int], list[int]]:
    """Numbers of the clips that `attend` learns from, and of those it is checked on (all, where they are few)."""
    order = np.random.default_rng([seed, count]).permutation(count).tolist()
    kept = int(share * count)
    return (order[kept:], order[:kept]) if kept >= 2 else (order, order)


def attend(
    network: Listening,
    clips: Sequence[Clip],
    maps: Sequence[np.ndarray],
    delay: int,
    *,
    epochs: int = 60,
    batch: int = 16,
    rate: float = 2e-3,
    seed: int = 0,
) -> Iterator[float]:
    """Fit `Listening` to the victim's own answers: at each step, what a pulse decided upon now would do.

    Step i is over when the pulse may begin, so it lands `delay` + 1 steps later; `maps` are `effects`. Each item
    taken from it is the loss, after one more epoch, on the `held_out` clips; in the end the weights of the best
    epoch are back, and slope and offset are those that fit the held-out clips: few clips teach boldness.
    """
    steps, lengths = heard_steps(clips, network.arguments["step"])
    target = torch.full(steps.shape[:2], float("nan"))
    for row, one in zip(target, maps, strict=True):
        later = torch.from_numpy(one[delay + 1 : 1 + delay + len(row)])
        row[: len(later)] = later
    asked = ~target.isnan()
    scale = max(float(target[asked].std()), 1e-6) if asked.sum() > 1 else 1.0
    learnt, checked = (torch.tensor(numbers) for numbers in held_out(len(clips), seed))

    def loss_of(rows: Tensor) -> Tensor:
        longest = int(lengths[rows].max())
        found, _ = network(steps[rows, :longest])
        chosen = asked[rows, :longest]
        return nn.functional.huber_loss(found[chosen] / scale, target[rows, :longest][chosen] / scale)

    best, least = copy.deepcopy(network.state_dict()), np.inf
    for _ in _fit(network, lambda rows: loss_of(learnt[rows]), len(learnt), epochs, batch, rate, seed):
        with torch.no_grad():
            loss = float(loss_of(checked))
        if loss < least:
            best, least = copy.deepcopy(network.state_dict()), loss
        yield loss
    network.load_state_dict(best)
    with torch.no_grad():
        found, _ = network(steps[checked])
    _calibrate(network, found[asked[checked]], target[checked][asked[checked]])


def _calibrate(network: Listening, found: Tensor, wanted: Tensor) -> None:
    """Slope (0 or more) and offset by least squares."""
    if len(found) < 3:
        return
    centred = found - found.mean()
    slope = (centred * (wanted - wanted.mean())).sum() / centred.square().sum().clamp(min=1e-12)
    network.slope.copy_(slope.clamp(min=0))
    network.offset.copy_(wanted.mean() - network.slope * found.mean())


@torch.no_grad()
def expected(network: Listening, clips: Sequence[Clip]) -> list[np.ndarray]:
    """What the network expects at each step of each clip, (N,)."""
    network.eval()
    steps, lengths = heard_steps(clips, network.arguments["step"])
    found, _ = network(steps)
    return [row[:count].numpy() for row, count in zip(found, lengths.tolist(), strict=True)]


def worth(
    expectations: Sequence[np.ndarray], lengths: Sequence[int], pulses: int, gap: int, last: int = 3000
) -> np.ndarray:
    """The least gain worth a pulse, (pulses + 1, N): row k with k pulses left, at each step.

    Optimal stopping by backward induction: a pulse now is worth it where its expected gain exceeds what keeping it
    would bring, V(i + 1, k) - V(i + gap, k - 1). Gains are taken as drawn from all `expectations` together, the end
    of a command from `lengths` (steps); what lies behind it brings nothing, so the bar falls with time.
    """
    gains = np.sort(-np.concatenate(expectations).astype(np.float64))
    total = np.append(np.cumsum(gains[::-1])[::-1], 0.0)  # of the gains from place i on
    longest = min(last, max(lengths))
    alive = np.array([np.sum(np.asarray(lengths) > i) for i in range(longest + 1)], dtype=np.float64)
    value, bar = np.zeros((pulses + 1, longest + gap + 1)), np.zeros((pulses + 1, longest))
    for i in range(longest - 1, -1, -1):
        on = alive[i + 1] / alive[i]
        for k in range(1, pulses + 1):
            bar[k, i] = max(0.0, on * (value[k, i + 1] - value[k - 1, i + gap]))
            first = np.searchsorted(gains, bar[k, i])
            share = (len(gains) - first) / len(gains)
            played = total[first] / len(gains) + share * on * value[k - 1, i + gap]
            value[k, i] = played + (1 - share) * on * value[k, i + 1]
    return bar.astype(np.float32)


def paced(
    environment: Environment,
    clips: Sequence[Clip],
    expectations: Sequence[np.ndarray],
    bar: np.ndarray,
    delay: int,
    gap: int,
) -> tuple[float, int]:
    """How much lower the bar, and how long a pause in steps after each pulse, do the most harm on these clips.

    By the victim's answers to all pulses of a walk together. The bar takes gains for independent and for sums,
    which they are not: neighbouring steps are alike, so a bar for as many chances is too high; and where little is
    foreseen any step is as good, so that without a pause all pulses are spent in one place at the beginning.
    """
    even = int(np.median([len(one) for one in expectations])) // max(1, len(bar) - 1)
    pauses = sorted({max(gap, share * even // 4) for share in range(5)})
    ways = [(share, pause) for share in (1.0, 0.8, 0.6, 0.4, 0.2, 0.0) for pause in pauses]
    odds = np.zeros(len(ways))
    for clip, foreseen in zip(clips, expectations, strict=True):
        # what is not played stands behind the end
        rows = np.full((len(ways), len(bar) - 1), environment.steps(clip) + 1)
        for row, (share, pause) in zip(rows, ways, strict=True):
            lands = walked(np.float32(share) * bar, foreseen, delay, pause)
            row[: len(lands)] = lands
        odds += environment.odds(clip, rows)
    return ways[int(np.argmin(odds))]


def walked(bar: np.ndarray, expectation: np.ndarray, delay: int, pause: int) -> list[int]:
    """The steps at which the pulses of a walk along one clip land."""
    lands: list[int] = []
    busy, most = 0, len(bar) - 1
    for now, effect in enumerate(expectation):
        left = most - len(lands)
        if left and now >= busy and -effect >= bar[left, min(now, bar.shape[1] - 1)]:
            lands.append(now + delay + 1)
            busy = now + pause
    return lands


def _fit(
    network: nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    count: int,
    epochs: int,
    batch: int,
    rate: float,
    seed: int,
) -> Iterator[float]:
    """Adam over seeded batches; the mean loss of each epoch as it ends."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        network.train()
        losses = []
        for rows in torch.randperm(count, generator=generator).split(batch):
            loss = loss_of(rows)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            losses.append(loss.item() * len(rows))
        network.eval()
        yield sum(losses) / count
