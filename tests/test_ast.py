"""AST: golden parity, four origins of weights, padding that says nothing, checkpointing and compile."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from detector.backbones import AST
from detector.backbones.transformer import attended
from detector.backbones.weights import resampled_positions
from tests.golden_outputs import fill, read_golden


def filled(name: str) -> tuple[dict[str, torch.Tensor], torch.Tensor, np.ndarray]:
    """Seeded published weights, the seeded input, and the published output."""
    spec, meta, y = read_golden(name).values()
    state = {key: torch.from_numpy(fill(key, tuple(shape))) for key, shape in spec.items() if shape}
    x = np.random.default_rng(meta["input_seed"]).standard_normal(meta["input_shape"]).astype(np.float32)
    return state, torch.from_numpy(x), y


def distance(a: torch.Tensor, b: np.ndarray) -> float:
    return float(np.linalg.norm(a.numpy() - b) / np.linalg.norm(b))


@pytest.fixture(scope="module")
def golden():
    return filled("ast_tiny_t100")


@pytest.fixture(scope="module")
def network(golden) -> AST:
    return AST(35, 100).load_published(golden[0]).eval()


def test_golden_outputs_are_reproduced(golden, network):
    _, x, y = golden
    with torch.inference_mode():
        assert distance(network(x), y) < 1e-4


def test_names_and_sizes_are_the_published_ones(golden, network):
    published = {key: value.shape for key, value in golden[0].items() if not key.startswith(("v.head",))}
    assert {key: value.shape for key, value in network.state_dict().items()} == published


@pytest.mark.parametrize(("size", "millions"), [("tiny", 5.6), ("small", 22.0), ("base", 87.3)])
def test_sizes(size, millions):
    with torch.device("meta"):
        network = AST(527, 1024, size=size)
    assert network.v.rows * network.v.columns == 12 * 101
    assert sum(p.numel() for p in network.v.parameters()) == pytest.approx(millions * 1e6, rel=0.02)


def test_a_published_file_is_read(golden, network, tmp_path):
    state, x, _ = golden
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "audioset.pth")
    other = AST(35, 100).load_published(tmp_path / "audioset.pth").eval()
    with torch.inference_mode():
        assert torch.equal(other(x), network(x))


def as_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Published names -> those of transformers' ASTForAudioClassification."""
    pairs = [
        (r"^v\.cls_token", "embeddings.cls_token"),
        (r"^v\.dist_token", "embeddings.distillation_token"),
        (r"^v\.pos_embed", "embeddings.position_embeddings"),
        (r"^v\.patch_embed\.proj", "embeddings.patch_embeddings.projection"),
        (r"^v\.norm", "layernorm"),
        (r"^v\.blocks\.", "encoder.layer."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"\.attn\.proj", ".attention.output.dense"),
        (r"\.mlp\.fc1", ".intermediate.dense"),
        (r"\.mlp\.fc2", ".output.dense"),
    ]
    renamed = {}
    for key, value in state.items():
        if key.startswith(("v.head", "mlp_head")):
            continue
        for pattern, name in pairs:
            key = re.sub(pattern, name, key)
        key = f"audio_spectrogram_transformer.{key}"
        if ".attn.qkv." in key:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[key.replace(".attn.qkv.", f".attention.attention.{part}.")] = third
        else:
            renamed[key] = value
    for name, part in (("classifier.layernorm", "mlp_head.0"), ("classifier.dense", "mlp_head.1")):
        renamed |= {f"{name}.{kind}": state[f"{part}.{kind}"] for kind in ("weight", "bias")}
    return renamed


def test_weights_of_transformers_are_the_same_network(golden, network):
    state, x, _ = golden
    other = AST(35, 100).load_published(as_transformers(state)).eval()
    with torch.inference_mode():
        assert torch.equal(other(x), network(x))


def test_our_weights_run_in_transformers(golden, network):
    transformers = pytest.importorskip("transformers")
    state, x, _ = golden
    config = transformers.ASTConfig(
        hidden_size=192, num_attention_heads=3, intermediate_size=768, max_length=100, num_labels=35,
        layer_norm_eps=1e-6,
    )  # fmt: skip
    theirs = transformers.ASTForAudioClassification(config).eval()
    theirs.load_state_dict(as_transformers(state))
    with torch.inference_mode():
        assert distance(network(x), theirs(x).logits.numpy()) < 1e-4


