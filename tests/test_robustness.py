"""Systems are compared clip by clip; what counts of each is its strongest attack."""

import pytest
from tiny_corpus import make_corpus

from eval.benchmarks.robustness import Arguments, System, compared, main, task_of
from streaming.attack.campaign import Plan


def kept(accepted: list[float], rejected: list[float]) -> System:
    speakers = [str(k % 10) for k in range(len(accepted))]
    return System({}, accepted, speakers, rejected, [str(k % 10) for k in range(len(rejected))])


def test_a_system_is_compared_with_the_first_on_the_same_clips():
    first = kept([1.0] * 30 + [0.0] * 30, [1.0] * 40 + [0.0] * 60)
    other = kept([1.0] * 10 + [0.0] * 50, [1.0] * 44 + [0.0] * 56)
    found = compared(other, first)
    assert found["p_fa_of_the_first"]["value"] == pytest.approx(1 / 3)
    assert found["p_miss_of_the_first"]["value"] == pytest.approx(1.1)
    itself = compared(first, first)["p_fa_of_the_first"]
    assert (itself["low"], itself["value"], itself["high"]) == (1, 1, 1)
    assert compared(other, kept([0.0] * 60, [0.0] * 100)) == dict.fromkeys(found)  # nothing to compare with


def test_only_defences_that_draw_numbers_are_asked_several_times(tmp_path):
    arguments = Arguments(tmp_path, tmp_path, draws=4, repeats=5)
    tasks = {name: task_of(arguments, "default", name, Plan()) for name in arguments.defences}
    asked = {name: (task.draws, task.repeats) for name, task in tasks.items()}
    assert {name for name, times in asked.items() if times == (4, 5)} == {
        "windows",
        "noise",
        "limiter+windows",
    }
    assert asked["none"] == asked["limiter"] == asked["parts"] == asked["source"] == (1, 1)
    assert (tasks["source"].defence, tasks["source"].partner) == ("ensemble", "source")
    assert not any(task.own_threshold for task in tasks.values())  # all are set alike


@pytest.mark.slow
def test_from_names_to_the_comparison(tmp_path):
    make_corpus(tmp_path / "corpus", clips=64, seconds=0.6)
    arguments = Arguments(
        tmp_path / "corpus", tmp_path / "out", defences=("none", "limiter"), clips=1, genuine=2, training=1,
        dev_clips=1, attacks=("none", "random", "pgd"), iterations=2,
    )  # fmt: skip
    lines = main(arguments)
    assert list(lines) == ["default, none", "default, limiter"]
    assert all("not attacked" in line["origin"] for line in lines.values())
    text = (tmp_path / "out" / "robustness.md").read_text()
    assert text.count("| default, ") == 2
    assert main(arguments) == lines  # it resumes, and says the same
