"""The report: whole, self-contained, escaped, the same twice, and honest about what it does not know."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from eval import metrics
from eval.plots import det_png, histogram_png
from eval.report import Clip, evaluate
from eval.scores import ScoreTable, read_scores, write_scores

FILES = ["det.png", "histogram.png", "metrics.json", "report.html", "report.md"]
HOSTILE = "<script>alert(1)</script>|`x`[y](http://evil.example/\"'&"
VOID = {"meta", "img", "source", "br"}


def table(n: int = 400, seed: int = 0, **changed) -> ScoreTable:
    rng = np.random.default_rng(seed)
    genuine = rng.random(n) < 0.4
    score = rng.normal(np.where(genuine, 1, -1), 1.2)
    columns = {
        "trial": [f"eval/{i}" for i in range(n)],
        "score": score,
        "llr": 1.4 * score,
        "label": np.where(genuine, "genuine", "replay"),
        "flag": np.where(np.arange(n) % 50 == 0, "too-short", ""),
        "conditions": {
            "array": rng.choice(["D1", "D2"], n),
            "environment": rng.choice(["outdoor", "vehicle"], n),
            "playback_device": np.where(genuine, "-", rng.choice(["phone", "headphone"], n)),
            "speaker": rng.integers(1, 13, n).astype(str),
        },
    }
    return ScoreTable(**{**columns, **changed})


def report(folder: Path, scores: ScoreTable, **options) -> dict:
    write_scores(folder / "scores.tsv", scores)
    return evaluate(folder / "scores.tsv", **{"n_bootstrap": 20, **options})


class Page(HTMLParser):
    """Collects the attributes of a page and fails where tags do not balance."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [
            value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")
        ]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    clips = [
        Clip("one", b"RIFFwave", "genuine", 2.0, 3.0, "a note"),
        Clip("two", b"RIFFwave", "replay", 2.0, None),
        Clip("three", b"RIFFwave", "", 2.0, 1.0, flag="too-short"),
    ]
    options = {"threshold": 0.5, "threshold_origin": "that of dev", "clips": clips, "prior": 0.2}
    figures = report(folder, table(), name="ours", corpus="demo", simulated=True, run={"seed": 1}, **options)
    return folder, figures


