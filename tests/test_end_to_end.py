"""The whole way in one test: simulate, train, score, evaluate, and a page at the end."""

import json

import pytest

import replayguard

pytest.importorskip("espeakng_loader", reason="needs the embedded voices: pip install replayguard[voices]")


def call(*arguments):
    assert replayguard.main([str(a) for a in arguments]) == 0, arguments


@pytest.mark.slow
def test_from_nothing_to_a_report(tmp_path, capfd):
    corpus, run, out = tmp_path / "corpus", tmp_path / "run", tmp_path / "scores"
    size = ("--scale", "0.05", "--workers", "2")
    call("simulate", "--recipe", "small", "--out", corpus, "--arrays", "D1", "D4", *size)
    call("corpus", "check", corpus)
    call("train", "--corpus", corpus, "--out", run, "--array", "all", "--epochs", "2", "--seed", "3")
    call("score", "--corpus", corpus, "--detector", run, "--out", out)
    call("evaluate", out / "scores.tsv", "--bootstrap", "50")

    figures = json.loads((out / "metrics.json").read_text())
    assert figures["simulated"] is True
    assert 0 <= figures["metrics"]["eer"]["value"] <= 1
    assert "run" in figures
    page = (out / "report.html").read_text()
    assert "SIMULATED" in page
    assert "://" not in page  # asks nothing of any network
    assert (out / "protocol.tsv").is_file()

    one = next((corpus / "eval" / "data").iterdir())
    capfd.readouterr()
    replayguard.main(["score", str(one), "--detector", str(run), "--json"])
    judged = json.loads(capfd.readouterr().out)
    table = dict(line.split("\t")[:2] for line in (out / "scores.tsv").read_text().splitlines()[1:])
    assert judged["score"] == pytest.approx(float(table[f"eval/{one.stem}"]), abs=1e-4)


def test_the_bundled_detector_is_what_it_says():
    import detector
    from detector.score import BUNDLED, bundled_names

    assert "default" in bundled_names()
    for name in bundled_names():
        loaded = detector.load(name)
        assert sum(p.stat().st_size for p in (BUNDLED / name).iterdir()) <= 5e6
        assert (BUNDLED / name / "CARD.md").is_file()
        assert loaded.threshold is not None
        assert loaded.calibration is not None
        assert loaded.run["simulated"] is True
        assert 0 < loaded.run["dev_eer"] < 0.5
        assert loaded.run["eval"]["eer"] < 0.5
