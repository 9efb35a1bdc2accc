"""The pictures of a corpus card, as PNG bytes: scene plans, spectrograms, playback devices."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from remasc import Recording, read_audio
from remasc.simulate.playback import FAMILIES, magnitude, make_device, piston_table
from remasc.simulate.rooms import BANDS
from remasc.simulate.talkers import GRID, mouth

PLACES = {1: "outdoor", 2: "indoor-1", 3: "indoor-2", 4: "vehicle"}
GENUINE, REPLAY = "#0072B2", "#D55E00"
SHOWN = 4  # instances of a family
POLAR_BAND = 5  # 4 kHz


def plans(scenes: Sequence[dict]) -> bytes:
    """From above, for each environment: up to 60 pairs of talkers and devices as they stand and face, some stands
    with their direction, some points of background, and the outline of the environment's mean room."""
    there = [e for e in PLACES if any(s["environment"] == e for s in scenes)]
    figure, panels = _panels(1, len(there), (3.4 * len(there), 3.8))
    for panel, environment in zip(panels[0], there, strict=True):
        own = [s for s in scenes if s["environment"] == environment and "random" not in s["room"]["id"]][:120]
        for label, colour, mark in (("genuine", GENUINE, "o"), ("replay", REPLAY, "s")):
            for scene in (s for s in own if s["label"] == label):
                (x, y), (ahead, aside) = scene["source"][:2], scene["facing"][:2]
                panel.plot(x, y, mark, color=colour, markersize=4, alpha=0.6, label=label)
                panel.plot([x, x + 0.25 * ahead], [y, y + 0.25 * aside], color=colour, linewidth=0.8)
        for scene in own[:12]:
            (x, y), (ahead, aside) = scene["stand"][:2], scene["forward"][:2]
            panel.arrow(x, y, 0.3 * ahead, 0.3 * aside, width=0.02, color="black")
            if scene["noise"]["point"] is not None:
                panel.plot(*scene["noise"]["point"][:2], "x", color="0.5", markersize=5, label="background")
        if environment == 1 or not own:
            panel.set(xlim=(17.5, 22.5), ylim=(17.5, 22.5))
        else:
            width, length = np.mean([s["room"]["dims"][:2] for s in own], axis=0)
            panel.plot([0, width, width, 0, 0], [0, 0, length, length, 0], color="black", linewidth=1.5)
        panel.set(title=PLACES[environment], aspect="equal", xlabel="m")
        handles = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
        panel.legend(handles.values(), handles.keys(), fontsize=7, loc="upper right")
    return _png(figure)


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
        lower.plot(
            np.concatenate([angles, -angles[::-1]]),
            np.concatenate([head, head[::-1]]),
            "k--",
            lw=1,
            label="mouth",
        )
        upper.set(
            title=FAMILIES[family], ylim=(-40, 12), xlabel="Hz", ylabel="dB on the axis" if not column else ""
        )
        upper.grid(alpha=0.3)
        lower.set(ylim=(-30, 3), theta_zero_location="N")
        lower.set_title(f"{BANDS[POLAR_BAND] / 1000:g} kHz, dB", fontsize=8)
        lower.legend(fontsize=7, loc="lower right")
    return _png(figure)


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


def _png(figure: Any) -> bytes:
    store = io.BytesIO()
    figure.savefig(store, format="png")
    return store.getvalue()
