"""The metrics equal their golden values and slow definitions, and obey their laws on seeded draws."""

import ast
import doctest
import json
import time
from pathlib import Path

import numpy as np
import pytest

from eval import metrics
from eval.metrics import (
    act_dcf,
    apcer_bpcer,
    bootstrap_interval,
    cllr,
    decision_threshold,
    det_curve,
    eer,
    eer_rocch,
    min_cllr,
    min_dcf,
    min_tdcf,
    p_miss_at,
    resampled_counts,
    validate,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "metrics.json").read_text())["rows"]
ASV = {"p_miss_asv": 0.02, "p_fa_asv": 0.03, "p_miss_spoof_asv": 0.4}


def draw(seed: int, tied: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A few to a few hundred scores of each class, overlapping by chance; `tied` on a grid of few values."""
    rng = np.random.default_rng(seed)
    genuine = rng.normal(rng.uniform(-0.5, 2), 1, rng.integers(1, 300))
    replay = rng.normal(0, rng.uniform(0.5, 2), rng.integers(1, 300))
    return (np.round(genuine), np.round(replay)) if tied else (genuine, replay)


DRAWS = pytest.mark.parametrize(
    ("seed", "tied"), [(seed, tied) for seed in range(12) for tied in (False, True)]
)


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"seed{row['seed']}")
def test_golden(row):
    rng = np.random.default_rng(row["seed"])
    genuine = rng.normal(row["mu"], 1, row["n_bonafide"])
    replay = rng.normal(-row["mu"], row["sd"], row["n_spoof"])
    exact = {"abs": 1e-9, "rel": 0}
    assert eer(genuine, replay) == pytest.approx((row["eer"], row["eer_threshold"]), **exact)
    assert min_dcf(genuine, replay)[0] == pytest.approx(row["min_dcf"], **exact)
    assert act_dcf(genuine, replay) == pytest.approx(row["act_dcf"], **exact)
    assert cllr(genuine, replay) == pytest.approx(row["cllr"], **exact)


@DRAWS
def test_det_curve_equals_counting(seed, tied):
    genuine, replay = draw(seed, tied)
    p_miss, p_fa, thresholds = det_curve(genuine, replay)
    assert thresholds[1:].tolist() == sorted({*genuine, *replay})
    assert thresholds[0] < thresholds[1]
    for miss, fa, threshold in zip(p_miss, p_fa, thresholds, strict=True):
        assert miss == np.mean(~(genuine > threshold))
        assert fa == np.mean(replay > threshold)


@DRAWS
def test_points_are_the_best_of_the_curve(seed, tied):
    genuine, replay = draw(seed, tied)
    p_miss, p_fa, thresholds = det_curve(genuine, replay)
    rate, threshold = eer(genuine, replay)
    at = int(np.flatnonzero(thresholds == threshold)[0])
    assert abs(p_miss[at] - p_fa[at]) == np.abs(p_miss - p_fa).min()
    assert rate == pytest.approx((p_miss[at] + p_fa[at]) / 2)
    for target in (0.0, 0.01, 0.3, 1.0):
        miss, threshold = p_miss_at(genuine, replay, target)
        assert miss == p_miss[p_fa <= target].min() == np.mean(genuine <= threshold)
    cost, threshold = min_dcf(genuine, replay, p_spoof=0.3, c_fa=2)
    found = 0.7 * np.mean(genuine <= threshold) + 0.6 * np.mean(replay > threshold)
    assert cost == pytest.approx(found / 0.6)
    assert cost <= 1 + 1e-12


@DRAWS
def test_only_the_order_of_scores_matters(seed, tied):
    genuine, replay = draw(seed, tied)
    rng = np.random.default_rng(seed)
    stretched = rng.permutation(np.exp(genuine / 3) - 5), rng.permutation(np.exp(replay / 3) - 5)
    for metric in (eer, eer_rocch, min_cllr, min_dcf, lambda g, r: min_tdcf(g, r, **ASV)):
        assert np.ravel(metric(*stretched))[0] == pytest.approx(
            np.ravel(metric(genuine, replay))[0], abs=1e-12
        )


@pytest.mark.parametrize("value", [0.0, -3.5, 1e300])
def test_constant_scores_say_nothing(value):
    genuine, replay = np.full(7, value), np.full(40, value)
    assert len(det_curve(genuine, replay)[0]) == 2
    assert eer(genuine, replay)[0] == eer_rocch(genuine, replay) == 0.5
    assert min_cllr(genuine, replay) == pytest.approx(1)
    assert min_dcf(genuine, replay)[0] == pytest.approx(1)


def test_separable_and_reversed_classes():
    low, high = np.arange(5.0), np.arange(10.0, 30.0)
    assert eer(high, low)[0] == eer_rocch(high, low) == min_cllr(high, low) == min_dcf(high, low)[0] == 0
    assert eer(low, high)[0] == 1
    assert eer_rocch(low, high) == pytest.approx(0.5)
    assert min_cllr(low, high) == pytest.approx(1)


def slow_pav(genuine: np.ndarray, replay: np.ndarray) -> list[tuple[int, int]]:
    """Pools (genuine, replay counts) of isotonic regression, one trial after the other."""
    pools = []
    for value in sorted({*genuine, *replay}):
        pools.append((int((genuine == value).sum()), int((replay == value).sum())))
        while len(pools) > 1 and pools[-2][0] * sum(pools[-1]) >= pools[-1][0] * sum(pools[-2]):
            last = pools.pop()
            pools[-1] = (pools[-1][0] + last[0], pools[-1][1] + last[1])
    return pools


@DRAWS
def test_min_cllr_equals_slow_pav(seed, tied):
    genuine, replay = draw(seed, tied)
    bits = 0.0
    for of_genuine, of_replay in slow_pav(genuine, replay):
        p, q = of_genuine / len(genuine), of_replay / len(replay)
        bits += p * np.log2(1 + q / p) if p else 0
        bits += q * np.log2(1 + p / q) if q else 0
    assert min_cllr(genuine, replay) == pytest.approx(bits / 2)
    assert min_cllr(genuine, replay) <= min(1 + 1e-12, cllr(genuine, replay))


@DRAWS
def test_eer_rocch_is_the_worst_prior_of_the_hull(seed, tied):
    # the crossing of the hull with p_miss = p_fa is the largest Bayes error over all priors
    genuine, replay = draw(seed, tied)
    p_miss, p_fa, _ = det_curve(genuine, replay)
    priors = np.linspace(0, 1, 4001)[:, None]
    bayes = (priors * p_miss + (1 - priors) * p_fa).min(axis=1)
    assert eer_rocch(genuine, replay) == pytest.approx(bayes.max(), abs=1e-3)
    assert bayes.max() <= eer_rocch(genuine, replay) + 1e-12


@DRAWS
def test_calibrated_costs_are_at_least_the_best(seed, tied):
    genuine, replay = draw(seed, tied)
    assert act_dcf(genuine, replay) >= min_dcf(genuine, replay)[0] - 1e-12
    assert cllr(np.zeros(3), np.zeros(5)) == pytest.approx(1)
    threshold = np.log(0.05 * 10 / 0.95)
    assert act_dcf(genuine - 1e6, replay - 1e6) == pytest.approx(0.95 / 0.5)  # rejects everybody
    assert act_dcf([threshold + 1e-6], [threshold - 1e-6]) == 0


def test_cllr_of_huge_ratios_is_finite():
    assert cllr([1e6], [-1e6]) == 0
    assert cllr([-1e6], [1e6]) == pytest.approx(1e6 / np.log(2))


def slow_tdcf(genuine, replay, form):
    """The two forms with their published cost models, threshold by threshold."""
    p_spoof, p_target, p_non = 0.05, 0.95 * 0.99, 0.95 * 0.01
    floor = p_target * ASV["p_miss_asv"] + p_non * 10 * ASV["p_fa_asv"]
    c0, c1 = (0, p_target - floor) if form == "2019" else (floor, p_target - floor)
    c2 = 10 * p_spoof * (1 - ASV["p_miss_spoof_asv"])
    thresholds = [-np.inf, *genuine, *replay]
    return min(c0 + c1 * np.mean(genuine <= t) + c2 * np.mean(replay > t) for t in thresholds) / (
        c0 + min(c1, c2)
    )


@pytest.mark.parametrize("form", ["2019", "2021"])
@DRAWS
def test_min_tdcf(seed, tied, form):
    genuine, replay = draw(seed, tied)
    cost, threshold = min_tdcf(genuine, replay, **ASV, form=form)
    assert cost == pytest.approx(slow_tdcf(genuine, replay, form))
    assert threshold in det_curve(genuine, replay)[2]


def test_min_tdcf_ends():
    perfect = np.array([1.0]), np.array([0.0])
    assert min_tdcf(*perfect, **ASV)[0] == 0
    assert 0 < min_tdcf(*perfect, **ASV, form="2021")[0] < 1  # the ASV's own errors stay
    assert min_tdcf([0.0], [1.0], **ASV)[0] == min_tdcf([0.0], [1.0], **ASV, form="2021")[0] == 1
    with pytest.raises(ValueError, match="not a percentage"):
        min_tdcf(*perfect, p_miss_asv=2, p_fa_asv=0, p_miss_spoof_asv=0)
    with pytest.raises(ValueError, match="known: '2019', '2021'"):
        min_tdcf(*perfect, **ASV, form="2020")
    for cost in (1.0, 3.0):
        with pytest.raises(ValueError, match="c_miss_asv; leave c_miss out"):
            min_tdcf(*perfect, **ASV, form="2021", c_miss=cost)
    assert min_tdcf(*draw(1), **ASV, c_miss=1.0) == min_tdcf(*draw(1), **ASV)
    for name in ("p_spoof", "p_target", "p_nontarget"):
        for prior in (-0.01, 1.5, np.nan):
            with pytest.raises(ValueError, match=f"{name} is {prior}; expected a prior"):
                min_tdcf(*perfect, **ASV, **{name: prior})
    for name in ("c_miss", "c_fa", "c_miss_asv", "c_fa_asv"):
        with pytest.raises(ValueError, match="not all positive"):
            min_tdcf(*perfect, **ASV, **{name: -1.0})
    with pytest.raises(ValueError, match="leave nothing to gain"):
        min_tdcf(*perfect, p_miss_asv=1, p_fa_asv=1, p_miss_spoof_asv=0)


@DRAWS
def test_a_decision_is_the_sweep_one_float_above(seed, tied):
    genuine, replay = draw(seed, tied)
    _, sweep = p_miss_at(genuine, replay, 0.1)
    threshold = decision_threshold(sweep)
    assert np.array_equal(replay >= threshold, replay > sweep)
    devices = np.array(["a", "b", "c"])[np.arange(len(replay)) % 3]
    errors = apcer_bpcer(genuine, replay, devices, threshold)
    for device in np.unique(devices):
        assert errors.apcer[device] == np.mean(replay[devices == device] > sweep)
    assert errors.apcer_max == max(errors.apcer.values()) >= np.mean(replay > sweep) - 1e-12
    assert errors.bpcer == np.mean(genuine <= sweep)


BAD = [[], [[1.0]], [np.nan], [np.inf], 3.0, ["a"], [1j], None]


@pytest.mark.parametrize("bad", BAD, ids=repr)
@pytest.mark.parametrize("metric", [det_curve, eer, eer_rocch, cllr, min_cllr, min_dcf, act_dcf, validate])
def test_bad_scores_are_refused(metric, bad):
    with pytest.raises(ValueError, match="genuine"):
        metric(bad, [1.0])
    with pytest.raises(ValueError, match="replay"):
        metric([1.0], bad)


def test_bad_arguments_are_refused():
    one = [0.0], [1.0]
    for call in (
        lambda: min_dcf(*one, p_spoof=5),
        lambda: act_dcf(*one, c_fa=0),
        lambda: p_miss_at(*one, 5),
        lambda: apcer_bpcer(*one, ["a", "b"], 0.0),
        lambda: bootstrap_interval(*one, eer, n=0),
        lambda: bootstrap_interval(*one, eer, level=95),
        lambda: bootstrap_interval(*one, eer, groups=([1, 2], [3])),
        lambda: bootstrap_interval(*one, eer, groups=[1, 2, 3]),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    truth, hits, repeats = 0.30854, 0, 120  # of two unit normals 1 apart: the normal tail beyond 0.5
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        genuine, replay = rng.normal(1, 1, 200), rng.normal(0, 1, 300)
        low, high = bootstrap_interval(genuine, replay, eer, n=200, seed=seed)
        hits += low <= truth <= high
    assert 0.88 <= hits / repeats <= 0.99


def test_bootstrap_is_seeded_and_nested():
    genuine, replay = draw(5)
    a = bootstrap_interval(genuine, replay, eer, n=200, seed=1)
    assert a == bootstrap_interval(genuine, replay, eer, n=200, seed=1)
    assert a != bootstrap_interval(genuine, replay, eer, n=200, seed=2)
    wide = bootstrap_interval(genuine, replay, eer, n=200, seed=1, level=0.99)
    assert wide[0] <= a[0] <= eer(genuine, replay)[0] <= a[1] <= wide[1]


def test_bootstrap_of_a_mean_is_its_standard_error():
    rng = np.random.default_rng(0)
    genuine, replay = rng.normal(0, 1, 400), rng.normal(0, 1, 100)
    low, high = bootstrap_interval(genuine, replay, lambda g, r: float(g.mean() - r.mean()), n=4000)
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(1 / 400 + 1 / 100), rel=0.12)


def test_whole_groups_are_drawn():
    groups = np.array([0, 0, 1, 1, 2]), np.array([2, 2, 7, 8, 8, 8])
    for of_genuine, of_replay in resampled_counts(5, 6, n=50, groups=groups, seed=3):
        counts = {}
        for group, count in zip(np.concatenate(groups), [*of_genuine, *of_replay], strict=True):
            assert counts.setdefault(group, count) == count
        # groups of genuine trials only (0, 1), of replays only (7, 8), and of both (2) are drawn apart
        assert counts[0] + counts[1] == 2 == counts[7] + counts[8]
        assert counts[2] == 1


def test_groups_widen_the_interval_where_speakers_differ():
    rng = np.random.default_rng(0)
    speaker = np.arange(600) % 12
    lift = rng.normal(0, 1, 12)[speaker]
    genuine, replay = 1 + lift + rng.normal(0, 0.3, 600), -1 + rng.normal(0, 1, 600)
    by_trial = np.diff(bootstrap_interval(genuine, replay, eer, n=300))
    by_speaker = np.diff(bootstrap_interval(genuine, replay, eer, n=300, groups=(speaker, speaker + 100)))
    assert by_speaker > 2 * by_trial


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (
            ([1, 2, 3], [1]),
            "groups name 3 and 1 trials; expected one group for each of 3 genuine and 2 replay",
        ),
        ([1, 2, 3, 4], "groups name 4 trials"),
        ((), "groups name 0 trials"),
        (([1, 2, 3, 1], [1]), "groups name 4 and 1"),
        (np.ones((2, 5)), "groups"),
        ("speaker", "no sequence"),
        (7, "no sequence"),
        ({"a": 1}, "no sequence"),
        ((name for name in "abcde"), "no sequence"),
        ((["a", "b", "c"], 5), "no sequence"),
        ([["a", "b"], ["c"], ["d", "e"]], "no sequence"),
        ((["a", None, "c"], ["a", "b"]), "no sequence"),
        (["one"] * 5, "groups name 1 in all"),
        ((["one"] * 3, ["other"] * 2), "groups name 2 in all"),
    ],
    ids=repr,
)
def test_mistakes_in_groups_are_one_sentence(groups, said):
    with pytest.raises(ValueError, match=said) as error:
        bootstrap_interval([1.0, 2.0, 3.0], [0.0, 1.0], eer, n=5, groups=groups)
    assert str(error.value).isprintable()


def test_groups_given_as_one_array_are_genuine_then_replay():
    genuine, replay = draw(7)
    groups = np.arange(len(genuine)) % 9, np.arange(len(replay)) % 9
    apart = bootstrap_interval(genuine, replay, eer, n=50, groups=groups)
    assert apart == bootstrap_interval(genuine, replay, eer, n=50, groups=np.concatenate(groups))
    named = tuple(np.array([f"s{i}" for i in part]) for part in groups)
    assert apart == bootstrap_interval(genuine, replay, eer, n=50, groups=named)


def test_bootstrap_of_a_whole_evaluation_takes_seconds():
    rng = np.random.default_rng(0)
    genuine, replay = rng.normal(1, 1, 2118), rng.normal(-1, 1, 14162)
    start = time.perf_counter()
    bootstrap_interval(genuine, replay, eer, n=200)
    assert time.perf_counter() - start < 4  # a fifth of the draws; 0.1 s on an idle core


def test_metrics_import_numpy_alone():
    tree = ast.parse(Path(metrics.__file__).read_text())
    imported = {
        (name.name if isinstance(node, ast.Import) else node.module).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert imported <= {"__future__", "math", "collections", "typing", "numpy"}


def test_examples_in_the_docstrings():
    result = doctest.testmod(metrics)
    assert result.attempted >= 3
    assert result.failed == 0
