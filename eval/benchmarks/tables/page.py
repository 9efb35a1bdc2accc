"""A benchmark's page: NAME.md and NAME.json, and the pictures NAME-det.png and NAME-curves.png beside them.

The first table of a section is read (rates by row and column, what was published behind them); the second says all
of each of its cells. Rates are fractions in the JSON.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from eval import words
from eval.benchmarks.tables import published
from eval.benchmarks.tables.catalogue import UNSEEDED
from eval.benchmarks.tables.conditions import protocol
from eval.breakdown import MIN_TRIALS
from eval.plots import curves_png, dets_png
from remasc import Corpus
from remasc.atomic import whole_file, write_text

if TYPE_CHECKING:
    from eval.benchmarks.tables.planning import Benchmark

MEAN = published.MEAN


def write(bench: Benchmark, *, pictures: bool = True) -> None:
    """Each file whole, under its name."""
    out, name = bench.options.folder, bench.table.name
    content = content_of(bench)
    write_text(out / f"{name}.json", json.dumps(content, indent=1) + "\n")
    drawn = pictures and bool(content["figures"])
    if drawn:
        for what, image in (("det", _det(bench)), ("curves", _curves(bench))):
            with whole_file(out / f"{name}-{what}.png") as temporary:
                temporary.write_bytes(image)
    write_text(out / f"{name}.md", markdown(content, drawn))


def content_of(bench: Benchmark) -> dict[str, Any]:
    """What the JSON holds, and the Markdown is made of."""
    options, table = bench.options, bench.table
    trainings = {cell.training for cell in bench.cells}
    figures = bench.figures()
    columns = list(dict.fromkeys(cell.column for cell in bench.cells))
    return {
        "benchmark": table.name,
        "title": table.title,
        "warning": options.warning,
        "quick": options.quick,
        "split": options.split,
        "scale": options.scale,
        "corpora": [_corpus(corpus) for corpus in bench.corpora],
        "trainings": len(trainings),
        "finished": len(bench.records),
        "failed": bench.failed,
        "impossible": bench.impossible,
        "leaks": bench.leaks,
        "columns": {"are": table.columns, "names": columns, "reference": table.reference}
        | {"mean": table.mean and len(columns) > 1},
        "published": {
            "source": published.SOURCES.get(table.name, ""),
            "eer_percent": [
                {"section": section, "row": row, "column": column, "eer": value}
                for (section, row, column), value in published.beside(
                    table.name, table.published, bench.cells, columns
                ).items()
            ],
        },
        "notes": list(table.notes),
        "figures": figures,
        "means": bench.means(),
    }


def _corpus(corpus: Corpus) -> dict[str, Any]:
    return {"name": corpus.name, "simulated": corpus.simulated, "protocol": protocol(corpus)}


def markdown(content: dict[str, Any], pictures: bool = True) -> str:
    """The page of `content_of`'s facts."""
    simulated = any(corpus["simulated"] for corpus in content["corpora"])
    tag = " (simulated)" if simulated else ""
    lines = [f"# {content['title']}: {content['benchmark']}{tag}", ""]
    lines += [line for fact in _facts(content) for line in (fact, "")]
    names = dict.fromkeys(one["section"] for one in content["figures"])
    for section in names:
        lines += [f"## {section}", ""] if section else []
        part = [one for one in content["figures"] if one["section"] == section]
        lines += [*_matrix(content, part), *_cells(content, part)]
    if len(names) > 1:
        lines += _over_sections(content, list(names))
    if pictures:
        for what in ("det", "curves"):
            lines += [f"![{what}]({content['benchmark']}-{what}.png)", ""]
    lines += [line for leak in content["leaks"] if leak["table"] for line in _leak_table(leak, tag)]
    return "\n".join(lines)


