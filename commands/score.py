"""`replayguard score`: files, or a whole partition of a corpus."""

import math
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from commands import AsJson, Files


def score(
    files: Files = (),
    array: str | None = None,
    detector: str = "default",
    corpus: Path | None = None,
    split: str = "eval",
    out: Path | None = None,
    file_list: Annotated[Path | None, tyro.conf.arg(name="list")] = None,
    as_json: AsJson = False,
    as_tsv: Annotated[bool, tyro.conf.arg(name="tsv")] = False,
    prior: float = 0.5,
    threshold: float | None = None,
    explain: bool = False,
    workers: int | None = None,
) -> int:
    """Score recordings (higher = more genuine), or a whole partition of a corpus.

    Exit code: 0 when every file was decided, 1 when one could not be, 2 on bad arguments.

    Args:
        files: Sound files, folders or glob patterns.
        array: The array that recorded them: D1, D2, D3, D4 or an array file (TOML/JSON).
        detector: A bundled detector's name or a checkpoint folder.
        corpus: Score a corpus instead of files; writes OUT/scores.tsv and OUT/protocol.tsv.
        split: Partition of the corpus: train, dev or eval.
        out: Folder for the corpus's scores; default: runs/scores-SPLIT beside you.
        file_list: Text file with one path a line; lines that begin with # are skipped.
        as_json: One JSON object a line.
        as_tsv: Tab-separated values with a header.
        prior: Prior probability of a living person, for the probability.
        threshold: Accept at or above this score; default: the detector's own.
        explain: Say what drove each decision: spectrum, space, movement, silence (not for --tsv).
        workers: Processes; default: one per core.
    """
    if corpus is not None:
        if files or file_list:
            raise ValueError("give either FILES or --corpus, not both")
        if as_json or as_tsv or explain or threshold is not None:
            raise ValueError(
                "--corpus writes scores.tsv; --json, --tsv, --explain and --threshold are for FILES"
            )
        from detector.batch import score_corpus
        from remasc import Corpus

        target = out or Path("runs") / f"scores-{split}"
        arrays = None if array is None else [array]
        print(
            score_corpus(
                detector, Corpus.from_meta(corpus), target, split=split, arrays=arrays, workers=workers
            )
        )
        return 0
    if as_json and as_tsv:
        raise ValueError("give either --json or --tsv, not both")
    if as_tsv and explain:
        raise ValueError("a table has no room for explanations; give --json or nothing instead of --tsv")
    if out is not None:
        raise ValueError("--out is for --corpus; the scores of FILES go to standard output: --tsv > FILE")
    from detector.batch import judge_all
    from detector.calibration import probability
    from detector.quality import MAX_SECONDS
    from detector.score import load
    from eval import terminal
    from remasc import get_array, read_audio
    from remasc.files import sound_files

    probability(0.0, prior)  # a bad prior is an error before any file is opened
    if threshold is not None and math.isnan(threshold):
        raise ValueError("--threshold is NaN; expected a score, such as 0.5")
    loaded = load(detector)
    if array is not None:
        get_array(array)
    jobs = [(str(path), str(path), array) for path in sound_files(files, file_list)]
    judgements = judge_all(detector, jobs, workers=workers, options={"prior": prior, "threshold": threshold})
    limits = {"threshold": loaded.threshold if threshold is None else threshold, "prior": prior}
    line = terminal.text_line
    if as_json:
        line = partial(terminal.json_line, limits=limits)
    elif as_tsv:
        line = terminal.tsv_line
        print(terminal.TSV_HEADER)
    else:
        print(terminal.polarity(limits["threshold"], threshold is not None, loaded.run, prior))
    undecided = 0
    for (path, _, _), judged in zip(jobs, judgements, strict=True):
        undecided += judged.decision == "undecided"
        if explain and judged.score is not None:
            waveform, rate = read_audio(path, seconds=MAX_SECONDS + 1)
            told = loaded.explain(waveform, rate, array, prior=prior, threshold=threshold)
            print(terminal.explained(judged, told, limits if as_json else None), flush=True)
        else:
            print(line(judged), flush=True)
    return 1 if undecided else 0
