"""Adapters: nothing changes at first, the base stays bit-equal, merged equals apart, and only the few are kept."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors import safe_open
from torch import nn

from detector.adapters import (
    Adaptation,
    LoRALinear,
    adapt,
    base_hash,
    load_adapter,
    merge_lora,
    save_adapter,
    trained,
)
from detector.backbones import AST
from detector.backbones.transformer import Block as TokenBlock

CASES = {
    "lora": Adaptation("lora", ("blocks.*.mix", "blocks.1.out"), ("head",), rank=2),
    "lora-headless": Adaptation("lora", ("blocks.0.mix",), rank=3, scale=1.5),
    "serial": Adaptation("serial", ("blocks.*.out", "blocks.0.norm"), ("head",), rank=3),
    "parallel": Adaptation("parallel", ("blocks.*.mix",), ("head",), rank=3, scale=0.5),
    "serial-block": Adaptation("serial", ("blocks.?",), rank=2, width=6),
    "bitfit": Adaptation("bitfit", head=("head",)),
    "probe": Adaptation("probe", head=("head",)),
}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.out = nn.LayerNorm(6), nn.Linear(6, 9), nn.Linear(9, 6, bias=False)

    def forward(self, x):
        return x + self.out(self.mix(self.norm(x)).relu())


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm1d(6)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    def forward(self, x):
        return self.head(self.blocks(self.first(x)))


@pytest.fixture
def base() -> Network:
    torch.manual_seed(0)
    network = Network()
    network(torch.randn(32, 6) * 3 + 1)  # statistics that say something
    return network.eval()


def teach(network: nn.Module, steps: int = 3) -> None:
    torch.manual_seed(1)
    few = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(few, lr=0.05, weight_decay=0.1)
    network.train()
    for _ in range(steps):
        loss = nn.functional.cross_entropy(network(torch.randn(16, 6)), torch.arange(16) % 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()


@pytest.mark.parametrize("case", CASES)
def test_it_begins_as_the_base(base, case):
    x = torch.randn(5, 6)
    before = base(x)
    assert torch.equal(adapt(base, CASES[case])(x), before)


@pytest.mark.parametrize("case", CASES)
def test_the_base_stays_bit_equal_and_the_few_learn(base, case):
    before, x = copy.deepcopy(base.state_dict()), torch.randn(5, 6)
    network = adapt(copy.deepcopy(base), CASES[case])
    start, frozen = copy.deepcopy(network.state_dict()), base_hash(network)
    teach(network)
    after, few = network.state_dict(), trained(network)
    assert set(before) <= set(after)  # the base's names stay
    assert all(torch.equal(after[name], before[name]) for name in before if name not in few)
    assert base_hash(network) == frozen
    assert all(not torch.equal(after[name], start[name]) for name in few)
    assert not torch.equal(network(x), base(x))


def test_the_few_are_few(base):
    names = {case: set(trained(adapt(copy.deepcopy(base), CASES[case]))) for case in CASES}
    head = {name for name in base.state_dict() if name.startswith("head.")}
    assert names["probe"] == head
    assert names["bitfit"] - head == {
        "first.bias",
        *(f"blocks.{n}.{part}.bias" for n in (0, 1) for part in ("norm", "mix")),
    }
    assert names["lora-headless"] == {"blocks.0.mix.lora_down", "blocks.0.mix.lora_up"}
    assert names["serial-block"] == {
        f"blocks.{n}.adapter.{part}.{kind}"
        for n in (0, 1)
        for part in ("down", "up")
        for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("case", ["lora", "lora-headless"])
def test_lora_merged_equals_lora_apart(base, case):
    network = adapt(base, CASES[case])
    teach(network)
    x = torch.randn(50, 6)
    with torch.inference_mode():
        apart = network(x)
        merged = merge_lora(network)(x)
    torch.testing.assert_close(merged, apart, rtol=1e-5, atol=1e-6)
    assert not any(isinstance(module, LoRALinear) for module in network.modules())
    assert set(network.state_dict()) == set(Network().state_dict())


@pytest.mark.parametrize("case", CASES)
def test_the_file_holds_the_few_and_brings_them_back(tmp_path, base, case):
    network = adapt(copy.deepcopy(base), CASES[case])
    teach(network)
    save_adapter(tmp_path / "a.safetensors", network)
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(trained(network))
    x = torch.randn(5, 6)
    again = load_adapter(tmp_path / "a.safetensors", copy.deepcopy(base)).eval()
    assert torch.equal(again(x), network(x))
    other = copy.deepcopy(base)
    with torch.no_grad():
        other.blocks[1].norm.weight[0] += 1e-6
    with pytest.raises(ValueError, match="belongs to another base network"):
        load_adapter(tmp_path / "a.safetensors", other)


def test_a_copy_of_an_adapted_network_is_its_own(base):
    network = adapt(base, CASES["serial"])
    other, x = copy.deepcopy(network), torch.randn(5, 6)
    before = network(x)
    teach(other)
    assert torch.equal(network(x), before)
    assert not torch.equal(other(x), before)


def test_a_damaged_file_is_one_sentence(tmp_path, base):
    (tmp_path / "a.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="not readable as an adapter"):
        load_adapter(tmp_path / "a.safetensors", base)
    with pytest.raises(ValueError, match="no such file"):
        load_adapter(tmp_path / "b.safetensors", base)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            {"method": "lora", "targets": ("blocks.0.mx",)},
            "no module is named 'blocks.0.mx'; did you mean blocks.0.mix",
        ),
        ({"method": "lora", "targets": ("blocks.0.norm",)}, "is a LayerNorm; LoRA goes to Linear"),
        ({"method": "serial", "targets": ("blocks",)}, "is a Sequential; name a module inside"),
        ({"method": "serial", "targets": ("blocks.0",)}, "unknown width"),
        ({"method": "lora"}, "name the modules it goes to"),
        ({"method": "probe", "targets": ("head",)}, "name none"),
        ({"method": "probe"}, "leaves nothing to train"),
        ({"method": "dora"}, "unknown method 'dora'"),
        ({"method": "lora", "targets": "head"}, "expected a list of module names"),
        ({"method": "lora", "targets": ("head.0",), "rank": 0}, "rank is 0"),
        ({"method": "lora", "targets": ("head.0",), "scale": -1}, "scale is -1"),
    ],
)
def test_what_cannot_be_adapted_is_one_sentence(base, arguments, says):
    with pytest.raises(ValueError, match=says) as caught:
        adapt(base, Adaptation(**arguments))
    assert "\n" not in str(caught.value)


def test_an_adapted_network_is_not_adapted_again(base):
    adapt(base, CASES["probe"])
    with pytest.raises(ValueError, match="adapted already"):
        adapt(base, CASES["lora"])


def test_layers_that_are_never_called_are_refused():
    layer = nn.Sequential(nn.TransformerEncoderLayer(6, 2, 8))
    for target in ("0.linear1", "0.self_attn.out_proj"):
        with pytest.raises(ValueError, match="lies in a fused"):
            adapt(layer, Adaptation("lora", (target,)))


class Tokens(nn.Module):
    """Two transformer blocks and a head on the first token."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TokenBlock(8, 2) for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x, mask=None):
        for block in self.blocks:
            x = block(x, mask)
        return self.head(x[:, 0])


