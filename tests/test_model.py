"""Laws of the compact detector: what may not matter does not matter."""

import pytest
import torch

from detector.model import EDGE, CompactDetector, random_crop, random_equaliser


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = CompactDetector().eval()
    for module in network.modules():  # running statistics of a trained network are not 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return network


def clip(mics, samples=24000, seed=0):
    return 0.1 * torch.randn(1, mics, samples, generator=torch.Generator().manual_seed(seed))


def close(a, b, tolerance=2e-4):
    return float((a - b).detach().abs().max()) <= tolerance * max(1.0, float(b.detach().abs().max()))


@pytest.mark.parametrize("mics", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_microphones_changes_nothing(network, mics, seed):
    x = clip(mics, seed=seed)
    order = torch.randperm(mics, generator=torch.Generator().manual_seed(seed))
    assert close(network(x[:, order]), network(x)), (mics, seed)


@pytest.mark.parametrize("gain", [1e-4, 0.03, 7.0])
def test_a_gain_changes_nothing(network, gain):
    assert close(network(gain * clip(4)), network(clip(4)))


@pytest.mark.parametrize("padding", [1, 5, 40])
def test_padding_changes_nothing(network, padding):
    planes = network.prepare(clip(4, 20000))
    frames = torch.tensor([planes.shape[-1]])
    junk = 100 * torch.randn(1, planes.shape[1], planes.shape[2], padding)
    padded = torch.cat([planes, junk], dim=-1)
    assert close(network.logits(padded, frames), network.logits(planes), 1e-5)


def test_a_batch_is_its_items(network):
    x = torch.cat([clip(4, seed=s) for s in range(3)])
    assert close(network(x), torch.cat([network(item[None]) for item in x]), 1e-5)


@pytest.mark.parametrize("samples", [1, 100, 4800, 160000])
def test_any_length_has_a_score(network, samples):
    assert torch.isfinite(network(clip(2, samples))).all()


def test_it_is_small(network):
    assert sum(p.numel() for p in network.parameters()) * 4 < 5e6


def test_one_microphone_sees_no_space(network):
    planes = network.prepare(clip(1))
    assert (planes[:, 1:] == 0).all()


def test_augmentation_is_a_function_of_its_generator(network):
    planes = network.prepare(torch.cat([clip(4, seed=s) for s in range(4)]))
    lengths = torch.full((4,), planes.shape[-1])
    one, n = network.augment(planes.clone(), lengths, torch.Generator().manual_seed(3))
    two, _ = network.augment(planes.clone(), lengths, torch.Generator().manual_seed(3))
    other, _ = network.augment(planes.clone(), lengths, torch.Generator().manual_seed(4))
    assert torch.equal(one, two)
    assert one.shape != other.shape or not torch.equal(one, other)
    assert (n == one.shape[-1]).all()


def test_augmentation_hides_the_level_or_space_never_both(network):
    planes = network.prepare(clip(4, seed=0)).expand(400, -1, -1, -1).clone()
    lengths = torch.full((400,), planes.shape[-1])
    out, _ = network.augment(planes, lengths, torch.Generator().manual_seed(0))
    no_level, no_space = ((out[:, group] == 0).all(dim=(1, 2, 3)) for group in (slice(0, 1), slice(1, 6)))
    assert not (no_level & no_space).any()
    for hidden in (no_level, no_space):
        assert 0.08 < float(hidden.float().mean()) < 0.18


@pytest.mark.parametrize("seed", range(20))
def test_crops_hold_real_frames_only(seed):
    lengths = torch.tensor([30, 64, 41])
    planes = torch.full((3, 2, 4, 64), float("nan"))
    for item, n in enumerate(lengths.tolist()):
        planes[item, ..., :n] = item
    crop, kept = random_crop(planes, lengths, 25, torch.Generator().manual_seed(seed))
    assert 25 <= crop.shape[-1] <= 52  # three quarters of the way from 41 to 64
    assert torch.equal(kept, lengths.clamp(max=crop.shape[-1]))
    for item, n in enumerate(kept.tolist()):
        assert (crop[item, ..., :n] == item).all()
        assert (crop[item, ..., n:] == 0).all()


def test_equaliser_is_smooth_and_of_some_decibels():
    curves = random_equaliser(500, 40, torch.Generator().manual_seed(0)) * 10 / torch.log(torch.tensor(10.0))
    assert 1.5 < curves.square().mean().sqrt() < 5
    assert curves.diff(dim=1).abs().mean() < 1


def test_edge_variant_has_at_most_twenty_thousand_parameters():
    assert 15_000 < sum(p.numel() for p in CompactDetector(**EDGE).parameters()) <= 20_000
