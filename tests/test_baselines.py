"""Peers without a network: features against plain formulas, decisions against scikit-learn, the same commands."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.fft import dct
from scipy.interpolate import CubicSpline
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.svm import SVC

import detector
from detector.baselines import (
    BASELINES,
    CQCCGMM,
    LFCCGMM,
    StereoGCC,
    SubBass,
    Void,
    cepstra,
    cues,
    features,
    gmm,
    peers,
)
from detector.checkpoint import load_checkpoint, save_checkpoint
from detector.config import BASELINES as NAMES
from detector.config import TrainConfig
from detector.train import train
from remasc import Corpus, read_audio
from tests.tiny_corpus import make_corpus

RNG = np.random.default_rng(5)
NOISE = 0.1 * RNG.standard_normal(8000)


def sine(hertz: float, seconds: float, rate: int = 16000) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def recordings(count: int, mics: int = 2, rate: int = 16000) -> tuple[list, np.ndarray]:
    """Pairs (waveform, rate): the genuine ones are brighter, and their microphones hear noise of their own."""
    rng = np.random.default_rng(11)
    genuine, pairs = np.arange(count) % 2, []
    for label in genuine:
        x = 0.1 * rng.standard_normal((mics, rate // 2))
        x = np.diff(x, axis=1) if label else x + rng.standard_normal(rate // 2)
        pairs.append((x.astype(np.float32), rate))
    return pairs, genuine


# --- features


@pytest.mark.parametrize("cepstrum", [cepstra.lfcc, cepstra.cqcc])
def test_level_moves_the_zeroth_cepstrum_alone(cepstrum):
    columns = cepstrum(NOISE).shape[1] // 3
    change = cepstrum(0.5 * NOISE) - cepstrum(NOISE)
    assert np.ptp(change[:, 0]) < 1e-6
    assert change[0, 0] < -1
    np.testing.assert_allclose(np.delete(change, 0, axis=1), 0, atol=1e-6)
    assert columns == {"lfcc": 20, "cqcc": 30}[cepstrum.__name__]


def test_a_sine_lies_in_its_bin_with_half_its_amplitude_however_long_it_is():
    hertz = cepstra.FMIN * 2 ** (600 / 96)
    for seconds in (0.7, 1.9):
        found = np.abs(cepstra.constant_q(0.3 * sine(hertz, seconds)))
        inner = found[:, 15:-15]  # a bin hears 0.1 s around a moment
        assert abs(inner.mean(axis=1).argmax() - 600) <= 1
        np.testing.assert_allclose(inner[600], 0.15, rtol=0.02)
        assert inner[540].max() < 0.002


def test_cqcc_are_the_spline_and_the_cosine_transform_of_the_log_power():
    power = np.log(np.abs(cepstra.constant_q(NOISE)) ** 2 + cepstra.EPS)
    frequency = cepstra.FMIN * 2 ** (np.arange(len(power)) / 96)
    axis = np.arange(frequency[0], frequency[-1], cepstra.FMIN / 16)
    plain = dct(CubicSpline(frequency, power[:, 7])(axis), norm="ortho")[:30]
    np.testing.assert_allclose(cepstra.cqcc(NOISE)[7, :30], plain, atol=1e-8)


def test_lpcc_are_the_cepstrum_of_the_predictor():
    x = np.convolve(NOISE, [1, 0.9, 0.5])[:8000]
    r = np.array([x[: 8000 - k] @ x[k:] for k in range(13)])
    a = np.linalg.solve(r[np.abs(np.subtract.outer(np.arange(12), np.arange(12)))], r[1:])
    spectrum = np.fft.rfft(np.concatenate([[1], -a]), 4096)
    plain = np.fft.irfft(-2 * np.log(np.abs(spectrum)))[1:13]
    np.testing.assert_allclose(cues.void_features(x)[-12:], plain, atol=1e-6)


def test_void_has_97_numbers_that_know_no_level():
    found = cues.void_features(NOISE)
    assert found.shape == (97,)
    np.testing.assert_allclose(cues.void_features(0.01 * NOISE), found, rtol=1e-6, atol=1e-9)
    tones = cues.void_features(sine(1000, 0.5) + sine(3000, 0.5) + 0.1 * sine(4500, 0.5))
    assert tones[50] == 2  # the third is below 0.3 of the highest
    assert tones[51] == pytest.approx((1000 + 3000) / 2 / (14 * 16000 / 2048), abs=1)
    assert np.isfinite(cues.void_features(np.zeros(4000))).all()


def test_the_bass_is_what_lies_below_the_voice():
    low, high = sine(40, 1), sine(200, 1)
    assert cues.bass_balance(low)[0] > -0.05
    assert cues.bass_balance(high)[0] < -5
    assert cues.bass_balance(low + high)[0] == pytest.approx(np.log(0.5), abs=0.05)


def test_coherence_is_heard_between_the_words():
    own = 0.01 * RNG.standard_normal((3, 16000))
    words = np.where(np.arange(16000) // 4000 % 2, 1.0, 0.0) * RNG.standard_normal(16000)
    person = cues.quiet_coherence(own + words, 16000)
    device = cues.quiet_coherence(own + words + 0.02 * RNG.standard_normal(16000), 16000)
    assert device[0] > person[0] + 0.5
    assert cues.quiet_coherence(0.01 * (own + words), 16000) == pytest.approx(person)
    with pytest.raises(ValueError, match="two microphones"):
        cues.quiet_coherence(own[:1], 16000)


@pytest.mark.parametrize("kind", BASELINES.values())
def test_features_of_anything_are_finite(kind):
    for x in (np.zeros((2, 3000)), np.ones((2, 3000)), np.eye(2, 3000), RNG.standard_normal((2, 5))):
        found = kind.features(x.astype(np.float32), 16000)
        assert found.shape[-1] == kind.columns
        assert np.isfinite(found).all()


# --- what is learnt


def test_expectation_maximisation_is_scikit_learns(monkeypatch):
    x = torch.from_numpy(RNG.standard_normal((900, 4)) * [1, 2, 0.5, 1] + RNG.integers(0, 3, (900, 1)) * 2)
    start = ours = gmm.first_mixture(x, 5, 0)
    theirs = GaussianMixture(
        5,
        covariance_type="diag",
        reg_covar=gmm.FLOOR,
        max_iter=7,
        tol=0,
        weights_init=start.weights.numpy(),
        means_init=start.means.numpy(),
        precisions_init=1 / start.variances.numpy(),
    )
    with pytest.warns(UserWarning, match="did not converge"):
        theirs.fit(x.numpy())
    monkeypatch.setattr(gmm, "CHUNK", 100)
    before = -np.inf
    for _ in range(7):
        ours, likelihood = gmm.improved(ours, x)
        assert likelihood > before
        before = likelihood
    np.testing.assert_allclose(ours.means, theirs.means_, atol=1e-6)
    np.testing.assert_allclose(ours.variances, theirs.covariances_, atol=1e-6)
    np.testing.assert_allclose(ours.weights, theirs.weights_, atol=1e-6)
    np.testing.assert_allclose(ours.log_density(x), theirs.score_samples(x.numpy()), atol=1e-6)


def test_the_fit_stops_by_itself_goes_on_where_it_was_and_belongs_to_its_seed():
    x = torch.from_numpy(RNG.standard_normal((600, 3)))
    one, end = gmm.advance(gmm.first_mixture(x, 4, 3), gmm.Standing(), x, 500)
    assert end.stopped
    assert 2 < end.iterations < 500
    half, way = gmm.advance(gmm.first_mixture(x, 4, 3), gmm.Standing(), x, 2)
    assert (way.iterations, way.stopped) == (2, False)
    other, there = gmm.advance(half, way, x, 500)
    assert there == end
    assert torch.equal(other.means, one.means)
    assert not torch.equal(gmm.first_mixture(x, 4, 4).means, gmm.first_mixture(x, 4, 3).means)


def test_the_mixtures_score_is_the_mean_ratio_of_a_frame():
    parts = [RNG.standard_normal((60, 60)) + 0.3 * (n % 2) for n in range(6)]
    network = LFCCGMM(components=3).fit(parts, [n % 2 for n in range(6)])
    x = network.standardised(torch.from_numpy(parts[0]).float())
    means = []
    for column in (0, 1):
        theirs = GaussianMixture(3, covariance_type="diag")
        theirs.weights_, theirs.means_ = network.weights[column].numpy(), network.means[column].numpy()
        theirs.precisions_cholesky_ = network.variances[column].rsqrt().numpy()
        means.append(theirs.score_samples(x.numpy()).mean())
    assert float(network.decide_features(parts[0])) == pytest.approx(means[0] - means[1], abs=1e-6)
    assert network.decide_features(parts[0]) < 0 < network.decide_features(parts[1])


def test_voids_score_is_the_decision_of_its_support_vectors():
    x, genuine = RNG.standard_normal((40, 97)), np.arange(40) % 2
    x[genuine == 1, :5] += 1
    network = Void().fit(list(x), genuine, cost=3.0, gamma=0.02)
    x = x.astype(np.float32).astype(np.float64)
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    theirs = SVC(C=3.0, gamma=0.02, class_weight="balanced").fit(standard, genuine)
    scores = [float(network.decide_features(row)) for row in x]
    np.testing.assert_allclose(scores, theirs.decision_function(standard), atol=1e-6)


def test_a_cues_score_is_its_logistic_regression():
    x, genuine = RNG.standard_normal((40, 1)), np.arange(40) % 2
    x[genuine == 1] -= 1
    network = SubBass().fit(list(x), genuine)
    standard = (x - x.mean()) / x.std()
    theirs = LogisticRegression(class_weight="balanced").fit(standard, genuine)
    scores = [float(network.decide_features(row)) for row in x]
    np.testing.assert_allclose(scores, theirs.decision_function(standard), atol=1e-6)


# --- one interface


def build(kind):
    few = {"components": 8} if kind in (LFCCGMM, CQCCGMM) else {}
    return kind(2, 16000, **few) if kind is StereoGCC else kind(**few)


@pytest.mark.parametrize("kind", [LFCCGMM, CQCCGMM, Void, StereoGCC])
def test_fitted_saved_and_loaded_it_tells_what_it_learnt(kind, tmp_path):
    pairs, genuine = recordings(12)
    network = build(kind).fit(pairs[:8], genuine[:8])
    scores = np.array([network.score(*pair) for pair in pairs[8:]])
    assert scores[genuine[8:] == 1].min() > scores[genuine[8:] == 0].max()
    folder = network.save(tmp_path / "saved")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors", "run.json"]
    again, loaded = kind.load(folder), detector.load(folder)
    for pair, score in zip(pairs[8:], scores, strict=True):
        assert again.score(*pair) == loaded.score(*pair) == score
    assert loaded.judge(*pairs[0]).decision == "undecided"  # it has no threshold yet
    other = Void if kind is not Void else SubBass
    with pytest.raises(ValueError, match=f"not a {other.__name__}"):
        other.load(folder)


def test_single_channel_systems_hear_the_first_and_the_pairs_hear_all():
    pairs, genuine = recordings(8, mics=2)
    x, rate = pairs[0]
    other = x.copy()
    other[1] = RNG.standard_normal(x.shape[1])
    for kind in (Void, StereoGCC):
        network = build(kind).fit(pairs, genuine)
        assert (network.score(x, rate) == network.score(other, rate)) == (kind is Void)
    with pytest.raises(ValueError, match="has 1 channels; this gcc takes 2"):
        network.score(x[:1], rate)


@pytest.mark.parametrize(
    "network", [{"support": 3}, {"support": "x"}, {"support": 10**9}, {"suport": 3}, {"support": -1}, {}]
)
def test_a_config_of_another_size_is_one_sentence(network, tmp_path):
    pairs, genuine = recordings(8)
    folder = Void().fit(pairs, genuine).save(tmp_path / "saved")
    config, state, run = load_checkpoint(folder)
    run.pop("checksums")
    save_checkpoint(folder, state, config | {"network": network}, run)
    with pytest.raises(ValueError, match="does not fit its own config") as caught:
        detector.load(folder)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_fitted_or_scored_is_one_sentence():
    pairs, genuine = recordings(4)
    for call, says in (
        (lambda: Void().score(*pairs[0]), "never fitted"),
        (lambda: Void().fit(pairs), "need labels"),
        (lambda: Void().fit(pairs, genuine * 0), "expected one each"),
        (lambda: Void().fit(pairs, genuine[:2]), "expected one each"),
        (lambda: Void().fit(pairs, [0.5 + g for g in genuine]), "expected one each"),
        (lambda: Void().fit(pairs, ["genuine" if g else "replay" for g in genuine]), "expected one each"),
        (lambda: Void().fit([(x[0], rate) for x, rate in pairs], genuine), "finite samples"),
        (lambda: Void().fit([(x, str(rate)) for x, rate in pairs], genuine), "their rate in Hz"),
        (lambda: Void().fit([np.ones(5)] * 4, genuine), "97 columns"),
        (lambda: Void(1, 8000), "hears 16000 Hz"),
        (lambda: Void().fit(pairs, genuine).score(np.full((1, 99), np.nan), 16000), "finite"),
    ):
        with pytest.raises(ValueError, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)


# --- the commands of the networks


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setattr(features, "default_workers", lambda: 1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"), clips=64, seconds=0.5).root


def test_the_names_are_known_in_both_places():
    assert tuple(BASELINES) == NAMES


@pytest.mark.parametrize("system", ["lfcc-gmm", "void", "gcc"])
def test_trained_by_the_same_call_as_the_networks(system, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "FRAMES_PER_COMPONENT", 200)
    monkeypatch.setattr(gmm, "TOLERANCE", -1.0)  # it never stops
    array = "D2" if system == "gcc" else "all"
    epochs = 7 if system == "lfcc-gmm" else None  # dev is asked after 5 and 7
    config = TrainConfig(corpus, tmp_path / "run", system=system, array=array, epochs=epochs)
    result = train(config, progress=False)
    run = json.loads((result.folder / "run.json").read_text())
    assert run["dev_eer_shipped"] is not None
    assert run["parameters"] == sum(p.numel() for p in detector.load(result.folder).network.parameters()) > 0
    assert run["threshold"] is None or run["calibration"]
    assert train(config, progress=False).already_finished
    assert len(result.history) == {"void": 12, "lfcc-gmm": 2, "gcc": 1}[system]
    assert result.dev_eer == min(row["dev_eer"] for row in result.history)


def test_dev_is_scored_alike_in_training_and_by_the_finished_detector(corpus, tmp_path):
    result = train(TrainConfig(corpus, tmp_path / "run", system="void", array="D4"), progress=False)
    assert result.dev_eer == result.dev_eer_shipped
    config, state, _ = load_checkpoint(result.folder)
    assert config["network"]["support"] == len(state["support"])


def test_an_interrupted_extraction_goes_on(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 4)
    real, seen = features.features_of, []

    def counted(kind, recording):
        if len(seen) == 6:
            raise KeyboardInterrupt
        seen.append(recording.trial_id)
        return real(kind, recording)

    parts = list(make_corpus(tmp_path, clips=16))[:12]
    monkeypatch.setattr(features, "features_of", counted)
    with pytest.raises(KeyboardInterrupt):
        features.build_features(Void, parts, tmp_path, progress=False)
    seen.clear()
    seen.append("one more")  # so that it may count five: it needs eight
    with pytest.raises(KeyboardInterrupt):
        features.build_features(Void, parts, tmp_path, progress=False)
    monkeypatch.setattr(features, "features_of", real)
    found = features.build_features(Void, parts, tmp_path, progress=False)
    assert seen[1] == parts[4].trial_id  # the first file was kept
    for index, recording in enumerate(parts):
        assert torch.equal(found[index], real(Void, recording))
    assert not list(tmp_path.glob("**/*.partial*"))


@pytest.mark.parametrize("kind", BASELINES.values())
def test_features_on_disk_are_those_of_the_sound(kind, corpus, tmp_path):
    recording = Corpus.from_meta(corpus).filter(array="D1")[0]
    kept = features.build_features(kind, [recording], tmp_path, progress=False)[0]
    waveform, rate = read_audio(recording.path)
    assert torch.equal(
        kept,
        kind(2, rate)._features_of((waveform, rate))
        if kind.rate is None
        else kind()._features_of((waveform, rate)),
    )


def test_recordings_bring_their_own_labels_and_arrays(corpus, tmp_path):
    recordings = list(Corpus.from_meta(corpus).filter(array=["D1", "D4"]))
    by_file = Void().fit(recordings)
    labels = [int(recording.label) for recording in recordings]
    by_sound = Void().fit([read_audio(recording.path) for recording in recordings], labels)
    assert by_file.arrays == ("D1", "D4")
    waveform, rate = read_audio(recordings[0].path)
    assert by_file.score(waveform, rate) == pytest.approx(by_sound.score(waveform, rate), abs=1e-5)
    loaded = detector.load(by_file.save(tmp_path / "saved"))
    assert loaded.specification.arrays == ("D1", "D4")
    with pytest.warns(UserWarning, match="not calibrated there"):
        loaded.score(np.repeat(waveform[:1], 6, axis=0), rate, "D3")


@pytest.mark.parametrize("system", ["lfcc-gmm", "void"])
def test_an_interrupted_fit_goes_on_to_the_same_weights(system, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "FRAMES_PER_COMPONENT", 200)
    monkeypatch.setattr(peers, "LOOKS", (2, 4))
    monkeypatch.setattr(gmm, "TOLERANCE", -1.0)
    epochs = 6 if system == "lfcc-gmm" else None
    configs = [TrainConfig(corpus, tmp_path / n, system=system, array="all", epochs=epochs) for n in "ab"]
    whole = train(configs[0], progress=False)
    real, fitted = BASELINES[system].fit_features, []

    def stopped(self, *args, **options):
        if len(fitted) == 2:
            raise KeyboardInterrupt
        fitted.append(1)
        return real(self, *args, **options)

    monkeypatch.setattr(BASELINES[system], "fit_features", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(configs[1], progress=False)
    monkeypatch.setattr(BASELINES[system], "fit_features", real)
    state = configs[1].out / "state.safetensors"
    sound = state.read_bytes()
    for damaged in (sound[:-1] + bytes([sound[-1] ^ 1]), sound[:100], b""):
        state.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a state to go on from"):
            train(configs[1], progress=False)
    state.write_bytes(sound)
    resumed = train(configs[1], progress=False)
    (_, one, _), (_, other, _) = load_checkpoint(whole.folder), load_checkpoint(resumed.folder)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    plain = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in r.history] for r in (whole, resumed)
    ]
    assert plain[0] == plain[1]
    assert not (resumed.folder / "state.safetensors").exists()


def test_a_changed_file_is_read_anew(tmp_path):
    parts = list(make_corpus(tmp_path, clips=8))[:4]
    one = features.build_features(Void, parts, tmp_path, progress=False)[0]
    parts[0].path.write_bytes(parts[2].path.read_bytes())
    assert not torch.equal(features.build_features(Void, parts, tmp_path, progress=False)[0], one)


def test_a_test_run_goes_all_the_way(corpus, tmp_path):
    config = TrainConfig(corpus, tmp_path / "run", system="lfcc-gmm", array="all", test_run=True)
    assert train(config, progress=False).folder.name == "test-run"


def test_a_setting_without_effect_is_refused():
    for system, values in (("void", {"epochs": 3}), ("lfcc-gmm", {"learning_rate": 0.1})):
        with pytest.raises(ValueError, match="leave it out"):
            TrainConfig("c", "o", system=system, array="D1", **values)
    assert TrainConfig("c", "o", system="cqcc-gmm", array="all", epochs=10).arrays == ("D1", "D2", "D3", "D4")
    with pytest.raises(ValueError, match="unknown array 'all'"):
        TrainConfig("c", "o", system="gcc", array="all")
