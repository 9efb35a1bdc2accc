"""The adaptation curve on a corpus of noise: every amount that is there, other arrays untouched, no false claim."""

import json
import math

import numpy as np
import pytest

from eval.benchmarks.adaptation import Adaptation, _heard_it, markdown, run, train_base
from eval.benchmarks.drawn import drawn, few
from remasc import ARRAYS, Corpus
from remasc.audio import write_wav
from remasc.protocol import partitions
from tests.tiny_corpus import make_corpus, meta_row


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Noise and humming noise on D1 and D2, listed as train and dev."""
    root = tmp_path_factory.mktemp("corpus")
    (root / "core" / "data").mkdir(parents=True)
    rows, listed = [], ["trial\tpartition"]
    for n in range(96):
        array, kind, part = ARRAYS[f"D{n % 2 + 1}"], 2 + n // 2 % 2, ("train", "dev")[n % 8 == 0 or n % 8 > 4]
        g = np.random.default_rng(n)
        x = 0.1 * g.standard_normal((array.num_mics, int(0.5 * array.sample_rate)))
        x += (kind == 3) * 0.1 * np.sin(2 * math.pi * 300 / array.sample_rate * np.arange(x.shape[1]))
        write_wav(root / "core" / "data" / f"{1000000 + n}.wav", x, array.sample_rate)
        rows.append(
            meta_row(1000000 + n, kind, 1 + n % 3 + 3 * (part == "dev"), device=n % 2 + 1, seconds=0.5)
        )
        listed.append(f"core/{1000000 + n}\t{part}")
    (root / "core" / "meta.csv").write_text("\n".join(rows) + "\n")
    (root / "partitions.tsv").write_text("\n".join(listed) + "\n")
    return root


def test_the_curve(corpus, tmp_path):
    bench = Adaptation(corpus, tmp_path, base="edge", minutes=(0, 0.15, 30), draws=2, others=6)
    figures = run(bench)
    assert [(row["kind"], row["minutes"]) for row in figures["rows"]][:2] == [
        ("labelled", 0),
        ("labelled", 0.15),
    ]
    assert all(row["minutes"] < 30 for row in figures["rows"])  # the corpus holds less
    start = figures["rows"][0]
    assert (start["kept"], start["eer_sd"]) == ({"none": 2}, 0)
    (other,) = figures["others"]
    assert (other["array"], other["largest_change"]) == ("D2", 0)
    assert figures["base_heard_the_array"] is None
    table = (tmp_path / "adaptation.md").read_text()
    assert "may have heard" in table
    assert json.loads((tmp_path / "adaptation.json").read_text()) == json.loads(json.dumps(figures))
    assert markdown(figures | {"base_heard_the_array": True}) != table


@pytest.mark.slow
def test_a_base_is_trained_without_the_array(corpus, tmp_path):
    bench = Adaptation(corpus, tmp_path, base_clips=8, backbone="edge")
    folder = train_base(bench, partitions(Corpus.from_meta(corpus)))
    assert _heard_it(folder, "D1") is False
    assert _heard_it(folder, "D2") is True


def test_a_smaller_draw_lies_in_a_larger_one(tmp_path):
    trials = list(make_corpus(tmp_path).trials())
    assert set(few(trials, 1)) < set(few(trials, 2)) <= set(trials)
    assert drawn(trials) == drawn(trials[::-1])
    assert drawn(trials, 1) != drawn(trials, 2)


def test_what_it_cannot_do_is_said(tmp_path):
    with pytest.raises(ValueError, match="unknown array"):
        Adaptation(tmp_path, tmp_path, array="D7")
    with pytest.raises(ValueError, match="at least one draw"):
        Adaptation(tmp_path, tmp_path, draws=0)
