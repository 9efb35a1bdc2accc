"""A command in chunks is the command: the same score after each of them, from a state of one size."""

import numpy as np
import pytest
import torch

from detector.chunked import STEP, Chunked
from detector.model import EDGE, CompactDetector


def network(seed=0, **arguments):
    """Of weights and statistics at random, attention included, so that nothing is hidden behind a zero."""
    torch.manual_seed(seed)
    made = CompactDetector(**arguments).eval()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
    made.pooling.attention[2].weight.data.normal_(0, 1)
    return made


def whole(made, planes):
    logits = made.logits(planes)
    return (logits[:, 0] - logits[:, 1]).numpy()


def fed(chunked, planes, sizes):
    """(score, frames heard, state) after each chunk; what lies beyond a chunk is rubbish."""
    state, kept, at = torch.zeros(1, chunked.size), torch.zeros(1, dtype=torch.int64), 0
    for size in sizes:
        at = min(at + size, planes.shape[-1])
        chunk = planes[..., int(kept) : at]
        chunk = torch.nn.functional.pad(chunk, (0, -chunk.shape[-1] % STEP), value=77.0)
        score, kept, state = chunked(chunk, torch.tensor([at]), kept, state)
        yield float(score), at, state
        if at == planes.shape[-1]:
            return


@torch.inference_mode()
@pytest.mark.parametrize("arguments", [EDGE, {"widths": (5, 3, 4, 2), "embedding": 7}])
@pytest.mark.parametrize("largest", [1, 3, 4, 25, 200])
def test_the_score_after_each_chunk_is_that_of_all_so_far(arguments, largest):
    made = network(**arguments)
    chunked = Chunked(made).eval()
    g = np.random.default_rng(largest)
    planes = 2 * torch.randn(1, 6, 40, 131, generator=torch.Generator().manual_seed(largest))
    for score, at, state in fed(chunked, planes, g.integers(1, largest + 1, 131).tolist()):
        assert state.shape == (1, chunked.size)
        if at >= STEP:
            want = float(whole(made, planes[..., :at])[0])
            assert abs(score - want) <= 1e-5 * max(1, abs(want)), at


@torch.inference_mode()
def test_items_of_a_batch_stand_at_places_of_their_own():
    made = network(**EDGE)
    chunked = Chunked(made).eval()
    planes, ends = torch.randn(3, 6, 40, 60), (60, 33, 18)
    begun = [
        list(fed(chunked, planes[i : i + 1, ..., :at], [at]))[-1][2] for i, at in enumerate((24, 8, 0)) if at
    ]
    kept, state = torch.tensor([24, 8, 0]), torch.cat([*begun, torch.zeros(1, chunked.size)])
    chunk = torch.zeros(3, 6, 40, 36)
    for item, (start, end) in enumerate(zip(kept.tolist(), ends, strict=True)):
        chunk[item, ..., : end - start] = planes[item, ..., start:end]
    score, after, _ = chunked(chunk, torch.tensor(ends), kept, state)
    assert after.tolist() == [60, 32, 16]
    for item, end in enumerate(ends):
        assert float(score[item]) == pytest.approx(
            float(whole(made, planes[item : item + 1, ..., :end])[0]), abs=1e-5
        )


@torch.inference_mode()
def test_an_attention_of_any_size_does_no_harm():
    made = network(**EDGE)
    made.pooling.attention[2].bias.data -= 300.0
    made.pooling.attention[2].weight.data *= 30.0
    planes = torch.randn(1, 6, 40, 64)
    *_, (score, _, _) = fed(Chunked(made).eval(), planes, [7] * 10)
    assert score == pytest.approx(float(whole(made, planes)[0]), abs=1e-5)
