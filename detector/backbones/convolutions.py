"""The parts of EfficientNet that are ours instead of timm's: the published padding, and what learns fast on a CPU.

Names and values of the parameters stay timm's; results are the same up to rounding.
Shapes: B batch, C channels, K bands, N frames, k taps along an axis.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CELLS = 1024  # of a map whose depthwise filters learn in our way
WEIGHING = ("se.conv_reduce", "se.conv_expand")

Conv = TypeVar("Conv", bound=nn.Conv2d)


class Padded(nn.Conv2d):
    """A convolution with its own padding (before, after), the same along both axes."""

    before_after = (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.before_after * 2))


class OfOneCell(nn.Conv2d):
    """A 1 x 1 convolution of (B, C, 1, 1), what squeeze and excitation weighs channels by: a matrix product."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.weight.flatten(1), self.bias)[..., None, None]


class Depthwise(nn.Conv2d):
    """A depthwise convolution that keeps the size, with `_Trained` where a CPU trains it."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.requires_grad and torch.is_grad_enabled() and self._ours(x):
            return _Trained.apply(x, self.weight, self.padding)
        return super().forward(x)

    def _ours(self, x: Tensor) -> bool:
        plain = x.device.type == "cpu" and x.dtype == self.weight.dtype
        if not plain or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return False
        return len(x) > 0 and x.shape[2] * x.shape[3] <= CELLS


class _Trained(torch.autograd.Function):
    """Input (B, C, K, N), filters (C, 1, k, k) and padding -> (B, C, K, N).

    A filter's gradient is itself a depthwise convolution, of the input by the output's gradient, item by item.
    oneDNN has kernels for it as such; for the gradient of filters above 3 x 3 it reckons 16 x 16 channels in
    place of 16. Measured: two to five times faster for up to 1024 cells, slower for 2048.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, padding=padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (x, weight), padding = ctx.saved_tensors, ctx.padding
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:  # the same, with the filter turned round
            to_x = F.conv2d(gradient, weight.flip(2, 3), padding=padding, groups=len(weight))
        if ctx.needs_input_grad[1]:
            items = len(x) * len(weight)
            filters = gradient.reshape(items, 1, *gradient.shape[2:])
            each = F.conv2d(x.reshape(1, items, *x.shape[2:]), filters, padding=padding, groups=items)
            to_weight = each.unflatten(1, (len(x), len(weight), 1))[0].sum(dim=0)
        return to_x, to_weight, None


class SiLU(nn.Module):
    """In place, but where a gradient needs what was there: it would be copied first."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x, inplace=not x.requires_grad)


def learn_fast(effnet: nn.Module) -> None:
    """Put what computes the same in less time in place of timm's modules."""
    innermost(effnet)
    for name, module in list(effnet.named_modules()):
        if isinstance(module, nn.SiLU):
            _put(effnet, name, SiLU())
        elif name.endswith(WEIGHING):
            _put(effnet, name, _like(module, OfOneCell))
        elif type(module) is nn.Conv2d and module.groups > 1 and module.kernel_size[0] > 3:
            _put(effnet, name, _like(module, Depthwise))


def innermost(effnet: nn.Module) -> None:
    """channels_last from the first convolution on, which those behind keep: half as fast again on a CPU, the same
    result."""
    effnet.conv_stem.register_forward_hook(_laid_out)


def pad_as_for(effnet: nn.Module, size: int) -> None:
    """Fix the padding of every strided convolution to what a picture of `size` pixels asks for.

    So the published model has it, whatever it is shown; timm's asks the input, and shifts by one where a size
    is odd. The two are the same for B0 on frames and bands in multiples of 32.
    """
    for name, conv in list(effnet.named_modules()):
        if not isinstance(conv, nn.Conv2d) or conv.stride == (1, 1):
            continue
        stride, taps = conv.stride[0], conv.kernel_size[0]
        smaller = -(-size // stride)
        missing = max(0, (smaller - 1) * stride + taps - size)
        padded = _like(conv, Padded, padding=0)
        padded.before_after = (missing // 2, missing - missing // 2)
        _put(effnet, name, padded)
        size = smaller


def _like(conv: nn.Conv2d, kind: type[Conv], padding: Any = None) -> Conv:
    """A convolution of another kind with the very parameters of this one."""
    sizes = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride)
    padding = conv.padding if padding is None else padding
    made = kind(*sizes, padding, groups=conv.groups, bias=conv.bias is not None, device="meta")
    made.weight, made.bias = conv.weight, conv.bias
    return made


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)


def _laid_out(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.contiguous(memory_format=torch.channels_last)
