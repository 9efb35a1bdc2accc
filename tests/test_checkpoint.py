"""Checkpoint folders: what goes in comes out, and anything torn, damaged or altered is one sentence."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch import nn

from detector.checkpoint import CONFIG, RUN, WEIGHTS, load_checkpoint, save_checkpoint, update_run

DESCRIPTION = {"specification": {"system": "compact"}, "network": {"widths": [3, 4]}}
FACTS = {"dev_eer": 0.125, "seed": 3, "curves": [{"epoch": 1, "loss": 0.1 + 0.2}], "note": "Größe"}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv1d(2, 3, 4), nn.BatchNorm1d(3))
    return save_checkpoint(tmp_path / "checkpoint", network, DESCRIPTION, FACTS)


def same(one, other) -> bool:
    tensors = one[1].keys() == other[1].keys() and all(torch.equal(one[1][k], other[1][k]) for k in one[1])
    return tensors and one[0] == other[0] and one[2] == other[2]


def test_there_and_back(folder):
    config, state, run = load_checkpoint(folder)
    assert {key: config[key] for key in DESCRIPTION} == DESCRIPTION
    assert {key: run[key] for key in FACTS} == FACTS
    network = nn.Sequential(nn.Conv1d(2, 3, 4), nn.BatchNorm1d(3))
    network.load_state_dict(state)
    assert sorted(p.name for p in folder.iterdir()) == sorted((CONFIG, RUN, WEIGHTS))
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]  # nothing half-written beside it


def test_a_folder_that_exists_keeps_its_other_files(folder):
    (folder / "protocol.tsv").write_text("trial\n")
    save_checkpoint(folder, {"w": torch.ones(2)}, {"network": {}}, {"seed": 4})
    _, state, run = load_checkpoint(folder)
    assert state["w"].tolist() == [1, 1]
    assert run["seed"] == 4
    assert (folder / "protocol.tsv").exists()
    assert len(list(folder.iterdir())) == 4


def test_update_run_adds_and_replaces(folder):
    update_run(folder, calibration={"slope": 2.0, "offset": -0.5}, seed=9)
    _, _, run = load_checkpoint(folder)
    assert run["calibration"] == {"slope": 2.0, "offset": -0.5}
    assert (run["seed"], run["dev_eer"]) == (9, 0.125)
    for bad in ({"checksums": {}}, {"x": float("inf")}, {"x": object()}):
        with pytest.raises(ValueError, match=r"checksums|finite"):
            update_run(folder, **bad)
    assert load_checkpoint(folder)[2] == run


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    with pytest.raises(ValueError, match="not finite"):
        save_checkpoint(tmp_path / "c", {"w": torch.tensor([1.0, float("nan")])}, {}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, RUN])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=name):
        load_checkpoint(folder)


def test_not_a_folder(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        load_checkpoint(tmp_path / "absent")


def test_weights_of_another_checkpoint_are_refused(folder, tmp_path):
    other = save_checkpoint(tmp_path / "other", {"w": torch.ones(3)}, DESCRIPTION, FACTS)
    shutil.copy(other / WEIGHTS, folder / WEIGHTS)
    with pytest.raises(ValueError, match="checksum differs"):
        load_checkpoint(folder)


def test_an_edited_threshold_is_refused(folder):
    run = json.loads((folder / RUN).read_text())
    (folder / RUN).write_text(json.dumps(run | {"threshold": {"score": -99.0}}))
    with pytest.raises(ValueError, match="altered"):
        load_checkpoint(folder)
