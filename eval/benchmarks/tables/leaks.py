"""The leak probes beside a benchmark: what they found on its corpora, kept with the tables.

A corpus that is solved by what is not the attack voids a table, so that the verdict stands in every report.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eval import words
from eval.benchmarks.tables.options import Options
from eval.benchmarks.tables.views import corpora_of, stamp
from eval.probes import Verdict, conclusion, probe_corpus, table
from remasc import Corpus
from remasc.atomic import write_text


def verdicts(corpus: Corpus, out: Path, workers: int | None, progress: bool) -> list[Verdict]:
    """What the probes find on the corpus, or found before on the same recordings (OUT/leaks)."""
    path = out / "leaks" / f"{corpus.root.resolve().name}.json"
    told = stamp(corpus)
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["recordings"] == told:
            return [Verdict.from_dict(row) for row in kept["verdicts"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = probe_corpus(corpus.root, workers=workers, progress=progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [verdict.as_dict() for verdict in found]
    write_text(path, json.dumps({"recordings": told, "verdicts": rows}, indent=1) + "\n")
    return found


def verdict_of(corpus: Corpus, out: Path, workers: int | None, progress: bool) -> dict[str, Any]:
    """For a report: a sentence, the table, and whether a probe failed. Where the probes cannot be asked (no eval,
    one class) the sentence says so, and nothing is claimed."""
    try:
        found = verdicts(corpus, out, workers, progress)
    except (ValueError, OSError) as error:
        return {"corpus": corpus.name, "sentence": f"Not probed: {error}.", "failed": None, "table": ""}
    failed = any(verdict.failed for verdict in found)
    return {
        "corpus": corpus.name,
        "sentence": conclusion(found),
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
        lines += [f"## {corpus.name}", "", words.simulated_words(corpus.simulated), "", leak["sentence"], ""]
        lines += [leak["table"]]
    write_text(options.folder / "leaks.json", json.dumps(found, indent=1) + "\n")
    write_text(options.folder / "leaks.md", "\n".join(lines))
    return "\n".join(lines), any(leak["failed"] for leak in found)