PROMPT = Adaptation("prompt", ("blocks.0", "blocks.1"), ("head",), rank=4, width=8)


def test_prompts_are_few_and_come_back(tmp_path):
    torch.manual_seed(0)
    base = Tokens().eval()
    network, x = adapt(copy.deepcopy(base), PROMPT), torch.randn(5, 7, 8)
    names = {f"blocks.{n}.prompt" for n in (0, 1)} | {"head.weight", "head.bias"}
    assert set(trained(network)) == names
    assert network(x).shape == base(x).shape
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        network(x).square().sum().backward()
        optimiser.step()
    assert all(torch.equal(network.state_dict()[name], base.state_dict()[name]) for name in base.state_dict()
               if name not in names)  # fmt: skip
    save_adapter(tmp_path / "p.safetensors", network)
    again = load_adapter(tmp_path / "p.safetensors", copy.deepcopy(base))
    assert torch.equal(again(x), network(x))
    with torch.no_grad():
        again.blocks[1].prompt.add_(1.0)
    assert not torch.equal(again(x), network(x))  # what is added is heard


def test_prompts_let_no_masked_token_through():
    torch.manual_seed(0)
    network, x = adapt(Tokens(), PROMPT), torch.randn(3, 7, 8)
    mask = (torch.arange(7) < 5)[None, None, None].expand(3, 1, 1, 7)
    other = x.clone()
    other[:, 5:] = 9.0
    torch.testing.assert_close(network(other, mask), network(x, mask))
    torch.testing.assert_close(network(x, mask), network(x[:, :5]))


def test_checkpointed_blocks_have_the_same_gradients_with_prompts_too():
    torch.manual_seed(0)
    plain, saving = AST(3, 48, stride=16), AST(3, 48, stride=16, checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    prompts = Adaptation("prompt", tuple(f"v.blocks.{n}" for n in range(12)), ("mlp_head",), 2, width=192)
    x, lengths = torch.randn(2, 48, 128), torch.tensor([48, 20])
    found = []
    for network in (plain, saving):
        torch.manual_seed(1)
        adapt(network, prompts)(x, lengths).square().sum().backward()
        found.append({name: p.grad for name, p in network.named_parameters() if p.requires_grad})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name])
