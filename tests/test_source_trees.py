"""Laws of the stored trees: the same answers as what grew them, and Shapley values as they are defined."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from detector.source.trees import Trees, _down


def grown(classes: int = 2, seed: int = 0, cues: int = 5, rounds: int = 12):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(400, cues)).astype(np.float32)
    x[rng.random(x.shape) < 0.15] = np.nan
    full = np.nan_to_num(x)
    y = np.digitize(full[:, 0] * full[:, 1] + full[:, 2], np.linspace(-0.5, 0.5, classes - 1))
    model = HistGradientBoostingClassifier(
        max_iter=rounds, max_leaf_nodes=8, early_stopping=False, random_state=seed
    )
    return model.fit(x, y), x


@pytest.mark.parametrize("classes", [2, 4])
def test_stored_trees_answer_as_scikit_learn_does(classes):
    model, x = grown(classes)
    trees = Trees.from_sklearn(model)
    rng = np.random.default_rng(1)
    other = rng.normal(size=(500, 5)).astype(np.float32)
    on_threshold = trees.threshold[trees.feature >= 0][:50, None].repeat(5, axis=1)
    for sample in (x[np.isfinite(x).all(axis=1)], other, on_threshold):
        known = model.decision_function(sample).reshape(len(sample), -1)
        assert trees.predict(sample) == pytest.approx(known, abs=1e-5)


def test_a_rounded_threshold_sends_every_float32_the_same_way():
    rng = np.random.default_rng(2)
    thresholds = rng.normal(size=2000) * 10.0 ** rng.integers(-8, 8, 2000)
    rounded = _down(thresholds)
    assert (rounded <= thresholds).all()
    assert (np.nextafter(rounded, np.float32(np.inf)).astype(float) > thresholds).all()


def of_known(trees: Trees, x: np.ndarray, known: set[int], output: int) -> float:
    """The prediction where only some cues are known: of the others both ways, by the training's shares."""

    def below(node: int) -> float:
        cue = trees.feature[node]
        if cue < 0:
            return float(trees.value[node])
        left, right = trees.left[node], trees.right[node]
        if cue in known and not np.isnan(x[cue]):
            return below(left if x[cue] <= trees.threshold[node] else right)
        share = trees.count[left] / trees.count[node]
        return share * below(left) + (1 - share) * below(right)

    roots = trees.root[trees.output == output]
    return float(trees.baseline[output]) + sum(below(root) for root in roots)


@pytest.mark.parametrize("classes", [2, 3])
def test_shapley_values_are_those_of_the_definition(classes):
    model, x = grown(classes, seed=3, cues=4, rounds=4)
    trees = Trees.from_sklearn(model)
    for sample in (x[0], x[1], np.array([np.nan, 0.3, np.nan, -1], np.float32)):
        found = trees.shapley(sample)
        for output in range(found.shape[1]):
            for cue in range(4):
                others = [c for c in range(4) if c != cue]
                value = 0.0
                for size in range(4):
                    for subset in combinations(others, size):
                        gain = of_known(trees, sample, {*subset, cue}, output)
                        gain -= of_known(trees, sample, set(subset), output)
                        value += gain / (4 * comb(3, size))
                assert found[cue, output] == pytest.approx(value, abs=1e-6)


def test_shapley_values_sum_to_the_prediction():
    model, x = grown(seed=4)
    trees = Trees.from_sklearn(model)
    expected = trees.expected()
    for sample in x[:20]:
        total = trees.shapley(sample).sum(axis=0) + expected
        assert total == pytest.approx(trees.predict(sample[None])[0], abs=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_an_undefined_cue_tells_nothing(classes):
    model, x = grown(classes, seed=6)
    trees = Trees.from_sklearn(model)
    nothing = np.full(5, np.nan, np.float32)
    assert trees.predict(nothing[None])[0] == pytest.approx(trees.expected(), abs=1e-6)
    assert (trees.shapley(nothing) == 0).all()
    for sample in x[:20]:
        hidden = np.where(np.arange(5) == 2, np.nan, sample)
        assert (trees.shapley(hidden)[np.isnan(hidden)] == 0).all()
        for output, told in enumerate(trees.predict(hidden[None])[0]):
            defined = set(np.flatnonzero(np.isfinite(hidden)).tolist())
            assert told == pytest.approx(of_known(trees, hidden, defined, output), abs=1e-6)


def test_a_cue_that_no_tree_asks_for_has_no_part():
    model, x = grown(seed=5)
    trees = Trees.from_sklearn(model)
    wide = np.concatenate([x[0], [7.0]]).astype(np.float32)
    assert (trees.shapley(wide)[5] == 0).all()


def test_damaged_trees_are_refused():
    arrays = Trees.from_sklearn(grown()[0]).arrays()
    endless = arrays | {"left": np.zeros_like(arrays["left"])}
    with pytest.raises(ValueError, match="damaged"):
        Trees(**endless)
    for name, value in (("right", 10**6), ("output", 7), ("root", -1), ("count", 0)):
        with pytest.raises(ValueError, match="damaged"):
            Trees(**arrays | {name: np.full_like(arrays[name], value)})
    with pytest.raises(ValueError, match="damaged"):
        Trees(**arrays | {"value": np.full_like(arrays["value"], np.nan)})
