"""Masks of pretraining: exact counts, no patch twice, clusters where asked, only what is real."""

from __future__ import annotations

import pytest
import torch

from detector.pretrain.masking import draw_masks, hidden

GRID = (8, 64)


def drawn(batch: int = 64, **settings) -> torch.Tensor:
    return draw_masks(GRID, batch, generator=torch.Generator().manual_seed(3), **settings)


@pytest.mark.parametrize("sides", [None, (3, 5), (1, 1), (5, 5)])
@pytest.mark.parametrize("share", [0.001, 0.25, 400 / 512, 1.0])
def test_the_count_is_exact_and_no_patch_comes_twice(sides, share):
    masks = drawn(share=share, sides=sides)
    assert masks.shape == (64, max(1, round(share * 512)))
    assert masks.dtype == torch.int64
    assert int(masks.min()) >= 0
    assert int(masks.max()) < 512
    assert (hidden(masks, 512).sum(dim=1) == masks.shape[1]).all()


def test_a_draw_belongs_to_its_generator():
    assert torch.equal(drawn(), drawn())
    assert not torch.equal(drawn()[0], drawn()[1])


@pytest.mark.parametrize("sides", [None, (3, 5)])
def test_every_patch_is_hidden_as_often(sides):
    often = hidden(drawn(2000, share=0.5, sides=sides), 512).float().mean(dim=0)
    assert float((often - 0.5).abs().max()) < 0.08  # also the first patch, the edges and the corners


def test_clusters_lie_together():
    def together(sides) -> float:
        out = hidden(drawn(400, share=0.2, sides=sides), 512).unflatten(1, GRID).float()
        return float((out[:, :, 1:] * out[:, :, :-1]).mean() / out.mean())

    assert together(None) == pytest.approx(0.2, abs=0.02)
    assert together((3, 3)) > 0.6
    assert together((5, 5)) > together((3, 3))


def test_the_first_cluster_is_a_square():
    masks = drawn(500, share=9 / 512, sides=(3, 3))
    height = masks.div(64, rounding_mode="floor")
    width = masks % 64
    box = torch.stack([height.amax(1) - height.amin(1), width.amax(1) - width.amin(1)], dim=1)
    squares = (box == 2).all(dim=1).float().mean()  # those that lie wholly within: 6 x 62 of 10 x 66
    assert float(squares) == pytest.approx(6 * 62 / 660, abs=0.08)


@pytest.mark.parametrize("sides", [None, (3, 5)])
def test_padding_is_never_hidden(sides):
    columns = torch.tensor([64, 40, 3, 1])
    masks = drawn(4, sides=sides, columns=columns)
    out = hidden(masks, 512).unflatten(1, GRID)
    for item, real in zip(out, columns, strict=True):
        assert not item[:, real:].any()
        assert int(item.sum()) == round(400 / 512 * 8 * int(real))
    assert ((masks < 0).sum(dim=1) == masks.shape[1] - out.flatten(1).sum(dim=1)).all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"share": 0.0}, "a share in"),
        ({"sides": (5, 3)}, "least and the greatest"),
        ({"columns": torch.tensor([65, 1])}, "2 numbers of 1 to 64"),
        ({"columns": torch.tensor([3])}, "2 numbers of 1 to 64"),
    ],
)
def test_what_cannot_be_is_one_sentence(settings, says):
    with pytest.raises(ValueError, match=says):
        drawn(2, **settings)