def test_every_file_is_there_and_only_those(simulated):
    folder, figures = simulated
    assert sorted(p.name for p in folder.iterdir()) == [*FILES, "scores.tsv"]
    assert json.loads((folder / "metrics.json").read_text()) == figures
    for name in ("det.png", "histogram.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_figures_are_those_of_the_metrics(simulated):
    folder, figures = simulated
    scores = read_scores(folder / "scores.tsv")
    genuine, replay = scores.genuine, scores.replay
    found = figures["metrics"]
    assert (found["eer"]["value"], found["eer"]["threshold"]) == metrics.eer(
        scores.score[genuine], scores.score[replay]
    )
    assert found["cllr"]["value"] == pytest.approx(metrics.cllr(scores.llr[genuine], scores.llr[replay]))
    assert found["act_dcf"]["value"] == metrics.act_dcf(scores.llr[genuine], scores.llr[replay])
    decided = ~scores.abstained
    without = metrics.eer(scores.score[genuine & decided], scores.score[replay & decided])[0]
    assert found["eer_decided"]["value"] == without
    assert figures["trials"]["coverage"] == np.mean(decided)
    devices = scores.conditions["playback_device"][replay]
    errors = metrics.apcer_bpcer(scores.score[genuine], scores.score[replay], devices, 0.5)
    point = figures["operating_point"]
    assert {device: entry["value"] for device, entry in point["apcer"].items()} == pytest.approx(errors.apcer)
    assert point["apcer_max"]["value"] == pytest.approx(errors.apcer_max)
    assert point["bpcer"]["value"] == pytest.approx(errors.bpcer)
    assert not point["optimistic"]


def test_every_figure_has_its_interval(simulated):
    _, figures = simulated
    point = figures["operating_point"]
    entries = [
        *figures["metrics"].values(),
        point["bpcer"],
        point["p_fa"],
        point["apcer_max"],
        *point["apcer"].values(),
    ]
    for entry in entries:
        assert entry["low"] <= entry["high"]
        assert entry["low"] - 0.1 <= entry["value"] <= entry["high"] + 0.1
    same = metrics.bootstrap_interval  # one interval, made either way
    scores = table()
    speaker = scores.conditions["speaker"]
    groups = speaker[scores.genuine], speaker[scores.replay]
    eer = same(scores.score[scores.genuine], scores.score[scores.replay], metrics.eer, n=20, groups=groups)
    assert (figures["metrics"]["eer"]["low"], figures["metrics"]["eer"]["high"]) == pytest.approx(eer)


def test_the_page_needs_nothing_else(simulated):
    folder, _ = simulated
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert {"audio", "img", "table", "style"} <= set(page.tags)
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert page.addresses
    assert all(address.startswith(("data:image/png;", "data:audio/wav;")) for address in page.addresses)
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert "@import" not in text


def test_simulated_is_said_at_every_result(simulated):
    folder, _ = simulated
    for name, heading in (("report.html", r"<h[23]>(.*?)</h[23]>"), ("report.md", r"(?m)^##+ (.*)$")):
        text = (folder / name).read_text(encoding="utf-8")
        assert "SIMULATED" in text
        headings = re.findall(heading, text)
        results = [h for h in headings if re.match(r"Curves|All trials|At the|By |Listen", h)]
        assert len(results) >= 5
        assert all("(simulated)" in h for h in results if h != "By condition"), results


def test_the_page_says_what_a_reader_must_know(simulated):
    folder, figures = simulated
    text = Page((folder / "report.html").read_text(encoding="utf-8")).text
    for word in (
        "A higher score means more genuine",
        "score ≥ 0.5; the threshold is that of dev",
        "coverage 98.0 %",
        "draws over speakers",
        "prior of 0.2",
        "83.4 %",  # sigmoid(3 + logit 0.2)
        "genuine ✓",
        "genuine ✗",
        "undecided",
        "BPCER",
        "APCER, maximum",
        figures["files"]["scores"]["sha256"],
    ):
        assert word in text, word


def test_everything_foreign_is_escaped(tmp_path):
    scores = table(
        conditions={"array": [HOSTILE] * 400, "playback_device": [HOSTILE] * 400},
        flag=[HOSTILE] * 40 + [""] * 360,
    )
    clip = Clip(HOSTILE, b"x", HOSTILE, 1.0, None, HOSTILE, HOSTILE)
    report(
        tmp_path,
        scores,
        name=HOSTILE,
        corpus=HOSTILE,
        threshold=0.0,
        threshold_origin=HOSTILE,
        run={HOSTILE: HOSTILE, "list": [HOSTILE]},
        clips=[clip],
    )
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert HOSTILE in page.text
    assert all(address.startswith("data:") for address in page.addresses)
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert "](http" not in markdown
    for line in markdown.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) in (5, 7), line


def test_the_same_scores_make_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        report(tmp_path / name, table())
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_without_a_threshold_it_is_called_optimistic(tmp_path):
    scores = table()
    figures = report(tmp_path, scores)
    point = figures["operating_point"]
    sweep = metrics.eer(scores.score[scores.genuine], scores.score[scores.replay])[1]
    assert point["threshold"] == metrics.decision_threshold(sweep)
    assert point["optimistic"]
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "optimistic" in text
        assert "was not stated" in text
        assert "imulated)" not in text


