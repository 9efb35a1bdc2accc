"""M-ALRAD: golden parity, published names and sizes, and what its beamformer is bound by."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from detector.published import MALRAD
from detector.systems import build_network, specify
from remasc import ARRAYS
from tests.golden_outputs import fill, read_golden


@pytest.fixture(scope="module")
def golden() -> dict:
    return read_golden("malrad_c4_sr44100")


@pytest.fixture(scope="module")
def network(golden) -> MALRAD:
    state = {
        f"module.{key}": torch.as_tensor(fill(key, tuple(shape))) for key, shape in golden["spec"].items()
    }
    return MALRAD(4, 44100).load_published(state).eval()


@pytest.fixture
def small() -> MALRAD:
    torch.manual_seed(0)
    return MALRAD(2, 16000)


def test_golden_outputs_are_reproduced(golden, network):
    meta = golden["meta"]
    x = np.random.default_rng(meta["input_seed"]).standard_normal(meta["input_shape"]).astype(np.float32)
    with torch.inference_mode():
        y = network.logits(torch.from_numpy(x) * meta["input_scale"]).numpy()
    assert np.linalg.norm(y - golden["y"]) <= 1e-4 * np.linalg.norm(golden["y"])


def test_names_sizes_and_count_are_the_published_ones(golden, network):
    assert {name: list(value.shape) for name, value in network.state_dict().items()} == golden["spec"]
    assert sum(p.numel() for p in network.parameters()) == golden["meta"]["parameters"] == 347_805
    assert (network.n_fft, network.hop) == (golden["meta"]["n_fft"], golden["meta"]["hop"])


def test_the_transform_follows_the_rate():
    with torch.device("meta"):
        network = MALRAD(7, 16000)
    assert (network.n_fft, network.hop, network.window) == (1024, 512, 16000)


def test_forward_is_the_difference_of_the_logits_of_the_prepared_window(small):
    x = torch.randn(2, 2, 20000) * 0.01
    with torch.inference_mode():
        logits = small.eval().logits(small.prepare(x))
        torch.testing.assert_close(small(x), logits[:, 0] - logits[:, 1])
        torch.testing.assert_close(small(x), small(x * 7.5), rtol=1e-3, atol=1e-4)  # level says nothing
        torch.testing.assert_close(small(x)[1:], small(x[1:]), rtol=1e-4, atol=1e-5)  # nor do the neighbours


def test_silence_and_short_clips_have_finite_scores_and_gradients(small):
    x = torch.zeros(3, 2, 9000)
    x[1, :, :700] = torch.randn(2, 700)
    x[2, 0] = torch.randn(9000)
    small.train()
    (small(x).square().sum() + small.penalty).backward()
    assert all(torch.isfinite(p.grad).all() for p in small.parameters())


def test_the_beam_is_the_sum_of_weighted_channels(small):
    real, imag, weights = (torch.randn(1, n, 513, 3) for n in (2, 2, 4))
    small.bm_weights = torch.nn.Module()
    small.bm_weights.forward = lambda planes: weights
    with torch.no_grad():
        one, other, _ = small.beamform(real, imag)
    wanted = (torch.complex(*weights.chunk(2, dim=1)) * torch.complex(real, imag)).sum(dim=1)
    torch.testing.assert_close(torch.complex(one, other), wanted)


def test_the_penalty_is_least_for_apart_and_small_weights(small):
    from detector.published.malrad import _penalty

    rng = torch.Generator().manual_seed(0)
    phase = 2 * torch.pi * torch.rand(2, 1, 40, 50, generator=rng)
    apart = torch.cat([phase, -phase], dim=1)  # unit magnitude, nearly orthogonal over 2,000 positions
    alike = torch.cat([phase, phase], dim=1)
    values = {}
    for name, angle in (("apart", apart), ("alike", alike)):
        values[name] = float(_penalty(torch.cat([angle.cos(), angle.sin()], dim=1)))
    assert values["apart"] == pytest.approx(1e-6 * 2 * 2000, rel=0.01)
    assert values["alike"] == pytest.approx(1e-6 * (2 * 2000 + 2), rel=1e-4)
    small.train().logits(small.prepare(torch.randn(1, 2, 4000)))
    assert small.penalty.requires_grad
    small.eval().logits(small.prepare(torch.randn(1, 2, 4000)))
    assert small.penalty is None


def test_training_minimises_the_penalty_too(tmp_path):
    """One step from the same weights, with and without it: the beamformer's weights end apart."""
    from detector.config import TrainConfig
    from detector.fitting import Training
    from detector.runlog import RunLog
    from detector.team import Team

    class Clips(list):
        labels = np.array([1, 0] * 4)

    torch.manual_seed(1)
    clips, start = Clips(torch.randn(8, 2, 3000)), MALRAD(2, 16000)
    ends = []
    for n, scale in enumerate((1.0, 1e4)):
        network = copy.deepcopy(start)
        config = TrainConfig(tmp_path, tmp_path / str(n), "malrad", "D1", device="cpu", schedule="constant")
        (tmp_path / str(n)).mkdir()
        with RunLog(config.out, on=False, bar=False) as log:
            run = Training(config, network, {"train": clips, "dev": clips}, Team(), torch.device("cpu"), log)
            assert type(run.optimizer) is torch.optim.Adam
            import detector.published.malrad as module

            before, module.SPARSITY = module.SPARSITY, module.SPARSITY * scale
            try:
                network.train()
                features, order = torch.stack(list(clips)), np.arange(8)
                run._step(features, torch.full((8,), 3000), torch.arange(8), order, 1)
            finally:
                module.SPARSITY = before
        ends.append(network.bm_weights.param_estimator[3].weight.detach())
    assert not torch.equal(*ends)


@pytest.mark.parametrize(
    ("shape", "says"), [((1, 3, 16000), "2 channels at 16000"), ((1, 2, 512), "more than 512")]
)
def test_no_prepared_window_is_one_sentence(small, shape, says):
    with pytest.raises(ValueError, match=says):
        small.logits(torch.zeros(shape))


@pytest.mark.parametrize("arguments", [(2.5, 16000), (0, 16000), (2, "16000")])
def test_sizes_of_no_network_are_one_sentence(arguments):
    with pytest.raises(ValueError, match="expected whole numbers"):
        MALRAD(*arguments)


def test_weights_of_another_array_are_one_sentence(network):
    with pytest.raises(ValueError, match=r"does not fit MALRAD\(2, 44100\): .*shape"):
        MALRAD(2, 44100).load_published(network.state_dict())


def test_it_is_a_system():
    specification = specify("malrad", (ARRAYS["D4"],))
    with torch.device("meta"):
        network = build_network({"specification": specification.as_dict(), "network": {}})
    assert isinstance(network, MALRAD)
    assert (network.channels, network.sample_rate, specification.seconds) == (7, 16000, 1.0)
