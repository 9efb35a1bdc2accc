"""The words for a source judgement, the same at a terminal, in JSON and on the page.

They cannot contradict each other, because each says what it is: what was done at the threshold (accepted or
refused, which is no statement of what is likelier), how probable a person is, and of which kind the device is if it
is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detector.source.model import SourceJudgement

WORDS = {"human": "accepted", "device": "refused", "undecided": "undecided"}
LIKELIEST = 3  # kinds that are told
DECIMALS, DIGITS = 6, 6  # of ratios and probabilities; of everything else


def verdict(judged: SourceJudgement) -> str:
    """ "refused: llr +0.62 is below 1.25": what was done and why."""
    word, llr = WORDS[judged.decision], judged.decisive_llr
    if judged.reason or llr is None or judged.threshold is None:
        return f"{word}: {judged.detail or judged.reason}"
    against = "reaches" if word == "accepted" else "is below"
    return f"{word}: llr {llr:+.2f} {against} {judged.threshold:.2f}"


def kinds(judged: SourceJudgement) -> str:
    """ "if a device: phone 40 %, tts-phone 21 %": probabilities given that it is one; empty where undecided."""
    ranked = sorted(judged.kinds_if_device.items(), key=lambda item: -item[1])[:LIKELIEST]
    return f"if a device: {', '.join(f'{name} {p:.0%}' for name, p in ranked)}" if ranked else ""


def plain_values(judged: SourceJudgement) -> dict[str, Any]:
    """What JSON holds: the judgement and its verdict, rounded. The parts of an explanation still add up to the llr:
    what rounding took of them is in `others`."""
    values = rounded(judged.as_dict()) | {"verdict": verdict(judged)}
    for name in ("score", "llr", "detector_llr", "fused_llr", "threshold", "probability"):
        if (number := getattr(judged, name)) is not None:
            values[name] = round(number, DECIMALS)
    told = values["explanation"]
    if told is not None:
        for entry, reason in zip(told["reasons"], judged.explanation.reasons, strict=True):
            entry["part"] = round(reason.part, DECIMALS)
        told["base"] = round(judged.explanation.base, DECIMALS)
        parts = sum(entry["part"] for entry in told["reasons"])
        told["others"] = round(values["llr"] - told["base"] - parts, DECIMALS)
    return values


def rounded(value: Any) -> Any:
    """Floats anywhere in `value` with six significant digits: more is rounding noise of float32."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value
