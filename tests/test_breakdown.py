"""Breakdowns: who stands in which cell, when a rate is printed, and what the bootstrap draws."""

import numpy as np
import pytest

from eval.breakdown import BREAKDOWNS, MIN_TRIALS, breakdown, speaker_groups
from eval.metrics import bootstrap_interval, eer
from eval.scores import ScoreTable


def corpus(seed: int = 0, n: int = 3000, **changed) -> ScoreTable:
    """A table as ReMASC's: genuine trials have no playback device; synthetic voices are speaker 0."""
    rng = np.random.default_rng(seed)
    genuine = rng.random(n) < 0.4
    recorder = np.where(genuine, "-", rng.choice(["tascam-dr05", "ipod", "tts"], n))
    conditions = {
        "array": rng.choice(["D1", "D2", "D10"], n),
        "environment": rng.choice(["outdoor", "vehicle"], n),
        "position": rng.choice(["-1", "2", "10"], n),
        "source_recorder": recorder,
        "playback_device": np.where(genuine, "-", rng.choice(["phone", "headphone"], n)),
        "speaker": np.where(recorder == "tts", "0", rng.integers(1, 13, n).astype(str)),
    }
    return ScoreTable(
        trial=np.arange(n).astype(str),
        score=rng.normal(np.where(genuine, 1, -1), 1.2),
        label=np.where(genuine, "genuine", "replay"),
        conditions={**conditions, **changed},
    )


def test_cells_hold_every_trial_once():
    table = corpus()
    for by in (("array",), ("environment",), ("array", "environment"), ("environment", "position")):
        cells = breakdown(table, by, n=2)
        assert sum(cell.genuine for cell in cells) == table.genuine.sum()
        assert sum(cell.replay for cell in cells) == table.replay.sum()


def test_a_cell_is_its_trials_alone():
    table = corpus()
    cells = {cell.name: cell for cell in breakdown(table, ("array", "environment"), n=50, seed=4)}
    here = table.select((table.conditions["array"] == "D2") & (table.conditions["environment"] == "vehicle"))
    genuine, replay = here.score[here.genuine], here.score[here.replay]
    assert cells["D2 · vehicle"].eer == eer(genuine, replay)[0]
    interval = bootstrap_interval(genuine, replay, eer, n=50, seed=4, groups=speaker_groups(here))
    assert (cells["D2 · vehicle"].low, cells["D2 · vehicle"].high) == interval


@pytest.mark.parametrize("by", ["playback_device", "source_recorder"])
def test_replays_stand_against_the_genuine_of_their_array_and_environment(by):
    table = corpus()
    place = np.char.add(table.conditions["array"], table.conditions["environment"])
    words = table.conditions[by].copy()
    rare = words[table.replay][0]
    words[(words == rare) & (place != "D1outdoor")] = "another"  # this one occurs in one place only
    table = ScoreTable(
        table.trial, table.score, table.llr, table.label, table.flag, {**table.conditions, by: words}
    )
    cells = {cell.name: cell for cell in breakdown(table, (by,), n=2)}
    assert cells[rare].replay == np.sum(words == rare)
    assert cells[rare].genuine == np.sum(table.genuine & (place == "D1outdoor"))
    assert cells["another"].genuine == np.sum(table.genuine & (place != "D1outdoor"))
    assert sum(cell.replay for cell in cells.values()) == table.replay.sum()


def test_a_genuine_source_recorder_is_passed_over():
    # genuine rows of ReMASC's environment 1 carry source recorder 1
    table = corpus()
    recorder = np.where(table.genuine, "tascam-dr05", table.conditions["source_recorder"])
    marked = corpus(source_recorder=recorder)
    assert breakdown(marked, ("source_recorder",), n=5) == breakdown(table, ("source_recorder",), n=5)


def test_places_unknown_pool_all_genuine():
    table = corpus()
    bare = {"playback_device": table.conditions["playback_device"]}
    table = ScoreTable(table.trial, table.score, label=table.label, conditions=bare)
    for cell in breakdown(table, ("playback_device",), n=2):
        assert cell.genuine == table.genuine.sum()


@pytest.mark.parametrize("few", ["genuine", "replay"])
@pytest.mark.parametrize("count", [0, MIN_TRIALS - 1, MIN_TRIALS])
def test_few_trials_give_counts_and_no_rate(few, count):
    table = corpus(environment=np.full(3000, "outdoor"))
    scarce = table.label == few
    table = table.select(~scarce | (np.cumsum(scarce) <= count))
    (cell,) = breakdown(table, ("environment",), n=5)
    assert {"genuine": cell.genuine, "replay": cell.replay}[few] == count
    assert (cell.eer is not None) == (count >= MIN_TRIALS)
    assert (cell.low is None) == (cell.high is None) == (cell.eer is None)
    assert cell.eer is not None or "under 50 trials" in cell.note


def test_no_error_is_not_called_certain():
    table = corpus()
    perfect = ScoreTable(
        table.trial, np.where(table.genuine, 1.0, 0.0), label=table.label, conditions=table.conditions
    )
    assert all("cannot see beyond" in cell.note for cell in breakdown(perfect, ("array",), n=5))


def test_speakers_are_drawn_where_there_are_enough():
    table = corpus()
    genuine, replay = speaker_groups(table)
    speakers = table.conditions["speaker"]
    for groups, label in ((genuine, table.genuine), (replay, table.replay)):
        for speaker in range(1, 13):
            assert np.unique(groups[speakers[label] == str(speaker)]).size == 1
    synthetic = replay[speakers[table.replay] == "0"]
    assert np.unique(synthetic).size == synthetic.size  # nobody's voice: each trial for itself
    assert breakdown(table, ("array",), n=2)[0].drawn == "speakers"

    nine = table.select(~np.isin(speakers, ["10", "11", "12"]))
    assert speaker_groups(nine) is None
    assert breakdown(nine, ("array",), n=2)[0].drawn == "trials"
    assert speaker_groups(ScoreTable(table.trial, table.score, label=table.label)) is None


def test_names_are_in_natural_order_and_unknown_is_said():
    table = corpus()
    assert [cell.name for cell in breakdown(table, ("position",), n=2)] == ["-1", "2", "10"]
    some = corpus(environment=np.where(np.arange(3000) % 2, "-", "vehicle"))
    assert [cell.name for cell in breakdown(some, ("environment",), n=2)] == ["unknown", "vehicle"]


def test_absent_conditions_and_unlabelled_trials():
    table = corpus()
    assert breakdown(ScoreTable(table.trial, table.score, label=table.label), ("array",), n=2) == []
    label = np.where(np.arange(3000) % 3 == 0, "", table.label)
    partly = ScoreTable(table.trial, table.score, label=label, conditions=table.conditions)
    cells = breakdown(partly, ("array",), n=2)
    assert sum(cell.genuine + cell.replay for cell in cells) == np.sum(label != "")


def test_every_breakdown_of_the_report_works():
    for by in BREAKDOWNS.values():
        assert breakdown(corpus(), by, n=2)
