"""PSLA: golden parity, published names, pooling, and the padding that the published model has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from detector.backbones import PSLA
from detector.backbones.convolutions import CELLS, Depthwise, OfOneCell, SiLU
from detector.backbones.psla import _Attention, published_name
from tests.golden_outputs import fill, read_golden


@pytest.fixture(scope="module")
def golden() -> dict:
    return read_golden("psla_b0_h4")


@pytest.fixture(scope="module")
def published(golden) -> dict[str, torch.Tensor]:
    filled = {key: fill(key, tuple(shape)) for key, shape in golden["spec"].items()}
    return {f"module.{key}": torch.as_tensor(value) for key, value in filled.items()}


@pytest.fixture(scope="module")
def network(published) -> PSLA:
    return PSLA(35).load_published(published).eval()


def test_golden_outputs_are_reproduced(golden, network):
    meta = golden["meta"]
    x = np.random.default_rng(meta["input_seed"]).standard_normal(meta["input_shape"]).astype(np.float32)
    with torch.inference_mode():
        y = network(torch.from_numpy(x)).numpy()
    assert np.linalg.norm(y - golden["y"]) <= 1e-4 * np.linalg.norm(golden["y"])


def test_names_and_sizes_are_the_published_ones(golden, network):
    ours = network.state_dict()
    assert {published_name(key, ours): list(value.shape) for key, value in ours.items()} == golden["spec"]


def test_a_state_that_does_not_fit_is_one_sentence(network, published):
    lacking = {key: value for key, value in published.items() if not key.endswith("att.3.bias")}
    with pytest.raises(ValueError, match=r"missing attention.att.3.bias; check classes, variant and heads"):
        network.load_published(lacking)
    with pytest.raises(ValueError, match=r"_blocks.3._bn0.bias has shape \[1\] instead of \[144\]"):
        network.load_published(published | {"module.effnet._blocks.3._bn0.bias": torch.zeros(1)})


@pytest.mark.parametrize("total", [0.5, 1.0, 1.3])
def test_whoever_is_sure_and_wrong_still_learns(total):
    """The heads' weights are free: where scores above 1 were cut, the gradient was 0 and training broke down."""
    torch.manual_seed(0)
    network = PSLA(3).eval()
    with torch.no_grad():
        network.attention.head_weight.fill_(total / 4)
        for head in network.attention.cla:
            head.weight.zero_()
            head.bias.copy_(torch.tensor([5.0, 0.0, -5.0]))
    x = torch.randn(2, 64, 128)
    logits = network.logits(x)
    share = network(x) / max(1.0, total)
    torch.testing.assert_close(logits, share.logit(), rtol=1e-4, atol=1e-4)
    F.cross_entropy(logits, torch.tensor([2, 2])).backward()
    each = torch.stack([head.bias.grad for head in network.attention.cla]).abs().sum(0)
    assert (each > 1e-3 * each.max()).all(), each


@pytest.mark.parametrize("heads", [0, 1, 4])
def test_pooling_is_the_plain_formula(heads):
    torch.manual_seed(heads)
    pool, x = _Attention(6, 3, heads), torch.randn(2, 6, 5)
    names = {0: set(), 1: {"att.weight", "att.bias"}, 4: {"att.3.weight", "att.0.bias", "head_weight"}}
    assert names[heads] <= set(pool.state_dict())
    wanted = torch.zeros(2, 3)
    for h in range(max(1, heads)):
        cla, att = (getattr(pool, n, None) for n in ("cla", "att"))
        cla, att = (cla[h], att[h]) if heads > 1 else (cla, att)
        scores = cla(x[..., None])[..., 0].sigmoid()
        weight = torch.ones_like(scores) if att is None else att(x[..., None])[..., 0].sigmoid()
        wanted += (scores * weight).sum(-1) / weight.sum(-1) / max(1, heads)
    torch.testing.assert_close(pool(x), wanted)


def test_strided_convolutions_pad_as_for_their_picture():
    """B2 meets odd sizes on its 260 pixels: 260, 130, 65, 33, 17, 9."""
    with torch.device("meta"):
        strided = [m for m in PSLA(2, "b2", 1).effnet.modules() if getattr(m, "stride", 0) == (2, 2)]
        plain = [m for m in PSLA(2, "b0", 1).effnet.modules() if getattr(m, "stride", 0) == (2, 2)]
    assert [m.before_after for m in strided] == [(0, 1), (0, 1), (2, 2), (1, 1), (2, 2)]
    assert [m.before_after for m in plain] == [(0, 1), (0, 1), (1, 2), (0, 1), (1, 2)]


