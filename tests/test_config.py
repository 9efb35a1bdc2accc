"""TrainConfig: defaults by system, there and back through plain values, and errors that help."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from detector.config import DEFAULTS, PLACE, TrainConfig


def config(**values) -> TrainConfig:
    return TrainConfig(Path("corpus"), Path("out"), **{"array": "D2"} | values)


@pytest.mark.parametrize("system", DEFAULTS)
def test_there_and_back(system):
    there = config(system=system, seed=7, cache="elsewhere")
    back = TrainConfig.from_dict(json.loads(json.dumps(there.to_dict())))
    assert back == there
    assert isinstance(back.cache, Path)


def test_published_defaults_are_the_papers():
    c = config(system="nn-multichannel")
    assert (c.epochs, c.batch_size, c.learning_rate, c.weight_decay) == (100, 64, 1e-4, 1e-3)
    assert (c.schedule, c.clip, c.filters) == ("published", 0.0, 64)


def test_what_is_said_beats_the_default():
    c = config(system="nn-single", epochs=3, learning_rate=0.5)
    assert (c.epochs, c.learning_rate, c.batch_size) == (3, 0.5, 64)


def test_compact_serves_all_arrays_unless_told():
    assert TrainConfig(Path("c"), Path("o")).arrays == ("D1", "D2", "D3", "D4")
    assert config().arrays == ("D2",)


def test_identity_leaves_out_places_and_nothing_else():
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    assert set(PLACE) < names
    assert set(config().identity()) == names - set(PLACE)
    assert config(workers=2, device="cpu").identity() == config().identity()
    assert config(seed=1).identity() != config().identity()


def test_systems_are_those_that_can_be_built():
    from detector.systems import SYSTEMS

    assert set(SYSTEMS) == set(DEFAULTS)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"sistem": "compact"}, "unknown key 'sistem'.*did you mean system"),
        ({"learning_rat": 1.0}, "did you mean learning_rate"),
        ({"system": "nn_multichannel"}, "did you mean nn-multichannel"),
        ({"epochs": "3"}, "epochs is '3'; expected a whole number"),
        ({"epochs": True}, "expected a whole number"),
        ({"epochs": 0}, "epochs is 0; expected 1 to"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"device": "gpu"}, "expected auto or cpu or cuda or mps"),
        ({"system": "nn-single", "array": None}, "give --array"),
        ({"system": "nn-single", "array": "all"}, "unknown array 'all'"),
        ({"array": "D5"}, "unknown array 'D5'"),
        ({"amp": 1}, "true or false"),
        ({"cache": 3}, "expected a path"),
    ],
)
def test_errors_name_the_fact_and_the_way_out(values, says):
    with pytest.raises(ValueError, match=says) as caught:
        TrainConfig.from_dict({"corpus": "c", "out": "o", "array": "D1"} | values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [{}, {"corpus": "c"}, [], None, "config"])
def test_no_config_at_all(values):
    with pytest.raises(ValueError, match="a training config"):
        TrainConfig.from_dict(values)
