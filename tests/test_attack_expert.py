"""The expert finds what there is to find; batched, memoised and together it is SciPy one at a time."""

import numpy as np
import pytest
import torch
from scipy.optimize import differential_evolution
from torch import nn

from detector.score import load
from streaming.attack.baselines import Arsenal
from streaming.attack.environment import Clip, Environment
from streaming.attack.expert import Evolution, Meeting, evolve, expert, experts, genome_steps, static
from streaming.attack.gradient import pgd
from streaming.attack.pulses import Budget
from streaming.attack.victims import ClassifierVictim, DetectorVictim

RATE = 16000
SHORT = Evolution(generations=6, individuals=4)


class Sentry(nn.Module):
    """A toy victim of two classes that is sure of the first until something loud happens in its weak spot, the
    fourth tenth of the clip."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tenth = x.shape[-1] // 10
        weak = x[:, 3 * tenth : 4 * tenth].square().mean(-1)
        return torch.stack([torch.full_like(weak, 2.0), 400 * weak], dim=1)


def clip(seed: int = 0, samples: int = RATE) -> Clip:
    rng = np.random.default_rng(seed)
    return Clip(f"clip-{seed}", rng.normal(0, 0.01, (1, samples)).astype(np.float32), 0, 0.1)


def environment(**options) -> Environment:
    return Environment(ClassifierVictim(Sentry()), Budget(below_db=-12, **options), shape="constant")


def test_the_expert_finds_the_weak_spot():
    place = environment(pulses=3)
    found = expert(place, clip(), Evolution(generations=15, individuals=8))
    assert ((found.steps >= 30) & (found.steps < 40)).all()
    assert len(set(found.steps.tolist())) == 3  # two at one place would be one
    attempt = place.play_steps(clip(), found.steps)
    score, right = place.victim.verdict(attempt.waveform, 0)
    assert np.isclose(score, found.value, atol=1e-4)
    assert right == (score > 0)


def test_in_batches_it_is_scipy_one_at_a_time():
    place, one = environment(pulses=3), clip()

    def alone(genome: np.ndarray) -> float:
        return float(place.odds(one, genome_steps(genome)[None])[0])

    slow = differential_evolution(alone, vectorized=False, **SHORT.settings(place.steps(one), 3))
    fast = expert(place, one, SHORT)
    assert fast.steps.tolist() == genome_steps(slow.x).tolist()
    assert np.isclose(fast.value, slow.fun, atol=1e-5)
    assert fast.evaluations == slow.nfev == SHORT.evaluations(3)
    assert fast.asked <= fast.evaluations


def test_together_is_one_after_the_other():
    place = environment(pulses=2)
    clips = [clip(0), clip(1, RATE // 2), clip(2)]
    apart, together = experts(place, clips, SHORT), experts(place, clips, SHORT, together=3)
    assert [one.steps.tolist() for one in apart] == [one.steps.tolist() for one in together]


def test_an_error_in_a_meeting_reaches_everybody():
    def refuse(rows: np.ndarray) -> np.ndarray:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        evolve(refuse, 10, 2, SHORT)
    meeting = Meeting(1, lambda jobs: [job * 2 for job in jobs])
    assert meeting.ask(21) == 42


def test_static_serves_all_clips():
    place = environment(pulses=2)
    found = static(place, [clip(0), clip(1)], Evolution(generations=12, individuals=8))
    assert ((found.steps >= 30) & (found.steps < 40)).all()


def test_no_pulses_no_harm():
    place = environment(pulses=0)
    assert expert(place, clip(), SHORT).steps.tolist() == []


def test_gradients_find_more_than_moments_and_keep_the_budget():
    place = environment(pulses=2, energy=0.4)
    one = clip()
    starts, waveforms = pgd(place, one, iterations=12)
    place.budget.check(starts, waveforms, one.level, RATE)
    odds = place.victim.verdict(place.play(one, starts, waveforms).waveform, 0)[0]
    assert odds < place.clean_odds(one)
    assert odds <= expert(place, one, SHORT).value + 1e-3


def test_a_victim_that_wants_all_places_is_reached_by_pulses_everywhere():
    """Its gradient points at one fifth of the clip at a time, and gains nothing there alone."""

    class Everywhere(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weakest = x.unflatten(-1, (5, -1)).square().mean(-1).amin(-1)
            return torch.stack([torch.full_like(weakest, 2.0), 400 * weakest], dim=1)

    place = Environment(ClassifierVictim(Everywhere()), Budget(below_db=-12, pulses=5), shape="constant")
    one = clip()
    descended = place.play(one, *pgd(place, one, iterations=6))
    attempt = Arsenal(SHORT, iterations=6).attempt("pgd", place, one)
    scores = [place.victim.verdict(tried.waveform, 0) for tried in (descended, attempt)]
    assert [right for _, right in scores] == [True, False]
    place.budget.check(attempt.starts, attempt.waveforms, one.level, RATE)


def test_gradients_of_the_bundled_detector_are_its_slopes():
    """The front end has no parameters and runs without gradients; opened, it passes true ones."""
    victim = DetectorVictim(load("default"))
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(0, 0.1, (1, 2, 12000)).astype(np.float32)).requires_grad_()
    (slope,) = torch.autograd.grad(victim.gradient_odds(x, 0).sum(), x)
    assert torch.isfinite(slope).all()
    along = slope / slope.norm()
    ahead, behind = (victim.odds((x + step * along).detach(), 0) for step in (1e-2, -1e-2))
    assert np.isclose(float(ahead - behind) / 2e-2, float(slope.norm()), rtol=0.1)


def test_without_gradients_they_are_estimated():
    class Scores(ClassifierVictim):
        def gradient_odds(self, x, truth):
            raise ValueError("scores alone")

    place = Environment(Scores(Sentry()), Budget(below_db=-12, pulses=4, seconds=0.05), shape="constant")
    one = clip(samples=4000)
    starts, waveforms = pgd(place, one, iterations=10)
    assert place.victim.verdict(place.play(one, starts, waveforms).waveform, 0)[0] < place.clean_odds(one)


def test_odds_of_a_detector_are_its_score():
    detector = load("default")
    victim = DetectorVictim(detector)
    x = np.random.default_rng(1).normal(0, 0.1, (3, 16000)).astype(np.float32)
    score = detector.score(x, 16000)
    batch = torch.from_numpy(x)[None].expand(2, -1, -1)
    assert np.allclose(victim.odds(batch, 1), score, atol=1e-4)
    assert np.allclose(victim.odds(batch, 0), -score, atol=1e-4)
    judged = detector.judge(x, 16000)
    assert victim.verdict(x, 0) == (pytest.approx(score, abs=1e-5), not judged.accepted)
    assert victim.queries == 5
