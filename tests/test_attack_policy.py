"""The attacker cannot read the future; listening step by step is listening at once; learning does what it says."""

import numpy as np
import pytest
import torch
from torch import nn

from streaming.attack.environment import Clip, Environment, Limits
from streaming.attack.learning import attend, effects, expected, held_out, imitate, paced, walked, worth
from streaming.attack.policy import ChoosyListener, ImitatingListener, Imitator, Listening
from streaming.attack.pulses import Budget
from streaming.attack.victims import ClassifierVictim

RATE = 16000


class Loudest(nn.Module):
    """A toy keyword classifier: which of the 10 parts of the clip is the loudest?"""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = x.shape[-1] // 10
        return 40 * x[:, : 10 * count].unflatten(-1, (10, count)).square().mean(-1)


def clip(seed: int, seconds: float = 1.0, truth: int = 0) -> Clip:
    rng = np.random.default_rng(seed)
    return Clip(f"clip-{seed}", rng.normal(0, 0.1, (2, int(seconds * RATE))).astype(np.float32), truth, 0.1)


def listeners(pulses: int = 5) -> dict:
    torch.manual_seed(0)
    imitator, ours = Imitator(160, pulses), Listening(160, 16)
    with torch.no_grad():  # so that pulses are spread over the clip, wherever the weights were drawn
        imitator.head[-1].weight *= 20
        imitator.head[-1].bias += torch.linspace(0.1, 0.8, pulses)
    usual = expected(ours, [clip(9)])[0]
    bar = np.full((pulses + 1, 100), np.quantile(-usual, 0.8), dtype=np.float32)
    return {"imitation": ImitatingListener(imitator), "listening": ChoosyListener(ours, bar)}


@pytest.mark.parametrize("name", ["imitation", "listening"])
@pytest.mark.parametrize("delay", [0.0, 0.025])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_attacker_cannot_read_the_future(name, delay, seed):
    environment = Environment(ClassifierVictim(Loudest()), Budget(), delay=delay)
    one = clip(seed)
    listener = listeners()[name]
    whole = environment.stream(one, listener, seed=seed)
    assert len(whole.starts) >= 2
    rng = np.random.default_rng([seed, 7])
    for t in (1, 3000, 8001, 12345):
        changed = one.waveform.copy()
        changed[:, t:] = rng.normal(0, 0.5, changed[:, t:].shape)
        other = environment.stream(Clip(one.name, changed, one.truth, one.level), listener, seed=seed)
        # what is heard until t, and every pulse decided upon by then, is the same
        assert np.array_equal(other.waveform[:, :t], whole.waveform[:, :t])
        until = t + environment.delay_samples
        assert [s for s in other.starts if s < until] == [s for s in whole.starts if s < until], t
    assert all(start >= environment.step + environment.delay_samples for start in whole.starts)


@pytest.mark.parametrize("name", ["imitation", "listening"])
def test_blocks_of_any_size_give_the_same(name):
    environment = Environment(ClassifierVictim(Loudest()), Budget(pulses=3), delay=0.01)
    whole = environment.stream(clip(3), listeners()[name])
    offline = environment.play(clip(3), whole.starts, whole.waveforms)
    assert np.array_equal(offline.waveform, whole.waveform)  # and offline injection agrees with the stream
    for block in (1234, 160, 77):
        other = environment.stream(clip(3), listeners()[name], block=block)
        assert np.array_equal(other.waveform, whole.waveform)


@pytest.mark.parametrize("build", [lambda: Imitator(160, 5), lambda: Listening(160, 24)])
def test_step_by_step_is_at_once(build):
    torch.manual_seed(1)
    network = build().eval()
    steps = torch.randn(2, 40, 160) * torch.linspace(0.01, 1, 40)[None, :, None]
    with torch.no_grad():
        whole, _ = network(steps)
        state, parts = None, []
        for first, last in ((0, 1), (1, 2), (2, 15), (15, 40)):
            part, state = network(steps[:, first:last], state)
            parts.append(part)
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-4)


@pytest.mark.parametrize("build", [lambda: Imitator(160, 5), lambda: Listening(160, 24)])
def test_a_gain_changes_nothing(build):
    torch.manual_seed(1)
    network = build().eval()
    steps = torch.randn(1, 30, 160)
    with torch.no_grad():
        assert torch.allclose(network(steps)[0], network(0.1 * steps)[0], atol=2e-3)


def test_pulses_wait_for_each_other():
    """Two predicted times that come at once are two pulses, one after the other."""
    network = Imitator(160, 3)
    with torch.no_grad():
        network.head[-1].weight.zero_()
        network.head[-1].bias[:] = torch.tensor([0.1, 0.1, 0.1])
    listener = ImitatingListener(network)
    listener.begin(Limits(pulses=3, gap=2, delay=0, seed=0))
    fired = [listener.hear(np.zeros(160, np.float32)) for _ in range(20)]
    assert np.flatnonzero(fired).tolist() == [9, 11, 13]


