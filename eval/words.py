"""The words and rows that the Markdown and the HTML report share: one sentence for one fact.

Takes the figures of `eval.summary` (fractions) and returns plain text, not escaped.
"""

from __future__ import annotations

import math
from typing import NamedTuple

METRICS = {
    "eer": ("EER", "equal error rate, ASVspoof 5's definition; all trials, abstained ones by their score"),
    "eer_decided": ("EER, decided trials", "without the trials on which the detector abstained"),
    "eer_rocch": ("EER, ROC convex hull", "tie-free alternative; differs on small sets"),
    "p_miss_at_p_fa_0.01": (
        "BPCER at 1 % p_fa",
        "genuine rejected where 1 % of the replays (pooled) get through",
    ),
    "p_miss_at_p_fa_0.05": (
        "BPCER at 5 % p_fa",
        "genuine rejected where 5 % of the replays (pooled) get through",
    ),
    "min_dcf": ("min DCF", "best normalised cost: P_spoof 0.05, C_miss 1, C_fa 10"),
    "act_dcf": ("act DCF", "cost at the Bayes threshold, same weights; needs calibrated llr"),
    "cllr": ("Cllr (bits)", "cost of the likelihood ratios; 1 = knows nothing; needs calibrated llr"),
    "min_cllr": ("min Cllr (bits)", "the same after the best recalibration on these trials (PAV)"),
}
COSTS = ("min_dcf", "act_dcf", "cllr", "min_cllr")


class Row(NamedTuple):
    """A line of a table: what, its value and interval in words, and what it means."""

    name: str
    value: str
    interval: str
    meaning: str


def rate(fraction: float) -> str:
    """0.1234 -> "12.3 %"; below 1 % with two decimals."""
    return f"{100 * fraction:.{2 if 0 < fraction < 0.01 else 1}f} %"


def interval(low: float, high: float) -> str:
    """The interval of a rate in per cent: "[10.1, 14.5]"."""
    digits = 2 if 0 < high < 0.01 else 1
    return f"[{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def simulated_words(simulated: bool | None) -> str:
    if simulated is None:
        return "Whether these recordings are real or simulated was not stated."
    if simulated:
        return (
            "SIMULATED recordings: every figure on this page was measured on rendered rooms, talkers and "
            "playback devices, and claims nothing about real ones."
        )
    return "Real recordings."


def subject(figures: dict) -> str:
    """What was measured: "Replay detection on <corpus>, partition eval"."""
    corpus = figures["corpus"] or figures["files"]["scores"]["name"]
    return f"Replay detection on {corpus}" + (
        f", partition {figures['partition']}" if figures["partition"] else ""
    )


def tag(figures: dict) -> str:
    """What every heading and figure title ends in, so that a simulated result is never shown without it."""
    return " (simulated)" if figures["simulated"] else ""


def metric_rows(figures: dict) -> list[Row]:
    rows = []
    for key, (name, meaning) in METRICS.items():
        entry = figures["metrics"].get(key)
        if entry is None:
            rows.append(Row(name, "–", "", "no figure: without the abstained trials a class is empty"))
        elif "refused" in entry:
            rows.append(Row(name, "–", "", entry["refused"]))
        elif key in COSTS:
            rows.append(
                Row(name, f"{entry['value']:.3f}", f"[{entry['low']:.3f}, {entry['high']:.3f}]", meaning)
            )
        else:
            if key == "eer_decided":
                meaning += f": {entry['genuine']:,} genuine, {entry['replay']:,} replay"
            rows.append(Row(name, rate(entry["value"]), interval(entry["low"], entry["high"]), meaning))
    return rows


def operating_rows(figures: dict) -> list[Row]:
    point, trials = figures["operating_point"], figures["trials"]
    rows = [_rate_row("BPCER (p_miss)", point["bpcer"], f"{trials['genuine']:,} genuine trials, rejected")]
    if "apcer" in point:
        worst = f"of the playback device that gets through best: {device_word(point['apcer_max']['device'])}"
        rows.append(_rate_row("APCER, maximum", point["apcer_max"], worst))
        rows += [
            _rate_row(f"APCER {device_word(device)}", entry, f"{entry['replay']:,} replays, accepted")
            for device, entry in point["apcer"].items()
        ]
    rows.append(
        _rate_row("p_fa, pooled", point["p_fa"], f"{trials['replay']:,} replays of all devices, accepted")
    )
    return rows


def _rate_row(name: str, entry: dict, meaning: str) -> Row:
    return Row(name, rate(entry["value"]), interval(entry["low"], entry["high"]), meaning)


def device_word(device: str) -> str:
    return "unknown device" if device in ("", "-") else device


def threshold_words(figures: dict) -> str:
    point = figures["operating_point"]
    return f"Accepted where score {limit_words(point['threshold'])}; the threshold is {point['origin']}."


def limit_words(threshold: float) -> str:
    """The rule `score >= threshold` so that the number as printed decides the same: the float above a round
    number, which is what a sweep leaves, reads "> -0.1" and not "≥ -0.1"."""
    below = math.nextafter(threshold, -math.inf)
    if float(f"{below:.6g}") == below:
        return f"> {below:.6g}"
    return f"≥ {threshold:.6g}" if float(f"{threshold:.6g}") == threshold else f"≥ {threshold!r}"


def trials_words(figures: dict) -> str:
    trials = figures["trials"]
    words = f"{trials['genuine']:,} genuine and {trials['replay']:,} replay trials"
    return words + (f", {trials['unlabelled']:,} without a label left out" if trials["unlabelled"] else "")


def coverage_words(figures: dict) -> str:
    trials = figures["trials"]
    if not trials["abstained"]:
        return "The detector decided on every trial (coverage 100 %)."
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in trials["abstained_reasons"].items())
    share = rate(trials["coverage"])
    return f"The detector abstained on {trials['abstained']:,} trials ({reasons}); coverage {share}."


def interval_words(figures: dict) -> str:
    how = figures["interval"]
    why = "" if how["over"] == "speakers" else ", because there are fewer than 10 known speakers in a class"
    return (
        f"Intervals: {100 * how['level']:g} % percentile bootstrap, {how['draws']:,} draws over "
        f"{how['over']}{why}; seed {how['seed']}."
    )


def cell_note(cell: dict) -> str:
    """What stands in a breakdown where there is no rate, or beside one that needs a word."""
    if cell["eer"] is None or cell["note"]:
        return cell["note"]
    return f"over {cell['drawn']}"


READING = (
    "A higher score means more genuine. A genuine trial that is rejected is a miss (BPCER in ISO/IEC 30107-3); a "
    "replay that is accepted is a false alarm (APCER, per playback device)."
)
POOLING = (
    "By playback device and source recorder, the replays of a cell stand against all genuine trials of the same "
    "arrays and environments. A cell with fewer than 50 trials of either class gives its counts only."
)
