"""NN-Multichannel: golden parity, its fast filter bank against plain autograd, what `prepare` promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from detector.published import NNMultichannel
from detector.published.filter_bank import filter_bank_max
from tests.golden_outputs import fill, read_golden


@pytest.fixture(scope="module")
def golden() -> dict:
    return read_golden("cldnn_c2_sr44100")


@pytest.fixture(scope="module")
def published_state(golden) -> dict[str, torch.Tensor]:
    return {
        f"module.{key}": torch.from_numpy(fill(key, tuple(shape))) for key, shape in golden["spec"].items()
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


@pytest.fixture(scope="module")
def small() -> NNMultichannel:
    torch.manual_seed(0)
    return NNMultichannel(2, 16000, filters=2).eval()


@pytest.mark.parametrize(
    "change",
    [
        torch.Tensor.double,
        torch.Tensor.half,
        torch.Tensor.bfloat16,
        lambda x: (x * 2**15).short(),
        lambda x: x.numpy(),
        lambda x: x.double().numpy(),
        lambda x: (x.numpy() * 2**15).astype(np.int16),
        lambda x: np.asfortranarray(x.numpy())[:, :, ::-1][:, :, ::-1],
    ],
)
def test_any_real_type_is_heard(small, change):
    x = torch.randn(2, 2, 9000).clamp(-3, 3) * 0.2
    x[0, 0, 0] = -1  # the lowest 16-bit value, whose magnitude is no 16-bit value
    with torch.inference_mode():
        scores, other = small(x), small(change(x))
    assert other.dtype == torch.float32
    torch.testing.assert_close(other, scores, rtol=0.02, atol=1e-3)


def test_a_window_of_another_type_is_the_same_window(small):
    window = small.prepare(torch.randn(2, 2, 9000))
    with torch.inference_mode():
        wanted = small.logits(window)
        for other in (window.double(), window.numpy(), window.double().numpy()):
            torch.testing.assert_close(small.logits(other), wanted)


def test_weights_in_double_precision_hear_in_double_precision():
    network = NNMultichannel(1, 16000, filters=2).double().eval()
    with torch.inference_mode():
        assert network(torch.randn(1, 1, 5000)).dtype == torch.float64


def test_no_recordings_are_no_scores(small):
    assert small(torch.zeros(0, 2, 16000)).shape == (0,)
    assert small.logits(torch.zeros(0, 2, 16000)).shape == (0, 2)


@pytest.mark.parametrize("call", ["prepare", "embed", "logits", "__call__"])
@pytest.mark.parametrize(
    "x", [None, "x", [[[0.1]]], torch.ones(1, 2, 16000) > 0, torch.zeros(1, 2, 16000).cfloat()]
)
def test_what_is_no_recording_is_one_sentence(small, call, x):
    with pytest.raises(ValueError, match="of real numbers, got") as caught:
        getattr(small, call)(x)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 2, 319), (1, 2, 0), (2, 16000), (1, 3, 16000), (0, 2, 10)])
def test_no_prepared_window_is_one_sentence(small, shape):
    with pytest.raises(ValueError, match=r"prepared window \(B, 2, at least 320 samples\), got shape"):
        small.logits(torch.zeros(shape))


@pytest.mark.parametrize(
    "arguments", [(2.5, 16000), (2, "16000"), (2, None), (0, 16000), (10**9, 16000), (2, 16000, 10**9)]
)
def test_sizes_of_no_network_are_one_sentence(arguments):
    with pytest.raises(ValueError, match="expected whole numbers"):
        NNMultichannel(*arguments)


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


@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_prefixes_and_wrappers_of_trainings_are_taken_off(
    tmp_path, network, published_state, prefix, wrapped
):
    state = {prefix + key.removeprefix("module."): value for key, value in published_state.items()}
    state = {"state_dict": state} if wrapped else state
    torch.save(state, tmp_path / "net.pth")
    for source in (state, tmp_path / "net.pth"):
        loaded = NNMultichannel(2, 44100).load_published(source)
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
        (lambda s: s | {"module.a\nb\x1b[31m": torch.zeros(2)}, r"unexpected 'a\\nb\\x1b"),
        (lambda s: s | {"fc3.bias": torch.zeros(2)}, "names 'fc3.bias' twice"),
        (lambda s: s | {"module.fc3.bias": "zero"}, "'fc3.bias' is of type str"),
        (lambda s: s | {"module.fc3.bias": None}, "'fc3.bias' is of type NoneType"),
        (lambda s: s | {"module.fc3.bias": torch.zeros(2).long()}, "strided int64 tensor"),
        (lambda s: s | {"module.fc3.bias": torch.zeros(2).cfloat()}, "strided complex64 tensor"),
        (lambda s: s | {"module.fc3.bias": torch.zeros(2).to_sparse()}, "sparse_coo float32 tensor"),
        (lambda s: s | {"module.fc3.bias": torch.zeros(2, device="meta")}, "meta tensor"),
        (lambda s: s | {"module.fc3.bias": torch.full((2,), 1e300, dtype=torch.float64)}, "not finite"),
        (lambda s: {"net": s}, "'net' is of type dict"),
        (lambda s: [s], "of type list; expected a state dict or the path"),
        (lambda s: None, "of type NoneType; expected a state dict or the path"),
        (lambda s: "", "is a folder"),
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


def test_a_file_of_something_else_is_one_sentence(tmp_path, network):
    for name, content in {
        "list": [1, 2],
        "tensor": torch.zeros(2),
        "names": {"a": [1.0]},
        "whole": network,
    }.items():
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(ValueError, match=r"no state dict|of type list|not readable as weights") as caught:
            network.load_published(tmp_path / f"{name}.pth")
        assert str(caught.value).isprintable()
        assert "weights_only" not in str(caught.value)  # torch advises to run what is in the file


def test_pickled_objects_are_never_run(tmp_path, network):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "boom",))

    torch.save({"fc3.bias": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(ValueError, match="not readable as weights"):
        network.load_published(tmp_path / "bomb.pth")
    assert not (tmp_path / "boom").exists()
