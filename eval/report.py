"""From scores.tsv to metrics.json, report.md, two pictures and one HTML page; made from these files alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eval import words
from eval.page import Clip, Picture, page
from eval.plots import det_png, histogram_png
from eval.scores import asvspoof_format, read_scores
from eval.summary import summarise
from remasc.atomic import whole_file, write_text
from remasc.sentences import is_name, quoted, reason

__all__ = ["Clip", "evaluate", "markdown", "stated"]
LARGEST = 1e100  # of a score; beyond it differences of scores overflow


def evaluate(
    scores_path: str | Path,
    *,
    out: str | Path | None = None,
    protocol: str | Path | None = None,
    partition: str = "eval",
    name: str = "",
    corpus: str = "",
    simulated: bool | None = None,
    run: dict[str, Any] | None = None,
    threshold: float | None = None,
    threshold_origin: str = "",
    prior: float = 0.5,
    n_bootstrap: int = 1000,
    clips: Sequence[Clip] | None = None,
    asvspoof: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure a score file and write the report; returns what metrics.json holds.

    Into the folder `out` (default: that of the scores) go metrics.json, report.md, det.png, histogram.png and
    report.html, each whole or not at all; with `asvspoof` also cm_scores.tsv and cm_keys.tsv.
    `name` says which detector, `corpus` which recordings, `simulated` whether they are (None: not stated);
    `run` is shown as it is (commit, seeds, ...). `threshold` decides by score >= threshold and comes from dev,
    as `threshold_origin` says in words; without it the EER threshold of these trials is used and called
    optimistic. `prior` is that of a living person, for the clips' probabilities. `progress` shows what is
    being worked on, on stderr. Raises ValueError with one sentence where the scores cannot be evaluated.
    """
    if not 0 < prior < 1 or n_bootstrap < 1:
        raise ValueError(
            f"prior = {prior}, n_bootstrap = {n_bootstrap}; expected a probability between 0 and 1 and at least "
            "one draw"
        )
    scores_path = Path(scores_path)
    out = scores_path.parent if out is None else Path(out)
    if protocol is None and (scores_path.parent / "protocol.tsv").is_file():
        protocol = scores_path.parent / "protocol.tsv"
    table = read_scores(scores_path, protocol=protocol, partition=partition)
    with _steps(progress) as step:
        measured, band = summarise(
            table, threshold=threshold, threshold_origin=threshold_origin, n=n_bootstrap, step=step
        )
        files = {"scores": scores_path, **({"protocol": Path(protocol)} if protocol else {})}
        figures = {
            "format": 1,
            "name": name,
            "corpus": corpus,
            "simulated": simulated,
            "partition": table.partition,
            "polarity": "higher score = more genuine",
            "files": {what: _fingerprint(path) for what, path in files.items()},
            **measured,
            "run": _plain(run or {}),
        }
        step("pictures")
        genuine, replay = table.score[table.genuine], table.score[table.replay]
        tag, point = words.tag(figures), figures["operating_point"]["threshold"]
        options = {"band": band, "eer": figures["metrics"]["eer"], "title": f"DET curve{tag}"}
        drawn = [det_png(genuine, replay, **options, dark=dark) for dark in (False, True)]
        det = Picture(*drawn, alt=f"DET curve with its interval{tag}")
        options = {"threshold": point, "title": f"Scores by class{tag}"}
        drawn = [histogram_png(genuine, replay, **options, dark=dark) for dark in (False, True)]
        histogram = Picture(*drawn, alt=f"Histogram of the scores of both classes{tag}")
        html = page(figures, det=det, histogram=histogram, clips=list(clips or ()), prior=prior)
    out.mkdir(parents=True, exist_ok=True)
    texts = {"metrics.json": _json(figures), "report.md": markdown(figures), "report.html": html}
    if asvspoof:
        texts["cm_scores.tsv"], texts["cm_keys.tsv"] = asvspoof_format(table)
    for file_name, picture in (("det.png", det), ("histogram.png", histogram)):
        with whole_file(out / file_name) as temporary:
            temporary.write_bytes(picture.light)
    for file_name, text in texts.items():
        write_text(out / file_name, text)
    return figures


def stated(scores_path: str | Path) -> dict[str, Any]:
    """What a run.json beside the scores says of them, as arguments of `evaluate`: name, corpus, simulated,
    partition, run, threshold and its origin. Empty where there is none; ValueError where it is none."""
    path = Path(scores_path).parent / "run.json"
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8")
        return _arguments(record)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not the record of a scoring ({reason(error)}); remove it, or score again"
        ) from None


