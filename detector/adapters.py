"""Few parameters on a frozen network: LoRA, bottleneck adapters, prompts, BitFit and the linear probe.

After `adapt` the base's parameters keep their names and their bits: what is added stands beside them under names of
its own, batch statistics included. `save_adapter` keeps the few parameters alone, with the hash of the base
they belong to.
Methods as compared by Cappellazzo et al. 2023; LoRA is arXiv 2106.09685, the bottlenecks arXiv 1902.00751 (serial)
and arXiv 2110.04366 (parallel), deep prompts arXiv 2203.12119. Where they sit (Houlsby: after
attention and after the MLP; Pfeiffer: after the MLP alone) is the caller's choice of `targets`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from remasc.atomic import whole_file
from remasc.sentences import quoted, reason

Method = Literal["lora", "serial", "parallel", "prompt", "bitfit", "probe"]
PLACED = ("lora", "serial", "parallel", "prompt")  # they go to named modules
PROMPT_DEVIATION = 0.02  # of what prompts begin as, like the tokens of the transformer itself
# Their fast paths read the weights of these children and call no forward.
FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
ENTRY = "adapter"  # of the file's metadata


@dataclass(frozen=True)
class Adaptation:
    """What is trained on the frozen base.

    `targets`: names of modules, `*` stands for anything ("v.blocks.*.attn.qkv"); LoRA, adapters and prompts have
    them. `head`: names of modules that are trained whole. `rank`: of LoRA, or the width of the bottleneck, or the
    number of prompt tokens. `scale`: LoRA adds `scale / rank` times its product; the parallel adapter is added
    `scale` times (None: 2 * rank for LoRA, 1 for adapters). `width`: features of a target that is no Linear and
    no LayerNorm.

    Prompts go to blocks of a transformer, modules of (B, L, D) and perhaps a mask (B, 1, 1, L): each block's own
    learnt tokens stand behind the others while it runs, and are dropped after it.
    """

    method: Method
    targets: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    rank: int = 8
    scale: float | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(
                f"unknown method {quoted(self.method)}; expected one of {', '.join(get_args(Method))}"
            )
        for name in ("targets", "head"):
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(word, str) for word in value):
                raise ValueError(f"{name} is {quoted(value)}; expected a list of module names")
            object.__setattr__(self, name, tuple(value))
        placed = self.method in PLACED
        if placed != bool(self.targets):
            raise ValueError(
                f"{self.method} with {len(self.targets)} targets; "
                + ("name the modules it goes to" if placed else "it goes to no module, name none")
            )
        if type(self.rank) is not int or not 1 <= self.rank <= 4096:
            raise ValueError(f"rank is {quoted(self.rank)}; expected 1 to 4096")
        if self.scale is None:
            object.__setattr__(self, "scale", 2.0 * self.rank if self.method == "lora" else 1.0)
        if type(self.scale) not in (int, float) or not 0 < self.scale <= 1e6:
            raise ValueError(f"scale is {quoted(self.scale)}; expected a number above 0")


class LoRALinear(nn.Linear):
    """A frozen Linear W with a low-rank change: W + scale / rank * up @ down. (..., in) -> (..., out).

    It begins as W alone: `up` is zero.
    """

    def __init__(self, base: nn.Linear, rank: int, scale: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.scale = scale / rank
        self.lora_down = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (x @ self.lora_down.mT) @ self.lora_up.mT * self.scale

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain Linear with the change in its weights; the base's own tensor stays as it is."""
        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        change = self.lora_up.double() @ self.lora_down.double() * self.scale
        linear.weight = nn.Parameter(
            (self.weight.double() + change).to(self.weight.dtype), self.weight.requires_grad
        )
        linear.bias = self.bias
        return linear.train(self.training)