@pytest.mark.parametrize("wrapper", [None, "model"])
def test_a_distilled_deit_starts_an_ast(golden, wrapper):
    state, x, _ = golden
    deit = {key[2:]: value for key, value in state.items() if key.startswith("v.")}
    deit["patch_embed.proj.weight"] = torch.randn(192, 3, 16, 16)
    deit["pos_embed"] = torch.randn(1, 2 + 14 * 14, 192)
    torch.manual_seed(1)
    network = AST(10, 100)
    fresh = network.mlp_head[1].weight.clone()
    network.load_published({wrapper: deit} if wrapper else deit)
    assert torch.equal(network.v.patch_embed.proj.weight[:, 0], deit["patch_embed.proj.weight"].sum(1))
    grid = network.v.pos_embed[0, 2:].unflatten(0, (12, 9))
    picture = deit["pos_embed"][0, 2:].unflatten(0, (14, 14))
    assert torch.equal(grid, picture[1:13, 3:12])  # 12 rows and 9 columns from the middle of 14 x 14
    assert torch.equal(network.v.pos_embed[:, :2], deit["pos_embed"][:, :2])
    assert torch.equal(network.mlp_head[1].weight, fresh)
    assert network(x).shape == (2, 10)


def test_an_ast_under_the_names_of_timm_is_no_picture(golden, network):
    state, x, _ = golden
    plain = {key.removeprefix("v."): value for key, value in state.items()}
    other = AST(35, 100).load_published(plain).eval()
    with torch.inference_mode():
        assert torch.equal(other(x), network(x))
    grey = plain | {"pos_embed": torch.randn(1, 2 + 14 * 14, 192)}
    grid = AST(35, 100).load_published(grey).v.pos_embed[0, 2:].unflatten(0, (12, 9))
    assert torch.equal(grid, grey["pos_embed"][0, 2:].unflatten(0, (14, 14))[1:13, 3:12])


@pytest.mark.parametrize("name", ["published", "transformers"])
def test_speech_commands_weights_start_other_strides(golden, name):
    """12 x 12 positions are also 8 x 18, which the 8 rows of stride 16 would suggest."""
    state, _, _ = golden
    state = state | {"v.pos_embed": torch.randn(1, 2 + 144, 192)}
    grid = state["v.pos_embed"][0, 2:].unflatten(0, (12, 12))
    weights = state if name == "published" else as_transformers(state)
    network = AST(35, 100, stride=16).load_published(weights)
    assert torch.equal(network.v.pos_embed[0, 2:].unflatten(0, (8, 6)), grid[2:10, 3:9])
    # of another network with as many positions its own rows are meant
    long = AST(10, 300, stride=16)
    network = AST(10, 100, stride=16).load_published(long.state_dict())
    grid = long.v.pos_embed[0, 2:].unflatten(0, (8, 18))
    assert torch.equal(network.v.pos_embed[0, 2:].unflatten(0, (8, 6)), grid[:, 6:12])


def test_positions_are_cut_from_the_middle_or_stretched():
    grid = torch.randn(4, 12, 101)
    assert torch.equal(resampled_positions(grid, 12, 101), grid)
    assert torch.equal(resampled_positions(grid, 12, 9), grid[:, :, 46:55])
    longer = interpolate(grid[None], (12, 150), mode="bilinear")[0]
    assert torch.equal(resampled_positions(grid, 12, 150), longer)
    assert torch.equal(resampled_positions(grid, 5, 150), longer[:, 4:9])
    assert torch.equal(
        resampled_positions(grid, 20, 101), interpolate(grid[None], (20, 101), mode="bilinear")[0]
    )


def test_audioset_weights_start_other_lengths_strides_and_classes(golden):
    state, x, _ = golden
    audioset = state | {
        "v.pos_embed": torch.randn(1, 2 + 1212, 192),
        "mlp_head.1.weight": torch.randn(527, 192),
        "mlp_head.1.bias": torch.randn(527),
    }
    grid = audioset["v.pos_embed"][0, 2:].T.unflatten(1, (12, 101))
    for frames, stride, shape in ((100, 10, (12, 9)), (1500, 10, (12, 149)), (100, 16, (8, 6))):
        network = AST(35, frames, stride=stride).load_published(audioset)
        expected = resampled_positions(grid, *shape).flatten(1).T
        assert torch.equal(network.v.pos_embed[0, 2:], expected)
    assert network.eval()(x).shape == (2, 35)
    assert not torch.equal(network.mlp_head[1].weight, audioset["mlp_head.1.weight"][:35])