def _arguments(record: Any) -> dict[str, Any]:
    if not isinstance(record, dict) or not isinstance(run := record.get("run", record), dict):
        raise ValueError("it is no JSON object")
    found = {key: record[key] for key in ("name", "corpus", "partition") if key in record}
    if wrong := [key for key, value in found.items() if not is_name(value)]:
        raise ValueError(f"its {wrong[0]} is {quoted(found[wrong[0]])}, no name")
    if not isinstance(simulated := record.get("simulated"), bool | None):
        raise ValueError(f"its simulated is {quoted(simulated)}, neither true nor false")
    found |= {"simulated": simulated, "run": run}
    if (threshold := record.get("threshold")) is None:
        return found
    score = threshold.get("score") if isinstance(threshold, dict) else None
    if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) < LARGEST:
        raise ValueError(f"its threshold is {quoted(threshold)}, no score")
    return found | {"threshold": float(score), "threshold_origin": _text(threshold.get("origin", ""))}


def _text(value: Any) -> str:
    return value if value == "" or is_name(value) else quoted(value)


@contextmanager
def _steps(progress: bool) -> Iterator[Any]:
    """A callable that is told each step; with `progress` a spinner on stderr shows it."""
    if not progress:
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("evaluating") as status:
        yield lambda text: status.update(f"evaluating: {text}")


def _fingerprint(path: Path) -> dict[str, str]:
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _plain(run: dict[str, Any]) -> dict[str, Any]:
    """`run` as JSON can hold it: whatever it does not know becomes its text."""
    return json.loads(json.dumps({str(key): value for key, value in run.items()}, default=str))


def _json(figures: dict[str, Any]) -> str:
    return json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def markdown(figures: dict[str, Any]) -> str:
    """The report as Markdown, with det.png and histogram.png beside it."""
    tag = words.tag(figures)
    eer = figures["metrics"]["eer"]
    lines = [
        f"# {_md(figures['name'] or 'Replay detection report')}",
        "",
        f"**{words.simulated_words(figures['simulated'])}**",
        "",
        f"{_md(words.subject(figures))}: **EER {words.rate(eer['value'])} "
        f"{words.interval(eer['low'], eer['high'])}**{tag}, {words.trials_words(figures)}. {words.READING}",
        "",
        f"{_md(words.coverage_words(figures))} {words.interval_words(figures)}",
        "",
        f"![DET curve{tag}](det.png) ![Scores by class{tag}](histogram.png)",
        "",
        f"## All trials{tag}",
        "",
        *_md_table(("figure", "value", "95 % interval", "what it is"), words.metric_rows(figures)),
        "",
        f"## At the threshold{tag}",
        "",
        _md(words.threshold_words(figures)),
        "",
        *_md_table(("rate", "value", "95 % interval", "of"), words.operating_rows(figures)),
    ]
    if figures["breakdowns"]:
        lines += ["", f"## By condition{tag}", "", words.POOLING]
    for name, cells in figures["breakdowns"].items():
        head = (name, "genuine", "replay", "EER", "95 % interval", "note")
        lines += ["", f"### By {name}{tag}", "", *_md_table(head, map(_cell_words, cells))]
    lines += ["", "## How this was made", ""]
    lines += [
        f"- {what}: {_md(entry['name'])}, sha256 {entry['sha256']}"
        for what, entry in figures["files"].items()
    ]
    lines += [f"- {_md(key)}: {_md(value)}" for key, value in figures["run"].items()]
    return "\n".join(lines) + "\n"


def _cell_words(cell: dict) -> tuple[str, ...]:
    has_rate = cell["eer"] is not None
    figure = (words.rate(cell["eer"]), words.interval(cell["low"], cell["high"])) if has_rate else ("–", "")
    return (cell["name"], f"{cell['genuine']:,}", f"{cell['replay']:,}", *figure, words.cell_note(cell))


def _md_table(head: Sequence[str], rows) -> list[str]:
    lines = [head, ["---", *["---:"] * (len(head) - 2), "---"], *(map(_md, row) for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _md(value: Any) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split()).replace("](", "]\\(")
    return "".join(f"\\{c}" if c in "`*|" else {"<": "&lt;", "&": "&amp;"}.get(c, c) for c in text)