def _facts(content: dict[str, Any]) -> list[str]:
    """What must be known before any figure is read, a paragraph each."""
    dev = content["split"] == "dev"
    facts = [f"**{content['warning']}**" if content["warning"] else ""]
    for corpus in content["corpora"]:
        kind = words.simulated_words(corpus["simulated"])
        facts.append(f"Corpus {corpus['name']} ({corpus['protocol']} protocol). {kind}")
    schedule = "a schedule of two epochs" if content["quick"] else "each system by its own schedule"
    facts.append(
        f"{content['finished']} of {content['trainings']} trainings finished. EER in % on {content['split']}, each "
        f"trial scored once; {schedule}, dev chooses the epoch."
    )
    over = sorted({one["interval_over"] for one in content["figures"] if one["eer"] is not None})
    drawn = (
        f"Intervals are bootstraps over {' or '.join(over)}, for a mean over all its places jointly; ± is the "
        "deviation over seeds. "
        if over
        else ""
    )
    facts.append(
        f"{drawn}With under {MIN_TRIALS} trials of a class there is a count and no rate. What draws nothing "
        f"({', '.join(UNSEEDED)}) is trained once."
    )
    facts.append("Dev chose epochs and settings, so that these figures are optimistic." if dev else "")
    if content["scale"] < 1:
        facts.append(
            f"At most {content['scale']:.0%} of each schedule's epochs: what that stopped is marked undertrained "
            "and supports no claim."
        )
    facts += [
        f"Leak probes, {leak['corpus']}: {leak['sentence']} {leak['source']}" for leak in content["leaks"]
    ]
    facts += content["notes"]
    for title, found in (("FAILED", content["failed"]), ("Cannot be", content["impossible"])):
        if found:
            facts.append(f"{title}:\n\n" + "\n".join(f"- {what}: {why}" for what, why in found.items()))
    return [fact for fact in facts if fact]


def _matrix(content: dict[str, Any], figures: list[dict[str, Any]]) -> list[str]:
    """Rows by columns: the EER, its standard deviation over seeds, and what was published."""
    cells = {(one["row"], one["column"]): one for one in figures}
    rows = list(dict.fromkeys(row for row, _ in cells))
    names = [name for name in content["columns"]["names"] if any(name == column for _, column in cells)]
    averaged = content["columns"]["mean"] and len(names) > 1
    means = {one["row"]: one for one in content["means"] if one["section"] == figures[0]["section"]}
    reference = content["columns"]["reference"] if any("above" in one for one in means.values()) else ""
    told = {
        (one["row"], one["column"]): one["eer"]
        for one in content["published"]["eer_percent"]
        if one["section"] == figures[0]["section"]
    }
    cut = {row for (row, _), one in cells.items() if one["undertrained"]}
    head = [content["columns"]["are"], *names, *([MEAN] if averaged else [])]
    head += [f"above {reference}, points"] if reference else []
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row in rows:
        line = [row]
        for name in names:
            line.append(
                _rate(cells[row, name]) + _told(told.get((row, name))) if (row, name) in cells else ""
            )
        if averaged:
            mean = _mean(means[row], row in cut) if row in means else ""
            line.append(mean + _told(told.get((row, MEAN), _mean_told(told, row, names))))
        if reference:
            line.append(_above(means.get(row, {}).get("above")))
        lines.append("| " + " | ".join(line) + " |")
    shown = (*names, MEAN) if averaged else names
    if {(row, column) for row in rows for column in shown} & told.keys():
        source = content["published"]["source"]
        said = f"In brackets what was published on ReMASC ({source}): context, never the comparison."
        lines += ["", said]
    return [*lines, ""]


def _rate(one: dict[str, Any]) -> str:
    """ "20.6 ± 0.8", "too few (12 + 40)"; a dagger where the training was cut short."""
    if one["eer"] is None:
        return f"too few ({one['trials']['genuine']} + {one['trials']['replay']})"
    return _spread(one, one["undertrained"])


def _spread(one: dict[str, Any], cut: bool) -> str:
    """ "20.6 ± 0.8", with a dagger where a training was `cut` short."""
    spread = "" if one["sd"] is None else f" ± {100 * one['sd']:.1f}"
    return f"**{100 * one['eer']:.1f}**{spread}" + "†" * cut


def _mean(one: dict[str, Any], cut: bool) -> str:
    """ "20.6 ± 0.8 [18.9, 22.4]"."""
    return f"{_spread(one, cut)} {words.interval(one['low'], one['high'])}"


