"""replayguard: Tells whether a voice command came from a living person or from a playback device.

This is the front door: one sub-command per job. Each command imports what it needs when it is called, so that
`--help` answers at once. Errors at the border are one sentence on stderr and exit code 2.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

Files = Annotated[tuple[str, ...], tyro.conf.Positional]
Folder = Annotated[Path, tyro.conf.Positional]


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
    _report(scores, clips=choose_clips(corpus, scores))
    if not keep:  # nothing but our own: `generate` refuses a folder that holds anything else
        shutil.rmtree(out / "corpus")


def simulate(
    out: Path,
    recipe: str = "small",
    speech: Path | None = None,
    noise: Path | None = None,
    template: Path | None = None,
    arrays: tuple[str, ...] = ("D1", "D2", "D3", "D4"),
    scale: float = 1.0,
    seed: int = 0,
    workers: int | None = None,
    cluster: str | None = None,
    resume: bool = True,
) -> None:
    """Simulate a corpus in ReMASC's layout: genuine and replayed commands on the four arrays.

    Args:
        out: Folder of the corpus; an interrupted run goes on there.
        recipe: Name of a shipped recipe or a recipe file.
        speech: Folder of clean speech; default: an embedded speech synthesiser.
        noise: Folder of background noise; default: synthesised noise.
        template: For remasc-sim: folder with ReMASC's core/meta.csv and eval/meta.csv, to be followed row by row.
        arrays: Which arrays record.
        scale: Multiplies the number of scenes; the share of the rows where a template is followed.
        seed: Another seed is another corpus.
        workers: Processes; default: one per core.
        cluster: Address of a Dask scheduler (tcp://host:8786) whose workers see the same folders.
        resume: Go on where an interrupted run stopped.
    """
    from remasc.parallel import on_cluster
    from remasc.simulate import generate

    with on_cluster(cluster) as there:
        root = generate(
            recipe, out, speech=speech, noise=noise, template=template, arrays=arrays, scale=scale, seed=seed,
            workers=workers or there, resume=resume,
        )  # fmt: skip
    from eval.card import write_card

    print(write_card(root))
    print(root)


def corpus_summary(root: Folder) -> None:
    """Count a corpus by partition, class, array and environment.

    Args:
        root: Folder with core/ and eval/ (or meta.csv itself).
    """
    from remasc import Corpus
    from remasc.summary import render_summary, summarize

    print(render_summary(summarize(Corpus.from_meta(root))))


def corpus_check(
    root: Folder, as_json: Annotated[bool, tyro.conf.arg(name="json")] = False, workers: int | None = None
) -> int:
    """Open every file of a corpus and report what is wrong; exit 1 when something is.

    Args:
        root: Folder with core/ and eval/ (or meta.csv itself).
        as_json: Print the findings as JSON.
        workers: Processes; default: one per core.
    """
    from remasc import Corpus
    from remasc.check import check

    report = check(Corpus.from_meta(root), workers=workers, progress=not as_json)
    print(json.dumps(report.as_dict(), indent=1) if as_json else report.render())
    return 0 if report.ok else 1


def corpus_probe(
    root: Folder,
    array: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    workers: int | None = None,
) -> int:
    """Try to solve a corpus by what is not the attack (level, length, file facts, place, ...); exit 1 on a leak.

    What was found on all arrays joins the card of a simulated corpus.

    Args:
        root: Folder of a corpus with train, dev and eval.
        array: Probe this array alone; may be repeated. Default: every array that is there.
        as_json: Print the findings as JSON.
        workers: Processes; default: one per core.
    """
    from eval.card import keep_verdicts
    from eval.probes import conclusion, probe_corpus, table

    verdicts = probe_corpus(root, arrays=array or None, workers=workers, progress=not as_json)
    if as_json:
        print(json.dumps([verdict.as_dict() for verdict in verdicts], indent=1))
    else:
        print(table(verdicts) + "\n" + conclusion(verdicts))
    if not array:
        keep_verdicts(root, verdicts)
    return int(any(verdict.failed for verdict in verdicts))


def train() -> None:
    """Train a system on a corpus: --system compact, nn-multichannel, malrad, acoustic-maps and more.

    (The arguments are those of detector.config.TrainConfig.)
    """
    raise AssertionError("dispatched in main()")


def score(
    files: Files = (),
    array: str | None = None,
    detector: str = "default",
    corpus: Path | None = None,
    split: str = "eval",
    out: Path | None = None,
    file_list: Annotated[Path | None, tyro.conf.arg(name="list")] = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    as_tsv: Annotated[bool, tyro.conf.arg(name="tsv")] = False,
    prior: float = 0.5,
    threshold: float | None = None,
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
        workers: Processes; default: one per core.
    """
    if corpus is not None:
        if files or file_list:
            raise ValueError("give either FILES or --corpus, not both")
        if as_json or as_tsv or threshold is not None:
            raise ValueError("--corpus writes scores.tsv; --json, --tsv and --threshold are for FILES")
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
    if out is not None:
        raise ValueError("--out is for --corpus; the scores of FILES go to standard output: --tsv > FILE")
    from detector.batch import judge_all
    from detector.calibration import probability
    from detector.score import load
    from eval import terminal
    from remasc import get_array
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
    for judged in judgements:
        undecided += judged.decision == "undecided"
        print(line(judged), flush=True)
    return 1 if undecided else 0


def evaluate(
    scores: Folder,
    out: Path | None = None,
    protocol: Path | None = None,
    partition: str | None = None,
    threshold: float | None = None,
    simulated: bool | None = None,
    name: str | None = None,
    corpus: str | None = None,
    prior: float = 0.5,
    bootstrap: int = 1000,
    asvspoof: bool = False,
) -> None:
    """Error rates, breakdowns and figures of a score file: metrics.json, Markdown, PNG, one HTML page.

    Args:
        scores: scores.tsv, with the columns trial, score and label at least, or the folder that holds it.
        out: Folder for the results; default: that of the scores.
        protocol: protocol.tsv with labels and conditions; default: the one beside the scores, if any.
        partition: Which partition of the protocol was scored; default: what run.json says, else eval.
        threshold: Threshold set on dev; default: what run.json beside the scores says, else the EER threshold.
        simulated: Say that the trials are simulated (or not); default: what run.json says.
        name: Name of the system in the report.
        corpus: Name of the recordings in the report.
        prior: Prior probability of a living person, for the probabilities.
        bootstrap: Draws for the intervals.
        asvspoof: Also write cm_scores.tsv and cm_keys.tsv for the ASVspoof tools.
    """
    if scores.is_dir():
        scores = scores / "scores.tsv"
    given = {
        "partition": partition,
        "threshold": threshold,
        "simulated": simulated,
        "name": name,
        "corpus": corpus,
        "prior": prior,
    }
    options = {key: value for key, value in given.items() if value is not None}
    if threshold is not None:
        options["threshold_origin"] = "given on the command line"
    _report(scores, out=out, protocol=protocol, asvspoof=asvspoof, n_bootstrap=bootstrap, **options)


def live(
    source: Annotated[Path, tyro.conf.arg(name="from")],
    array: str | None = None,
    detector: str = "default",
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    threshold: float | None = None,
    margin: float | None = None,
) -> int:
    """Find the commands in a long recording and judge each, block by block, as a live microphone would be heard.

    Exit code: 0 when every command was decided, 1 when one was not or none was heard, 2 on bad arguments.

    Args:
        source: The sound file to listen to.
        array: The array that recorded it: D1, D2, D3, D4 or an array file (TOML/JSON).
        detector: A bundled detector's name or a checkpoint folder.
        as_json: One JSON object a line, also of commands that still grow (kind "provisional" or "early").
        threshold: Accept at or above this score; default: the detector's own.
        margin: Decide early when the llr is so far from the threshold; default: at the end of a command alone.
    """
    from streaming import Settings, StreamingDetector, listen
    from streaming.sources import FileSource

    sound = FileSource(source)
    ears = StreamingDetector(
        detector, array, sound.sample_rate, settings=Settings(threshold=threshold, margin=margin)
    )
    undecided, finals = 0, 0
    for decision in listen(sound, ears):
        finals += decision.final
        undecided += decision.final and decision.genuine is None
        if as_json:
            print(decision.as_json(), flush=True)
        elif decision.genuine is not None or decision.final:
            print(decision.sentence, flush=True)
    if not finals:
        print(f"replayguard live: {source}: no command was heard", file=sys.stderr)
    return int(undecided > 0 or not finals)


COMMANDS: dict[str, Callable[..., int | None]] = {
    "demo": demo,
    "score": score,
    "live": live,
    "evaluate": evaluate,
    "train": train,
    "simulate": simulate,
    "corpus summary": corpus_summary,
    "corpus check": corpus_check,
    "corpus probe": corpus_probe,
}


def main(argv: Iterable[str] | None = None) -> int:
    """Run one sub-command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that knows no "≥" still gets its line
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] in ("--version", "-V"):
        from importlib.metadata import version

        print(f"replayguard {version('replayguard')}")
        return 0
    for name in (" ".join(arguments[:2]), arguments[0]):
        if name in COMMANDS:
            return _guarded(name, arguments[len(name.split()) :])
    if inside := [name for name in COMMANDS if name.startswith(f"{arguments[0]} ")]:
        print(_help(inside))
        return 0 if arguments[1:] in (["-h"], ["--help"]) else 2
    close = difflib.get_close_matches(" ".join(arguments[:2]), COMMANDS, n=1, cutoff=0.5)
    close = close or difflib.get_close_matches(arguments[0], COMMANDS, n=1, cutoff=0.5)
    hint = f"; did you mean `replayguard {close[0]}`?" if close else ""
    print(f"replayguard: unknown command {arguments[0]!r}{hint} See `replayguard --help`.", file=sys.stderr)
    return 2


def _guarded(name: str, arguments: list[str]) -> int:
    """Run a command; an error at the border becomes one sentence and exit code 2."""
    try:
        if name == "train":
            return _train(arguments)
        return tyro.cli(COMMANDS[name], args=arguments, prog=f"replayguard {name}") or 0
    except BrokenPipeError:  # the reader of our output (head, less) went away: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError) as error:
        if os.environ.get("REPLAYGUARD_DEBUG"):
            raise
        from remasc.sentences import plain

        fact = (
            f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        )
        print(f"replayguard {name}: {plain(str(fact))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"replayguard {name}: stopped; run it again to go on from what was finished", file=sys.stderr)
        return 130


def _help(names: Iterable[str] = COMMANDS) -> str:
    width = max(map(len, names)) + 2
    lines = ["usage: replayguard COMMAND [...]", "", (__doc__ or "").split("\n")[0].partition(": ")[2], ""]
    for name in names:
        lines.append(f"  {name:<{width}}{(COMMANDS[name].__doc__ or '').splitlines()[0]}")
    return "\n".join(
        [*lines, "", "replayguard COMMAND --help explains each; replayguard --version tells the version."]
    )


def _train(arguments: list[str]) -> int:
    from detector.config import TrainConfig

    config = tyro.cli(TrainConfig, args=arguments, prog="replayguard train")
    from detector.train import train as run_training

    print(run_training(config).folder)
    return 0


def _report(scores: Path, *, out: Path | None = None, **options) -> None:
    """Evaluate a score file with what its run.json says of it, print the main figures and the page's path."""
    from rich.console import Console

    from eval import terminal
    from eval.report import evaluate as make_report
    from eval.report import stated
    from eval.words import threshold_words

    figures = make_report(scores, out=out, progress=sys.stderr.isatty(), **(stated(scores) | options))
    console = Console(highlight=False, markup=False)
    console.print(terminal.headline(figures), style="bold")
    console.print(threshold_words(figures))
    if table := terminal.breakdown_table(figures):
        console.print(table)
    print(f"Report: {((out or scores.parent) / 'report.html').resolve()}")


if __name__ == "__main__":
    sys.exit(main())
