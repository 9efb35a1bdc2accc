"""Adversarial planes stay in their bounds and do harm; guards and ensembles do what they say."""

import numpy as np
import pytest
import torch
from torch import nn

from detector.frontends.planes import CovariancePlanes
from detector.hardening import (
    REACH,
    STRENGTH,
    STRETCHES,
    Guarded,
    Parts,
    Together,
    guarded,
    hardened,
    limited,
)
from detector.model import CompactDetector
from detector.score import load
from streaming.attack.victims import scores_with_gradients


def batch(count: int = 6, frames: int = 90):
    torch.manual_seed(0)
    planes = torch.randn(count, 6, 40, frames)
    planes[:, 5] = 0.5
    planes[0, 1:5] = 0  # an item without spatial planes
    return planes, torch.full((count,), frames), torch.arange(count) % 2


def test_attacked_planes_stay_in_bounds_and_do_harm():
    network = CompactDetector(widths=(8, 8, 8, 8), embedding=8)
    planes, lengths, columns = batch()
    kept = planes.clone()
    out = hardened(network, planes, lengths, columns, 1.0, torch.Generator().manual_seed(1))
    assert torch.equal(planes, kept)
    change = (out - planes).abs()
    assert change.max() <= STRENGTH + 1e-5
    touched = (change > 0).any(dim=(1, 2)).sum(-1)
    assert (touched > 0).all()
    assert (touched <= STRETCHES * REACH).all()
    assert (change[:, 5] == 0).all()
    assert (change[0, 1:] == 0).all()
    network.eval()
    with torch.no_grad():
        before, after = (
            nn.functional.cross_entropy(network.logits(x, lengths), columns) for x in (planes, out)
        )
    assert after > before
    assert all(parameter.grad is None for parameter in network.parameters())


def test_no_share_no_change_and_the_mode_comes_back():
    network = CompactDetector(widths=(8, 8, 8, 8), embedding=8).train()
    planes, lengths, columns = batch()
    assert hardened(network, planes, lengths, columns, 0.0, torch.Generator()) is planes
    hardened(network, planes, lengths, columns, 0.5, torch.Generator().manual_seed(0))
    assert network.training


def test_the_limiter_takes_bursts_and_leaves_steady_sound():
    steady = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 2, 16000)).astype(np.float32))
    assert torch.allclose(limited(steady, 16000), steady, atol=0.02)
    burst = steady.clone()
    burst[..., 8000:8160] *= 20
    taken = limited(burst, 16000)
    assert taken[..., 8000:8160].square().mean() < 0.1 * burst[..., 8000:8160].square().mean()
    gains = (taken / burst)[0, :, 8080]
    assert torch.allclose(gains[0], gains[1])  # the same on all channels
    assert torch.allclose(limited(burst[..., :100], 16000), burst[..., :100])


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.lengths = []

    def forward(self, x):
        self.lengths.append(x.shape[-1])
        return self.scale * x.mean(dim=(1, 2))


def test_guards_draw_and_average():
    x = torch.randn(3, 2, 48000)
    guard = Guarded(Mean(), ("windows",), draws=8, generator=torch.Generator().manual_seed(0))
    found = guard(x)
    assert found.shape == (3,)
    lengths = guard.network.lengths
    assert len(set(lengths)) > 4
    assert min(lengths) >= 0.6 * 48000 - 1
    assert max(lengths) <= 48000
    again = Guarded(Mean(), ("windows",), draws=8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(x), found)
    assert not torch.equal(guard(x), found)  # drawn anew
    with pytest.raises(ValueError, match="unknown guard"):
        Guarded(Mean(), ("luck",))


class Loudness(nn.Module):
    """A network of planes whose scores lie far apart."""

    front = CovariancePlanes()

    def logits(self, planes):
        score = 30 * planes[:, :5].mean(dim=(1, 2, 3))
        return torch.stack([score, torch.zeros_like(score)], dim=1)


