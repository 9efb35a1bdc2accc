"""What a person at a terminal reads: each judgement as a line, and the main figures of a report as a table.

Nothing is printed here: the front door prints what these return.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from eval import words
from remasc.sentences import plain

if TYPE_CHECKING:
    from rich.table import Table

    from detector.explain import Explanation
    from detector.score import Judgement

TSV_HEADER = "trial\tscore\tllr\tprobability\tdecision\treason\tdetail"


def polarity(threshold: float | None, given: bool, run: dict, prior: float) -> str:
    """How to read the lines that follow: polarity, threshold and where it comes from, prior."""
    stated = (run.get("threshold") or {}).get("p_fa")
    origin = "given" if given else f"p_fa {stated:.0%} on dev" if stated is not None else "stored"
    limit = "accepted: nothing, for want of a threshold"
    if threshold is not None:
        limit = f"accepted at score >= {threshold:.6g} ({origin})"
    return f"score: higher = more genuine; {limit}; P(live) at prior {prior:g}, which moves no decision"


def text_line(judged: Judgement) -> str:
    """A judgement for a person; what a file's name may do to a terminal is written out."""
    score = "       -" if judged.score is None else f"{judged.score:8.3f}"
    chance = "     -" if judged.probability is None else f"{judged.probability:6.1%}"
    detail = f"  ({judged.detail.removeprefix(judged.trial + ': ')})" if judged.detail else ""
    return f"{score}  P(live) {chance}  {judged.decision:<9}  {plain(judged.trial + detail)}"


def tsv_line(judged: Judgement) -> str:
    """A judgement under `TSV_HEADER`; numbers in full, empty where there is none."""
    numbers = ("" if n is None else repr(n) for n in (judged.score, judged.llr, judged.probability))
    return "\t".join([plain(judged.trial), *numbers, judged.decision, judged.reason, plain(judged.detail)])


def json_line(judged: Judgement, limits: dict[str, Any]) -> str:
    """A judgement and what it was judged by (`limits`: threshold, prior) as one JSON object."""
    return json.dumps(judged.as_dict() | limits)


def explained(judged: Judgement, told: Explanation, limits: dict[str, Any] | None) -> str:
    """A judgement and what drove it: lines for a person, or with `limits` one JSON object."""
    if limits is not None:
        return json.dumps(judged.as_dict() | limits | {"explanation": told.as_dict()})
    lines = [text_line(judged)]
    for one in told.contributions:
        side = "for a person" if one.part > 0 else "for a playback device"
        part = f"{one.part:+7.2f}" if one.defined else "      -"
        lines.append(f"  {part}  {one.group:<9} {side + ': ' if one.defined else ''}{one.sentence}")
    if told.contributions:
        limit = "" if told.threshold is None else f", accepted from {told.threshold:.2f}"
        lines.append(
            f"  {told.value:+7.2f}  {told.unit:<9} = the parts and {told.reference:+.2f} of an average command "
            f"of the same course{limit}"
        )
    return "\n".join(lines)


def headline(figures: dict) -> str:
    """The EER with its interval, of how many trials; "(simulated)" where they are."""
    eer = figures["metrics"]["eer"]
    rate = f"EER {words.rate(eer['value'])} {words.interval(eer['low'], eer['high'])}{words.tag(figures)}"
    return f"{rate}, {words.trials_words(figures)}"


def breakdown_table(figures: dict) -> Table | None:
    """The figures by array and by environment; None where neither is known."""
    from rich.table import Table

    table = Table("", "genuine", "replay", "EER", "95 % interval", "")
    for name in ("array", "environment"):
        for cell in figures["breakdowns"].get(name, ()):
            rates = ("–", "")
            if cell["eer"] is not None:
                rates = (words.rate(cell["eer"]), words.interval(cell["low"], cell["high"]))
            table.add_row(
                cell["name"], str(cell["genuine"]), str(cell["replay"]), *rates, words.cell_note(cell)
            )
        table.add_section()
    return table if table.row_count else None
