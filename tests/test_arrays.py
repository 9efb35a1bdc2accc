import json

import numpy as np
import pytest

from remasc import ARRAYS, MicArray, get_array
from remasc.arrays import tdoa

EXAMPLE = """
name = "desk"
sample_rate = 48000
positions = [[-0.05, 0, 0], [0, 0, 0], [0.05, 0, 0]]
channel_order = [0, 2, 1]
"""


def distances(array: MicArray) -> np.ndarray:
    return np.linalg.norm(array.positions[:, None] - array.positions[None], axis=-1)


def test_published_geometry():
    assert [a.num_mics for a in ARRAYS.values()] == [2, 4, 6, 7]
    assert [a.sample_rate for a in ARRAYS.values()] == [44100, 44100, 44100, 16000]
    assert distances(ARRAYS["D1"])[0, 1] == pytest.approx(0.060)
    assert np.diff(ARRAYS["D2"].positions[:, 0]) == pytest.approx([0.050] * 3)
    for name, diameter in (("D3", 0.093), ("D4", 0.075)):
        ring = ARRAYS[name].positions[:6]
        assert np.linalg.norm(ring, axis=1) == pytest.approx([diameter / 2] * 6)
        assert np.degrees(np.arctan2(ring[:, 1], ring[:, 0])) % 360 == pytest.approx(
            [180, 240, 300, 0, 60, 120]
        )
    assert not ARRAYS["D4"].positions[6].any()


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_all_stand_upright_around_their_centre(array):
    assert array.positions.mean(axis=0) == pytest.approx([0, 0, 0], abs=1e-12)
    assert not array.positions[:, 2].any()


def test_channels_are_added_in_the_order_of_the_paper():
    orders = {name: [c + 1 for c in array.channels()] for name, array in ARRAYS.items()}
    assert orders == {
        "D1": [1, 2],
        "D2": [1, 4, 2, 3],
        "D3": [1, 4, 2, 5, 3, 6],
        "D4": [1, 4, 2, 5, 3, 6, 7],
    }


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_channel_subsets(array):
    for count in range(1, array.num_mics + 1):
        assert array.channels(count) == array.channels()[:count]
        assert array.channels(count, order="file") == tuple(range(count))
        assert array.channels(count, dummy=True) == (0,) * count
    for count in (0, array.num_mics + 1):
        with pytest.raises(ValueError, match="cannot be taken"):
            array.channels(count)
    with pytest.raises(ValueError, match="order"):
        array.channels(1, order="random")


def test_selected_array_has_the_selected_positions():
    d3 = ARRAYS["D3"]
    chosen = d3.select((4, 0))
    assert np.array_equal(chosen.positions, d3.positions[[4, 0]])
    assert chosen.sample_rate == d3.sample_rate


def test_positions_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        ARRAYS["D1"].positions[0, 0] = 1


def test_equal_arrays_have_equal_hashes():
    again = MicArray("D1", ARRAYS["D1"].positions.tolist(), 44100)
    assert again == ARRAYS["D1"]
    assert hash(again) == hash(ARRAYS["D1"])
    assert again != ARRAYS["D2"]


def test_file_round_trip(tmp_path):
    (tmp_path / "desk.toml").write_text(EXAMPLE)
    array = get_array(tmp_path / "desk.toml")
    assert (array.name, array.sample_rate, array.channel_order) == ("desk", 48000, (0, 2, 1))
    fields = {
        "name": "desk",
        "sample_rate": 48000,
        "positions": array.positions.tolist(),
        "channel_order": [0, 2, 1],
    }
    (tmp_path / "desk.json").write_text(json.dumps(fields))
    assert get_array(tmp_path / "desk.json") == array


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("positions = [[0, 0, 0]]", "sample_rate"),
        ("sample_rate = 16000", "positions"),
        ("sample_rate = 16000\npositions = [[0, 0, nan]]", "finite"),
        ("sample_rate = 16000\npositions = [[0, 0, 0], [60, 0, 0]]", "millimetres"),
        ("sample_rate = 16000\npositions = [[0, 0, 0], [1]]", "desk.toml"),
        ("sample_rate = 16000\npositions = 'left'", "desk.toml"),
        ("sample_rate = 10\npositions = [[0, 0, 0]]", "sample_rate"),
        ("sample_rate = inf\npositions = [[0, 0, 0]]", "desk.toml"),
        ("sample_rat = 16000\npositions = [[0, 0, 0]]", "did you mean 'sample_rate'"),
        ("sample_rate = 16000\npositions = [[0, 0, 0]]\nchannel_order = [1]", "channel_order"),
        ("sample_rate = [", "not a readable array file"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path, text, match):
    (tmp_path / "desk.toml").write_text(text)
    with pytest.raises(ValueError, match=match) as error:
        get_array(tmp_path / "desk.toml")
    assert "\n" not in str(error.value).strip()


@pytest.mark.parametrize(
    ("rows", "fact"),
    [
        ("[[0, 0, 0], [0.1, 0], [0, 1, 0]]", r"row 2 of positions is \[0.1, 0\], not three numbers x, y, z"),
        ("[[0, 0]]", "row 1 of positions"),
        ("[[0, 0, 0], 0.1]", "row 2 of positions is 0.1, not"),
        ("[[0, 0, 0], [0, 0, 0, 0]]", "row 2 of positions"),
        ('[[0, "x", 0]]', "row 1 of positions"),
        ("[[true, 0, 0]]", "row 1 of positions"),
        ("[]", "no list of rows"),
        ("3", "no list of rows"),
    ],
)
def test_a_row_that_is_no_position_is_named(tmp_path, rows, fact):
    (tmp_path / "desk.toml").write_text(f"sample_rate = 16000\npositions = {rows}\n")
    with pytest.raises(ValueError, match=fact) as error:
        get_array(tmp_path / "desk.toml")
    assert "array" not in str(error.value).replace("array file", "")  # nothing of how it is done
    assert str(error.value).isprintable()


def test_unknown_name_gets_close_matches():
    with pytest.raises(ValueError, match="did you mean"):
        get_array("D11")
    assert get_array("d3") is ARRAYS["D3"]


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_tdoa_signs_and_bounds(array):
    rng = np.random.default_rng(1)
    for azimuth, elevation in rng.uniform(-1.5, 1.5, (20, 2)):
        delays = tdoa(array, azimuth, elevation)
        assert delays == pytest.approx(-delays.T)
        assert (np.abs(delays) <= distances(array) / 343.0 + 1e-12).all()
        # Any three close a triangle.
        assert delays[:, :, None] + delays[None, :, :] == pytest.approx(
            np.broadcast_to(delays[:, None, :], (array.num_mics,) * 3)
        )
    right = int(array.positions[:, 0].argmax())
    left = int(array.positions[:, 0].argmin())
    assert tdoa(array, np.pi / 2, 0)[right, left] < 0  # a source on the right reaches the right one first
    assert tdoa(array, 0, 0) == pytest.approx(np.zeros((array.num_mics,) * 2))
