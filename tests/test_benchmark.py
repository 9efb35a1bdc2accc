"""The benchmark tables: what a cell trains and is tested on, what is finished stays, what fails is said."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import tyro

import replayguard
from detector.adapt import labelled
from detector.config import BASELINES, DEFAULTS, TrainConfig
from detector.state import STATE
from detector.systems import specify
from eval import card
from eval.benchmarks.tables import cells as cells_of
from eval.benchmarks.tables import engine, leaks, page, processes, views
from eval.benchmarks.tables.catalogue import TABLES, UNSEEDED
from eval.benchmarks.tables.cells import Training, undertrained
from eval.benchmarks.tables.engine import run
from eval.benchmarks.tables.figures import above, drawn_means, figures_of, mean_eer, mean_of
from eval.benchmarks.tables.options import QUICK, Options
from eval.benchmarks.tables.planning import plan
from eval.card import keep_verdicts
from eval.metrics import bootstrap_interval, eer
from eval.probes import Verdict
from eval.scores import ScoreTable
from remasc import ARRAYS, Corpus
from remasc.protocol import partitions
from tests.tiny_corpus import make_corpus, meta_row, real_root

ENVIRONMENTS = ("outdoor", "indoor-1", "indoor-2", "vehicle")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpora") / "tiny", clips=64, seconds=0.5).root


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """Four environments, two playback devices, D1 and D4, without sound: what is planned opens none."""
    root = tmp_path_factory.mktemp("corpora") / "varied"
    for subset, speakers, first in (("core", range(1, 7), 1), ("eval", range(7, 10), 5)):
        rows = [
            meta_row(
                first * 1000000 + n,
                kind=2 + n % 2,
                speaker=speaker,
                environment=environment,
                position={1: 1, 2: 11 + 10 * (n // 2 % 3), 3: -1, 4: 11}[environment],
                device=device,
                playback=(2 + n // 4 % 2 if n % 2 else -1),
                seconds=30,
            )
            for n, (speaker, environment, device, _) in enumerate(
                (s, e, d, k) for s in speakers for e in (1, 2, 3, 4) for d in (1, 4) for k in range(12)
            )
        ]
        (root / subset / "data").mkdir(parents=True)
        (root / subset / "meta.csv").write_text("\n".join(rows) + "\n")
    return root


def quietly(root, out, **values):
    """Options of a benchmark that takes seconds."""
    defaults = {"systems": ("void", "sub-bass"), "arrays": ("D4",), "workers": 1}
    return Options((root,), out, **defaults | values)


def probed(finished, out):
    """The verdicts on the same corpus, so that it is not probed again."""
    shutil.copytree(finished.folder / "leaks", out / "leaks")


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    options = quietly(tiny, tmp_path_factory.mktemp("out"))
    assert not run("peers", options).failed
    return options


def content(options, name="peers"):
    return json.loads((options.folder / f"{name}.json").read_text())


def files(options):
    """When each file of the runs was written."""
    found = (
        path
        for path in (options.folder / "runs").rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    )
    return {path: path.stat().st_mtime_ns for path in found}


# ---------------------------------------------------------------- what is planned


def test_a_part_of_a_corpus_is_a_corpus_with_the_same_rows_sounds_and_partitions(tiny, tmp_path):
    corpus = Corpus.from_meta(tiny)
    parts = partitions(corpus)
    some = {name: part.filter(array="D2") for name, part in parts.items()}
    for _ in range(2):  # written again it is the same
        part = Corpus.from_meta(views.write_view(tmp_path / "d2", corpus, some))
    assert {r.trial_id for r in part} == {r.trial_id for group in some.values() for r in group}
    for name, group in partitions(part).items():
        assert [r.trial_id for r in group] == [r.trial_id for r in some[name]]
    for r in part:
        assert r.path.resolve() == (tiny / r.subset / "data" / f"{r.file_id}.wav").resolve()
    assert part.simulated is corpus.simulated
    assert part.name == corpus.name


@pytest.mark.parametrize(
    "condition", ["environment", "playback_device", "position", "array", "environment=vehicle"]
)
def test_what_is_held_out_is_in_no_training_and_alone_in_the_test(varied, tmp_path, condition):
    systems = ("void",) if condition == "array" else ("void", "malrad")
    bench = plan("peers", Options((varied,), tmp_path, systems=systems, seeds=(0,), held_out=(condition,)))
    by_trial = {r.trial_id: r for r in Corpus.from_meta(varied)}
    seen = 0
    for cell in bench.cells:
        assert cell.training.without == cell.test.without
        if not cell.test.without:
            continue
        seen += 1
        held = dict(cell.test.without)
        heard = Corpus.from_meta(bench.configs[cell.training].corpus)
        tested = Corpus([by_trial[trial] for trial in bench.trials[cell.test]], varied)
        replays = tested.filter(label="replay")
        assert len(replays) == len(replays.filter(**held)) > 0
        assert not len(heard.filter(label="replay").filter(**held))
        assert not {r.speaker for r in heard} & {r.speaker for r in tested}
    assert seen >= 2


def test_environments_are_trained_and_tested_as_the_rows_say(varied, tmp_path):
    bench = plan("environments", Options((varied,), tmp_path, systems=("void",), arrays=("D4",)))
    assert {cell.column for cell in bench.cells} == set(ENVIRONMENTS)
    for cell in bench.cells:
        heard = Corpus.from_meta(bench.configs[cell.training].corpus)
        places = Counter(r.conditions()["environment"] for r in heard)
        own, row = cell.column, cell.row.removeprefix("void, trained ")
        assert (own in places) == (row in ("there", "on all"))
        assert len(places) == {"there": 1, "on all": 4, "on the others": 3, "on another": 1}[row]
    assert len({cell.training for cell in bench.cells}) == 9


def test_ten_minutes_of_a_new_array_are_ten_minutes_of_both_classes(varied, tmp_path):
    bench = plan("arrays", Options((varied,), tmp_path, systems=("void",), arrays=("D4",)))
    rows = {cell.row.removeprefix("void, "): cell.training for cell in bench.cells}
    assert set(rows) == {"trained on the others", "trained on the others and 10 min of it", "trained on all"}
    heard = {
        row: Corpus.from_meta(bench.configs[training].corpus).filter(array="D4")
        for row, training in rows.items()
    }
    assert not heard["trained on the others"]
    some = heard["trained on the others and 10 min of it"]
    assert 600 <= sum(r.seconds for r in some) <= 660
    assert len({r.label for r in some}) == 2
    assert {r.trial_id for r in some} <= {r.trial_id for r in partitions(Corpus.from_meta(varied))["train"]}


@pytest.mark.slow
def test_the_published_figures_stand_at_cells_that_are_planned(tmp_path):
    root = real_root()
    for name in ("table2", "table3", "table4", "environments", "peers"):
        table = TABLES[name]
        bench = plan(name, Options((root,), tmp_path, seeds=(0,)))
        places = {(cell.row, cell.column) for cell in bench.cells}
        places |= {(row, "mean") for row, _ in places}
        assert {place for place in table.published if place not in places} == set(), name


def test_one_model_for_all_arrays_is_also_adapted_to_the_unseen_one(varied, tmp_path):
    bench = plan(
        "arrays", Options((varied,), tmp_path, systems=("compact", "malrad"), arrays=("D4",), seeds=(0,))
    )
    rows = {cell.row: cell for cell in bench.cells}
    unseen, adapted = rows["compact, trained on the others"], rows["compact, adapted by 10 min of it"]
    assert unseen.training == adapted.training
    assert (unseen.test.minutes, adapted.test.minutes) == (0, 10)
    assert bench.trials[unseen.test] == bench.trials[adapted.test]
    assert bench.scored(unseen) != bench.scored(adapted)
    assert [row for row in rows if row.startswith("malrad")] == ["malrad, trained on it alone"]


def test_the_real_protocol_lacks_classes_in_places_and_that_is_said(tmp_path):
    bench = plan("environments", Options((real_root(),), tmp_path, systems=("void",), arrays=("D1",)))
    assert any("indoor-1 holds no genuine trial" in why for why in bench.impossible.values())
    assert all(cell.column != "indoor-1" for cell in bench.cells)


def test_microphones_are_added_in_the_papers_order(tiny, tmp_path):
    bench = plan("table3", Options((tiny,), tmp_path, seeds=(0,)))
    places = Counter(cell.row for cell in bench.cells)
    assert places == {
        "D1, 1-2": 2, "D2, 1-4-2-3": 4, "D2, 1-2-3-4": 4, "D3, 1-4-2-5-3-6": 6, "D4, 1-4-2-5-3-6-7": 7
    }  # fmt: skip
    by_place = {(cell.row, cell.column): cell.training for cell in bench.cells}
    assert by_place["D2, 1-4-2-3", "3"].channels == "1-4-2"
    assert by_place["D2, 1-4-2-3", "4"] == by_place["D2, 1-2-3-4", "4"]
    assert by_place["D3, 1-4-2-5-3-6", "1"].system == "nn-single"
    config = bench.configs[by_place["D2, 1-4-2-3", "3"]]
    assert config.microphones == (0, 3, 1)
    hears = specify(config.system, (ARRAYS["D2"],), config.microphones)
    waveform = np.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(hears.channels_of(waveform), waveform[[0, 3, 1]])
    assert type(hears).from_dict(hears.as_dict()) == hears


def test_tables_share_their_trainings(tiny, tmp_path):
    one, two, four = (
        plan(name, Options((tiny,), tmp_path)).configs for name in ("table2", "table4", "peers")
    )
    shared = {training for training in one if training.system == "nn-multichannel"}
    assert len(shared) == 12  # four arrays, three seeds
    assert shared <= set(two)
    assert set(one) <= set(four)
    assert len({config.out for config in two.values()}) == len(two)


def test_each_system_has_its_own_schedule_and_what_draws_nothing_is_trained_once(tiny, tmp_path):
    configs = plan("peers", Options((tiny,), tmp_path, seeds=(3, 4))).configs
    for training, config in configs.items():
        wanted = TrainConfig(tiny, tmp_path, system=training.system, array=training.array, seed=training.seed)
        same = {name: value for name, value in wanted.identity().items() if name not in ("out", "cache")}
        assert same == {name: config.identity()[name] for name in same}
    seeds = Counter(training.system for training in configs)
    assert all(seeds[name] == 4 for name in UNSEEDED)
    assert seeds["malrad"] == 8
    assert seeds["compact"] == 2  # one for all arrays


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("peers", {"systems": ("viod",)}, "unknown system 'viod'"),
        ("peers", {"arrays": ("D9",)}, "unknown array 'D9'"),
        ("peers", {"arrays": ("D2",)}, "holds no trial of D2; expected of D1, D4"),
        ("peers", {"held_out": ("room",)}, "unknown condition 'room'; expected of environment"),
        ("peers", {"held_out": ("environment=moon",)}, "holds no trial with environment 'moon'"),
        ("table2", {"held_out": ("environment",)}, "benchmark peers"),
        ("positions", {}, "compares 2 corpora, got 1"),
        ("table2", {"split": "train"}, "expected dev or eval"),
        ("table2", {"scale": 2.0}, "expected above 0"),
        ("table2", {"seeds": ()}, "at least one"),
        ("table2", {"workers": 0}, "expected 1 or more"),
        ("table2", {"processes": 0}, "expected 1 or more"),
    ],
)
def test_errors_name_the_fact_and_the_way_out(varied, tmp_path, name, values, says):
    with pytest.raises(ValueError, match=says):
        plan(name, Options((varied,), tmp_path / "out", **values))


def test_what_is_asked_for_twice_is_counted_once(varied, tmp_path):
    once = plan("peers", Options((varied,), tmp_path, systems=("void",), arrays=("D4",), seeds=(0,)))
    twice = {"systems": ("void",) * 2, "arrays": ("D4",) * 2, "seeds": (0, 0)}
    assert plan("peers", Options((varied,), tmp_path, **twice)).cells == once.cells
    held = Options((varied,), tmp_path, held_out=("environment", "environment=vehicle"), **twice)
    cells = plan("peers", held).cells
    assert len(cells) == len(set(cells)) == 5


def test_a_table_about_one_network_takes_no_other(tiny, tmp_path):
    for name in ("table3", "table4"):
        with pytest.raises(ValueError, match="is about nn-multichannel; leave --systems out"):
            plan(name, Options((tiny,), tmp_path, systems=("nn-multichannel", "malrad")))


def test_published_figures_stand_only_beside_what_they_are_of(varied, tiny, tmp_path):
    def beside(name, root, **options):
        found = page.content_of(plan(name, Options((root,), tmp_path, seeds=(0,), **options)))
        return {(one["section"], one["row"], one["column"]) for one in found["published"]["eer_percent"]}

    nn = beside("peers", varied, systems=("nn-single", "acoustic-maps"), held_out=("environment=vehicle",))
    assert {section for section, *_ in nn} == {"closed"}  # nothing was held out of what was published
    assert ("closed", "nn-single", "D4") in nn
    assert not any(column == "mean" for *_, column in nn)  # of four arrays, where there are two
    assert ("closed", "acoustic-maps", "mean") in beside("peers", tiny, systems=("acoustic-maps",))
    assert ("", "P = 8", "mean") in beside("table4", tiny)
    assert beside("table4", tiny, arrays=("D2",)) == set()
    rows = {row for _, row, _ in beside("environments", varied, systems=("cqcc-gmm", "malrad"))}
    assert rows == {"cqcc-gmm, trained there", "cqcc-gmm, trained on the others"}  # M-ALRAD's are D2's


def test_the_minutes_of_an_array_are_listed_whatever_their_folder_is_called(tmp_path, monkeypatch):
    root = make_corpus(tmp_path / 'a, "b"', clips=16).root
    read = []
    monkeypatch.setattr("detector.adapt.adapt", lambda _, listed, *a, **k: read.extend(labelled(listed)))
    (tmp_path / "run").mkdir()
    cells_of._adapted(tmp_path / "run", Corpus.from_meta(root), "D4", 1.0)
    train = partitions(Corpus.from_meta(root))["train"].filter(array="D4")
    assert {clip.path for clip in read} <= {r.path.resolve() for r in train}
    assert {clip.label for clip in read} == {"genuine", "replay"}


# ---------------------------------------------------------------- what is run


def test_every_system_is_scored_on_the_same_trials_and_all_is_left_behind(finished, tiny):
    found = content(finished)
    assert {one["row"] for one in found["figures"]} == {"void", "sub-bass"}
    assert (found["trainings"], found["finished"], found["failed"]) == (2, 2, {})
    trials = {r.trial_id for r in partitions(Corpus.from_meta(tiny))["eval"].filter(array="D4")}
    for one in found["figures"]:
        assert one["trials"] == {"genuine": 4, "replay": 4}
        assert one["eer"] is None  # under 50 of a class
        assert one["parameters"] > 0
        assert one["real_time_factor"] > 0
        scores = (finished.folder / one["runs"][0]["scores"]).read_text().splitlines()[1:]
        assert {line.split("\t")[0] for line in scores} == trials
    text = (finished.folder / "peers.md").read_text()
    assert text == page.markdown(found)
    assert "too few (4 + 4)" in text
    assert "Leak probes, tiny:" in text
    assert (finished.folder / "peers-det.png").read_bytes().startswith(b"\x89PNG")
    assert (finished.folder / "peers-curves.png").read_bytes().startswith(b"\x89PNG")
    assert QUICK not in text


def test_what_is_finished_stays_and_an_interrupted_benchmark_ends_the_same(finished, tmp_path, monkeypatch):
    before, text = files(finished), (finished.folder / "peers.md").read_text()
    said = []
    run("peers", finished, say=said.append)
    assert files(finished) == before
    assert (finished.folder / "peers.md").read_text() == text
    assert said == ["peers: 2 cells of 2 trainings, 2 of them finished"]

    probed(finished, tmp_path)
    other = quietly(finished.corpus[0], tmp_path)
    whole = cells_of.run

    def stopped(config, *arguments):
        if config.system == "sub-bass":
            raise KeyboardInterrupt
        return whole(config, *arguments)

    monkeypatch.setattr(cells_of, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        run("peers", other)
    monkeypatch.setattr(cells_of, "run", whole)
    kept = files(other)
    run("peers", other)
    assert {path: time for path, time in files(other).items() if path in kept} == kept
    same_scores(other, finished)


def test_runs_on_other_recordings_are_not_taken_for_results_on_these(finished, tmp_path):
    root, out = tmp_path / "tiny", tmp_path / "out"
    make_corpus(root, clips=64, seconds=0.5, seed=1)
    shutil.copytree(finished.folder, out)
    with pytest.raises(ValueError, match="holds runs on other recordings"):  # as names go they are the same
        run("peers", quietly(root, out))
    assert content(finished) == content(quietly(root, out))  # and nothing was written


def test_a_cell_that_fails_is_said_and_the_others_go_on(tiny, finished, tmp_path, monkeypatch, capsys):
    probed(finished, tmp_path)
    whole = cells_of.run

    def broken(config, *arguments):
        if config.system == "void":
            raise RuntimeError("out of memory")
        return whole(config, *arguments)

    monkeypatch.setattr(cells_of, "run", broken)
    arguments = ["--corpus", tiny, "--out", tmp_path, "--systems", "void", "sub-bass", "--arrays", "D4"]
    code = replayguard.main(["benchmark", "peers", *map(str, arguments), "--workers", "1"])
    out, err = capsys.readouterr()
    assert code == 1
    assert "void-D4-seed0 failed: RuntimeError: out of memory" in err
    assert "FAILED" in out
    assert "| sub-bass | D4 | 4 + 4 |" in out
    monkeypatch.setattr(cells_of, "run", whole)
    assert not run("peers", quietly(tiny, tmp_path)).failed


def test_quick_is_small_and_says_so_everywhere(tiny, tmp_path):
    options = quietly(tiny, tmp_path, quick=True, systems=("sub-bass",))
    run("peers", options)
    found = content(options)
    assert found["quick"]
    assert found["warning"] == QUICK
    assert QUICK in (tmp_path / "peers.md").read_text()
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("eval-*/run.json")]
    assert all("QUICK" in record["corpus"] for record in records)
    assert "QUICK" in page._title(plan("peers", options))
    configs = plan("table2", Options((tiny,), tmp_path, quick=True)).configs
    assert {config.epochs for config in configs.values()} == {cells_of.QUICK_EPOCHS}
    assert {training.seed for training in configs} == {0}
    assert {training.array for training in configs} == {"D1", "D2"}


def test_results_are_the_page_and_its_runs_without_weights(finished, tmp_path):
    run("peers", quietly(finished.corpus[0], finished.folder, results=tmp_path))
    kept = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    for path in kept:
        assert (tmp_path / path).read_bytes() == (finished.folder / path).read_bytes()
    assert {path.name for path in kept} >= {"peers.md", "peers.json", "peers-det.png", "peers-curves.png"}
    assert all((tmp_path / one["runs"][0]["scores"]).is_file() for one in content(finished)["figures"])
    assert not any(path.suffix == ".safetensors" for path in kept)


def same_scores(options, wanted):
    for one, same in zip(content(options)["figures"], content(wanted)["figures"], strict=True):
        path, other = (o.folder / f["runs"][0]["scores"] for o, f in ((options, one), (wanted, same)))
        assert path.read_bytes() == other.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [False, True])
def test_cells_beside_each_other_and_on_a_cluster_give_the_same_scores(finished, tmp_path, cluster):
    probed(finished, tmp_path)
    with ExitStack() as stack:
        address = None
        if cluster:
            distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
            here = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
            address = stack.enter_context(here).scheduler_address
        together = quietly(finished.corpus[0], tmp_path, workers=2, cluster=address)
        assert not run("peers", together).failed
    same_scores(together, finished)


@pytest.mark.slow
def test_a_benchmark_that_is_killed_ends_as_if_it_was_not(tiny, tmp_path):
    common = {"systems": ("void",), "quick": True}
    killed, whole = (quietly(tiny, tmp_path / name, **common) for name in ("killed", "whole"))
    command = [sys.executable, replayguard.__file__, "benchmark", "peers", "--quick", "--corpus", str(tiny)]
    command += ["--out", str(killed.folder), "--systems", "void", "--arrays", "D4", "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = killed.folder / "runs" / "tiny-quick" / "void-D4-seed0" / STATE
    while process.poll() is None and not state.exists():
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert state.exists()
    for options in (killed, whole):
        assert not run("peers", options).failed
    same_scores(killed, whole)


def test_torchrun_is_given_the_very_config_of_the_cell(varied, tmp_path):
    for system in DEFAULTS:
        for changes in ({}, {"epochs": 3, "amp": False, "cache": tmp_path / "a b"}):
            if set(changes) - {"cache"} and system in BASELINES:
                continue
            config = TrainConfig(varied, tmp_path / "out", system=system, array="D4", **changes)
            given = tyro.cli(TrainConfig, args=processes.command_line(config))
            assert given == config


def test_what_two_processes_say_at_once_is_one_sentence(tiny, tmp_path, monkeypatch):
    def both(command, stderr, **_):
        stderr.write(
            "torch warns\nreplayguard train: it is 2; expected 1replayguard train: it is 2; expected 1\n\n"
        )
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(processes.subprocess, "run", both)
    with pytest.raises(ValueError, match=r"^it is 2; expected 1$"):
        processes.train(TrainConfig(tiny, tmp_path / "out", system="malrad", array="D4"), 2, 1)


@pytest.mark.slow
def test_two_processes_train_a_cell_together(tiny, tmp_path, monkeypatch):
    options = quietly(tiny, tmp_path, systems=("malrad", "void"), quick=True, processes=2)
    assert not run("peers", options).failed
    made = {one["row"]: one["runs"][0]["environment"]["processes"] for one in content(options)["figures"]}
    assert made == {"malrad": 2, "void": 1}  # without a network there is nothing to share
    assert not list(tmp_path.rglob(processes.LOG))

    whole = processes.command_line
    monkeypatch.setattr(processes, "command_line", lambda config: [*whole(config), "--p-fa", "2"])
    failed = run(
        "peers", quietly(tiny, tmp_path / "bad", systems=("malrad",), quick=True, processes=2)
    ).failed
    assert failed == {"malrad-D4-seed0": "p_fa is 2.0; expected 0 to 0.999"}


# ---------------------------------------------------------------- what is said of it


def table(seed: int, shift: float = 1.0, trials: int = 240) -> ScoreTable:
    rng = np.random.default_rng(seed)
    label = np.where(np.arange(trials) % 2, "genuine", "replay")
    score = rng.standard_normal(trials) + shift * (label == "genuine")
    return ScoreTable(trial=np.arange(trials).astype(str), score=score, label=label)


def row(seed: int):
    facts = {"parameters": 7, "speed": 0.1, "undertrained": False, "one_for_all": False}
    return {"seed": seed, **facts}


def test_the_interval_of_one_seed_is_the_bootstraps_and_equal_seeds_change_nothing():
    one = table(0)
    rates, low, high, drawn = mean_eer([one], n=200)
    genuine, replay = one.score[one.genuine], one.score[one.replay]
    assert rates == [eer(genuine, replay)[0]]
    assert (low, high) == pytest.approx(bootstrap_interval(genuine, replay, eer, n=200))
    assert drawn == "trials"
    assert mean_eer([one, one], n=200)[1:] == (low, high, drawn)
    rates, low, high, _ = mean_eer([one, table(1, shift=2.0)], n=200)
    assert low < np.mean(rates) < high


def test_the_deviation_is_over_seeds_not_over_the_trainings_of_one():
    tables = [table(n) for n in range(4)]
    rates = [eer(t.score[t.genuine], t.score[t.replay])[0] for t in tables]
    found = figures_of([row(0), row(0), row(1), row(1)], tables, draws=20)
    assert found["sd"] == pytest.approx(np.std([np.mean(rates[:2]), np.mean(rates[2:])], ddof=1))
    assert found["eer"] == pytest.approx(np.mean(rates))
    assert figures_of([row(0), row(0)], tables[:2], draws=20)["sd"] is None


def spoken(seed: int, voices, name: str = "", trials: int = 240) -> ScoreTable:
    """`table`, its trials spoken by so many voices in turn, the trials named `name`N."""
    one, number = table(seed, trials=trials), np.arange(trials)
    trial, speaker = np.char.add(name, number.astype(str)), (number // 2 % voices + 1).astype(str)
    return replace(one, trial=trial, conditions={"speaker": speaker})


def width(values) -> float:
    return float(np.std(values[np.isfinite(values)]))


@pytest.mark.parametrize(("voices", "over"), [(3, "trials"), (20, "speakers")])
def test_the_mean_of_places_stands_on_one_draw_of_all(voices, over):
    one, other = spoken(0, voices), spoken(1, voices, "b")
    alone, drawn = drawn_means([[one]], 400)
    assert drawn == over
    rates, low, high, _ = mean_eer([one], 400)
    assert (low, high) == pytest.approx(np.quantile(alone, [0.025, 0.975]))
    twice, _ = drawn_means([[one], [one]], 400)
    assert width(twice) == pytest.approx(width(alone), rel=0.1)  # the same trials are no more evidence
    if over == "trials":
        assert width(drawn_means([[one], [other]], 400)[0]) < 0.85 * width(alone)  # others are
    facts, values = mean_of([[one], [other]], [[0], [0]], 400)
    assert facts["eer"] == pytest.approx((rates[0] + mean_eer([other], 9)[0][0]) / 2)
    assert facts["low"] < facts["eer"] < facts["high"]
    assert (facts["interval_over"], facts["sd"]) == (over, None)
    assert above((facts, values), (facts, values)) == {"eer": 0, "low": 0, "high": 0}


def test_a_speaker_in_two_places_is_drawn_for_both_and_a_draw_without_a_class_is_left_out():
    voice = np.linspace(-2, 2, 20).repeat(6)  # what a voice is worth, everywhere
    places = []
    for seed, name in enumerate("ab"):
        one = spoken(seed, 20, name, trials=240)
        shift = 2 * voice[(np.arange(240) // 2 % 20) * 6]
        places.append(replace(one, score=one.score + np.where(one.genuine, shift, 0)))
    joint = width(drawn_means([[one] for one in places], 400)[0])
    strangers = [replace(one, conditions={"speaker": np.char.add(n, one.conditions["speaker"])})
                 for n, one in zip("ab", places, strict=True)]  # fmt: skip
    assert width(drawn_means([[one] for one in strangers], 400)[0]) < 0.85 * joint
    few = places[0].select(np.isin(places[0].conditions["speaker"], ["1", "2"]))
    facts, values = mean_of([[places[0]], [few]], [[0], [0]], 400)
    assert np.isnan(values).any()
    assert facts["interval_over"] == "speakers"
    assert facts["low"] < facts["high"] < 1
    one = [[places[0].select(places[0].conditions["speaker"] == str(n))] for n in range(1, 21)]
    values, over = drawn_means(one, 50)  # hardly a draw of speakers has all of them
    assert over == "trials"
    assert np.isfinite(values).mean() > 0.5


def test_the_deviation_of_a_mean_is_over_the_seeds_that_all_its_places_have():
    tables = [spoken(n, 20, "ab"[n // 2]) for n in range(4)]
    rates = [mean_eer([one], 2)[0][0] for one in tables]
    places = [tables[:2], tables[2:]]
    sd = np.std([(rates[0] + rates[2]) / 2, (rates[1] + rates[3]) / 2], ddof=1)
    assert mean_of(places, [[0, 1], [0, 1]], 9)[0]["sd"] == pytest.approx(sd)
    assert mean_of(places, [[0, 1], [1, 0]], 9)[0]["sd"] != pytest.approx(sd)
    assert mean_of(places, [[0, 1], [0, 2]], 9)[0]["sd"] is None


def test_a_row_has_a_mean_with_its_interval_where_all_of_its_places_have_a_rate(
    varied, tmp_path, monkeypatch
):
    systems, held = ("void", "sub-bass"), ("environment=vehicle",)
    options = Options((varied,), tmp_path, systems=systems, seeds=(0,), held_out=held)
    bench = plan("peers", options)
    for cell in bench.cells:
        name, made = bench.scored(cell).name, bench.records.setdefault(cell.training, {"speeds": {}})
        made |= {"parameters": 7, "epochs": 1, "epoch": 1}
        made["speeds"][name] = 0.1
    numbers = {cell: n for n, cell in enumerate(bench.cells)}
    rated = {cell: 50 if cell.row == "void" and "vehicle" in cell.section else 240 for cell in bench.cells}
    monkeypatch.setattr(
        type(bench), "scores", lambda _, cell: spoken(numbers[cell], 20, cell.column, rated[cell])
    )
    found = page.content_of(bench)
    rates = {(one["section"], one["row"], one["column"]): one["eer"] for one in found["figures"]}
    sections = list(dict.fromkeys(cell.section for cell in bench.cells))
    means = {(one["section"], one["row"]): one for one in found["means"]}
    whole = {(s, row) for s in (*sections, None) for row in ("void", "sub-bass")}
    vehicle = next(name for name in sections if "vehicle" in name)
    assert set(means) == whole - {(vehicle, "void"), (None, "void")}
    for (section, row), mean in means.items():
        places = [rate for (s, r, _), rate in rates.items() if r == row and section in (None, s)]
        assert mean["eer"] == pytest.approx(np.mean(places))
        assert mean["places"] == len(places)
        assert mean["low"] < mean["eer"] < mean["high"]
    text, mean = page.markdown(found), means[None, "sub-bass"]
    assert f"**{100 * mean['eer']:.1f}** [{100 * mean['low']:.1f}, {100 * mean['high']:.1f}] |" in text
    assert "## All" in text
    assert json.loads(json.dumps(found)) == found


def test_few_trials_have_a_count_and_no_rate_and_other_trials_are_refused():
    assert figures_of([row(0)], [table(0, trials=98)])["eer"] is None
    assert figures_of([row(0)], [table(0, trials=100)], draws=20)["eer"] is not None
    with pytest.raises(ValueError, match="different trials"):
        figures_of([row(0), row(1)], [table(0), table(1, trials=100)])


@pytest.mark.parametrize(
    ("system", "allowed", "done", "is_cut"),
    [
        ("nn-single", 100, 100, False),  # the whole schedule
        ("nn-single", 50, 50, True),  # stopped by the limit
        ("nn-single", 50, 36, False),  # its own early stop came before
        ("malrad", 50, 36, True),  # a cosine made shorter ends with the limit in any case
        ("lfcc-gmm", 10, 10, True),
        ("void", 0, 1, False),
    ],
)
def test_undertrained_is_what_was_stopped_before_its_own_stop(system, allowed, done, is_cut):
    assert undertrained(system, allowed, {"epochs": done}) == is_cut
    assert DEFAULTS[system].get("epochs", 100) == 100


def test_undertrained_and_optimistic_and_simulated_stand_on_the_page(finished):
    found = content(finished)
    figures = [
        {
            **one,
            "eer": 0.2,
            "low": 0.1,
            "high": 0.3,
            "sd": 0.01,
            "interval_over": "trials",
            "undertrained": True,
        }
        for one in found["figures"]
    ]
    found |= {"figures": figures, "split": "dev", "scale": 0.1}
    found["corpora"][0]["simulated"] = True
    text = page.markdown(found)
    assert "**20.0** ± 1.0†" in text
    found["columns"] |= {"names": ["D1", "D4"], "mean": True}
    found["figures"] = [one | {"column": array} for one in figures for array in ("D1", "D4")]
    mean = {"section": "closed", "eer": 0.2, "low": 0.15, "high": 0.25, "sd": None}
    found["means"] = [mean | {"row": one["row"]} for one in figures]
    assert "| **20.0**† [15.0, 25.0] |" in page.markdown(found)  # the mean says it too
    assert "† undertrained" in text
    assert "optimistic" in text
    assert "(simulated)" in text.splitlines()[0]
    assert "SIMULATED" in text


def test_what_was_published_stands_in_brackets_and_is_no_comparison(finished):
    found = content(finished)
    one = found["figures"][0] | {"row": "nn-dummy", "eer": 0.2, "low": 0.1, "high": 0.3, "sd": None}
    told = {"section": one["section"], "row": "nn-dummy", "column": "D4", "eer": 25.2}
    beside = {"published": found["published"] | {"eer_percent": [told]}}
    text = page.markdown(found | {"figures": [one | {"interval_over": "trials"}]} | beside)
    assert "**20.0** (25.2)" in text
    assert "context, never the comparison" in text
    assert "context, never" not in page.markdown(found)


def test_the_leak_verdict_is_asked_once_and_a_leak_is_an_exit_code(finished, tmp_path, monkeypatch, capsys):
    probed(finished, tmp_path)
    monkeypatch.setattr(
        "eval.benchmarks.tables.leaks.probe_corpus", lambda *a, **k: pytest.fail("asked again")
    )
    arguments = ["benchmark", "leaks", "--corpus", str(finished.corpus[0]), "--out", str(tmp_path)]
    assert replayguard.main(arguments) == 0
    sentence = content(finished)["leaks"][0]["sentence"]
    assert sentence.startswith("Reported only")
    assert f"{sentence} {leaks.PROBED}" in capsys.readouterr().out
    path = tmp_path / "leaks" / "tiny.json"
    kept = json.loads(path.read_text())
    kept["verdicts"][0] |= {"eer": 0.1, "low": 0.05, "high": 0.2, "gates": True, "genuine": 99, "replay": 99}
    path.write_text(json.dumps(kept))
    assert replayguard.main(arguments) == 1
    assert "1 of" in capsys.readouterr().out
    assert "**failed**" in (tmp_path / "leaks.md").read_text()


def test_a_verdict_left_with_the_corpus_is_taken_while_nothing_that_it_was_made_of_is_newer(
    tiny, tmp_path, monkeypatch
):
    asked, whole = [], Corpus.from_meta(tiny)
    root = views.write_view(tmp_path / "tiny", whole, partitions(whole))
    (root / "scenes.jsonl").write_text("{}\n")
    corpus = Corpus.from_meta(root)
    monkeypatch.setattr("eval.card.write_card", lambda root: None)
    monkeypatch.setattr("eval.benchmarks.tables.leaks.probe_corpus", lambda *a, **k: asked.append(a) or [])
    told = [Verdict("D4", "level", 0.5, 0.4, 0.6, (0.45, 0.55), 1000, 1000, True)]
    keep_verdicts(root, told)

    def found(name):
        return leaks.verdicts(corpus, tmp_path / name, 1, False)

    assert found("a") == found("a") == (told, leaks.LEFT)  # and it is kept with the tables
    assert not asked
    left, later = root / card.PROBES, time.time_ns() + 10**9
    for number, newer in enumerate((tiny / corpus[0].path.relative_to(root), root / "core" / "meta.csv")):
        before = newer.stat().st_mtime_ns
        os.utime(newer, ns=(later, later))
        assert found(f"newer{number}") == ([], leaks.PROBED)
        os.utime(newer, ns=(before, before))
    with monkeypatch.context() as newer:
        for module in (leaks, card):
            newer.setattr(module, "VERSION", 2)
        assert found("other-probes") == ([], leaks.PROBED)
        assert len(asked) == 3
        assert found("a") == ([], leaks.PROBED)  # nor what these tables kept is of these probes
    os.utime(left, ns=(later, later))
    assert found("again") == (told, leaks.LEFT)
    (root / "scenes.jsonl").write_text("{}\n{}\n")  # another corpus
    os.utime(root / "scenes.jsonl", ns=(1, 1))
    assert found("another") == ([], leaks.PROBED)


def test_another_corpus_is_probed_anew(finished, tmp_path, monkeypatch):
    probed(finished, tmp_path)
    (corpus,) = plan("peers", finished).corpora
    fewer = corpus.replace(corpus.recordings[:-1])
    asked = []
    monkeypatch.setattr("eval.benchmarks.tables.leaks.probe_corpus", lambda *a, **k: asked.append(a) or [])
    leaks.verdicts(fewer, tmp_path, 1, False)
    assert asked


def test_a_training_is_named_after_what_makes_it_another(tiny):
    base = Training(tiny, "malrad", "D4", 0)
    others = [
        Training(tiny, "malrad", "D4", 1),
        Training(tiny, "malrad", "D4", 0, only=(("environment", ("vehicle",)),)),
        Training(tiny, "malrad", "D4", 0, without=(("environment", ("vehicle",)),)),
        Training(tiny, "malrad", "D4", 0, target="D4", minutes=10.0),
        Training(tiny, "malrad", "D4", 0, channels="1-4"),
        Training(tiny, "malrad", "D4", 0, filters=8),
    ]
    assert len({training.name for training in (base, *others)}) == len(others) + 1
    assert base.name == "malrad-D4-seed0"


def test_time_left_is_the_mean_of_what_was_done(monkeypatch):
    monkeypatch.setattr(engine.time, "monotonic", lambda: 600.0)
    assert engine._time_left(0.0, 2, 8) == "; about 30 min left"
    assert engine._time_left(0.0, 8, 8) == ""
