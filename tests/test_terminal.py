"""What a person reads at a terminal."""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from detector.score import Judgement
from eval import terminal

JUDGED = Judgement("a.wav", 1.25, 2.5, 0.92414182, "genuine")
UNREADABLE = Judgement("b.wav", None, None, None, "undecided", "unreadable", "b.wav: not a sound file")


def test_a_line_for_a_person():
    assert terminal.text_line(JUDGED) == "   1.250  P(live)  92.4%  genuine    a.wav"
    assert terminal.text_line(UNREADABLE) == "       -  P(live)      -  undecided  b.wav  (not a sound file)"


@pytest.mark.parametrize("judged", [JUDGED, UNREADABLE])
def test_machines_read_everything_back(judged):
    cells = terminal.tsv_line(judged).split("\t")
    row = dict(zip(terminal.TSV_HEADER.split("\t"), cells, strict=True))
    told = json.loads(terminal.json_line(judged, {"threshold": 0.5, "prior": 0.5}))
    assert told == judged.as_dict() | {"threshold": 0.5, "prior": 0.5}
    for name, value in judged.as_dict().items():
        assert row[name] == ("" if value is None else str(value))


def test_a_name_moves_no_terminal_and_no_column():
    hostile = replace(UNREADABLE, trial="x\x1b[31m\ty\n.wav", detail="a\tb")
    for line in (terminal.text_line(hostile), terminal.json_line(hostile, {})):
        assert line.isprintable()
    assert terminal.tsv_line(hostile).count("\t") == terminal.TSV_HEADER.count("\t")


def test_polarity_says_where_the_threshold_comes_from():
    run = {"threshold": {"score": 1.0, "p_fa": 0.05}}
    assert "score >= 1 (p_fa 5% on dev)" in terminal.polarity(1.0, False, run, 0.5)
    assert "score >= 2 (given)" in terminal.polarity(2.0, True, run, 0.5)
    assert "accepted: nothing" in terminal.polarity(None, False, {}, 0.5)


def figures(**changes):
    cell = {"name": "[/red] D4", "genuine": 60, "replay": 70, "eer": 0.2, "low": 0.1, "high": 0.3, "note": ""}
    few = cell | {"name": "D1", "eer": None, "note": "fewer than 50"}
    return {
        "metrics": {"eer": {"value": 0.1234, "low": 0.1, "high": 0.15}},
        "simulated": True,
        "trials": {"genuine": 120, "replay": 140, "unlabelled": 0},
        "breakdowns": {"array": [cell | {"drawn": "trials"}, few | {"drawn": "trials"}]},
    } | changes


def test_the_figures_of_a_report():
    headline = terminal.headline(figures())
    assert headline == "EER 12.3 % [10.0, 15.0] (simulated), 120 genuine and 140 replay trials"
    console = Console(markup=False, width=120)
    with console.capture() as captured:
        console.print(terminal.breakdown_table(figures()))
    text = captured.get()
    assert all(word in text for word in ("[/red] D4", "20.0 %", "[10.0, 30.0]", "fewer than 50"))
    assert terminal.breakdown_table(figures(breakdowns={})) is None
