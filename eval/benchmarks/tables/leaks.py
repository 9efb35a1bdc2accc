"""The leak probes beside a benchmark: what they found on its corpora, kept with the tables.

A corpus that is solved by what is not the attack voids a table, so that the verdict stands in every report. What
`replayguard corpus probe` left with the corpus is taken as it is where nothing that it was made of is newer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from eval import card, words
from eval.benchmarks.tables.options import Options
from eval.benchmarks.tables.views import corpora_of, stamp
from eval.probes import VERSION, Verdict, conclusion, probe_corpus, table
from remasc import Corpus
from remasc.atomic import write_text

PROBED = "Probed for these tables."
LEFT = "It is the verdict of `replayguard corpus probe`, left with the corpus; no recording is newer, and no probe."


def verdicts(corpus: Corpus, out: Path, workers: int | None, progress: bool) -> tuple[list[Verdict], str]:
    """What the probes find on the corpus, and where that comes from: found before on the same recordings
    (OUT/leaks), left with the corpus (ROOT/probes.json), or asked now."""
    path = out / "leaks" / f"{corpus.root.resolve().name}.json"
    told = stamp(corpus)
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["recordings"] == told and kept["probes"] == VERSION:
            return [Verdict.from_dict(row) for row in kept["verdicts"]], kept.get("source", PROBED)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found, source = left_by_probe(corpus), LEFT
    if not found:
        found, source = probe_corpus(corpus.root, workers=workers, progress=progress), PROBED
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [verdict.as_dict() for verdict in found]
    text = json.dumps({"recordings": told, "probes": VERSION, "source": source, "verdicts": rows}, indent=1)
    write_text(path, text + "\n")
    return found, source


def left_by_probe(corpus: Corpus) -> list[Verdict]:
    """What `replayguard corpus probe` left in a simulated corpus: of the same scenes (their hash), by the same
    probes (their version), and as new as the recordings and tables it was made of. Nothing where that is not so."""
    tables = [corpus.root / "corpus.json", corpus.root / "partitions.tsv"]
    tables += [corpus.root / subset / "meta.csv" for subset in {r.subset for r in corpus}]
    made_of = (*tables, *(r.path for r in corpus))
    return card.kept_verdicts(corpus.root) if _as_new_as(corpus.root / card.PROBES, made_of) else []


def _as_new_as(path: Path, made_of: Iterable[Path]) -> bool:
    """Whether none of the files was written after `path`, and all are there."""
    try:
        made = path.stat().st_mtime_ns
        return all(one.stat().st_mtime_ns <= made for one in made_of)
    except OSError:
        return False


def verdict_of(corpus: Corpus, out: Path, workers: int | None, progress: bool) -> dict[str, Any]:
    """For a report: a sentence, where the verdict comes from, the table, and whether a probe failed. Where the
    probes cannot be asked (no eval, one class) the sentence says so, and nothing is claimed."""
    try:
        found, source = verdicts(corpus, out, workers, progress)
    except (ValueError, OSError) as error:
        said = {"sentence": f"Not probed: {error}.", "source": "", "failed": None, "table": ""}
        return {"corpus": corpus.name} | said
    failed = any(verdict.failed for verdict in found)
    return {
        "corpus": corpus.name,
        "sentence": conclusion(found),
        "source": source,
        "failed": failed,
        "table": table(found),
    }


def report(options: Options, shown: bool) -> tuple[str, bool]:
    """Probe the corpora, write leaks.md and leaks.json; the page, and whether a probe failed. ValueError where a
    corpus cannot be probed."""
    lines, found = ["# Leak probes", ""], []
    lines += [f"**{options.warning}**", ""] if options.warning else []
    for corpus in corpora_of(options):
        verdicts(corpus, options.folder, options.workers, shown)
        leak = verdict_of(corpus, options.folder, options.workers, shown)
        found.append({"warning": options.warning, "simulated": corpus.simulated} | leak)
        lines += [f"## {corpus.name}", "", words.simulated_words(corpus.simulated), ""]
        lines += [f"{leak['sentence']} {leak['source']}", "", leak["table"]]
    write_text(options.folder / "leaks.json", json.dumps(found, indent=1) + "\n")
    write_text(options.folder / "leaks.md", "\n".join(lines))
    return "\n".join(lines), any(leak["failed"] for leak in found)
