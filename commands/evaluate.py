"""`replayguard evaluate`: error rates and figures of a score file."""

import sys
from pathlib import Path

from commands import Folder


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
    show_report(scores, out=out, protocol=protocol, asvspoof=asvspoof, n_bootstrap=bootstrap, **options)


def show_report(scores: Path, *, out: Path | None = None, **options) -> None:
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