@pytest.mark.slow
def test_imitation_learns_what_is_always_so():
    torch.manual_seed(0)
    clips = [clip(k, 0.12) for k in range(2)]
    network = Imitator(160, 2)
    curve = list(imitate(network, clips, np.tile([7.0, 20.0], (2, 1)), epochs=40, batch=2))
    assert curve[-1] < 1.0 < curve[0]


def test_effects_are_the_victims_own_answers():
    environment = Environment(ClassifierVictim(Loudest()), Budget(below_db=-12, pulses=1))
    one = clip(5)
    found = effects(environment, one, stride=10)
    assert np.isnan(found).sum() == 90
    want = environment.odds(one, np.array([[30]]))[0] - environment.clean_odds(one)
    assert np.isclose(found[30], want, atol=1e-5)
    assert environment.victim.queries > 10


@pytest.mark.slow
def test_our_listener_learns_when_a_pulse_helps():
    """Where the attacker's gain follows from what was just heard, it is expected after training."""
    rng = np.random.default_rng(0)
    clips, maps = [], []
    for k in range(12):
        loud = rng.random(60) < 0.3
        x = rng.normal(0, 1, (60, 160)) * np.where(loud, 0.3, 0.01)[:, None]
        clips.append(Clip(f"c{k}", x.reshape(1, -1).astype(np.float32), 0, 0.1))
        maps.append(np.concatenate([[0.0], np.where(loud[:-1], -1.0, 0.0)]).astype(np.float32))
    torch.manual_seed(0)
    network = Listening(160, 24)
    list(attend(network, clips, maps, delay=0, epochs=60, batch=4, rate=5e-3))
    found = np.concatenate([one[:-1] for one in expected(network, clips)])
    want = np.concatenate([one[1:] for one in maps])
    assert np.corrcoef(found, want)[0, 1] > 0.9


@pytest.mark.slow
def test_what_cannot_be_foreseen_is_not_foreseen():
    """Effects that have nothing to do with the sound: what is said of unheard clips is their mean, not noise."""
    rng = np.random.default_rng(0)
    clips = [clip(k, 0.3) for k in range(16)]
    maps = [rng.normal(-0.5, 1, 30).astype(np.float32) for _ in clips]
    torch.manual_seed(0)
    network = Listening(160, 24)
    list(attend(network, clips, maps, delay=0, epochs=20, batch=4))
    unseen = [clips[number] for number in held_out(len(clips))[1]]
    found = np.concatenate(expected(network, unseen))
    assert abs(found.mean() + 0.5) < 0.25
    assert found.std() < 0.35
    learnt, checked = held_out(100, seed=3)
    assert sorted(learnt + checked) == list(range(100))
    assert len(checked) == 25


def test_the_bar_falls_with_time_and_with_pulses_left():
    rng = np.random.default_rng(0)
    gains = [rng.normal(0, 1, 80) for _ in range(50)]
    bar = worth(gains, [80] * 50, pulses=3, gap=1)
    assert bar.shape == (4, 80)
    assert (bar[1:, -1] == 0).all()  # at the end whatever helps is played
    assert (bar[1] >= bar[3]).all()  # the last pulse is the most precious
    assert bar[1, 0] > bar[1, 60] > bar[1, 78] > 0
    assert (worth(gains, [80, 20] * 25, pulses=3, gap=1)[1, :19] < bar[1, :19]).all()  # it may end sooner


def test_a_listener_that_foresees_nothing_does_not_spend_everything_at_once():
    """This victim minds how many tenths of its clip are disturbed: one more pulse in the same changes nothing."""

    class Tenths(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tenths = x[:, : x.shape[-1] // 10 * 10].unflatten(-1, (10, -1)).abs().amax(-1) > 0.3
            hurt = tenths.sum(-1).float()
            return torch.stack([5 - hurt, hurt], dim=-1)

    environment = Environment(ClassifierVictim(Tenths()), Budget(below_db=-12, pulses=4), shape="constant")
    quiet = [Clip(f"c{k}", 0.01 * clip(k).waveform, 0, 0.1) for k in range(3)]
    nothing = [np.full(100, -1.0, np.float32) for _ in quiet]  # every step is as good
    bar = worth(nothing, [100] * 3, pulses=4, gap=1)
    share, pause = paced(environment, quiet, nothing, bar, delay=3, gap=1)
    assert pause >= 10
    lands = walked(np.float32(share) * bar, nothing[0], 3, pause)
    assert len({step // 10 for step in lands}) == 4
    assert len({step // 10 for step in walked(bar, nothing[0], 3, 1)}) == 1


@pytest.mark.parametrize("pause", [0, 1, 7])
def test_a_planned_walk_is_what_is_played(pause):
    environment = Environment(ClassifierVictim(Loudest()), Budget(), delay=0.02)
    listener = listeners()["listening"]
    listener.pause = pause
    one = clip(4)
    lands = walked(listener.bar, expected(listener.network, [one])[0], 2, max(1, pause))
    played = environment.stream(one, listener).starts
    within = [
        step * environment.step for step in lands if step * environment.step < one.waveform.shape[1] + 320
    ]
    assert played.tolist() == within