@torch.no_grad()
def test_parts_are_judged_each_for_itself():
    judge, planes = Parts(Loudness(), 16, 0.2), batch(2, 43)[0]
    starts = [0, 8, 16, 24, 27]
    alone = torch.stack([judge.network.logits(planes[..., s : s + 16]) for s in starts], dim=1)
    scores = alone[..., 0] - alone[..., 1]
    assert (scores > judge.cap).any()
    assert (scores < judge.cap).any()
    expected = scores.clamp(max=judge.cap).mean(1)
    assert torch.allclose(judge.logits(planes)[:, 0], expected, atol=1e-5)
    padded = nn.functional.pad(planes, (0, 30))
    assert torch.allclose(judge.logits(padded, torch.tensor([43, 43]))[:, 0], expected, atol=1e-5)
    short = judge.network.logits(planes[..., :16])  # of one part or less the cap is all that is added
    assert torch.allclose(
        judge.logits(planes[..., :16])[:, 0], (short[:, 0] - short[:, 1]).clamp(max=judge.cap)
    )


@torch.no_grad()
def test_no_stretch_gains_more_than_its_parts():
    """Whatever stands in a stretch, parts that it does not touch keep their scores; the others are capped."""
    judge, planes = Parts(Loudness(), 16, 0.2), batch(2, 128)[0][1:]
    before = judge.scores(planes)[0]
    generator = torch.Generator().manual_seed(1)
    for start in (0, 40, 100):
        touched = [k for k in range(15) if k * 8 < start + 10 and k * 8 + 16 > start]
        room = (judge.cap - before[touched]).clamp(min=0).sum() / 15
        for scale in (1, 10, 1000):
            attacked = planes.clone()
            attacked[..., start : start + 10] += scale * torch.randn(1, 6, 40, 10, generator=generator)
            gained = judge.logits(attacked)[0, 0] - judge.logits(planes)[0, 0]
            assert gained <= room + 1e-5


def test_an_attacker_sees_through_the_parts():
    """The guard passes the gradient of its own score: equal to finite differences, and no numbers are drawn."""
    bare = load("default")
    guard = Guarded(bare.network, ("parts",))
    assert guard.draws == 1
    x = 0.1 * torch.randn(1, 2, 12000, generator=torch.Generator().manual_seed(0))
    moved = x.clone().requires_grad_()
    score = scores_with_gradients(guard, moved)
    assert torch.allclose(score, guard(x), atol=1e-3)
    (slope,) = torch.autograd.grad(score.sum(), moved)
    along = slope / slope.norm()
    step = 0.02
    with torch.no_grad():
        rise = guard(x + step * along) - guard(x - step * along)
    assert float(rise) / (2 * step) == pytest.approx(float(slope.norm()), rel=0.2)
    with pytest.raises(ValueError, match="no planes"):
        Guarded(Mean(), ("parts",))


def test_a_guarded_detector_has_no_threshold_until_one_is_set():
    bare = load("default")
    detector = guarded(bare, Guarded(bare.network, ("limiter",)))
    x = np.random.default_rng(0).normal(0, 0.1, (2, 16000)).astype(np.float32)
    assert detector.threshold is None
    assert detector.judge(x, 16000).decision == "undecided"
    detector.threshold = -1e9
    assert detector.judge(x, 16000).accepted


def test_detectors_together():
    bare = load("default")
    x = torch.randn(2, 2, 16000)
    with torch.no_grad():
        llr = bare.calibration.llr(bare.network(x))
        for rule in ("mean", "lowest"):
            assert torch.allclose(Together([bare, bare], rule)(x), llr, atol=1e-5)
    with pytest.raises(ValueError, match="unknown rule"):
        Together([bare], "best")


def test_the_switch_of_training(tmp_path, monkeypatch):
    """`harden` reaches every step, moves the weights elsewhere, and is compact's alone."""
    from test_train import Planes

    from detector import fitting
    from detector.config import TrainConfig
    from detector.train import train

    shares = []

    def counted(network, planes, lengths, columns, share, generator):
        shares.append(share)
        return hardened(network, planes, lengths, columns, share, generator)

    monkeypatch.setattr(fitting, "hardened", counted)
    weights = {}
    for name, share in (("bare", 0.0), ("hard", 0.5)):
        parts = {"train": Planes(12, 0), "dev": Planes(12, 1, first=100, speaker=2)}
        config = TrainConfig(
            tmp_path / "none", tmp_path / name, epochs=1, batch_size=6, device="cpu", harden=share
        )
        train(config, examples=parts, progress=False)
        weights[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert shares == [0.5] * 2
    assert weights["hard"] != weights["bare"]
    with pytest.raises(ValueError, match="harden"):
        TrainConfig(tmp_path, tmp_path, system="nn-single", array="D4", harden=0.5)
