"""Source judgements as one HTML page that needs nothing else: for each file the cues that drove it, as a figure.

A row of the figure is a cue: its sentence, what it adds to the log-likelihood ratio (right: human, left: device),
and where its value lies against the range of nine in ten people in training. Everything from a file is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from eval import source_words
from eval.page import document
from remasc.atomic import write_text

if TYPE_CHECKING:
    from detector.source.explain import Explanation, Reason
    from detector.source.model import SourceJudgement, SourceModel

ROW, WIDTH = 46, 720  # of the figure, in its own units
BARS, STRIP = (8, 300), (430, 700)  # left and right end of the parts' bars and of the ranges
STYLE = """
.cues{width:100%;height:auto;font:12px system-ui,sans-serif;display:block;margin-top:8px}
.cues text{fill:var(--ink)}.cues .soft{fill:var(--soft);font-size:11px}.cues .axis{stroke:var(--line)}
.cues .human{fill:var(--genuine)}.cues .device{fill:var(--replay)}.cues .people{fill:var(--bar)}
.cues .here{fill:var(--ink)}
"""


def write(path: Path, judged: Sequence[SourceJudgement], model: SourceModel, prior: float) -> None:
    """Write the page; ValueError where there is nothing to show."""
    if not judged:
        raise ValueError("nothing was judged, so there is no page to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page(judged, model, prior))


def page(judged: Sequence[SourceJudgement], model: SourceModel, prior: float) -> str:
    """The whole document."""
    simulated = model.run.get("simulated")
    where = f"{model.run.get('corpus', 'an unnamed corpus')}{' (SIMULATED)' if simulated else ''}"
    joined = model.run.get("fusion") if any(one.fused_llr is not None for one in judged) else None
    p_fa = model.run["threshold"]["p_fa"]
    limit = joined["threshold"] if joined else model.run["threshold"]["llr"]
    about = (
        f"Classifier: {model.config['classifier']}, trained on {where}. A bar to the right speaks for a person, to "
        "the left for a device; its length is what the cue adds to the natural-log likelihood ratio. The shaded "
        "range holds nine in ten people of the training, the mark is this recording. Probabilities at a prior of "
        f"{prior:g}; they move no decision: accepted as human is what has a ratio of {limit:.3g} or more "
        f"(p_fa {p_fa:.0%} on dev), refused is what has less. Kinds of devices are for the case that it is one."
    )
    head = (
        f'<style>{STYLE}</style><h1>Who spoke: a person or a device</h1><p class="soft">{escape(about)}</p>'
    )
    return document("Source report", [head, *map(card, judged)])


def card(judged: SourceJudgement) -> str:
    """One file: its decision, its kinds, its cues."""
    chip = {"human": "genuine", "device": "replay"}.get(judged.decision, "undecided")
    word, _, why = source_words.verdict(judged).partition(": ")
    facts = [("decision", f'<span class="chip {chip}">{word}</span> {escape(why)}')]
    if judged.detail and not judged.reason:
        facts.append(("note", escape(judged.detail)))
    for name, value in (("llr of the cues", judged.llr), ("with the detector", judged.fused_llr)):
        if value is not None:
            facts.append((name, f"{value:+.3f}"))
    if judged.probability is not None:
        facts.append(("probability", f"{judged.probability:.1%} human"))
    if kinds := source_words.kinds(judged):
        facts.append(("kind", escape(kinds)))
    if judged.explanation is not None and judged.explanation.beside:
        facts.append(("not judged", escape(", ".join(judged.explanation.beside))))
    listed = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in facts)
    drawn = "" if judged.explanation is None else figure(judged.explanation)
    name = escape(judged.trial)
    return f'<div class="card" style="margin-top:14px"><h3>{name}</h3><dl>{listed}</dl>{drawn}</div>'


def figure(told: Explanation) -> str:
    """The cues of one explanation as SVG; the last rows are all other cues and what is known before any."""
    rest = [("all other cues", told.others), ("before any cue", told.base)]
    parts = [reason.part for reason in told.reasons] + [part for _, part in rest]
    largest = max(map(abs, parts), default=0.0) or 1.0
    rows = [_row(i, reason.sentence, reason.part, largest, reason) for i, reason in enumerate(told.reasons)]
    rows += [_row(len(rows) + i, name, part, largest, None) for i, (name, part) in enumerate(rest)]
    height, middle = ROW * len(rows) + 4, sum(BARS) / 2
    alt = "; ".join(f"{reason.part:+.2f} {reason.sentence}" for reason in told.reasons)
    return (
        f'<svg class="cues" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(alt)}">'
        f'<line class="axis" x1="{middle}" x2="{middle}" y1="0" y2="{height}"/>{"".join(rows)}</svg>'
    )


def _row(number: int, words: str, part: float, largest: float, reason: Reason | None) -> str:
    top, middle = number * ROW, sum(BARS) / 2
    length = abs(part) / largest * (BARS[1] - BARS[0]) / 2
    left = middle if part > 0 else middle - length
    side = "human" if part > 0 else "device"
    out = (
        f'<text x="{BARS[0]}" y="{top + 15}">{escape(words)}</text>'
        f'<rect class="{side}" x="{left:.1f}" y="{top + 22}" width="{max(length, 1):.1f}" height="12" rx="2"/>'
        f'<text class="soft" x="{BARS[1] + 12}" y="{top + 32}">{part:+.3f} llr</text>'
    )
    return out if reason is None else out + _strip(top + 22, reason)


def _strip(top: float, reason: Reason) -> str:
    """The range of people over the middle half of a strip, and the mark of the value, held at the strip's ends."""
    if reason.low is None or reason.high is None:
        return f'<text class="soft" x="{STRIP[0]}" y="{top + 10}">no range</text>'
    width = STRIP[1] - STRIP[0]
    people = (
        f'<line class="axis" x1="{STRIP[0]}" x2="{STRIP[1]}" y1="{top + 6}" y2="{top + 6}"/>'
        f'<rect class="people" x="{STRIP[0] + width / 4}" y="{top}" width="{width / 2}" height="12" rx="2"/>'
    )
    if reason.value is None:
        return people + f'<text class="soft" x="{STRIP[0] + width / 4 + 4}" y="{top + 10}">undefined</text>'
    spread = (reason.high - reason.low) or 1.0
    place = min(max(0.25 + 0.5 * (reason.value - reason.low) / spread, 0.0), 1.0)
    return (
        people
        + f'<rect class="here" x="{STRIP[0] + place * width - 2:.1f}" y="{top - 2}" width="4" height="16"/>'
    )