def gradients(call, *leaves):
    """Of a weighted sum of what `call` says, after the outcome itself."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    y = call(*leaves)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return y, *torch.autograd.grad((y * weight).sum(), leaves)


@pytest.mark.parametrize("shape", [(3, 6, 4, 3), (1, 2, 1, 1), (2, 3, CELLS, 2)])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_depthwise_filters_learn_what_plain_ones_learn(shape, memory):
    """Also of a map above `CELLS`, which is left to torch."""
    torch.manual_seed(0)
    channels = shape[1]
    conv = Depthwise(channels, channels, 5, padding=2, groups=channels, bias=False).double()
    x = torch.randn(shape, dtype=torch.double).contiguous(memory_format=memory)

    def ours(x, weight):
        return torch.func.functional_call(conv, {"weight": weight}, (x,))

    def plain(x, weight):
        return F.conv2d(x, weight, padding=2, groups=channels)

    torch.testing.assert_close(
        gradients(ours, x, conv.weight), gradients(plain, x, conv.weight), rtol=1e-9, atol=1e-9
    )


def test_frozen_and_empty_depthwise_convolutions():
    conv = Depthwise(4, 4, 5, padding=2, groups=4, bias=False)
    assert conv(torch.randn(0, 4, 3, 3)).shape == (0, 4, 3, 3)
    conv.requires_grad_(False)
    x = torch.randn(2, 4, 3, 3, requires_grad=True)
    conv(x).sum().backward()
    assert x.grad is not None
    with torch.autocast("cpu", torch.bfloat16):
        assert conv.requires_grad_()(x.detach()).dtype == torch.bfloat16


def test_channel_weights_and_activation_are_timms():
    torch.manual_seed(0)
    conv, x = OfOneCell(5, 3, 1), torch.randn(4, 5, 1, 1)
    for got, wanted in zip(
        gradients(conv, x), gradients(lambda x: F.conv2d(x, conv.weight, conv.bias), x), strict=True
    ):
        torch.testing.assert_close(got, wanted)
    for got, wanted in zip(gradients(SiLU(), x), gradients(F.silu, x), strict=True):
        torch.testing.assert_close(got, wanted)
    kinds = [type(m) for m in PSLA(2).effnet.modules()]
    assert (kinds.count(Depthwise), kinds.count(OfOneCell)) == (7, 32)


def test_planes_and_lengths():
    network = PSLA(2, heads=1, planes=3).eval()
    x = torch.randn(1, 3, 70, 64)
    with torch.inference_mode():
        y = network(x)
        assert network.embed(x).shape[:2] == (1, 1280)
    assert y.shape == (1, 2)
    assert ((y > 0) & (y < 1)).all()
    with pytest.raises(ValueError, match=r"expected spectrograms \(B, 3, frames, bands\)"):
        network(x[:, 0])


def test_every_parameter_learns():
    network = PSLA(2).train()
    F.binary_cross_entropy(network(torch.randn(2, 64, 32)).clamp(0, 1), torch.eye(2)).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("arguments", [(0,), (2.5,), (2, "b7"), (2, "b0", -1), (2, "b0", 4, 0)])
def test_sizes_of_no_network_are_one_sentence(arguments):
    with pytest.raises(ValueError, match="expected at least one class and plane, a variant of b0, b1, b2"):
        PSLA(*arguments)


def test_timm_is_imported_late():
    import subprocess
    import sys

    check = "import sys, detector.backbones; print('timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_any_precision_is_heard_and_too_few_frames_are_one_sentence():
    torch.manual_seed(0)
    network, x = PSLA(3).eval(), torch.randn(2, 40, 128)
    with torch.inference_mode():
        wanted = network(x)
        torch.testing.assert_close(network(x.double()), wanted)
        torch.testing.assert_close(network(x.mT.contiguous().mT), wanted)
        half = PSLA(3).half().eval()
        half.load_state_dict(network.state_dict())
        torch.testing.assert_close(half(x.half()).float(), wanted, rtol=0.02, atol=1e-3)
        with pytest.raises(ValueError, match="at least 32 x 32"):
            network(x[:, :31])
