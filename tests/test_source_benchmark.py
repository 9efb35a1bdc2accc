"""The scripts that measure source identification: their laws on tables where the truth is known."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from detector.source.cues import JUDGED
from detector.source.training import fit
from eval.benchmarks import source, source_attacks, source_figures
from eval.benchmarks.cues import made_up
from eval.benchmarks.source_figures import CHOSEN
from eval.benchmarks.source_peers import peer_ratios
from eval.benchmarks.source_tables import markdown
from remasc import get_array
from remasc.schema import PlaybackDevice
from tests.test_source import table
from tests.tiny_corpus import make_corpus


@pytest.fixture(scope="module")
def model():
    return fit(table(), table(seed=1), CHOSEN)


def test_the_group_that_carries_the_decision_is_found(model):
    rises = source_figures.importance(table(seed=2), model)
    assert next(iter(rises)) == "edges"
    assert rises["edges"] > 0.2
    assert max(abs(rise) for group, rise in rises.items() if group != "edges") < 0.05


def test_the_confusion_matrix_counts_every_trial_once(model):
    part = table(seed=2)
    llr = model.calibration.llr(model.score(part.inputs(CHOSEN)))
    found = source_figures.kinds(part, model, llr)
    matrix = np.array(found["confusion"])
    assert matrix.sum() == len(part.cues)
    assert matrix[found["names"].index("human")].sum() == part.cues.genuine.sum()
    part.cues.recordings[1].playback_device = PlaybackDevice.VEHICLE  # of which training had none
    assert np.sum(source_figures.kinds(part, model, llr)["confusion"]) == len(part.cues)
    assert found["accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum())
    assert found["family_accuracy_of_devices"] > found["family_chance"] + 0.2
    said = np.sum(matrix, axis=0)[found["names"].index("human")]
    assert said == (llr >= 0).sum()  # as many devices as are told, however many kinds share their probability
    json.dumps(found)
    everybody = source_figures.kinds(part, model, np.full(len(llr), 9.0))
    assert everybody["family_accuracy_of_devices_found"] is None


def test_a_paired_gain_is_seen_where_there_is_one_alone():
    rng, genuine = np.random.default_rng(0), np.arange(2000) % 2 == 0
    weak = 1.0 * genuine + rng.normal(size=2000)
    better = weak + 1.0 * genuine
    same, gain = weak + 1e-9 * rng.normal(size=2000), source_figures.paired(weak, better, genuine, None)
    for prefix in ("", "min_cllr_"):
        assert gain[f"{prefix}excludes_zero"]
        assert not source_figures.paired(weak, same, genuine, None)[f"{prefix}excludes_zero"]
        assert source_figures.paired(better, weak, genuine, None)[f"{prefix}gain"] < 0
    scaled = source_figures.paired(weak, 3 * weak - 7, genuine, None)  # calibration is no gain
    assert scaled["gain"] == scaled["min_cllr_gain"] == scaled["min_cllr_high"] == 0


def test_rates_hold_their_interval():
    rng, genuine = np.random.default_rng(1), np.arange(800) % 2 == 0
    found = source_figures.rates(2.0 * genuine - 1 + rng.normal(size=800), genuine, None)
    assert found["eer_low"] <= found["eer"] <= found["eer_high"]
    assert found["eer_high"] - found["eer_low"] < 0.1


def test_one_run_tells_everything(model):
    part, rng = table(seed=2), np.random.default_rng(3)
    llr = model.calibration.llr(model.score(part.inputs(CHOSEN)))
    noise = rng.normal(size=len(llr))
    llrs = {"void": noise, CHOSEN: llr, "detector": part.detector.llr}
    llrs[f"fused with {CHOSEN}"] = model.fusion(np.column_stack([llr, part.detector.llr]))
    found = source_figures.judged(part, {CHOSEN: [model]}, llrs)
    pairs = [f"{CHOSEN} below void", f"fused with {CHOSEN} below void", f"fused with {CHOSEN} below detector"]
    assert list(found["differences"]) == pairs
    assert found["differences"][f"{CHOSEN} below void"]["excludes_zero"]
    assert {"array", "playback device"} <= found["conditions"].keys()
    arrays = found["conditions"]["array"][CHOSEN]
    assert sum(cell["genuine"] + cell["replay"] for cell in arrays) == len(llr)
    shifts = [row["shift"] for row in found["fewer_cues"].values()]
    assert max(shifts) < 0.2  # each is of 240 recordings, of which one is a hundredth of a nat
    assert np.mean(shifts) < 0.1
    counts = {"dev_trials": {"genuine": 120, "replay": 120}}
    text = markdown({"simulated": True, "corpus": "none", "dev": found} | counts)
    assert "(SIMULATED)" in text
    for words in ("| void |", f"{CHOSEN} below void", "| D1 |", "| edges |", "| human |"):
        assert words in text
    json.dumps(found, allow_nan=False)


def test_a_peer_is_fitted_once_and_calibrated_on_dev(tmp_path, monkeypatch):
    corpus = list(make_corpus(tmp_path / "corpus", clips=16))
    parts = {"train": corpus[:8], "dev": corpus[8:16], "eval": corpus[16:]}
    found = peer_ratios("void", parts, tmp_path / "cache", progress=False)
    assert {name: len(llr) for name, llr in found.items()} == {"dev": 8, "eval": 8}
    monkeypatch.setattr("detector.baselines.Void.fit_features", None)  # all is there: nothing is fitted
    again = peer_ratios("void", parts, tmp_path / "cache", progress=False)
    assert all(np.array_equal(found[name], again[name]) for name in found)


def test_an_unknown_peer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no peer 'viod'"):
        source.main(source.Options(tmp_path, tmp_path, peers=("viod",)))


def test_eval_is_scored_once(tmp_path):
    (tmp_path / "results.json").write_text('{"eval": {}}')
    with pytest.raises(ValueError, match="scored once"):
        source.main(source.Options(tmp_path, tmp_path, final=True))


def test_a_hidden_command_is_faster_noise_of_the_same_level():
    t = np.arange(32000) / 16000
    voice = (0.1 * sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 20))).astype(np.float32)
    found = source_attacks.hidden(voice, 16000, np.random.default_rng(0), faster=1.4)
    assert len(found) == pytest.approx(len(voice) / 1.4, rel=0.02)
    assert found.std() == pytest.approx(voice.std(), rel=0.05)
    middle = slice(4000, 18000)
    lag = round(16000 / 120)
    for x, periodic in ((voice, True), (found, False)):
        x = x[middle] - x[middle].mean()
        assert (np.corrcoef(x[:-lag], x[lag:])[0, 1] > 0.8) == periodic


@pytest.mark.parametrize("name", source_attacks.ATTACKS)
def test_every_attack_is_a_recipe(name):
    recipe = source_attacks.recipe_of(name, source_attacks.ATTACKS[name], "dev", 12)
    assert recipe.pairs == {"train": 0, "dev": 12, "eval": 0}
    assert (recipe.equaliser_share == 1) == (name == "equaliser-compensated")
    assert re.fullmatch("source-[a-z]+(-[a-z]+)*", recipe.name)


def test_an_attack_is_told_with_its_intervals(monkeypatch, tmp_path):
    """What is undecided does not pass; the replay detector's row follows the cues'."""
    said = [SimpleNamespace(llr=llr, fused_llr=llr - 1, reason="") for llr in (-3.0, -1.0, 0.5, 2.0)]
    said.append(SimpleNamespace(llr=9.0, fused_llr=9.0, reason="few-cues"))
    run = {"threshold": {"llr": 1.0}, "fusion": {"threshold": 0.0}}
    corpus = SimpleNamespace(filter=lambda label: said)
    monkeypatch.setattr(source_attacks.Corpus, "from_meta", lambda folder: corpus)
    monkeypatch.setattr(source_attacks, "_judges", lambda *names: (SimpleNamespace(run=run), None))
    monkeypatch.setattr(source_attacks, "_judge", lambda model, detector, ones: ones)
    row = source_attacks.judged(tmp_path, source_attacks.Attack(), "default", workers=1)
    assert (row["trials"], row["undecided"], row["must_pass"]) == (5, 1, False)
    assert row["passed_at_zero"] == 0.4
    assert (
        row["passed_at_threshold"] == row["fused_passed_at_zero"] == row["fused_passed_at_threshold"] == 0.2
    )
    for name in ("passed_at_zero", "fused_passed_at_threshold"):
        low, high = row[f"{name}_95"]
        assert 0 < low < row[name] < high < 1
    text = source_attacks.markdown({"array": "D4", "attacks": {"replayed": row}})
    assert "SIMULATED" in text
    assert "| replayed | be refused | 5 | 1 | 40.0 % [" in text
    assert "with the replay detector" in text


def test_the_made_up_command_is_what_is_promised():
    command = made_up(get_array("D4"), 3.0)
    assert command.shape == (7, 48000)
    assert np.abs(command).max() == pytest.approx(0.3)


def test_the_neural_head_reads_embeddings_and_the_others_cues():
    part = table()
    assert part.inputs("neural").shape[1] == 6
    assert part.inputs(CHOSEN).shape[1] == len(JUDGED)
