"""Where a training runs: the device, mixed precision, and the processes that `torchrun` started.

Alone, every method is free. With `torchrun` (environment WORLD_SIZE > 1) each process takes its share of every
batch; the batch size is that of all processes together, so the order of the clips, the rate and the loss do not
depend on their number, and a published network learns the same up to rounding. Augmentation and dropout are drawn
by each process for its share, and on the CPU so are batch statistics: there another number of processes is another
draw of the same training.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

PATIENCE = timedelta(hours=12)  # the first process may prepare a large corpus while the others wait


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """torch with one thread while it lasts: the same results, bit for bit, whatever runs beside it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def pick_device(wanted: str, local_rank: int = 0) -> torch.device:
    """ "auto" takes CUDA, then MPS, then the CPU; a device that is not there is a ValueError."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted == "auto":
        wanted = "cuda" if cuda else "mps" if mps else "cpu"
    if (wanted == "cuda" and not cuda) or (wanted == "mps" and not mps):
        raise ValueError(
            f"device {wanted} is not available here; expected cpu, or auto for the best there is"
        )
    return torch.device("cuda", local_rank) if wanted == "cuda" else torch.device(wanted)


class Team:
    """The processes of one training; `rank` of `size`, alone by default."""

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._talk: Any = None

    @classmethod
    @contextlib.contextmanager
    def gather_up(cls, wanted_device: str) -> Iterator[tuple[Team, torch.device]]:
        """Join the other processes for the length of a training; yields (team, device)."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        device = pick_device(wanted_device, local_rank)
        if size == 1:
            yield cls(), device
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        try:
            team = cls(dist.get_rank(), size, local_rank)
            team._talk = dist.new_group(backend="gloo", timeout=PATIENCE)  # waits without a busy GPU
            yield team, device
        finally:
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier(group=self._talk)

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._talk)
        return values

    def agree(self, network: nn.Module) -> None:
        """Every process takes the first one's buffers: on the CPU each keeps the batch statistics of its own
        share, and a trial's score must not depend on which process judged it."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """`module(features, lengths) -> logits`, its gradients averaged over the processes."""
        module = _Logits(network)
        if self.size == 1:
            return module
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=ids)


class _Logits(nn.Module):
    """The logits as a forward, which is what the parallel wrapper hooks into."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.network.logits(features, lengths)


class Precision:
    """Mixed precision. On CUDA bfloat16 where the GPU has it, else float16 with a scaled loss; on a CPU that
    multiplies bfloat16 itself, for a network that asks for it (`on_cpu`)."""

    def __init__(self, device: torch.device, wanted: bool, on_cpu: bool = False) -> None:
        self.device, self.dtype = device, torch.float32
        if wanted and device.type == "cuda":
            self.dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        elif wanted and device.type == "cpu" and on_cpu and torch.cpu._is_avx512_bf16_supported():
            self.dtype = torch.bfloat16
        self.on = self.dtype != torch.float32
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.dtype == torch.float16)

    def step(
        self, loss: torch.Tensor, optimizer: torch.optim.Optimizer, network: torch.nn.Module, clip: float
    ) -> None:
        """One step down the gradient of `loss`, whose norm is at most `clip` (0 = as it is)."""
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if clip > 0:
            self.scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
        self.scaler.step(optimizer)
        self.scaler.update()

    def __call__(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device.type, self.dtype) if self.on else contextlib.nullcontext()
