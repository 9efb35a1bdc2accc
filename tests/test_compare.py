import json

import numpy as np
import pytest

from eval.benchmarks.compare import compare
from eval.report import evaluate

HISTORY = [
    {"epoch": n + 1, "loss": 0.7 - 0.1 * n, "dev_eer": 0.4 - 0.05 * n, "best": n < 2} for n in range(3)
]


def make_run(folder, system, trials=60, shift=1.0):
    g = np.random.default_rng(len(system))
    (folder / "eval").mkdir(parents=True)
    record = {"system": system, "seed": 0, "epoch": 2, "epochs": 3, "dev_eer": 0.35, "parameters": 1234}
    counts = {"genuine": 10, "replay": 20}
    record |= {"dev_trials": counts, "train_trials": counts, "corpus": "made up", "curves": HISTORY}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "config.json").write_text(json.dumps({"specification": {"arrays": ["D2"]}}))
    rows, protocol = ["trial\tscore\tlabel"], ["trial\tpartition\tlabel\tarray"]
    for n in range(2 * trials):
        label = "genuine" if n % 2 else "replay"
        rows.append(f"eval/{n}\t{g.normal(shift * (n % 2))}\t{label}")
        protocol.append(f"eval/{n}\teval\t{label}\tD2")
    (folder / "eval" / "scores.tsv").write_text("\n".join(rows) + "\n")
    (folder / "eval" / "protocol.tsv").write_text("\n".join(protocol) + "\n")
    evaluate(folder / "eval" / "scores.tsv", simulated=True, n_bootstrap=20)
    return folder


def test_the_table_says_what_the_runs_say(tmp_path, capsys):
    runs = [make_run(tmp_path / name, name) for name in ("nn-single", "nn-multichannel")]
    compare(tuple(runs), tmp_path / "out")
    table = (tmp_path / "out" / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert "simulated" in table
    for run, published in zip(runs, ("23.7 %", "15.4 %"), strict=True):
        line = next(line for line in table.splitlines() if line.startswith(f"| {run.name}"))
        figures = json.loads((run / "eval" / "metrics.json").read_text())
        assert f"**{100 * figures['metrics']['eer']['value']:.1f} %**" in line
        assert line.endswith(f"{published} |")
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "out" / "table.json").read_text())) == 2


def test_other_trials_are_not_compared(tmp_path):
    runs = (make_run(tmp_path / "a", "nn-single"), make_run(tmp_path / "b", "nn-dummy", trials=61))
    with pytest.raises(ValueError, match="different trials"):
        compare(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()
