"""Table and figure of `eval.benchmarks.responses`: the simulator beside the full image method."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np

from remasc.simulate.scenes import CONTENT_RATE

FIGURES = (("t20", "T20 (s)"), ("c50_db", "C50 (dB)"), ("drr_db", "direct / reverberant (dB)"))
# How far the simulator may be from its references, each row a mean over places. ISO 3382-1 calls 5 % of a decay and
# 1 dB of clarity just noticeable: these are wider, but far below what rooms of one kind differ by.
T20_ASKED, T20_SCATTERED = 0.10, 0.15  # shares
C50_DB, DRR_DB = 2.0, 0.75  # of the full image method
COHERENCE = 0.15  # rms distance of the late sound from a diffuse field's


def table(rows: list[dict], reference: str) -> list[str]:
    """Markdown lines: each figure as simulator / reference."""
    lines = [
        f"Simulator / {reference}; coherence error: rms distance from sinc(2 f d / c), 250 to 5000 Hz.",
        "",
        "| RT60 asked (s) | distance (m) | T20 (s) | T20 of scattering walls (s) | C50 (dB) | D/R (dB) | "
        "coherence error | file |",
        "|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        ours, other = row["simulator"], row["full"]
        cells = [f"{ours[key]:.2f} / {other[key]:.2f}" for key, _ in FIGURES]
        errors = [f"{d['coherence_error']:.2f}" if "coherence_error" in d else "-" for d in (ours, other)]
        rough = f"{row['t20_scattered']:.2f}" if "t20_scattered" in row else "-"
        cells = [f"{row['rt60']:g}", f"{row['distance']:g}", cells[0], rough, *cells[1:]]
        cells += [" / ".join(errors), row.get("file", "-")]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def within(rows: list[dict]) -> dict[str, tuple[float, float]]:
    """What is asked of the simulator -> (worst row's distance, tolerance)."""

    def worst(distance: Callable[[dict], float]) -> float:
        return max(abs(distance(row)) for row in rows)

    ours = lambda row: row["simulator"]  # noqa: E731
    return {
        "T20, share from the asked RT60": (worst(lambda r: ours(r)["t20"] / r["rt60"] - 1), T20_ASKED),
        "T20, share from walls that scatter": (
            worst(lambda r: ours(r)["t20"] / r["t20_scattered"] - 1),
            T20_SCATTERED,
        ),
        "C50, dB from the full image method": (
            worst(lambda r: ours(r)["c50_db"] - r["full"]["c50_db"]),
            C50_DB,
        ),
        "direct / reverberant, dB from the full image method": (
            worst(lambda r: ours(r)["drr_db"] - r["full"]["drr_db"]),
            DRR_DB,
        ),
        "late coherence, rms from a diffuse field": (worst(lambda r: ours(r)["coherence_error"]), COHERENCE),
    }


def differences(rows: list[dict]) -> str:
    """One sentence: how far the simulator is from the full image method, median and largest."""
    t20 = [100 * (row["simulator"]["t20"] / row["full"]["t20"] - 1) for row in rows]
    asked = [100 * (row["simulator"]["t20"] / row["rt60"] - 1) for row in rows]
    parts = [_spread("T20", t20, "%"), _spread("T20 against the asked RT60", asked, "%")]
    for key, name in FIGURES[1:]:
        parts.append(_spread(name, [row["simulator"][key] - row["full"][key] for row in rows], "dB"))
    return "Simulator less full image method, median (smallest to largest): " + "; ".join(parts) + "."


def _spread(name: str, values: list[float], unit: str) -> str:
    plain = name.split(" (")[0]
    return f"{plain} {np.median(values):+.1f} {unit} ({min(values):+.1f} to {max(values):+.1f})"


def draw(rows: list[dict], measured: list[dict]) -> bytes:
    """A PNG: three figures of merit against the reference, the decay and the late coherence of one room."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 5, figsize=(15, 3.3), layout="constrained")
    for panel, (key, title) in zip(panels, FIGURES, strict=False):
        for distance in sorted({row["distance"] for row in rows}):
            chosen = [row for row in rows if row["distance"] == distance]
            panel.plot(
                [r["full"][key] for r in chosen],
                [r["simulator"][key] for r in chosen],
                "o",
                label=f"{distance:g} m",
            )
        if measured:
            x, y = ([row[name][key] for row in measured] for name in ("full", "simulator"))
            panel.plot(x, y, "k+", label="measured")
        ends = [min(panel.get_xlim()[0], panel.get_ylim()[0]), max(panel.get_xlim()[1], panel.get_ylim()[1])]
        panel.plot(ends, ends, "-", color="0.7", zorder=0)
        panel.set(
            title=title, xlabel="full image method" + " or measured" * bool(measured), ylabel="simulator"
        )
    panels[0].legend()
    shown = max(
        (r for r in rows if r["rt60"] <= 0.5), key=lambda r: (r["rt60"], r["distance"]), default=rows[0]
    )
    _decays(panels[3], shown)
    _coherences(panels[4], shown)
    image = io.BytesIO()
    figure.savefig(image, dpi=80)
    plt.close(figure)
    return image.getvalue()


def _decays(panel: object, row: dict) -> None:
    for name, label in (("simulator", "simulator"), ("full", "full image method")):
        curve = np.array(row[name]["decay"])
        panel.plot(np.arange(len(curve)) * 0.01, curve, label=label)
    end = 0.01 * len(row["simulator"]["decay"])
    start = row["simulator"]["decay"][1]
    panel.plot([0.01, end], [start, start - 60 * (end - 0.01) / row["rt60"]], ":", color="0.5", label="asked")
    panel.set(
        title=f"decay, RT60 {row['rt60']:g} s, {row['distance']:g} m", xlabel="s", ylabel="dB", ylim=(-50, 1)
    )
    panel.legend()


def _coherences(panel: object, row: dict) -> None:
    f = np.linspace(0, CONTENT_RATE / 2, 65)
    for name in ("simulator", "full"):
        if "coherence" in row[name]:
            panel.plot(f, row[name]["coherence"])
    panel.plot(f, np.sinc(2 * f * 0.093 / 343.0), ":", color="0.5")
    panel.set(title="late coherence, 9.3 cm", xlabel="Hz", ylim=(-1, 1))
