"""One filter bank per channel, summed over channels, maximum over positions: fast on the CPU.

Shapes: F frames, C channels, P filters, T samples per frame, L taps, S = T - L + 1 positions.

The sum over channels of one bank each is one correlation with a (P, C, L) filter. On the CPU it is done by
FFT (the channels are summed in the frequency domain, so that there is one inverse transform per filter
whatever the number of channels) and its backward gathers the winning windows alone: the gradient of a
maximum touches one position in S = 253. `eval/benchmarks/training_step.py` measures both against plain
autograd.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Small chunks keep one chunk's spectra in the processor's cache; 16 frames measured best of 16, 64, 200.
FORWARD_FRAMES = 16
BACKWARD_FRAMES = 64


def filter_bank_max(frames: Tensor, weight: Tensor, bias: Tensor, *, fast: bool | None = None) -> Tensor:
    """The largest response of each filter in each frame, before any non-linearity.

    frames (F, C, T), weight (P, C, L), bias (P,) -> (F, P). `fast` picks the FFT path; by default it is
    taken on the CPU, outside of tracing.

    >>> filter_bank_max(torch.zeros(5, 2, 80), torch.zeros(3, 2, 40), torch.ones(3)).shape
    torch.Size([5, 3])
    """
    if fast is None:
        fast = (
            frames.device.type == "cpu" and not torch.jit.is_tracing() and not torch.compiler.is_compiling()
        )
    if fast:
        return _FilterBankMax.apply(frames, weight) + bias
    return F.conv1d(frames, weight, bias).amax(dim=-1)


def _fft_length(samples: int) -> int:
    """The next multiple of 64: 896 for 882 and 320 for 320, both products of small primes."""
    return -(-samples // 64) * 64


def _max_response(frames: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Largest correlation (F, P) and its position (F, P). A circular transform at least as long as the frame
    leaves the S positions without wrap-around untouched."""
    samples, taps = frames.shape[-1], weight.shape[-1]
    length = _fft_length(samples)
    response = torch.fft.rfft(weight, length).conj().resolve_conj()  # (P, C, K)
    values = frames.new_empty(len(frames), len(weight))
    positions = torch.empty(values.shape, dtype=torch.long)
    for start in range(0, len(frames), FORWARD_FRAMES):
        rows = slice(start, start + FORWARD_FRAMES)
        spectrum = torch.fft.rfft(frames[rows], length)  # (f, C, K)
        total = spectrum[:, None, 0] * response[:, 0]
        for channel in range(1, frames.shape[1]):
            total.addcmul_(spectrum[:, None, channel], response[:, channel])
        outputs = torch.fft.irfft(total, length)[..., : samples - taps + 1]
        torch.max(outputs, dim=-1, out=(values[rows], positions[rows]))
    return values, positions


class _FilterBankMax(Function):
    @staticmethod
    def forward(ctx, frames: Tensor, weight: Tensor) -> Tensor:
        values, positions = _max_response(frames, weight)
        ctx.save_for_backward(frames, weight, positions)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        frames, weight, positions = ctx.saved_tensors
        grad_frames = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_frames = _gradient_of_frames(frames, weight, positions, grad)
        if ctx.needs_input_grad[1]:
            grad_weight = _gradient_of_weight(frames, weight, positions, grad)
        return grad_frames, grad_weight


def _gradient_of_weight(frames: Tensor, weight: Tensor, positions: Tensor, grad: Tensor) -> Tensor:
    """Per filter: the winning windows (f, C * L), weighted by the gradient and summed over frames."""
    result = torch.zeros_like(weight)
    for start in range(0, len(frames), BACKWARD_FRAMES):
        rows = slice(start, start + BACKWARD_FRAMES)
        windows = frames[rows].unfold(-1, weight.shape[-1], 1)  # a view (f, C, S, L)
        index = torch.arange(len(windows))
        for p in range(len(weight)):
            won = windows[index, :, positions[rows, p]].flatten(1)
            result[p].view(-1).addmv_(won.T, grad[rows, p])
    return result


def _gradient_of_frames(frames: Tensor, weight: Tensor, positions: Tensor, grad: Tensor) -> Tensor:
    """Each filter added at the place where it won; only wanted where the input itself is studied."""
    result = torch.zeros_like(frames)
    taps = torch.arange(weight.shape[-1])
    for p in range(len(weight)):
        place = (positions[:, p, None] + taps)[:, None].expand(-1, frames.shape[1], -1)
        result.scatter_add_(-1, place, grad[:, p, None, None] * weight[p])
    return result