@pytest.mark.parametrize("pooling", ["tokens", "mean"])
@pytest.mark.parametrize("filler", [7.0, float("nan")])
def test_padding_says_nothing(golden, pooling, filler):
    state, x, _ = golden
    network = AST(35, 100, pooling=pooling).load_published(state).eval()
    lengths = torch.tensor([100, 57, 16, 5])
    x = x.repeat(2, 1, 1)
    batch = x.clone()
    for item, length in zip(batch, lengths, strict=True):
        item[length:] = filler
    with torch.inference_mode():
        together = network(batch, lengths)
        for i, length in enumerate(lengths):
            alone = network(x[i : i + 1, :length])
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)
        full = torch.full((4,), 100)
        torch.testing.assert_close(network(x, full), network(x), rtol=1e-4, atol=1e-5)


def test_further_planes_start_silent(golden, network):
    state, x, _ = golden
    spatial = AST(35, 100, planes=3).load_published(state).eval()
    planes = torch.cat([x[:, None], torch.randn(2, 2, 100, 128)], dim=1)
    with torch.inference_mode():
        torch.testing.assert_close(spatial(planes), network(x), rtol=1e-4, atol=1e-5)
    again = AST(35, 100, planes=3).load_published(spatial.state_dict())
    assert torch.equal(again.v.patch_embed.proj.weight, spatial.v.patch_embed.proj.weight)


def test_checkpointing_changes_memory_alone(golden):
    state, x, _ = golden
    gradients = []
    for checkpointing in (False, True):
        network = AST(35, 100, checkpointing=checkpointing).load_published(state)
        network(x[:, :40], torch.tensor([40, 30])).square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


@pytest.mark.slow
def test_it_compiles():
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        get_cpp_compiler()
    except Exception as error:
        pytest.skip(f"no C++ compiler here ({type(error).__name__})")
    network = AST(35, 100).eval()
    network.v.blocks = network.v.blocks[:1]  # all twelve are the same code
    compiled = torch.compile(network, fullgraph=True)
    x = torch.randn(2, 40, 128)
    with torch.inference_mode():
        for lengths in (None, torch.tensor([40, 30])):
            torch.testing.assert_close(compiled(x, lengths), network(x, lengths), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "v.norm.bias"}, "missing v.norm.bias"),
        (lambda s: {k: v for k, v in s.items() if k != "v.pos_embed"}, "holds no position embeddings"),
        (lambda s: {k: v for k, v in s.items() if "patch_embed" not in k}, "holds no patch filter"),
        (lambda s: s | {"v.extra": torch.zeros(2)}, "unexpected v.extra"),
        (lambda s: s | {"v.pos_embed": torch.zeros(1, 2 + 109, 192)}, "109 positions are no grid"),
        (lambda s: s | {"v.norm.bias": torch.full((192,), float("inf"))}, "not finite"),
        (lambda s: s | {"v.patch_embed.proj.weight": torch.zeros(192, 1, 128, 2)}, "instead of"),
    ],
)
def test_weights_that_do_not_fit_are_one_sentence(golden, network, change, says):
    before = network.v.pos_embed.clone()
    with pytest.raises(ValueError, match=says) as caught:
        network.load_published(change(golden[0]))
    assert "\n" not in str(caught.value)
    assert torch.equal(before, network.v.pos_embed)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda n: AST(35, 100, size="huge"), "expected one of tiny, small, base"),
        (lambda n: AST(35, 10), "hold no patch of 16 x 16"),
        (lambda n: AST(0, 100), "whole numbers"),
        (lambda n: AST(35, 100, stride=0), "whole numbers"),
        (lambda n: AST(35, 100, pooling="max"), "one of tokens, mean"),
        (lambda n: n(torch.zeros(2, 101, 128)), "takes 1 to 100"),
        (lambda n: n(torch.zeros(2, 100, 64)), "128 mel bands"),
        (lambda n: n(torch.zeros(100, 128)), "128 mel bands"),
        (lambda n: AST(35, 100, size="small").load_published(n.state_dict()), "check the size"),
    ],
)
def test_what_cannot_be_is_one_sentence(network, call, says):
    with pytest.raises(ValueError, match=says) as caught:
        call(network)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("masked", [False, True])
def test_a_cpu_in_half_precision_attends_by_the_same_formula(masked):
    torch.manual_seed(0)
    mask = torch.arange(20) < torch.tensor([[20], [13]])
    mask = mask[:, None, None] if masked else None
    whole = [torch.randn(2, 3, 20, 64, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    half = [x.detach().bfloat16().requires_grad_() for x in whole]
    wanted = torch.nn.functional.scaled_dot_product_attention(*whole, attn_mask=mask)
    found = attended(*half, mask)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), wanted, rtol=0.03, atol=0.03)
    wanted.square().sum().backward()
    found.square().sum().backward()
    for one, other in zip(half, whole, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=0.05, atol=0.1)
    with torch.no_grad():
        torch.testing.assert_close(attended(*half, mask), found.detach(), rtol=0.03, atol=0.03)