def _above(one: dict[str, float] | None) -> str:
    """ "+3.2 [1.9, 4.4]"; nothing for the reference itself."""
    return (
        "" if one is None else f"{100 * one['eer']:+.1f} [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}]"
    )


def _told(value: float | None) -> str:
    return "" if value is None else f" ({value:.1f})"


def _mean_told(told: dict[tuple[str, str], float], row: str, names: list[str]) -> float | None:
    found = [told[row, name] for name in names if (row, name) in told]
    return float(np.mean(found)) if len(found) == len(names) else None


def _cells(content: dict[str, Any], figures: list[dict[str, Any]]) -> list[str]:
    """Each cell's own facts."""
    head = ["row", content["columns"]["are"], "genuine + replay", "parameters", "CPU ms per s", "seeds"]
    head += ["epochs (chosen)", "EER", "95 %", "sd", "remarks"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 3) + "---|"]
    for one in figures:
        trials, rated = one["trials"], one["eer"] is not None
        runs = one["runs"][:6]
        epochs = " ".join(f"{run['epochs']} ({run['epoch']})" for run in runs)
        cells = [
            one["row"],
            one["column"],
            f"{trials['genuine']:,} + {trials['replay']:,}",
            f"{one['parameters']:,}",
            f"{1000 * one['real_time_factor']:.1f}",
            " ".join(map(str, one["seeds"])),
            epochs + (" ..." if len(one["runs"]) > len(runs) else ""),
            words.rate(one["eer"]) if rated else "too few",
            words.interval(one["low"], one["high"]) if rated else "",
            f"{100 * one['sd']:.1f}" if rated and one["sd"] is not None else "",
            "; ".join(
                word
                for word, holds in (
                    ("† undertrained", one["undertrained"]),
                    ("one model for all arrays", one["one_for_all"]),
                    (f"{one['abstained']:.1%} would be undecided", one["abstained"] > 0),
                )
                if holds
            ),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _over_sections(content: dict[str, Any], sections: list[str]) -> list[str]:
    """The mean rate of each row that has all columns in every section."""
    means = sorted((one for one in content["means"] if one["section"] is None), key=lambda one: one["eer"])
    if not means:
        return []
    figures = content["figures"]
    head = ["", *sections, MEAN]
    lines = ["## All", "", "| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for mean in means:
        row = mean["row"]
        own = [[one for one in figures if (one["section"], one["row"]) == (name, row)] for name in sections]
        cells = [f"{100 * np.mean([one['eer'] for one in part]):.1f}" for part in own]
        cut = any(one["undertrained"] for part in own for one in part)
        lines.append("| " + " | ".join([row, *cells, _mean(mean, cut)]) + " |")
    return [*lines, ""]


def _leak_table(leak: dict[str, Any], tag: str) -> list[str]:
    return [f"## Leak probes, {leak['corpus']}{tag}", "", leak["table"]]


def _det(bench: Benchmark) -> bytes:
    """A panel for each section and column; of each row the first finished run."""
    panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for cell in bench.cells:
        if cell.training in bench.records:
            table = bench.scores(cell)
            scores = table.score[table.genuine], table.score[table.replay]
            place = ", ".join(word for word in (cell.section, cell.column) if word)
            panel = panels.setdefault(f"{place} ({scores[0].size:,} + {scores[1].size:,} trials)", {})
            panel.setdefault(cell.row, scores)
    return dets_png(panels, title=_title(bench))


def _curves(bench: Benchmark) -> bytes:
    """Training loss and dev EER of the first seed's trainings."""
    first = bench.options.drawn[0]
    histories = {
        bench.named(training).replace(f"-seed{first}", ""): record["curves"]
        for training, record in bench.records.items()
        if training.seed == first
    }
    return curves_png(histories, title=_title(bench))


def _title(bench: Benchmark) -> str:
    simulated = any(corpus.simulated for corpus in bench.corpora)
    names = ", ".join(dict.fromkeys(corpus.name for corpus in bench.corpora))
    kind = " (simulated)" if simulated else ""
    title = f"{bench.table.title}: {bench.options.split} of {names}{kind}"
    return f"{bench.options.warning}\n{title}" if bench.options.warning else title
