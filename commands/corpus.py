"""`replayguard corpus ...`: what is in a corpus, whether its files are whole, whether it leaks."""

import json
from typing import Annotated

import tyro

from commands import AsJson, Folder


def summary(root: Folder) -> None:
    """Count a corpus by partition, class, array and environment.

    Args:
        root: Folder with core/ and eval/ (or meta.csv itself).
    """
    from remasc import Corpus
    from remasc.summary import render_summary, summarize

    print(render_summary(summarize(Corpus.from_meta(root))))


def check(root: Folder, as_json: AsJson = False, workers: int | None = None) -> int:
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


def probe(
    root: Folder,
    array: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    as_json: AsJson = False,
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
