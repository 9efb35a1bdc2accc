"""The picture of a masked spectrogram: what there was, what was hidden, what the network made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eval.plots import _dress, _figure, _png
from remasc.atomic import whole_file

PANELS = ("true", "hidden", "reconstructed")


def masked_png(
    true: np.ndarray,
    blank: np.ndarray,
    rebuilt: np.ndarray,
    *,
    title: str = "",
    hop_seconds: float = 0.01,
    dark: bool = False,
) -> bytes:
    """Three spectrograms (N, F) above each other on one scale; `blank` holds NaN where patches were hidden."""
    shape = np.shape(true)
    if len(shape) != 2 or any(np.shape(other) != shape for other in (blank, rebuilt)):
        shapes = ", ".join(str(np.shape(x)) for x in (true, blank, rebuilt))
        raise ValueError(f"spectrograms of {shapes}; expected three of one shape (N, F)")
    figure, axes, colour = _figure(8.6, 5.6, dark)
    figure.delaxes(axes)
    low, high = np.percentile(true, [1, 99])
    rows = figure.subplots(3, 1, sharex=True)
    for panel, name, x in zip(rows, PANELS, (true, blank, rebuilt), strict=True):
        _dress(panel, colour)
        panel.set_facecolor("0.6")  # what is hidden is grey: no colour of the scale
        panel.imshow(
            np.ma.masked_invalid(np.asarray(x, dtype=float).T),
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            cmap="magma",
            vmin=low,
            vmax=high,
            extent=(0, shape[0] * hop_seconds, 0, shape[1]),
        )
        panel.set(ylabel=f"{name}\nmel band")
    rows[-1].set(xlabel="seconds")
    figure.suptitle(title, color=colour["ink"], fontsize=11)
    return _png(figure)


def write_masked(network: Any, clip: Any, config: Any, folder: Path) -> Path:
    """FOLDER/masked.png of a pretrained SSAST and one clip (N, F), hidden as its `PretrainConfig` hides."""
    import torch

    from detector.pretrain.masking import draw_masks
    from detector.pretrain.run import collate

    generator = torch.Generator().manual_seed(config.seed)
    x, lengths = collate([clip], config.frames, generator)
    columns = None if lengths is None else network.columns(lengths)
    hidden = {"share": config.share, "sides": config.sides}
    masked = draw_masks(network.grid, 1, columns=columns, generator=generator, **hidden)
    with torch.no_grad():
        blank, rebuilt = network.reconstruct(x, masked, lengths)
        true = network.spectrogram(network.patches(x))
    png = masked_png(true[0].numpy(), blank[0].numpy(), rebuilt[0].numpy())
    with whole_file(folder / "masked.png") as temporary:
        temporary.write_bytes(png)
    return folder / "masked.png"
