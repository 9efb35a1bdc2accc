"""The DET curve and the score histogram as PNG bytes, for light and for dark pages.

Matplotlib is imported when something is drawn, and always draws to memory (no display needed). Colours are
those of Okabe and Ito: told apart by colour-blind readers too.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np

from eval.metrics import det_curve
from eval.summary import DetBand

TICKS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
LIGHT = {"genuine": "#0072B2", "replay": "#D55E00", "ink": "#1b1f24", "grid": "#d9dee3", "paper": "#ffffff"}
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STROKES = ("-", (0, (5, 2)), (0, (1, 1.5)))  # a palette's colours come again with the next of these
DARK = {"genuine": "#56B4E9", "replay": "#E69F00", "ink": "#e6e9ec", "grid": "#3a4149", "paper": "#1a1e23"}


def det_png(
    genuine_scores: np.ndarray,
    replay_scores: np.ndarray,
    *,
    band: DetBand | None = None,
    eer: dict | None = None,
    title: str = "",
    dark: bool = False,
) -> bytes:
    """DET curve on normal-deviate axes: p_miss over p_fa in per cent, both axes alike.

    `band` shades the interval of p_miss; `eer` is {"value", "low", "high"} (fractions) of the marked point.
    """
    p_miss, p_fa, _ = det_curve(genuine_scores, replay_scores)
    low, high = _limits(p_miss, p_fa)
    figure, axes, colour = _figure(4.8, 4.7, dark)
    if band is not None:
        area = {"color": colour["genuine"], "alpha": 0.18, "linewidth": 0}
        axes.fill_between(
            _deviate(band.p_fa), _deviate(band.low), _deviate(band.high), label="95 % interval", **area
        )
    ends = _det_axes(axes, colour, low, high, title)
    axes.plot(_deviate(p_fa), _deviate(p_miss), color=colour["genuine"], linewidth=1.9)
    if eer is not None:
        text = f"EER {100 * eer['value']:.1f} %  [{100 * eer['low']:.1f}, {100 * eer['high']:.1f}]"
        point = np.clip(eer["value"], low, high)
        style = {"color": colour["replay"], "markeredgecolor": colour["paper"], "markersize": 9, "zorder": 5}
        axes.plot([_deviate(point)], [_deviate(point)], "o", linestyle="none", label=text, **style)
    middle = _deviate(np.min(np.maximum(p_miss, p_fa)))  # the legend keeps out of the way of the curve
    _legend(axes, colour, "upper right" if middle < np.mean(ends) - 0.4 else "lower left")
    return _png(figure)


def dets_png(
    panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]], *, title: str = "", dark: bool = False
) -> bytes:
    """DET curves of several systems, a panel for each set of trials.

    `panels` is panel -> name -> (genuine scores, replay scores). One legend serves all panels.
    """
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    width = 3.6 * columns + 2.4
    figure, axes, colour = _figure(width, 3.7 * rows + 0.6, dark)
    figure.delaxes(axes)
    styles = _styles(dict.fromkeys(name for curves in panels.values() for name in curves))
    shown: dict[str, Any] = {}
    for number, (panel, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        _dress(axes, colour)
        rates = {name: det_curve(*scores)[:2] for name, scores in curves.items()}
        limits = [_limits(*pair) for pair in rates.values()]
        _det_axes(axes, colour, min(low for low, _ in limits), max(high for _, high in limits), "")
        axes.set_title(textwrap.fill(panel, 38), fontsize=10)
        for name, (p_miss, p_fa) in rates.items():
            shown[name] = axes.plot(_deviate(p_fa), _deviate(p_miss), linewidth=1.6, **styles[name])[0]
    _legend_beside(figure, shown, colour)
    lines = [wrapped for line in title.split("\n") for wrapped in textwrap.wrap(line, int(11 * width))]
    figure.suptitle("\n".join(lines), color=colour["ink"], fontsize=10)
    return _png(figure)


def _deviate(rate: np.ndarray) -> np.ndarray:
    """Normal deviates; rates of 0 and 1 lie at infinity and are drawn just outside the frame."""
    from scipy.special import ndtri

    return ndtri(np.clip(rate, 1e-6, 1 - 1e-6))


def _det_axes(axes, colour: dict[str, str], low: float, high: float, title: str) -> np.ndarray:
    """Both axes from `low` to `high` (rates) with their ticks, and the line of equal errors; their ends."""
    ends = _deviate(np.array([low, high]))
    axes.plot(ends, ends, color=colour["ink"], linewidth=0.8, linestyle=(0, (2, 3)), alpha=0.6)
    ticks = [tick for tick in TICKS if low <= tick <= high]
    names = [f"{100 * tick:g}" for tick in ticks]
    axes.set(xlim=ends, ylim=ends, aspect="equal", title=title)
    axes.set_xticks(_deviate(np.array(ticks)), names)
    axes.set_yticks(_deviate(np.array(ticks)), names)
    axes.set_xlabel("replays accepted, $p_{fa}$ (%)")
    axes.set_ylabel("genuine rejected, $p_{miss}$ (%)")
    axes.grid(color=colour["grid"], linewidth=0.7)
    return ends


def _styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A colour and a stroke for each name."""
    size = len(PALETTE)
    return {
        name: {"color": PALETTE[n % size], "linestyle": STROKES[n // size % len(STROKES)]}
        for n, name in enumerate(names)
    }


def _limits(p_miss: np.ndarray, p_fa: np.ndarray) -> tuple[float, float]:
    """The range of both axes: what the number of trials can resolve, and far enough up to show the curve."""
    steps = [rates[(rates > 0) & (rates < 1)] for rates in (p_miss, p_fa)]
    finest = min((float(rates.min()) for rates in steps if rates.size), default=0.01)
    crossing = float(np.max(np.minimum(p_miss, p_fa)))
    high = next((tick for tick in (0.6, 0.8, 0.95) if tick > crossing + 0.2), 0.99)
    return min(max(0.7 * finest, 0.0009), 0.05), high


def histogram_png(
    genuine_scores: np.ndarray,
    replay_scores: np.ndarray,
    *,
    threshold: float | None = None,
    title: str = "",
    dark: bool = False,
) -> bytes:
    """Scores of both classes, each as the share of its own trials per bin, and the threshold.

    The outermost bins hold what lies beyond the central 99.8 % of each class.
    """
    figure, axes, colour = _figure(5.8, 4.66, dark)
    ends = np.quantile(genuine_scores, [0.001, 0.999]), np.quantile(replay_scores, [0.001, 0.999])
    low, high = np.min(ends), np.max(ends)
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    bins = np.linspace(
        low, high, int(np.clip(2 * (len(genuine_scores) + len(replay_scores)) ** (1 / 3), 12, 60)) + 1
    )
    for name, values in (("replay", replay_scores), ("genuine", genuine_scores)):
        share = np.histogram(np.clip(values, low, high), bins)[0] / len(values) * 100
        axes.stairs(share, bins, fill=True, color=colour[name], alpha=0.32, linewidth=0)
        axes.stairs(share, bins, color=colour[name], linewidth=1.7, label=f"{name}, {len(values):,} trials")
    if threshold is not None:
        style = {"color": colour["ink"], "linewidth": 1.3, "linestyle": (0, (5, 3))}
        axes.axvline(threshold, label=f"accepted from {threshold:.3g} up", **style)
    axes.margins(x=0.01)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.24)  # room for the legend
    axes.set_xlabel("score (higher = more genuine)")
    axes.set_ylabel("share of the class (%)")
    axes.set_title(title)
    axes.grid(axis="y", color=colour["grid"], linewidth=0.7)
    _legend(axes, colour, "upper left")
    return _png(figure)


def curves_png(histories: dict[str, list[dict]], *, title: str = "", dark: bool = False) -> bytes:
    """Training loss and dev EER by epoch of several runs; a dot marks the epoch that dev chose.

    `histories` is name -> rows with epoch, loss, dev_eer (fraction) and best, as run.json keeps them in `curves`.
    """
    figure, axes, colour = _figure(8.6, 3.6, dark)
    figure.delaxes(axes)
    left, right = figure.subplots(1, 2)
    styles = _styles(histories)
    for name, rows in histories.items():
        style, epochs = styles[name], [row["epoch"] for row in rows]
        left.plot(epochs, [row["loss"] for row in rows], linewidth=1.6, label=name, **style)
        right.plot(epochs, [100 * row["dev_eer"] for row in rows], linewidth=1.6, **style)
        chosen = [row for row in rows if row["best"]][-1]
        right.plot([chosen["epoch"]], [100 * chosen["dev_eer"]], "o", color=style["color"], markersize=7)
    for side, label in ((left, "training loss"), (right, "dev EER (%)")):
        _dress(side, colour)
        side.set(xlabel="epoch", ylabel=label)
        side.grid(color=colour["grid"], linewidth=0.7)
    if len(histories) <= len(PALETTE):
        _legend(left, colour, "lower left")
    else:  # many would hide the curves
        lines, names = left.get_legend_handles_labels()
        _legend_beside(figure, dict(zip(names, lines, strict=True)), colour)
    figure.suptitle(title, color=colour["ink"], fontsize=11)
    return _png(figure)


def _figure(width: float, height: float, dark: bool) -> tuple[Any, Any, dict[str, str]]:
    """A figure of that many inches with its axes and colours; never touches pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colour = DARK if dark else LIGHT
    figure = Figure(figsize=(width, height), dpi=160, layout="constrained", facecolor=colour["paper"])
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _dress(axes, colour)
    return figure, axes, colour


def _dress(axes, colour: dict[str, str]) -> None:
    """The colours and the plain frame that all plots share."""
    axes.set_facecolor(colour["paper"])
    axes.set_axisbelow(True)
    axes.tick_params(colors=colour["ink"], labelsize=9, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colour["ink"])
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(colour["ink"])
    axes.title.set_fontsize(11)


def _legend(axes, colour: dict[str, str], place: str) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc=place, fontsize=9, labelcolor=colour["ink"], facecolor=colour["paper"], edgecolor="none"
        )


def _legend_beside(figure, shown: dict[str, Any], colour: dict[str, str]) -> None:
    """One legend for all axes, to their right."""
    place = {"loc": "outside right center", "frameon": False}
    figure.legend(shown.values(), shown, fontsize=9, labelcolor=colour["ink"], **place)


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    # no software version in the file: the same scores give the same bytes
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
