"""What is said of a command: plain data, one line of JSON, and only True opens a door."""

import json
import math

import pytest

from detector import quality
from streaming.decision import REASONS, Decision, genuine_of, suffices


def test_only_a_judgement_of_genuine_is_genuine():
    assert genuine_of("genuine") is True
    assert genuine_of("replay") is False
    for word in ("undecided", "", "Genuine", "accepted"):
        assert genuine_of(word) is None


def test_a_decision_is_one_line_of_json():
    said = Decision(0.5, 2.0, 1.25, 0.5, None, ("growing", "clipped"), kind="provisional", at=2.0)
    line = said.as_json()
    assert "\n" not in line
    assert json.loads(line) == {
        "start": 0.5, "end": 2.0, "score": 1.25, "llr": 0.5, "genuine": None, "reasons": ["growing", "clipped"],
        "detail": "", "kind": "provisional", "at": 2.0, "revised": False,
    }  # fmt: skip
    with pytest.raises(ValueError, match="JSON"):
        Decision(0, 1, math.nan, None, None).as_json()


def test_it_is_final_or_provisional():
    for kind in ("provisional", "early", "final"):
        said = Decision(0, 1, None, None, None, kind=kind)
        assert said.final is (kind == "final")
        assert said.provisional is not said.final


def test_every_reason_has_words():
    assert set(quality.REASONS) < set(REASONS)
    said = Decision(0.0, 1.0, None, None, None, ("clipped", "interrupted"))
    assert said.sentence == f"0.00 to 1.00 s: undecided ({REASONS['clipped']}; {REASONS['interrupted']})"


def test_a_decision_in_words():
    assert Decision(0.0, 1.0, 2.0, 2.0, True).sentence == "0.00 to 1.00 s: a living person, score +2.000"
    early = Decision(0.0, 1.0, -2.0, 2.0, False, kind="early")
    assert early.sentence == "0.00 to 1.00 s: a playback device, score -2.000, decided early"
    assert Decision(0.0, 1.0, None, None, None, revised=True).sentence == "0.00 to 1.00 s: undecided, revised"


@pytest.mark.parametrize("llr", [-3.0, 3.0])
def test_evidence_suffices_from_the_margin_on(llr):
    assert suffices(llr, 0.0, 3.0)
    assert not suffices(llr, 0.0, 3.1)
    assert not suffices(llr, 0.0, None)
    assert not suffices(None, 0.0, 0.0)
    assert not suffices(llr, None, 0.0)
