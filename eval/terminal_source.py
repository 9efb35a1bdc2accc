"""What a person at a terminal reads of a source judgement: the decision, and the cues that drove it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from eval import source_words
from remasc.sentences import plain

if TYPE_CHECKING:
    from detector.source.model import SourceJudgement, SourceModel


def polarity(model: SourceModel, joined: bool, prior: float) -> str:
    """How to read what follows: polarity, threshold, what decides, prior."""
    fusion = model.run.get("fusion")
    limit = fusion["threshold"] if joined and fusion else model.run["threshold"]["llr"]
    who = (
        "cues and replay detector together"
        if joined and fusion
        else f"cues alone ({model.config['classifier']})"
    )
    p_fa = model.run["threshold"]["p_fa"]
    return (
        f"llr: higher = more human, by {who}; accepted as human at llr >= {limit:.3g} (p_fa {p_fa:.0%} on dev), "
        f"else refused; P(human) at prior {prior:g}, which moves no decision"
    )


def text(judged: SourceJudgement) -> str:
    """A judgement as a line, and a line for each cue that is told: what it adds to the llr, and its sentence."""
    llr, word = judged.decisive_llr, source_words.WORDS[judged.decision]
    number = "       -" if llr is None else f"{llr:8.3f}"
    chance = "     -" if judged.probability is None else f"{judged.probability:6.1%}"
    note = f"  ({judged.detail.removeprefix(judged.trial + ': ')})" if judged.detail else ""
    lines = [plain(f"{number}  P(human) {chance}  {word:<9} {judged.trial}{note}")]
    if kinds := source_words.kinds(judged):
        lines.append(f"          {kinds}")
    if judged.fused_llr is not None:
        lines.append(f"          cues {judged.llr:+.3f}, replay detector {judged.detector_llr:+.3f}")
    if judged.explanation is not None:
        for reason in judged.explanation.reasons:
            lines.append(f"  {reason.part:+8.3f}  {reason.sentence}")
        lines.append(
            f"  {judged.explanation.others:+8.3f}  all other cues; {judged.explanation.base:+.3f} before any"
        )
        if judged.explanation.beside:
            lines.append(f"            not judged: {', '.join(judged.explanation.beside)}")
    return "\n".join(lines)


def json_line(judged: SourceJudgement) -> str:
    """A judgement as one JSON object."""
    return json.dumps(source_words.plain_values(judged), allow_nan=False)