class Bottleneck(nn.Module):
    """(..., width) -> (..., out): down to `rank`, GELU, up. It begins as zero: the base says what it said."""

    def __init__(self, width: int, out: int, rank: int, scale: float, like: Tensor) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Linear(width, rank, device=like.device, dtype=like.dtype)
        self.up = nn.Linear(rank, out, device=like.device, dtype=like.dtype)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(nn.functional.gelu(self.down(x))) * self.scale


def adapt(network: nn.Module, adaptation: Adaptation) -> nn.Module:
    """Freeze the network and put in place what is trained. Changes it in place and returns it.

    What is added begins without effect: the outputs are those of before (prompts are heard at once). Give an
    optimiser `[p for p in network.parameters() if p.requires_grad]`.
    """
    if hasattr(network, "adaptation"):
        raise ValueError("this network is adapted already; merge its LoRA or begin from the base")
    chosen = _matching(network, adaptation.targets)
    heads = [network.get_submodule(name) for name in _matching(network, adaptation.head)]
    for name in chosen:
        _check_target(network, name, adaptation)
    if adaptation.method == "probe" and not heads:
        raise ValueError("probe leaves nothing to train; name a head")
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    within = {id(module) for head in heads for module in head.modules()}
    for module in network.modules():
        if id(module) not in within and getattr(module, "running_mean", None) is not None:
            module.register_forward_pre_hook(_keep_statistics)
    for name in chosen:
        _place(network, name, adaptation)
    if adaptation.method == "bitfit":
        for name, parameter in network.named_parameters():
            if name.rpartition(".")[2] == "bias" or name.rpartition(".")[2].startswith("bias_"):
                parameter.requires_grad_(True)
    for head in heads:
        head.requires_grad_(True)
    network.adaptation = adaptation
    if not trained(network):
        raise ValueError(f"{adaptation.method} leaves nothing to train; name a head")
    return network


def trained(network: nn.Module) -> dict[str, Tensor]:
    """The few parameters by name, and the statistics of a trained head."""
    names = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    rooms = {name.rpartition(".")[0] for name in names}
    heads = [network.get_submodule(name) for name in _matching(network, network.adaptation.head)]
    live = {id(module) for head in heads for module in head.modules()}
    names |= {
        name
        for name, _ in network.named_buffers()
        if name.rpartition(".")[0] in rooms and id(network.get_submodule(name.rpartition(".")[0])) in live
    }
    return {name: value for name, value in network.state_dict().items() if name in names}


def merge_lora(network: nn.Module) -> nn.Module:
    """Take every LoRA into its weights, in place: plain Linear layers again, as fast as the base."""
    for name, module in list(network.named_modules()):
        if isinstance(module, LoRALinear):
            _replace(network, name, module.merged())
    if getattr(getattr(network, "adaptation", None), "method", "") == "lora":
        del network.adaptation
    return network


def base_hash(network: nn.Module) -> str:
    """SHA-256 of everything that is frozen: names, types and values."""
    few, digest = trained(network), hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if name not in few:
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_adapter(path: str | Path, network: nn.Module) -> None:
    """Write the few parameters and what they are (`.safetensors`), whole or not at all."""
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in trained(network).items()}
    about = {"adaptation": asdict(network.adaptation), "base": base_hash(network)}
    with whole_file(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={ENTRY: json.dumps(about, sort_keys=True)}))


