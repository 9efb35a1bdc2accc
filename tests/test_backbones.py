"""Backbones by name: each takes planes of space beside those of the spectrum, and nothing but an item's own frames
decides its result."""

from __future__ import annotations

import pytest
import torch

from detector.backbones.frames import BACKBONES, ASTFrames, PSLAFrames
from detector.config import TrainConfig
from detector.frontends.planes import CovariancePlanes
from detector.model import CompactDetector
from detector.systems import build_network


@pytest.fixture(scope="module", params=BACKBONES)
def network(request):
    torch.manual_seed(0)
    network = CompactDetector(backbone=request.param)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of one batch, so that something gets through
    with torch.no_grad():
        network.logits(torch.randn(4, CovariancePlanes.count, CovariancePlanes.bands, 100))
    return network.eval()


@torch.no_grad()
def test_batch_mates_and_padding_change_nothing(network):
    torch.manual_seed(1)
    lengths = torch.tensor([260, 90, 20])
    planes = torch.randn(3, CovariancePlanes.count, CovariancePlanes.bands, 260)
    together = network.logits(planes, lengths)
    for n, length in enumerate(lengths.tolist()):
        alone = network.logits(planes[n : n + 1, ..., :length])
        torch.testing.assert_close(together[n : n + 1], alone, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_every_plane_and_every_frame_is_heard(network):
    torch.manual_seed(2)
    planes = torch.randn(1, CovariancePlanes.count, CovariancePlanes.bands, 450)
    before = network.logits(planes)
    for place in [(0, slice(None)), (5, slice(None)), *((slice(None), n) for n in (20, 230, 420))]:
        other = planes.clone()
        other[0, place[0], :, place[1]] += 1.0
        assert (network.logits(other) - before).abs().max() > 1e-6, place


@torch.no_grad()
def test_the_score_is_the_heads_word_on_the_embedding(network):
    x = torch.randn(2, 3, 16000) * 0.1
    embedding = network.embed(network.prepare(x))
    logits = network.head(embedding)
    torch.testing.assert_close(network(x), logits[:, 0] - logits[:, 1])


def test_a_checkpoints_config_builds_the_same_backbone(network):
    specification = {"system": "compact", "sample_rate": 16000, "arrays": ["D1"], "max_mics": 16}
    again = build_network({"specification": specification, "network": network.arguments})
    own = {name: value.shape for name, value in network.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == own


@torch.no_grad()
def test_windows_of_an_ast_follow_without_a_seam():
    torch.manual_seed(0)
    frames = ASTFrames(2, 40).eval()
    x = torch.randn(1, 2, 40, 620)
    found, columns = frames(x, torch.tensor([620]))
    assert found.shape == (1, 192, 61)
    assert columns.tolist() == [61]
    second, _ = frames(x[..., frames.hop : frames.hop + frames.window], torch.tensor([frames.window]))
    torch.testing.assert_close(found[..., 20:40], second, rtol=1e-4, atol=1e-5)


def test_published_sizes_are_kept():
    ast, psla = ASTFrames(1, 128), PSLAFrames(1)
    assert len(ast.ast.v.blocks) == 12
    assert ast.dim == 192
    assert psla.dim == 1280
    assert sum(p.numel() for p in psla.psla.effnet.parameters()) == 4_006_972


def test_gradients_reach_every_trained_part(network):
    network.train()
    planes = torch.randn(2, CovariancePlanes.count, CovariancePlanes.bands, 64, requires_grad=True)
    network.logits(planes, torch.tensor([64, 40])).square().sum().backward()
    assert planes.grad.abs().sum() > 0
    assert not planes.grad[1, ..., 40:].any()
    network.zero_grad()
    network.eval()


def test_the_command_line_picks_it(tmp_path):
    config = TrainConfig(corpus=tmp_path, out=tmp_path / "o", backbone="ast")
    assert config.learning_rate == 3e-4
    assert TrainConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="network of its own"):
        TrainConfig(corpus=tmp_path, out=tmp_path / "o", system="malrad", array="D1", backbone="ast")
    with pytest.raises(ValueError, match="did you mean psla"):
        TrainConfig(corpus=tmp_path, out=tmp_path / "o", backbone="psl")
    with pytest.raises(ValueError, match="unknown backbone 'vit'"):
        CompactDetector(backbone="vit")