def test_without_llr_their_costs_are_refused(tmp_path):
    llr = table().llr
    llr[7] = np.nan
    figures = report(tmp_path, table(llr=llr))
    for name in ("act_dcf", "cllr"):
        assert "refused" in figures["metrics"][name]
    assert "refused: it takes calibrated" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_minimal_file(tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"t{i}\t{'genuine' if i % 2 else 'replay'}\t{rng.normal() + i % 2!r}\n" for i in range(60)]
    (tmp_path / "scores.tsv").write_text("trial\tlabel\tscore\n" + "".join(lines))
    figures = evaluate(tmp_path / "scores.tsv", out=tmp_path / "new" / "out", n_bootstrap=5, asvspoof=True)
    assert figures["breakdowns"] == {}
    assert "apcer" not in figures["operating_point"]
    assert figures["interval"]["over"] == "trials"
    assert sorted(p.name for p in (tmp_path / "new" / "out").iterdir()) == [
        "cm_keys.tsv",
        "cm_scores.tsv",
        *FILES,
    ]


@pytest.mark.parametrize("scores", ["constant", "separable", "reversed", "two"])
def test_extreme_scores(tmp_path, scores):
    genuine = table().genuine
    values = {
        "constant": np.zeros(400),
        "separable": np.where(genuine, 5.0, -5.0),
        "reversed": np.where(genuine, -5.0, 5.0),
        "two": np.linspace(-1e6, 1e6, 400),
    }[scores]
    extreme = table(score=values, llr=values)
    if scores == "two":
        extreme = extreme.select([int(np.argmax(genuine)), int(np.argmin(genuine))])
    figures = report(tmp_path, extreme, n_bootstrap=5)
    assert (
        figures["metrics"]["eer"]["value"]
        in {"constant": [0.5], "separable": [0], "reversed": [1], "two": [0, 1]}[scores]
    )


def test_abstaining_on_a_whole_class_leaves_no_decided_figure(tmp_path):
    scores = table()
    figures = report(tmp_path, table(flag=np.where(scores.genuine, "silent", "")))
    assert figures["metrics"]["eer_decided"] is None
    assert "without the abstained trials a class is empty" in (tmp_path / "report.md").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("label", ["genuine", "replay", ""])
def test_one_class_is_an_error_and_leaves_nothing_behind(tmp_path, label):
    write_scores(tmp_path / "scores.tsv", table(label=[label] * 400))
    fact = {"": "no trial has a label", "genuine": "labelled 'replay'", "replay": "labelled 'genuine'"}[label]
    with pytest.raises(ValueError, match=f"{fact}, .* both classes; write .* 'label' .* or give --protocol"):
        evaluate(tmp_path / "scores.tsv", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_scores_without_labels_are_mended_as_the_sentence_says(tmp_path):
    (tmp_path / "scores.tsv").write_text("trial\tscore\na\t1\nb\t0\n")
    with pytest.raises(ValueError, match="with the columns trial and label"):
        evaluate(tmp_path / "scores.tsv")
    (tmp_path / "listed.tsv").write_text("trial\tlabel\na\tgenuine\nb\treplay\n")
    figures = evaluate(tmp_path / "scores.tsv", protocol=tmp_path / "listed.tsv", n_bootstrap=2)
    assert figures["trials"]["genuine"] == figures["trials"]["replay"] == 1


@pytest.mark.parametrize("options", [{"threshold": np.nan}, {"prior": 1.0}, {"n_bootstrap": 0}])
def test_bad_arguments(tmp_path, options):
    write_scores(tmp_path / "scores.tsv", table())
    with pytest.raises(ValueError, match="expected"):
        evaluate(tmp_path / "scores.tsv", **options)


def test_pictures_differ_by_page_colour_and_need_no_threshold():
    genuine, replay = np.arange(5.0), np.arange(-3.0, 2.0)
    assert det_png(genuine, replay) != det_png(genuine, replay, dark=True)
    assert histogram_png(genuine, replay) != histogram_png(genuine, replay, threshold=1.0)


def test_matplotlib_and_torch_wait_until_they_are_needed():
    code = (
        "import sys, eval.report; sys.exit(any(m in sys.modules for m in ('matplotlib', 'torch', 'scipy')))"
    )
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