def load_adapter(path: str | Path, network: nn.Module) -> nn.Module:
    """Adapt the base network as the file says, in place, with its parameters.

    A file that is none, or belongs to another base, is a ValueError of one sentence; the network must then be
    made anew.
    """
    from safetensors import safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {})[ENTRY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        adaptation, base = Adaptation(**about["adaptation"]), about["base"]
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; expected an adapter written by save_adapter") from None
    except Exception as error:  # a damaged file raises a dozen types
        raise ValueError(
            f"{path}: not readable as an adapter ({reason(error)}); expected one written by save_adapter"
        ) from None
    wanted = trained(adapt(network, adaptation))
    shapes = {name: value.shape for name, value in tensors.items()}
    if shapes != {name: value.shape for name, value in wanted.items()} or base != base_hash(network):
        raise ValueError(f"{path}: belongs to another base network; load the one that it was trained on")
    network.load_state_dict(tensors, strict=False)
    return network


def _matching(network: nn.Module, patterns: Iterable[str]) -> list[str]:
    """The names of the modules, each pattern matching at least one."""
    names = [name for name, _ in network.named_modules() if name]
    found: list[str] = []
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            close = difflib.get_close_matches(pattern[:100], names, n=2)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise ValueError(f"no module is named {quoted(pattern)}{hint}")
        found += [name for name in matches if name not in found]
    return found


def _check_target(network: nn.Module, name: str, adaptation: Adaptation) -> None:
    module, parent = network.get_submodule(name), network.get_submodule(name.rpartition(".")[0])
    kind = type(module).__name__
    if isinstance(parent, FUSED) and not (
        adaptation.method == "serial" and not isinstance(module, nn.Linear)
    ):
        raise ValueError(
            f"{name} lies in a fused {type(parent).__name__}, which would not call it; use layers of their own"
        )
    if adaptation.method == "lora" and type(module) is not nn.Linear:
        raise ValueError(f"{name} is a {kind}; LoRA goes to Linear layers")
    if adaptation.method != "lora" and isinstance(module, CONTAINERS):
        raise ValueError(f"{name} is a {kind}; name a module inside of it")
    if adaptation.method != "lora":
        _widths(module, name, adaptation)


def _widths(module: nn.Module, name: str, adaptation: Adaptation) -> tuple[int, int]:
    """Features that come in and go out."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    width = adaptation.width
    if isinstance(module, nn.LayerNorm):
        width = module.normalized_shape[-1]
    if width is None:
        raise ValueError(
            f"{name} is a {type(module).__name__} of unknown width; give the adaptation's `width`"
        )
    return width, width


def _place(network: nn.Module, name: str, adaptation: Adaptation) -> None:
    module = network.get_submodule(name)
    rank, scale = adaptation.rank, float(adaptation.scale)
    if adaptation.method == "lora":
        _replace(network, name, LoRALinear(module, rank, scale))
        return
    width, out = _widths(module, name, adaptation)
    like = next(network.parameters())
    if adaptation.method == "prompt":
        module.prompt = nn.Parameter(like.new_empty(rank, width))
        nn.init.normal_(module.prompt, std=PROMPT_DEVIATION)
        module.register_forward_pre_hook(_prompted, with_kwargs=True)
        module.register_forward_hook(_unprompted)
        return
    serial = adaptation.method == "serial"
    module.adapter = Bottleneck(out if serial else width, out, rank, scale, like)
    module.register_forward_hook(_after if serial else _beside)


def _after(module: nn.Module, args: Sequence[Tensor], output: Tensor) -> Tensor:
    return output + module.adapter(output)


def _beside(module: nn.Module, args: Sequence[Tensor], output: Tensor) -> Tensor:
    return output + module.adapter(args[0])


def _prompted(module: nn.Module, args: Sequence[Tensor], kwargs: dict) -> tuple[tuple, dict]:
    """The block's tokens (B, L, D) with its prompts behind them, which every token may see."""
    x, *others = args
    x = torch.cat([x, module.prompt.to(x.dtype).expand(len(x), -1, -1)], dim=1)

    def wider(mask: Tensor | None) -> Tensor | None:
        return None if mask is None else nn.functional.pad(mask, (0, len(module.prompt)), value=True)

    named = {name: wider(value) if name == "mask" else value for name, value in kwargs.items()}
    return (x, *map(wider, others)), named


def _unprompted(module: nn.Module, args: Sequence[Tensor], output: Tensor) -> Tensor:
    return output[:, : -len(module.prompt)]


def _keep_statistics(module: nn.Module, args: Sequence[Tensor]) -> None:
    """A frozen batch norm uses its statistics and does not follow the batch's, whatever mode the network is in."""
    if module.training:
        module.training = False


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    network.get_submodule(parent).add_module(last, module)
