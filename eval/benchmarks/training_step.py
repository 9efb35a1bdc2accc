"""How long one training step of the published network takes, against plain autograd in the same run.

    python -m eval.benchmarks.training_step [--array D2] [--batch 64] [--threads 1] [--device cpu]

The filter bank (FFT, gathered gradient) and the whole step (forward, weighted loss, backward, AdamW) are timed
with the fast bank and with `F.conv1d` under autograd, in turns, after one step of each; medians are printed,
and the difference of the gradients, so that the benchmark is also a proof. (Two positions that tie to the last
bit may be told apart differently: 1e-3 is one such window in some hundred thousand.)
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from detector.losses import weighted_cross_entropy
from detector.published import NNMultichannel, nn_multichannel
from detector.published.filter_bank import filter_bank_max
from remasc import get_array

PATHS = {"fast": True, "plain autograd": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--array", default="D2")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = measure(options.array, options.batch, options.repeats, torch.device(options.device))
    print(json.dumps({"threads": options.threads, "device": options.device} | report, indent=1))


def measure(array: str, batch: int, repeats: int, device: torch.device) -> dict[str, object]:
    torch.manual_seed(0)
    mics = get_array(array)
    network = NNMultichannel(mics.num_mics, mics.sample_rate).to(device)
    x = network.prepare(torch.randn(batch, mics.num_mics, network.window, device=device))
    columns = torch.arange(batch, device=device) % 2
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, weight_decay=1e-3, fused=True)
    bank = {name: lambda fast=fast: _bank(network, x, fast) for name, fast in PATHS.items()}
    step = {
        name: lambda fast=fast: _step(network, optimizer, x, columns, fast) for name, fast in PATHS.items()
    }
    gradients = [call() for call in bank.values()]
    difference = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    seconds = {"bank": _medians(bank, repeats, device), "step": _medians(step, repeats, device)}
    return {
        "array": mics.name,
        "channels": mics.num_mics,
        "batch": batch,
        "seconds": seconds,
        "times faster": {k: round(v["plain autograd"] / v["fast"], 2) for k, v in seconds.items()},
        "clips per second": round(batch / seconds["step"]["fast"], 1),
        "relative difference of the bank's gradient": float(difference),
    }


def _bank(network: NNMultichannel, x: torch.Tensor, fast: bool) -> torch.Tensor:
    """The bank's part of a step: forward, ReLU, backward; returns the gradient of its filters."""
    weight = torch.cat([bank.weight for bank in network.front_tconv], dim=1).detach().requires_grad_()
    count = x.shape[-1] // network.frame
    frames = (
        x[..., : count * network.frame].unflatten(-1, (count, network.frame)).transpose(1, 2).flatten(0, 1)
    )
    bias = torch.zeros(network.filters, device=x.device)
    filter_bank_max(frames, weight, bias, fast=fast).relu().sum().backward()
    return weight.grad


def _step(network, optimizer, x, columns, fast: bool) -> None:
    def bank(frames, weight, bias):
        return filter_bank_max(frames, weight, bias, fast=fast)

    original, nn_multichannel.filter_bank_max = nn_multichannel.filter_bank_max, bank
    try:
        optimizer.zero_grad(set_to_none=True)
        loss = weighted_cross_entropy(network.logits(x), columns, torch.tensor([0.7, 0.3], device=x.device))
        loss.backward()
        optimizer.step()
    finally:
        nn_multichannel.filter_bank_max = original


def _medians(calls: dict[str, Callable], repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each call, taken in turns so that a busy machine is unfair to none."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first one warms up
                times[name].append(time.perf_counter() - started)
    return {name: round(statistics.median(values), 4) for name, values in times.items()}


if __name__ == "__main__":
    main()
