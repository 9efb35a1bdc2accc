"""NN-Multichannel: golden parity, its fast filter bank against plain autograd, what `prepare` promises."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from detector.published import NNMultichannel
from detector.published.filter_bank import filter_bank_max

GOLDEN = Path(__file__).parent / "golden"
_spec = importlib.util.spec_from_file_location("golden_fill", GOLDEN / "fill.py")
golden_fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden_fill)


@pytest.fixture(scope="module")
def golden() -> dict:
    with np.load(GOLDEN / "cldnn_c2_sr44100.npz", allow_pickle=False) as file:
        return {"spec": json.loads(str(file["spec"])), "meta": json.loads(str(file["meta"])), "y": file["y"]}


@pytest.fixture(scope="module")
def published_state(golden) -> dict[str, torch.Tensor]:
    return {
        f"module.{key}": torch.from_numpy(golden_fill.fill(key, tuple(shape)))
        for key, shape in golden["spec"].items()
    }


@pytest.fixture(scope="module")
def network(golden, published_state) -> NNMultichannel:
    meta = golden["meta"]
    return NNMultichannel(meta["channels"], meta["sample_rate"], meta["filters"]).load_published(
        published_state
    )


def test_golden_outputs_are_reproduced(golden, network):
    meta = golden["meta"]
    x = np.random.default_rng(meta["input_seed"]).standard_normal(meta["input_shape"]).astype(np.float32)
    with torch.inference_mode():
        y = network.eval().logits(torch.from_numpy(x) * meta["input_scale"]).numpy()
    assert np.linalg.norm(y - golden["y"]) <= 1e-4 * np.linalg.norm(golden["y"])


def test_names_sizes_and_count_are_the_published_ones(golden, network):
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert shapes == golden["spec"]
    assert sum(p.numel() for p in network.parameters()) == 16_177_666


@pytest.mark.parametrize(("rate", "frame", "taps"), [(44100, 882, 630), (16000, 320, 228)])
def test_frame_and_taps_follow_the_rate(rate, frame, taps):
    with torch.device("meta"):
        network = NNMultichannel(3, rate)
    assert (network.frame, network.taps, network.window) == (frame, taps, rate)


def test_forward_is_the_difference_of_the_logits_of_the_prepared_window(network):
    x = torch.randn(2, 2, 50000) * 0.01
    with torch.inference_mode():
        logits = network.logits(network.prepare(x))
        torch.testing.assert_close(network(x), logits[:, 0] - logits[:, 1])
        torch.testing.assert_close(network(x), network(x * 7.5), rtol=1e-3, atol=1e-5)  # level says nothing


def test_prepare_cuts_divides_and_pads():
    with torch.device("meta"):
        network = NNMultichannel(2, 16000)
    x = torch.randn(3, 2, 24000)
    x[1] = 0
    x[0, 0, 20000] = 1e6  # after the first second: no part in the peak
    y = network.prepare(x)
    assert y.shape == (3, 2, 16000)
    torch.testing.assert_close(y.abs().amax(dim=(1, 2)), torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(
        y[0] * x[0, :, :16000].abs().max(), x[0, :, :16000]
    )  # one factor for all channels
    short = network.prepare(x[2:, :, :9000])
    assert short.shape == (1, 2, 16000)
    assert not short[..., 9000:].any()
    assert torch.equal(short, network.prepare(F.pad(x[2:, :, :9000], (0, 5000))))
    assert not network.prepare(x[:, :, :0]).any()


@pytest.mark.parametrize("shape", [(2, 44100), (1, 3, 44100), (1, 1, 44100)])
def test_a_wrong_shape_is_refused(network, shape):
    with pytest.raises(ValueError, match="2 channels at 44100 Hz"):
        network.prepare(torch.zeros(shape))


@pytest.mark.parametrize("seed", range(6))
def test_fast_filter_bank_equals_plain_autograd(seed):
    rng = np.random.default_rng(seed)
    frames, channels, filters = rng.integers(1, 90), rng.integers(1, 5), rng.integers(1, 6)
    taps = int(rng.integers(1, 70))
    samples = taps + int(rng.integers(0, 90))
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(frames, channels, samples, generator=g, dtype=torch.float64)
    w = torch.randn(filters, channels, taps, generator=g, dtype=torch.float64)
    b = torch.randn(filters, generator=g, dtype=torch.float64)
    upstream = torch.randn(frames, filters, generator=g, dtype=torch.float64)
    results = []
    for fast in (True, False):
        leaves = [t.clone().requires_grad_() for t in (x, w, b)]
        y = filter_bank_max(*leaves, fast=fast)
        (y.relu() * upstream).sum().backward()
        results.append([y.detach(), *(leaf.grad for leaf in leaves)])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, msg=f"seed {seed}")


def test_filter_bank_gradcheck():
    g = torch.Generator().manual_seed(0)
    shapes = ((3, 2, 30), (4, 2, 20), (4,))
    leaves = [torch.randn(s, generator=g, dtype=torch.float64).requires_grad_() for s in shapes]
    assert torch.autograd.gradcheck(lambda x, w, b: filter_bank_max(x, w, b, fast=True), leaves)


def test_published_files_load(tmp_path, network, published_state):
    torch.save(published_state, tmp_path / "net.pth")
    save_file(published_state, tmp_path / "net.safetensors")
    for name in ("net.pth", "net.safetensors"):
        loaded = NNMultichannel(2, 44100).load_published(tmp_path / name)
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), network.parameters(), strict=True))


def _without(state, key):
    return {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: _without(s, "module.fc3.bias"), "missing fc3.bias"),
        (lambda s: s | {"module.fc9.bias": torch.zeros(2)}, "unexpected fc9.bias"),
        (lambda s: s | {"module.fc3.bias": torch.zeros(3)}, r"fc3.bias has shape \[3\] instead of \[2\]"),
        (lambda s: s | {"module.fc3.bias": torch.tensor([0.0, float("nan")])}, "not finite"),
        (lambda s: {}, "and 19 more"),
    ],
)
def test_a_state_that_does_not_fit_is_one_sentence(network, published_state, change, says):
    with pytest.raises(ValueError, match=says) as caught:
        network.load_published(change(published_state))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_one_sentence(tmp_path, network, content, suffix):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not readable as weights") as caught:
        network.load_published(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="no such file"):
        network.load_published(tmp_path / f"absent{suffix}")


def test_pickled_objects_are_never_run(tmp_path, network):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "boom",))

    torch.save({"fc3.bias": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(ValueError, match="not readable as weights"):
        network.load_published(tmp_path / "bomb.pth")
    assert not (tmp_path / "boom").exists()
