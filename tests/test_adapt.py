"""Adapting: other arrays are judged bit for bit as before, and nothing is kept that held-out recordings refute."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

import detector
import replayguard
from detector.adapt import adapt, hear, labelled, said_of, write
from detector.adapted import open_arrays
from detector.baselines import Void
from detector.checkpoint import save_checkpoint
from detector.classify.network import Architecture, build
from detector.classify.store import save_classifier
from detector.ways import FEW_SPEAKERS, LEAST, Adapted, Heard, folds_of, learn, logistic
from eval.metrics import cllr
from remasc import ARRAYS, get_array, read_audio
from remasc.audio import write_wav
from tests.test_score import checkpoint, description

RATE = 16000
LIMIT = 1.0


def talk(seed, mics=2, tone=False, seconds=0.6):
    g = np.random.default_rng(seed)
    x = 0.1 * g.standard_normal((mics, int(seconds * RATE)))
    if tone:  # replays hum
        x += 0.1 * np.sin(2 * math.pi * 300 / RATE * np.arange(x.shape[1]))
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    root = tmp_path_factory.mktemp("target")
    for n in range(24):
        name = "genuine" if n % 2 else "replay"
        (root / name).mkdir(exist_ok=True)
        write_wav(root / name / f"s{n % 6}_{n}.wav", talk(n, tone=not n % 2), RATE)
    return root


@pytest.fixture(scope="module")
def adapted(recordings, tmp_path_factory):
    out = tmp_path_factory.mktemp("adapted") / "one"
    found = adapt("edge", recordings, "D1", out, progress=False)
    return out, found


def test_other_arrays_are_judged_as_before_bit_for_bit(adapted):
    base, loaded = detector.load("edge"), detector.load(adapted[0])
    for array in ("D2", "D4", None):
        x = talk(99, 2 if array is None else ARRAYS[array].num_mics)
        assert loaded.judge(x, RATE, array) == base.judge(x, RATE, array)
    assert loaded.threshold == base.threshold
    assert loaded.score(talk(99), RATE, "D1") != base.score(talk(99), RATE, "D1")


def test_the_array_is_judged_as_was_learnt(adapted, recordings):
    out, found = adapted
    base, loaded = detector.load("edge"), detector.load(out)
    heard = hear(base, labelled(recordings), get_array("D1"), progress=False)
    clip = labelled(recordings)[0]
    llr = found.slope * base.calibration.llr(heard.scores[0]) + found.offset
    if found.change is not None:
        llr += np.append(heard.embeddings[0], 1) @ found.change
    assert loaded.llr(*read_audio(clip.path), "D1") == pytest.approx(llr, abs=1e-4)
    told = loaded.explain(*read_audio(clip.path), "D1")
    assert told.value == pytest.approx(llr, abs=1e-4)
    assert told.reference + sum(one.part for one in told.contributions) == pytest.approx(told.value, abs=1e-4)


def test_the_record_says_what_was_done(adapted):
    run = json.loads((adapted[0] / "run.json").read_text())
    entry = run["arrays"]["D1"]
    assert entry["base"]["checksums"] == detector.load("edge").run["checksums"]
    assert entry["recordings"]["genuine"] == entry["recordings"]["replay"] == 12
    assert entry["way"] == adapted[1].way
    assert run["calibration"] == detector.load("edge").run["calibration"]


def test_a_second_array_leaves_the_first(adapted, tmp_path):
    for n in range(LEAST):
        (tmp_path / "rec" / "genuine").mkdir(parents=True, exist_ok=True)
        write_wav(tmp_path / "rec" / "genuine" / f"{n}.wav", talk(n, 4), RATE)
    found = adapt(adapted[0], tmp_path / "rec", "D2", tmp_path / "two", p_miss=0.25, progress=False)
    one, two = detector.load(adapted[0]), detector.load(tmp_path / "two")
    assert set(two.own) == {"D1", "D2"}
    assert two.score(talk(99), RATE, "D1") == one.score(talk(99), RATE, "D1")
    assert any("cannot be known" in said for said in found.said)
    judged = [two.judge(talk(n, 4), RATE, "D2") for n in range(LEAST)]  # as the files, but for 16 bits
    assert abs(sum(one.decision == "replay" for one in judged) - 2) <= 1


def test_a_damaged_adapter_is_refused(recordings, tmp_path):
    rng = np.random.default_rng(0)
    base = detector.load("edge")
    heard = hear(base, labelled(recordings)[:2], get_array("D1"), progress=False)
    change = 0.1 * rng.standard_normal(heard.embeddings.shape[1] + 1)
    write(tmp_path / "x", base, "edge", ARRAYS["D1"], Adapted("head", 1.0, 0.0, change, {}, ()), heard)
    loaded = detector.load(tmp_path / "x")
    difference = loaded.llr(talk(3), RATE, "D1") - base.llr(talk(3), RATE, "D1")
    embedding = said_of(base, talk(3), RATE)[1]
    assert difference == pytest.approx(np.append(embedding, 1) @ change, abs=1e-4)
    (path,) = (tmp_path / "x").glob("adapter-*")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="not the file"):
        detector.load(tmp_path / "x")


def test_an_export_takes_the_calibration_along_and_refuses_a_head(tmp_path):
    entry = {"slope": 1.5, "offset": 0.25, "adapter_sha256": None}
    exported = SimpleNamespace(run={"arrays": {"D1": entry}})  # no network
    own = open_arrays(exported, tmp_path)["D1"]
    assert (own.detector, own.slope, own.offset) == (None, 1.5, 0.25)
    exported.run["arrays"]["D1"] = entry | {"adapter_sha256": "0" * 64}
    with pytest.raises(ValueError, match="export does not hold"):
        open_arrays(exported, tmp_path)
    exported.run["arrays"]["D1"] = entry | {"slope": -1.0}
    with pytest.raises(ValueError, match="finite numbers"):
        open_arrays(exported, tmp_path)


def test_bad_input_is_one_sentence_and_nothing_is_written(recordings, tmp_path):
    empty, odd, corrupt = tmp_path / "empty", tmp_path / "odd", tmp_path / "corrupt"
    for folder in (empty, odd / "goat", corrupt / "genuine", corrupt / "replay"):
        folder.mkdir(parents=True)
    write_wav(odd / "goat" / "a.wav", talk(0), RATE)
    (corrupt / "genuine" / "a.wav").write_bytes(b"no sound")
    cases = [
        (empty, "D1", "holds no folder"),
        (tmp_path / "none", "D1", "not there"),
        (odd, "D1", "labelled 'goat'"),
        (corrupt, "D1", "none of the 1 recordings can be judged"),
        (recordings, "D4", "2 channels, but the array D4 has 7"),
        (recordings, "D9", "unknown array"),
    ]
    for source, array, message in cases:
        with pytest.raises(ValueError, match=message):
            adapt("edge", source, array, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="is there already"):
        adapt("edge", recordings, "D1", tmp_path / "odd", progress=False)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("backbone", ["psla", "ast"])
def test_a_classifiers_checkpoint_is_called_what_it_is_and_a_damaged_one_damaged(
    recordings, tmp_path, backbone
):
    network = build(Architecture(("yes", "no"), backbone=backbone))
    folder = save_classifier(tmp_path / "model", network, network.state_dict(), training={}, run={})
    with pytest.raises(ValueError, match="is an audio classifier, no replay detector; give a bundled one"):
        adapt(folder, recordings, "D1", tmp_path / "out", progress=False)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="copy the folder anew"):
        adapt(folder, recordings, "D1", tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("system", ["acoustic-maps", "malrad", "void"])
def test_a_system_without_a_head_of_its_own_is_moved_as_its_scores_are(recordings, tmp_path, system):
    base = checkpoint(tmp_path / "base", system, "D1")
    if system == "void":
        heard = [(talk(n, tone=not n % 2), RATE) for n in range(20)]
        fitted = Void().fit(heard, [n % 2 for n in range(20)])
        config = {"specification": description("void", "D1")["specification"], "network": fitted.arguments}
        base = save_checkpoint(tmp_path / "void", fitted, config, detector.load(base).run)
    adapt(base, recordings, "D1", tmp_path / "out", way="calibration", p_miss=0.1, progress=False)
    own, base = detector.load(tmp_path / "out"), detector.load(base)
    entry, x = own.run["arrays"]["D1"], talk(5)
    assert own.score(x, RATE, "D1") == pytest.approx(
        entry["slope"] * base.score(x, RATE, "D1") + entry["offset"]
    )


def test_a_network_of_other_channels_is_not_adapted(recordings, tmp_path):
    base = checkpoint(tmp_path / "base", "malrad", "D4")
    with pytest.raises(ValueError, match="has 2 channels; this malrad was trained on D4 and takes 7"):
        adapt(base, recordings, "D1", tmp_path / "out", progress=False)


def test_from_the_command_line(recordings, tmp_path, capsys):
    words = ["adapt", "--detector", "edge", "--recordings", str(recordings / "none"), "--array", "D1"]
    assert replayguard.main([*words, "--out", str(tmp_path / "o")]) == 2
    words[4] = str(recordings)
    assert replayguard.main([*words, "--out", str(tmp_path / "o"), "--way", "calibration"]) == 0
    assert "held-out recordings" in capsys.readouterr().out
    assert detector.load(tmp_path / "o").own["D1"]


# ---------------------------------------------------------------- the arithmetic


def target(n=400, shift=0.0, scale=1.0, told=0.0, seed=0, speakers=20):
    """Recordings of a calibrated base (llr ~ N(+-1, 2)) that an array shifts and scales; `told` is how much a
    number of the embedding says of the class besides."""
    g = np.random.default_rng(seed)
    genuine = np.arange(n) % 2 == 0
    sign = np.where(genuine, 1.0, -1.0)
    llr = (sign + math.sqrt(2) * g.standard_normal(n)) * scale + shift
    embeddings = np.stack([told * sign + g.standard_normal(n), g.standard_normal(n)], axis=1)
    names = tuple(f"clip {i}" for i in range(n))
    who = tuple(f"speaker {i // 2 % speakers}" for i in range(n))
    return Heard(llr, embeddings, genuine, who, names, np.full(n, 2.5)), llr


def test_a_shift_is_found_with_replays_and_without():
    heard, llr = target(n=1000, shift=-2.0)
    both = learn(heard, llr, LIMIT, "calibration")
    assert (both.way, both.slope) == ("shift", 1.0)
    assert both.offset == pytest.approx(2.0, abs=0.2)
    alone = learn(heard, llr, LIMIT, "genuine")
    assert alone.offset == pytest.approx(2.0, abs=0.5)
    assert any("cannot be known" in said for said in alone.said)


def test_a_scale_is_found():
    heard, llr = target(n=1000, shift=1.0, scale=3.0)
    found = learn(heard, llr, LIMIT)
    assert found.way == "affine"
    assert (found.slope, found.offset) == pytest.approx((1 / 3, -1 / 3), abs=0.1)


def test_a_head_is_kept_where_embeddings_tell_more_and_only_there():
    heard, llr = target(told=1.0)
    kept = learn(heard, llr, LIMIT)
    assert kept.way == "head"
    assert kept.figures["held_out"]["cllr"] < kept.figures["base"]["cllr"]
    for seed in range(5):
        heard, llr = target(told=0.0, seed=seed)
        assert learn(heard, llr, LIMIT).way != "head"
    heard, llr = target(told=0.0)
    assert any("no head is better" in said for said in learn(heard, llr, LIMIT, "head").said)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [16, 40, 120])
def test_what_is_kept_is_never_worse_on_held_out_recordings(n, seed):
    heard, llr = target(n=n, shift=seed - 1.5, told=0.5, seed=seed)
    found = learn(heard, llr, LIMIT).figures
    assert found["held_out"]["cllr"] <= found["base"]["cllr"]
    assert found["held_out_cllr"]["none"] == pytest.approx(cllr(llr[heard.genuine], llr[~heard.genuine]))


def test_an_array_that_moves_nothing_is_left_as_it_is():
    kept = [learn(*target(n=200, seed=seed), LIMIT, "calibration").way for seed in range(12)]
    assert kept.count("none") >= 8  # one standard error lets about one in six through


def test_the_asked_share_of_genuine_recordings_is_rejected():
    heard, llr = target(shift=-1.0, told=0.5)
    found = learn(heard, llr, LIMIT, "genuine", p_miss=0.1)
    moved = found.slope * llr + found.offset
    assert (moved[heard.genuine] < LIMIT).mean() == pytest.approx(0.1, abs=0.005)
    rejected, of = learn(heard, llr, LIMIT, "auto", p_miss=0.1).figures["held_out"]["rejected_genuine"]
    assert 0.095 * of <= rejected <= 0.1 * of
    fresh, llr = target(shift=-1.0, told=0.5, seed=1)
    found = learn(heard, heard.scores, LIMIT, "auto", p_miss=0.1)
    moved = found.slope * llr + found.offset
    if found.change is not None:
        moved = moved + np.append(fresh.embeddings, np.ones((len(llr), 1)), axis=1) @ found.change
    assert (moved[fresh.genuine] < LIMIT).mean() == pytest.approx(0.1, abs=0.06)


def test_the_asked_share_of_replays_is_accepted():
    heard, llr = target(shift=1.0, told=0.5)
    accepted, of = learn(heard, llr, LIMIT, p_fa=0.05).figures["held_out"]["accepted_replays"]
    assert 0.04 * of <= accepted <= 0.05 * of
    with pytest.raises(ValueError, match="cannot be set"):
        learn(heard, llr, LIMIT, "genuine", p_fa=0.05)
    with pytest.raises(ValueError, match="one of them"):
        learn(heard, llr, LIMIT, p_fa=0.05, p_miss=0.1)


def test_folds_share_no_speaker_and_hold_both_classes():
    heard, _ = target(n=60, speakers=7)
    folds, by = folds_of(heard)
    assert by == "speakers"
    homes = {}
    for speaker, fold in zip(heard.speakers, folds, strict=True):
        assert homes.setdefault(speaker, fold) == fold
    assert len(set(folds)) == 5
    few = Heard(heard.scores, heard.embeddings, heard.genuine, ("me",) * 60, heard.names, heard.seconds)
    assert folds_of(few)[1] == "files"
    assert FEW_SPEAKERS > 1


def test_the_order_of_the_recordings_does_not_matter():
    heard, llr = target(n=80, shift=1.0, told=0.7)
    order = np.random.default_rng(1).permutation(80)
    turned = Heard(
        llr[order],
        heard.embeddings[order],
        heard.genuine[order],
        tuple(heard.speakers[i] for i in order),
        tuple(heard.names[i] for i in order),
        heard.seconds,
    )
    one, other = learn(heard, llr, LIMIT), learn(turned, llr[order], LIMIT)
    assert one.way == other.way
    assert (one.slope, one.offset) == pytest.approx((other.slope, other.offset), abs=1e-6)


def test_logistic_regression_is_at_the_minimum():
    heard, llr = target(n=60)
    design, ridge = np.append(heard.embeddings, np.ones((60, 1)), axis=1), np.array([2.0, 2.0, 1.0])

    def cost(theta):
        z = (llr + design @ theta) * np.where(heard.genuine, -1, 1)
        return np.logaddexp(0, z).sum() + 0.5 * ridge @ theta**2

    theta = logistic(design, llr, heard.genuine, ridge)
    for step in 1e-3 * np.vstack([np.eye(3), -np.eye(3)]):
        assert cost(theta) < cost(theta + step)


@pytest.mark.parametrize(
    ("way", "p_miss", "message"),
    [("nope", None, "unknown way"), ("auto", 1.5, "p_miss"), ("head", None, "expected at least 8")],
)
def test_what_cannot_be_learnt_is_said(way, p_miss, message):
    heard, llr = target(n=8)
    with pytest.raises(ValueError, match=message):
        learn(heard, llr, LIMIT, way, p_miss)
