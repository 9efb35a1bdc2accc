"""The recordings that a report plays."""

import numpy as np

from eval.clips import choose_clips
from eval.scores import ScoreTable, write_scores
from remasc import read_audio
from tests.tiny_corpus import make_corpus


def test_one_clip_of_each_class_and_environment(tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    trials = list(corpus.filter(subset="eval"))
    scores = np.arange(len(trials), dtype=float)
    label = [r.label.name.lower() for r in trials]
    write_scores(tmp_path / "scores.tsv", ScoreTable([r.trial_id for r in trials], scores, label=label))
    clips = choose_clips(corpus, tmp_path / "scores.tsv")
    assert [clip.label for clip in clips] == ["genuine", "replay"]
    for clip in clips:
        trial = next(r for r in trials if r.file_id in clip.title)
        assert trial.array == "D4"
        assert (clip.score, clip.llr) == (scores[trials.index(trial)], None)
        path = tmp_path / "clips" / f"{trial.file_id}-channel1.wav"
        assert clip.wav == path.read_bytes()
        assert np.array_equal(read_audio(path)[0], read_audio(trial.path)[0][:1])
