"""The picture of a masked spectrogram: what there was, what was hidden, what the network made of it."""

from __future__ import annotations

import numpy as np

from eval.plots import _dress, _figure, _png

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
