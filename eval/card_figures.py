"""The pictures of a corpus card, as PNG bytes: laws by class, scene plans, spectrograms, playback devices."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.card_laws import CLASSES, Law
from remasc import Recording, read_audio
from remasc.simulate.playback import FAMILIES, magnitude, make_device, piston_table
from remasc.simulate.rooms import BANDS
from remasc.simulate.talkers import GRID, mouth

PLACES = {1: "outdoor", 2: "indoor-1", 3: "indoor-2", 4: "vehicle"}
COLOURS = {"genuine": "#0072B2", "replay": "#D55E00"}
SHOWN = 4  # instances of a family
POLAR_BAND = 5  # 4 kHz


def laws(found: Sequence[Law]) -> bytes:
    """The cumulative distribution of each law, a line a class."""
    columns = 5
    figure, panels = _panels(-(-len(found) // columns), columns, (13, 7.5))
    for panel, law in zip(panels.flat, found, strict=False):
        for label, style in zip(CLASSES, ("-", "--"), strict=True):
            values = np.sort(law.values[label])
            shares = (np.arange(len(values)) + 1) / max(1, len(values))
            panel.step(values, shares, style, where="post", color=COLOURS[label], label=label)
        panel.set_title(law.name, fontsize=8)
        panel.set_xlabel(law.unit, fontsize=8)
        panel.set(ylim=(0, 1))
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.3)
    for panel in panels.flat[len(found) :]:
        panel.set_axis_off()
    return _png(_with_legend(figure, panels[0][0]))


def plans(scenes: Sequence[dict]) -> bytes:
    """From above, for each environment: up to 60 pairs of talkers and devices as they stand and face, some stands
    with their direction, some points of background, and the outline of the environment's mean room."""
    there = [e for e in PLACES if any(s["environment"] == e for s in scenes)]
    figure, panels = _panels(1, len(there), (3.4 * len(there), 4.2))
    for panel, environment in zip(panels[0], there, strict=True):
        own = [s for s in scenes if s["environment"] == environment and "random" not in s["room"]["id"]][:120]
        width, length = (5.0, 5.0) if environment == 1 or not own else _floor(own)
        # filled below, open above: neither class hides the other
        for label, mark, inside, size in (("genuine", "o", None, 4), ("replay", "s", "none", 7)):
            colour = COLOURS[label]
            for scene in (s for s in own if s["label"] == label):
                (x, y), way = scene["source"][:2], 0.05 * length * np.array(scene["facing"][:2])
                panel.plot(x, y, mark, color=colour, mfc=inside, ms=size, mew=0.6, label=label)
                panel.plot([x, x + way[0]], [y, y + way[1]], color=colour, linewidth=0.6)
        for scene in own[:12]:
            panel.quiver(*scene["stand"][:2], *scene["forward"][:2], scale=12, width=0.012)
            if scene["noise"]["point"] is not None:
                panel.plot(*scene["noise"]["point"][:2], "x", color="0.4", markersize=5, label="background")
        if environment == 1 or not own:
            panel.set(xlim=(17.5, 22.5), ylim=(17.5, 22.5))
        else:
            panel.plot([0, width, width, 0, 0], [0, 0, length, length, 0], color="black", linewidth=1.5)
        panel.set(title=PLACES[environment], aspect="equal", xlabel="m")
    return _png(_with_legend(figure, *panels[0]))


def _floor(scenes: Sequence[dict]) -> tuple[float, float]:
    """Width and length of their mean room, metres."""
    width, length = np.mean([s["room"]["dims"][:2] for s in scenes], axis=0)
    return float(width), float(length)


def spectrograms(files: dict[str, list[Recording]], pairs: Sequence[tuple[dict, dict]]) -> bytes:
    """The first channel of the first array, to 8 kHz, 70 dB: genuine above, replay below, one column a pair."""
    pairs = [(g, r) for g, r in pairs if g["scene_id"] in files and r["scene_id"] in files]
    columns = max(1, len(pairs))
    figure, panels = _panels(2, columns, (3.4 * columns, 5))
    for column, pair in enumerate(pairs):
        for row, scene in enumerate(pair):
            recording = files[scene["scene_id"]][0]
            waveform, rate = read_audio(recording.path)
            panel = panels[row][column]
            size = int(0.025 * rate)
            spectrum, *_ = panel.specgram(
                waveform[0] + 1e-9 * np.sin(np.arange(waveform.shape[1])),
                size,
                rate,
                noverlap=size // 2,
                cmap="magma",
            )
            loudest = 10 * np.log10(spectrum.max())
            panel.images[0].set_clim(loudest - 70, loudest)
            device = "" if scene["device"] is None else f", {FAMILIES[scene['device']['family']]}"
            title = f"{scene['label']}{device}, {PLACES[scene['environment']]}, {recording.array}"
            panel.set(title=title, ylim=(0, 8000), xlabel="s", ylabel="Hz")
            panel.title.set_fontsize(8)
    return _png(figure)


def devices(corpus_name: str, scenes: Sequence[dict]) -> bytes:
    """Per family the responses on the axis of some instances, and the polar pattern of their largest driver at
    4 kHz beside a mouth's."""
    used = sorted({(s["device"]["family"], s["device"]["id"]) for s in scenes if s["device"]})
    families = [f for f in FAMILIES if any(family == f for family, _ in used)]
    figure = _figure((3.2 * max(1, len(families)), 5.4))
    f = np.geomspace(50, 7500, 400)
    angles = np.arccos(GRID)
    for column, family in enumerate(families):
        upper = figure.add_subplot(2, len(families), column + 1)
        lower = figure.add_subplot(2, len(families), len(families) + column + 1, projection="polar")
        for _, device_id in [pair for pair in used if pair[0] == family][:SHOWN]:
            device = make_device(corpus_name, device_id, family)
            upper.semilogx(f, 20 * np.log10(magnitude(device, f)), lw=1)
            driver = max(device.drivers, key=lambda d: d.radius if d.band[1] > 4000 else 0)
            gains = 20 * np.log10(piston_table(driver.radius, device.half_width)[POLAR_BAND])
            lower.plot(np.concatenate([angles, -angles[::-1]]), np.concatenate([gains, gains[::-1]]), lw=1)
        head = 20 * np.log10(mouth(GRID)[POLAR_BAND])
        around = np.concatenate([angles, -angles[::-1]])
        lower.plot(around, np.concatenate([head, head[::-1]]), "k--", lw=1, label="mouth")
        upper.set(
            title=FAMILIES[family], ylim=(-40, 12), xlabel="Hz", ylabel="dB on the axis" if not column else ""
        )
        upper.grid(alpha=0.3)
        lower.set(ylim=(-30, 3), theta_zero_location="N")
        lower.set_title(f"{BANDS[POLAR_BAND] / 1000:g} kHz, dB", fontsize=8)
    return _png(_with_legend(figure, *figure.axes[1:2]))


def _panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """A figure of that many inches and its panels (rows, columns); never touches pyplot's global state."""
    figure = _figure(size)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _figure(size: tuple[float, float]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _with_legend(figure: Any, *panels: Any) -> Any:
    """The figure with one legend of what its `panels` name, below them all."""
    named: dict[str, Any] = {}
    for panel in panels:
        named |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=len(named), fontsize=8)
    return figure


def _png(figure: Any) -> bytes:
    store = io.BytesIO()
    figure.savefig(store, format="png")
    return store.getvalue()
