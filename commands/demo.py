"""`replayguard demo`: the whole system on a small simulated corpus."""

from pathlib import Path

from commands.evaluate import show_report


def demo(
    out: Path = Path("replayguard-demo"),
    speech: Path | None = None,
    noise: Path | None = None,
    detector: str = "default",
    workers: int | None = None,
    keep: bool = False,
) -> None:
    """Simulate a small ReMASC-style corpus, score it with the bundled detector, write an HTML report.

    Args:
        out: Folder for the scores and the report.
        speech: Folder of clean speech to talk with; default: an embedded speech synthesiser.
        noise: Folder of background noise; default: synthesised noise.
        detector: A bundled detector's name or a checkpoint folder.
        workers: Processes; default: one per core.
        keep: Keep the simulated corpus (1 GB) in OUT/corpus; otherwise only what the report needs stays.
    """
    import shutil

    from detector.batch import score_corpus
    from detector.score import load
    from eval.clips import choose_clips
    from remasc import Corpus
    from remasc.simulate import generate

    load(detector)  # a wrong name is an error before anything is simulated
    print(f"1. Simulating a small corpus in {out / 'corpus'} (simulated recordings, not ReMASC)", flush=True)
    generate("demo", out / "corpus", speech=speech, noise=noise, workers=workers)
    corpus = Corpus.from_meta(out / "corpus")
    print(f"2. Scoring {len(corpus.trials())} recordings with the detector {detector!r}", flush=True)
    scores = score_corpus(detector, corpus, out, workers=workers)
    if speech is not None:
        print(
            "(If the detector was trained on this speech, what follows is too good: use voices it never heard.)"
        )
    print("3. Measuring", flush=True)
    show_report(scores, clips=choose_clips(corpus, scores))
    if not keep:  # nothing but our own: `generate` refuses a folder that holds anything else
        shutil.rmtree(out / "corpus")
