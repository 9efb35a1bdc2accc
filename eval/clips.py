"""Recordings to play in a report, chosen from a scored corpus."""

from __future__ import annotations

import math
from pathlib import Path

from eval.report import Clip
from eval.scores import read_scores
from remasc import Corpus, read_audio
from remasc.audio import write_wav


def choose_clips(corpus: Corpus, scores: Path, *, array: str = "D4") -> list[Clip]:
    """One genuine and one replayed recording of each environment with its score: channel 1 of `array`.

    The sound is written to `clips/` beside the scores, where it stays when the corpus goes.
    """
    table = read_scores(scores)
    rows = {trial: i for i, trial in enumerate(table.trial)}
    chosen = {}
    for recording in corpus.trials():
        if recording.array == array and recording.trial_id in rows:
            chosen.setdefault((recording.environment, recording.label), recording)
    clips = []
    for recording in chosen.values():
        i = rows[recording.trial_id]
        waveform, sample_rate = read_audio(recording.path)
        conditions = recording.conditions()
        path = scores.parent / "clips" / f"{recording.file_id}-channel1.wav"
        path.parent.mkdir(exist_ok=True)
        write_wav(path, waveform[:1], sample_rate)
        chain = [conditions["playback_device"], conditions["source_recorder"]]
        clips.append(
            Clip(
                title=f"{conditions['environment']}: {conditions['array']} {recording.file_id}",
                wav=path.read_bytes(),
                label=str(table.label[i]),
                score=float(table.score[i]),
                llr=None if math.isnan(table.llr[i]) else float(table.llr[i]),
                note=", ".join(word for word in chain if word != "-"),
                flag=str(table.flag[i]),
            )
        )
    return clips
