"""SSAST: golden parity of fine-tuning, losses against a slow reference, nothing hidden leaks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from detector.backbones import AST
from detector.pretrain import SSAST
from detector.pretrain.masking import draw_masks
from tests.golden_outputs import fill, read_golden


@pytest.fixture(scope="module")
def golden() -> dict:
    spec, meta, y = read_golden("ssast_tiny_patch_t100").values()
    state = {key: torch.from_numpy(fill(key, tuple(shape))) for key, shape in spec.items() if shape}
    state |= {"p_input_fdim": torch.tensor(128), "p_input_tdim": torch.tensor(1024)}
    x = np.random.default_rng(meta["input_seed"]).standard_normal(meta["input_shape"]).astype(np.float32)
    return {"state": state, "x": torch.from_numpy(x), "y": y, "spec": spec}


@pytest.fixture(scope="module")
def small(golden) -> SSAST:
    """96 frames: a grid of 8 x 6."""
    return SSAST("tiny", 96).load_published(golden["state"]).eval()


def fine_tuned(golden, state) -> torch.Tensor:
    network = AST.from_ssast(state, 35, 100)
    head = {"0.weight": (192,), "0.bias": (192,), "1.weight": (35, 192), "1.bias": (35,)}
    filled = {name: torch.from_numpy(fill(f"mlp_head.{name}", s)) for name, s in head.items()}
    network.mlp_head.load_state_dict(filled)
    with torch.inference_mode():
        return network.eval()(golden["x"])


def test_fine_tuning_gives_the_golden_outputs(golden, tmp_path):
    y = fine_tuned(golden, golden["state"]).numpy()
    assert np.linalg.norm(y - golden["y"]) < 1e-4 * np.linalg.norm(golden["y"])
    torch.save({f"module.{key}": value for key, value in golden["state"].items()}, tmp_path / "ssast.pth")
    unrecorded = {key: value for key, value in golden["state"].items() if not key.startswith("p_")}
    for other in (tmp_path / "ssast.pth", unrecorded):
        assert np.array_equal(fine_tuned(golden, other).numpy(), y)


def test_names_and_sizes_are_the_published_ones(golden):
    published = {key: tuple(shape) for key, shape in golden["spec"].items() if not key.startswith("v.head")}
    network = SSAST("tiny")
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == published
    network.load_published(golden["state"])
    for key, value in network.state_dict().items():
        assert torch.equal(value, golden["state"][key]), key


def slow_losses(network: SSAST, x: torch.Tensor, masked: torch.Tensor) -> tuple[float, float]:
    """One clip and one patch at a time."""
    guessed, rebuilt = network.predict(x, masked)
    bands, frames = network.patch
    infonce, mse = [], []
    for clip, indices, guess, built in zip(x, masked.tolist(), guessed, rebuilt, strict=True):
        true = []
        for index in indices:
            row, column = divmod(index, network.grid[1])
            part = clip.T[row * bands : (row + 1) * bands, column * frames : (column + 1) * frames]
            true.append(part.flatten())
        for i, patch in enumerate(true):
            shares = F.softmax(torch.stack([patch @ g for g in guess]), dim=0)
            infonce.append(-float(shares[i].log()))
            mse.append(float(((patch - built[i]) ** 2).mean()))
    return float(np.mean(infonce)), float(np.mean(mse))


@pytest.mark.parametrize("patch", [(16, 16), (128, 2)])
def test_losses_are_the_slow_ones(patch):
    torch.manual_seed(0)
    network = SSAST("tiny", 32, patch=patch).eval()
    x = torch.randn(3, 32, 128)
    masked = draw_masks(network.grid, 3, share=0.4, sides=None)
    with torch.inference_mode():
        infonce, mse = network.losses(x, masked)
        expected = slow_losses(network, x, masked)
        assert float(network(x, masked)) == pytest.approx(float(infonce + 10 * mse))
    assert (float(infonce), float(mse)) == pytest.approx(expected, rel=1e-4)


def test_double_precision_keeps_its_digits(small):
    twin = SSAST("tiny", 96).double()
    twin.load_state_dict(small.state_dict())
    x, masked = torch.randn(2, 96, 128).double(), draw_masks(small.grid, 2, share=0.4)
    with torch.inference_mode():
        infonce, mse = twin.eval().losses(x, masked)
        _, rebuilt = twin.predict(x, masked)
        true = twin.patches(x).gather(1, masked[..., None].expand_as(rebuilt))
    assert infonce.dtype == mse.dtype == torch.float64
    assert float(mse) == pytest.approx(float((true - rebuilt).square().mean()), rel=1e-12)


def test_patches_are_those_of_unfold_and_fold_back():
    network = SSAST("tiny", 96)
    x = torch.randn(2, 96, 128)
    expected = F.unfold(x.transpose(1, 2)[:, None], (16, 16), stride=(16, 16)).transpose(1, 2)
    assert torch.equal(network.patches(x), expected)
    assert torch.equal(network.spectrogram(network.patches(x)), x)


def test_hidden_patches_never_leak(golden, small):
    x = torch.randn(2, 96, 128)
    masked = draw_masks(small.grid, 2, share=0.5)
    with torch.inference_mode():
        blank, filled = small.reconstruct(x, masked)
        other = torch.where(blank.isnan(), 50 * torch.randn_like(x), x)
        for before, after in zip(small.predict(x, masked), small.predict(other, masked), strict=True):
            assert torch.equal(before, after)
        assert torch.equal(torch.where(blank.isnan(), x, filled), x)
        assert float(blank.isnan().float().mean()) == 0.5
        rebuilt = small.patches(filled).gather(1, masked[..., None].expand(-1, -1, 256))
        assert torch.equal(rebuilt, small.predict(x, masked)[1])


def test_padding_never_leaks(golden, small):
    short = SSAST("tiny", 48).load_published(golden["state"]).eval()
    x = torch.randn(2, 96, 128)
    lengths = torch.tensor([96, 50])
    x[1, 50:] = float("nan")
    masked = draw_masks(small.grid, 2, columns=small.columns(lengths))
    with torch.inference_mode():
        both = small.losses(x, masked, lengths)
        again = small.losses(x.nan_to_num(9.0), masked, lengths)
        assert [float(v) for v in both] == [float(v) for v in again]
        assert all(bool(v.isfinite()) for v in both)
        # the second clip's three columns alone, with the positions that it has in the batch
        positions = small.v.pos_embed[:, 2:].unflatten(1, small.grid)[:, :, :3].flatten(1, 2)
        short.v.pos_embed.copy_(torch.cat([small.v.pos_embed[:, :2], positions], dim=1))
        counted = masked[1][masked[1] >= 0]
        moved = counted // 6 * 3 + counted % 6
        alone = short.losses(x[1:, :48], moved[None])
        in_batch = small.losses(x[1:], masked[1:], lengths[1:])
    for one, other in zip(alone, in_batch, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_training_lowers_both_losses():
    torch.manual_seed(0)
    network = SSAST("tiny", 32)
    x = torch.randn(4, 1, 128).expand(-1, 32, -1).contiguous()
    masked = draw_masks(network.grid, 4, share=0.5, sides=None)
    optimizer = torch.optim.Adam(network.parameters(), 3e-4)
    history = []
    for _ in range(14):
        infonce, mse = network.losses(x, masked)
        optimizer.zero_grad()
        (infonce + 10 * mse).backward()
        optimizer.step()
        history.append((infonce.item(), mse.item()))
    assert all(p.grad is not None for p in network.parameters())
    assert history[-1][1] < 0.9 * history[0][1]
    assert sum(history[-1]) < sum(history[0])


def test_frame_patches_fine_tune_without_skipping_frames():
    state = SSAST("tiny", 64, patch=(128, 2)).state_dict()
    network = AST.from_ssast(state, 7, 40)
    assert (network.v.rows, network.v.columns, network.v.stride) == (1, 20, (10, 2))
    assert torch.equal(network.v.pos_embed[0, 2:], state["v.pos_embed"][0, 2 + 6 : 2 + 26])
    assert network.eval()(torch.randn(2, 40, 128)).shape == (2, 7)
    assert AST.from_ssast(state, 7, 40, stride=(128, 1)).v.columns == 39


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.int16])
def test_indices_of_any_whole_type_and_sounds_of_any_precision(small, kind):
    x, masked = torch.randn(2, 96, 128), draw_masks(small.grid, 2, share=0.3)
    with torch.inference_mode():
        wanted = small.losses(x, masked)
        found = small.losses(x.double(), masked.to(kind))
        assert torch.equal(small.reconstruct(x, masked.to(kind))[1], small.reconstruct(x, masked)[1])
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda n, s: n.losses(torch.zeros(1, 95, 128), torch.zeros(1, 3).long()), "96 frames"),
        (
            lambda n, s: n.losses(torch.zeros(1, 96, 128), torch.zeros(2, 3).long()),
            r"expected \(1, n\) patch indices",
        ),
        (lambda n, s: n.losses(torch.zeros(1, 96, 128), torch.full((1, 3), 48)), "0 to 47"),
        (lambda n, s: n.load_published(AST(3, 100).state_dict()), "no mask embedding"),
        (lambda n, s: SSAST("small", 96).load_published(s), "check size and patch"),
        (lambda n, s: SSAST("tiny", 96, patch=(128, 2)).load_published(s), "check size and patch"),
        (lambda n, s: SSAST("tiny", 8), "hold no patch"),
    ],
)
def test_what_cannot_be_is_one_sentence(golden, small, call, says):
    with pytest.raises(ValueError, match=says) as caught:
        call(small, golden["state"])
    assert "\n" not in str(caught.value)


def test_half_precision_keeps_the_losses():
    torch.manual_seed(0)
    network = SSAST(frames=64)
    x, masked = torch.randn(2, 64, 128), torch.stack([torch.randperm(32)[:20] for _ in range(2)])
    masked[1, 15:] = -1
    with torch.no_grad():
        plain = network.losses(x, masked)
        with torch.autocast("cpu", torch.bfloat16):
            half = network.losses(x, masked)
    for one, other in zip(plain, half, strict=True):
        torch.testing.assert_close(other.float(), one, rtol=0.02, atol=0.02)
