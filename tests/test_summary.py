import json

import pytest
from tiny_corpus import make_corpus, meta_row, real_corpus

from remasc import Corpus
from remasc.summary import render_summary, summarize


def pairs(table) -> list[tuple[int, int]]:
    return [(cell["genuine"], cell["replay"]) for cell in table.values()]


def test_real_corpus_has_the_published_counts():
    summary = summarize(real_corpus())
    core, evaluation = summary.subsets
    assert (core.subset, evaluation.subset) == ("core", "eval")
    assert (core.rows, *core.by_type.values()) == (26_947, 3_441, 6_331, 17_175)
    assert (evaluation.rows, *evaluation.by_type.values()) == (17_582, 1_302, 2_118, 14_162)
    assert list(core.by_array) == list(evaluation.by_array) == ["D1", "D2", "D3", "D4"]
    assert pairs(core.by_array) == [(1077, 4280), (1853, 4273), (1591, 4271), (1810, 4351)]
    assert pairs(evaluation.by_array) == [(396, 2593), (599, 3939), (568, 3670), (555, 3960)]
    assert list(core.by_environment) == ["outdoor", "indoor-1", "indoor-2", "vehicle"]
    assert pairs(core.by_environment) == [(707, 1259), (2141, 8784), (826, 3311), (2657, 3821)]
    assert pairs(evaluation.by_environment) == [(184, 3837), (479, 2296), (280, 4908), (1175, 3121)]
    assert (core.short_trials, evaluation.short_trials) == (353, 550)
    assert max(core.longest_trial_s, evaluation.longest_trial_s) < 8
    assert (len(core.speakers), len(evaluation.speakers)) == (40, 11)
    assert 0 in evaluation.speakers
    assert 0 not in core.speakers
    assert summary.shared_speakers == ()
    assert evaluation.replays_by_recorder["tts"] == 8_856
    assert "tts" not in core.replays_by_recorder


def test_real_corpus_has_the_known_notes():
    text = render_summary(summarize(real_corpus()))
    for note in (
        "the speakers of core and eval are disjoint",
        "8,856 of the 14,162 eval replays are text to speech; core holds none",
        "core: D1 has no genuine trial in indoor-1",
        "eval: D1 has no genuine trial in indoor-1",
        "core: D3 has no genuine trial in indoor-2",
        "26,947",
        "1,077 / 4,280",
        "vehicle",
    ):
        assert note in " ".join(text.split()), note


def test_counts_add_up(tmp_path):
    summary = summarize(make_corpus(tmp_path, clips=16))
    for subset in summary.subsets:
        assert sum(subset.by_type.values()) == subset.rows
        for table in (subset.by_array, subset.by_environment):
            genuine, replays = (sum(column) for column in zip(*pairs(table), strict=True))
            assert (genuine, replays) == (subset.by_type["genuine"], subset.by_type["replay"])
        for counts in (subset.replays_by_device, subset.replays_by_recorder):
            assert sum(counts.values()) == subset.by_type["replay"]


def test_it_says_simulated_and_names_shared_speakers(tmp_path):
    make_corpus(tmp_path, clips=8)
    (tmp_path / "corpus.json").write_text('{"name": "tiny", "simulated": true}')
    path = tmp_path / "eval" / "meta.csv"
    path.write_text(path.read_text() + meta_row(77, speaker=1) + "\n")
    text = render_summary(summarize(Corpus.from_meta(tmp_path)))
    assert text.startswith("tiny: simulated corpus of 13 recordings")
    assert "speakers 1 are in both core and eval" in text


def test_it_is_text_and_json(tmp_path):
    summary = summarize(make_corpus(tmp_path, clips=8))
    assert json.loads(json.dumps(summary.as_dict()))["subsets"][0]["rows"] == 8
    text = render_summary(summary)
    assert "\x1b" not in text
    assert text.endswith("\n")
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("rows", [[meta_row(1, kind=1, device=-1)], [meta_row(1, kind=3)], [meta_row(1)]])
def test_a_single_row_is_enough(tmp_path, rows):
    (tmp_path / "meta.csv").write_text("\n".join(rows))
    summary = summarize(Corpus.from_meta(tmp_path))
    assert summary.subsets[0].subset == "all"
    assert "1" in render_summary(summary)
