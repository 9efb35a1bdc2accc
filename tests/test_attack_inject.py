"""Pulses and budgets: never exceeded; streaming injection is offline injection, sample by sample."""

import numpy as np
import pytest
import torch

from streaming.attack.inject import Injector, heard, inject, place
from streaming.attack.pulses import SHAPES, Budget, Meter, command_level, kept, shape_of

RATE = 16000


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None, Budget, float]:
    """A recording (M, T), starts, waveforms far over any budget, a path or none, a budget, a level."""
    rng = np.random.default_rng(seed)
    mics, samples = int(rng.integers(1, 5)), int(rng.integers(3000, 9000))
    x = rng.normal(0, 0.1, (mics, samples)).astype(np.float32)
    count = int(rng.integers(0, 9))
    starts = np.sort(rng.integers(0, samples + 500, count))
    waveforms = rng.normal(0, 3, (count, int(rng.integers(20, 400)))).astype(np.float32)
    path = None if rng.random() < 0.3 else rng.normal(0, 0.2, (mics, int(rng.integers(1, 2000))))
    energy = None if rng.random() < 0.5 else float(10 ** rng.uniform(-4, -1))
    budget = Budget(
        float(rng.uniform(-12, 20)), int(rng.integers(0, 7)), float(rng.uniform(0.001, 0.02)), energy
    )
    return x, starts, waveforms, None if path is None else path.astype(np.float32), budget, 0.05


@pytest.mark.parametrize("seed", range(12))
def test_streaming_and_offline_injection_agree_sample_by_sample(seed):
    x, starts, waveforms, path, budget, level = drawn(seed)
    whole = inject(x, starts, waveforms, RATE, budget, level, path)
    rng = np.random.default_rng([seed, 1])
    injector = Injector(len(x), RATE, budget, level, path)
    parts, todo = [], list(zip(starts.tolist(), waveforms, strict=True))
    while injector.now < x.shape[1]:
        size = int(rng.integers(1, 900))
        # whoever plays decides in the last moment, before the block that holds the start
        while todo and todo[0][0] < injector.now + size:
            injector.play(*todo.pop(0))
        parts.append(injector.feed(x[:, injector.now : injector.now + size]))
    assert np.array_equal(np.concatenate(parts, axis=1), whole), seed


@pytest.mark.parametrize("seed", range(12))
def test_the_budget_is_never_exceeded_whatever_is_asked_for(seed):
    x, starts, waveforms, path, budget, level = drawn(seed)
    injector = Injector(len(x), RATE, budget, level, path)
    for start, waveform in zip(starts, waveforms, strict=True):
        injector.play(int(start), waveform)
    played = [pulse for _, pulse in injector.played]
    assert len(played) <= budget.pulses
    assert all(len(pulse) <= budget.seconds * RATE + 1e-6 or len(pulse) == 1 for pulse in played)
    assert all(np.abs(pulse).max() <= budget.amplitude(level) * (1 + 1e-6) for pulse in played)
    begins, ends = [s for s, _ in injector.played], [s + len(p) for s, p in injector.played]
    assert all(begin >= end for begin, end in zip(begins[1:], ends, strict=False))
    energy = sum(float(np.square(pulse, dtype=np.float64).sum()) for pulse in played) / RATE
    assert budget.energy is None or energy <= budget.energy * level**2 * (1 + 1e-6)
    width = max((len(p) for p in played), default=1)
    padded = np.array([np.pad(p, (0, width - len(p))) for p in played]).reshape(-1, width)
    budget.check(np.array(begins, dtype=np.int64), padded, level, RATE)  # says so too
    if played:
        with pytest.raises(ValueError, match="beyond its budget"):
            budget.check(np.array(begins), 1.01 * budget.amplitude(level) * np.ones_like(padded), level, RATE)


def test_the_past_cannot_be_changed():
    injector = Injector(1, RATE, Budget(), 0.1)
    injector.feed(np.zeros((1, 100), np.float32))
    with pytest.raises(ValueError, match="past"):
        injector.play(99, np.ones(10))
    assert injector.play(100, np.ones(10))


def test_what_cannot_be_paid_for_is_refused():
    injector = Injector(1, RATE, Budget(), 0.1)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            injector.play(0, np.array([0.0, bad]))
    assert injector.played == []


def test_reset_gives_the_budget_back():
    injector = Injector(1, RATE, Budget(pulses=1), 0.1)
    assert injector.play(0, np.ones(10))
    assert not injector.play(500, np.ones(10))
    first = injector.feed(np.zeros((1, 50), np.float32))
    injector.reset()
    assert injector.play(0, np.ones(10))
    assert np.array_equal(injector.feed(np.zeros((1, 50), np.float32)), first)


@pytest.mark.parametrize("seed", range(6))
def test_candidates_in_a_batch_are_what_is_injected(seed):
    x, _, _, path, _, level = drawn(seed)
    rng = np.random.default_rng([seed, 2])
    budget = Budget(pulses=4)
    pulse = shape_of("noise", budget.seconds, RATE) * np.float32(budget.amplitude(level))
    starts = np.sort(rng.integers(0, x.shape[1] // 160, (7, 6)), axis=1) * 160
    played = kept(starts, len(pulse), budget.pulses)
    batch = place(torch.from_numpy(x), starts, played, torch.from_numpy(heard(pulse, path, len(x))))
    for row, found in zip(starts, batch.numpy(), strict=True):
        want = inject(x, row, np.repeat(pulse[None], len(row), axis=0), RATE, budget, level, path)
        assert np.allclose(found, want, atol=1e-6), seed


@pytest.mark.parametrize("kind", SHAPES)
def test_shapes_peak_at_one(kind):
    shape = shape_of(kind, 0.01, RATE)
    assert shape.shape == (160,)
    assert np.isclose(np.abs(shape).max(), 1, atol=0.02)
    assert np.array_equal(shape, shape_of(kind, 0.01, RATE))


def test_energy_pays_for_so_many_pulses_and_no_more():
    shape = np.ones(160, np.float32)  # one pulse at the command's level: 0.01 s of it
    assert Budget(0.0, 5, 0.01, 0.035).most(shape, RATE) == 3
    assert Budget(6.0206, 5, 0.01, 0.0125).most(shape, RATE) == 5
    meter = Meter(Budget(0.0, 5, 0.01, 0.035), 1.0, RATE)
    assert [meter.admit(1000 * k, shape) is not None for k in range(5)] == [True, True, True, False, False]


def test_the_level_is_that_of_speech_not_of_pauses():
    rng = np.random.default_rng(0)
    x = np.zeros((2, 32000), np.float32)
    x[:, 8000:16000] = rng.normal(0, 0.1, (2, 8000))
    assert np.isclose(command_level(x, RATE), 0.1, rtol=0.02)
    assert np.isclose(command_level(3 * x, RATE), 3 * command_level(x, RATE), rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"below_db": 500},
        {"pulses": -1},
        {"pulses": 2.5},
        {"seconds": 0},
        {"energy": -1},
        {"energy": float("nan")},
    ],
)
def test_absurd_budgets_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Budget(**wrong)
