"""How long one training step of a network takes, against plain autograd in the same run.

    python -m eval.benchmarks.training_step [--network psla] [--array D2] [--batch 64] [--threads 1] [--device cpu]

PSLA (EfficientNet-B0, a second of sound) is timed with our convolutions and with timm's. Of NN-Multichannel the
filter bank (FFT, gathered gradient) and the whole step (forward, weighted loss, backward, AdamW) are timed
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
from torch import nn

from detector.backbones import PSLA, psla
from detector.backbones.convolutions import innermost
from detector.losses import weighted_cross_entropy
from detector.published import NNMultichannel, nn_multichannel
from detector.published.filter_bank import filter_bank_max
from remasc import get_array

PATHS = {"fast": True, "plain autograd": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--network", choices=("nn-multichannel", "psla"), default="nn-multichannel")
    parser.add_argument("--array", default="D2", help="of NN-Multichannel")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if options.network == "psla":
        report = measure_psla(options.batch, options.repeats, device)
    else:
        report = measure(options.array, options.batch, options.repeats, device)
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


def measure_psla(batch: int, repeats: int, device: torch.device) -> dict[str, object]:
    x, columns = torch.randn(batch, 100, 128, device=device), torch.arange(batch, device=device) % 10
    networks = {"ours": PSLA(10), "timm's": _with_timms_parts()}
    networks["timm's"].load_state_dict(networks["ours"].state_dict())
    step, gradients = {}, []
    for name, network in networks.items():
        network.to(device).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
        step[name] = lambda network=network, optimizer=optimizer: _psla_step(network, optimizer, x, columns)
        torch.manual_seed(0)  # of the blocks that are left out
        step[name]()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    seconds = _medians(step, repeats, device)
    return {
        "batch": batch,
        "seconds": seconds,
        "times faster": round(seconds["timm's"] / seconds["ours"], 2),
        "clips per second": round(batch / seconds["ours"], 1),
        "relative difference of the gradient": float(
            (gradients[0] - gradients[1]).norm() / gradients[1].norm()
        ),
    }


def _with_timms_parts() -> PSLA:
    """channels_last it has, too: that came before."""
    ours, psla.learn_fast = psla.learn_fast, innermost
    try:
        return PSLA(10)
    finally:
        psla.learn_fast = ours


def _psla_step(network, optimizer, x, columns) -> None:
    optimizer.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(network(x).clamp(1e-6, 1 - 1e-6).logit(), columns).backward()
    optimizer.step()


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
    """Median seconds of each call, taken in turns so that a busy machine is unfair to none; of one thread on a CPU
    its own time, in which others do not count."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            started = clock()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first one warms up
                times[name].append(clock() - started)
    return {name: round(statistics.median(values), 4) for name, values in times.items()}


if __name__ == "__main__":
    main()
