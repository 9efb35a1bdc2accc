"""The source model: classifiers kept as arrays, explanations that add up, kinds, fusion, files, the command."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import replayguard
from detector.score import load
from detector.source import classifiers
from detector.source.backbone import check_same
from detector.source.classifiers import CLASSIFIERS, Additive, Boosting, Kernel, Logistic, Scaling
from detector.source.cues import CUES, JUDGED, NAMES, cues_of
from detector.source.evidence import MONO, NARROW, NARROW_MONO, WIDE, condition_of, hidden, strangeness
from detector.source.explain import FINE, by_group, ranges
from detector.source.fusion import Fusion
from detector.source.model import bundled_sources, load_source
from detector.source.shares import Shares
from detector.source.table import CueTable, Embeddings, measure_table
from detector.source.training import Partition, filled, fit
from eval import source_report, terminal_source
from eval.metrics import cllr, eer
from remasc.audio import read_audio, write_wav
from tests.test_source_cues import RATE, voice
from tests.tiny_corpus import make_corpus


class Row:
    """As much of a `Recording` as a table asks for."""

    def __init__(self, genuine: bool, family: int, synthetic: bool, number: int):
        from remasc.schema import Label, PlaybackDevice, SourceRecorder

        self.label = Label(int(genuine))
        self.playback_device = None if genuine else PlaybackDevice(family)
        self.source_recorder = SourceRecorder.TTS if synthetic and not genuine else None
        self.trial_id, self.array, self.speaker = f"core/{number}", f"D{1 + number // 2 % 2}", number % 30

    def conditions(self) -> dict[str, str]:
        words = {"array": self.array, "environment": "indoor-1", "speaker": str(self.speaker)}
        device = {"source_recorder": self.source_recorder, "playback_device": self.playback_device}
        return words | {name: "-" if value is None else value.name for name, value in device.items()}


def table(count: int = 240, seed: int = 0) -> Partition:
    """Cues of nothing, but that `lower_edge` tells the class, `hum` a device's family and `jitter` synthesis."""
    rng = np.random.default_rng(seed)
    rows = tuple(Row(i % 2 == 0, 1 + i % 6 // 2, i % 10 < 4, i) for i in range(count))
    values = rng.normal(size=(count, len(NAMES))).astype(np.float32)
    place = {name: i for i, name in enumerate(NAMES)}
    for i, row in enumerate(rows):
        values[i, place["lower_edge"]] += 100 + 4 * (row.label == 0)
        values[i, place["hum"]] += 4 * (i % 6 // 2)
        values[i, place["jitter"]] -= 4 * (i % 10 < 4)
    values[rng.random(values.shape) < 0.05] = np.nan
    cues = CueTable(rows, values)
    embeddings = np.column_stack([cues.genuine * 3.0, rng.normal(size=(count, 5))]) + rng.normal(
        size=(count, 6)
    )
    llr = np.where(cues.genuine, 2.0, -2.0) + 2 * rng.normal(size=count)
    return Partition(cues, Embeddings(embeddings.astype(np.float32), llr, "none"))


@pytest.fixture(scope="module")
def models():
    train, dev = table(), table(seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifiers, "BOOSTS", (30, 10))  # quick
        return {name: fit(train, dev, name) for name in CLASSIFIERS}


@pytest.fixture(scope="module")
def lenient(models):
    """One for which no sound is too strange: the people of `table` are noise."""
    model = models["boosting"]
    return replace(model, run=model.run | {"strangest": 1.0})


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_what_is_stored_answers_as_before(models, tmp_path, name):
    model, dev = models[name], table(seed=1)
    again = load_source(model.save(tmp_path / name))
    inputs = dev.inputs(name)
    assert again.score(inputs) == pytest.approx(model.score(inputs), abs=1e-9)
    human = np.linspace(0, 1, len(inputs))
    for kind, share in model.kinds(inputs, human).items():
        assert again.kinds(inputs, human)[kind] == pytest.approx(share, abs=1e-9)
    assert np.array_equal(again.human, model.human, equal_nan=True)
    assert not list(tmp_path.rglob("*.pkl")) + list(tmp_path.rglob("*.joblib"))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_learns_what_can_be_learnt(models, name):
    dev = table(seed=2)
    scores = models[name].score(dev.inputs(name))
    assert eer(scores[dev.cues.genuine], scores[~dev.cues.genuine])[0] < 0.3


def test_scikit_learn_and_the_stored_line_and_kernel_agree():
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    train, rng = table(), np.random.default_rng(3)
    values, target = filled(train.inputs("svm"), rng), train.cues.genuine.astype(int)
    scaled = Scaling.of(values)(values)
    centred = scaled - scaled.mean(axis=0)
    line = LogisticRegression(C=0.02, class_weight="balanced", max_iter=2000).fit(centred, target)
    assert Logistic.fit(values, target).logits(values)[:, 0] == pytest.approx(
        line.decision_function(centred), abs=1e-3
    )
    kernel = SVC(C=4.0, gamma=1.0 / values.shape[1], class_weight="balanced").fit(scaled, target)
    fresh = values + 0.1 * rng.normal(size=values.shape).astype(np.float32)
    assert Kernel.fit(values, target).logits(fresh)[:, 0] == pytest.approx(
        kernel.decision_function(Scaling.of(values)(fresh)), abs=1e-3
    )


@pytest.mark.parametrize("name", ["boosting", "svm", "logistic", "additive"])
def test_the_parts_add_up_to_the_ratio(models, name):
    model, dev = models[name], table(seed=2)
    for values in dev.inputs(name)[:5]:
        llr = model.calibration.llr(model.score(values[None])[0])
        told = model.explain(values, most=None)
        assert told.base + sum(r.part for r in told.reasons) + told.others == pytest.approx(llr, abs=1e-6)
        assert abs(told.others) < 1e-6
        few = model.explain(values, most=3)
        assert len(few.reasons) == 3
        assert few.base + sum(r.part for r in few.reasons) + few.others == pytest.approx(llr, abs=1e-6)


@pytest.mark.parametrize("name", ["boosting", "svm", "logistic", "additive"])
def test_the_cue_that_decides_is_named(models, name):
    model, dev = models[name], table(seed=2)
    first = [model.explain(values, 1).reasons[0].cue for values in dev.inputs(name)[:30]]
    assert first.count("lower_edge") > 20


def test_a_reason_says_value_and_range(models):
    told = models["boosting"].explain(table(seed=2).inputs("boosting")[1], None)
    reason = next(r for r in told.reasons if r.cue == "lower_edge")
    assert reason.sentence.startswith("no energy below 10")
    assert "people 98 to 10" in reason.sentence
    assert reason.sentence.endswith("outside" if reason.value > reason.high else "inside")
    groups = by_group(JUDGED, np.ones(len(JUDGED)))
    assert sum(groups.values()) == len(JUDGED)


@pytest.mark.parametrize("name", ["boosting", "svm", "logistic", "additive"])
def test_what_is_not_measured_says_nothing(models, name):
    model, dev = models[name], table(seed=2)
    inputs, rng = dev.inputs(name), np.random.default_rng(7)
    nothing = model.explain(np.full(len(JUDGED), np.nan, np.float32), most=None)
    assert nothing.reasons == ()
    groups = np.array([CUES[cue].group for cue in JUDGED])
    some = inputs.copy()
    for row in some:
        row[np.isin(groups, rng.choice(np.unique(groups), 5, replace=False))] = np.nan
    for values in some[:5]:
        assert (model.heads["source"].parts(values)[np.isnan(values)] == 0).all()
    ratios = [model.calibration.llr(model.score(values)) for values in (inputs, some)]
    # hiding a cue is no way to be taken for a person
    assert ratios[1].mean() - ratios[0].mean() < 0.1  # nats


def test_a_curve_tells_what_lies_far_out_on_both_sides():
    rng, errors = np.random.default_rng(6), []
    values = 5 + 2 * rng.normal(size=(1200, 6))
    target = (np.abs(values[:, 2] - 5) < 1.4).astype(int)
    for kind in (Logistic, Additive):
        logits = kind.fit(values[:800], target[:800]).logits(values[800:])[:, 0]
        errors.append(eer(logits[target[800:] == 1], logits[target[800:] == 0])[0])
    assert errors[0] > 0.4
    assert errors[1] < 0.1


def test_a_kernel_averages_over_what_is_undefined():
    """The decision without some cues is the mean of the decisions with these cues drawn from training."""
    values = np.random.default_rng(5).normal(size=(600, 40)) * 3 + 7
    model = Kernel.fit(values, (values[:, 0] + np.abs(values[:, 1] - 7) > 9).astype(int))
    one, hidden_cues = values[:1].copy(), slice(20, 40)
    drawn = np.repeat(one, len(values), axis=0)
    drawn[:, hidden_cues] = values[:, hidden_cues]
    one[:, hidden_cues] = np.nan
    assert model.logits(one)[0, 0] == pytest.approx(model.logits(drawn).mean(), abs=0.02)
    one[:, hidden_cues] = model.middle[hidden_cues]  # nearer to every vector than anything measured is
    assert abs(model.logits(one)[0, 0] - model.logits(drawn).mean()) > 0.05


def test_filling_leaves_what_is_known_and_draws_the_rest_from_others():
    values = table().inputs("boosting")
    values[:, 7] = np.nan
    found = filled(values, np.random.default_rng(0))
    known = np.isfinite(values)
    assert np.array_equal(found[known], values[known])
    assert np.isfinite(found).all()
    assert (found[:, 7] == 0).all()  # nobody has it: a constant, which nothing can be learnt from
    for column in range(0, len(JUDGED), 20):
        assert set(found[:, column]) == set(values[known[:, column], column])


def test_conditions_hide_what_such_recordings_lack():
    whole = np.zeros((1, len(JUDGED)), np.float32)
    for condition in (WIDE, NARROW, MONO, NARROW_MONO):
        assert condition_of(hidden(whole, JUDGED, condition)[0], JUDGED) == condition
    for rate, mics, condition in (
        (16000, 4, WIDE),
        (8000, 4, NARROW),
        (16000, 1, MONO),
        (8000, 1, NARROW_MONO),
    ):
        cues = cues_of(voice(rate=rate, mics=mics), rate, "D2" if mics == 4 else None)
        values = np.array([cues[name] for name in JUDGED], np.float32)
        assert condition_of(values, JUDGED) == condition
        assert np.isnan(values[np.isnan(hidden(whole, JUDGED, condition)[0])]).all()


def test_strangeness_is_the_share_outside_of_people():
    human = np.array([[0, 1, 2]] * 4, np.float32)
    values = np.array([[1, 1, 1, 1], [3, -1, 1, 1], [3, np.nan, np.nan, np.nan], [np.nan] * 4])
    assert strangeness(values, human) == pytest.approx([0, 0.5, 1, np.nan], nan_ok=True)


@pytest.mark.parametrize("most", [1, 2, 5, None])
def test_reasons_that_can_be_checked_come_first(models, most):
    for values in table(seed=2).inputs("boosting")[:5]:
        told = models["boosting"].explain(values, most)
        assert most is None or len(told.reasons) <= most
        assert all(CUES[reason.cue].checkable for reason in told.reasons if reason.cue != FINE)
        assert FINE not in [reason.cue for reason in told.reasons[:-1]]
        sizes = [abs(reason.part) for reason in told.reasons if reason.cue != FINE]
        assert sizes == sorted(sizes, reverse=True)


def test_shares_find_the_temperature_and_the_frequencies():
    rng = np.random.default_rng(8)
    number = rng.choice(3, size=6000, p=[0.6, 0.3, 0.1])
    heard = 1.5 * np.eye(3)[number] + rng.normal(
        size=(6000, 3)
    )  # log-likelihoods are 1.5 times what is heard
    shares = Shares.fit(0.25 * heard, number)
    assert shares.scale == pytest.approx(6, rel=0.1)
    found = shares(0.25 * heard)
    assert found.sum(axis=1) == pytest.approx(1)
    assert found.mean(axis=0) == pytest.approx([0.6, 0.3, 0.1], abs=0.02)
    sure = found.max(axis=1)
    assert (found.argmax(axis=1) == number).mean() == pytest.approx(sure.mean(), abs=0.02)
    assert Shares(**json.loads(json.dumps(shares.as_dict()))) == shares


def test_kinds_are_probabilities_and_agree_with_the_family(models):
    model, dev = models["boosting"], table(seed=2)
    inputs, human = dev.inputs("boosting"), np.full(len(dev.cues), 0.25)
    kinds = model.kinds(inputs, human)
    assert set(kinds) == {"human"} | {p + f for f in model.families for p in ("", "tts-")}
    assert sum(kinds.values()) == pytest.approx(1)
    assert (kinds["human"] == 0.25).all()
    names = np.array([name for name in kinds if name != "human"])
    likeliest = names[np.stack([kinds[name] for name in names]).argmax(axis=0)]
    truth = np.where(dev.cues.synthetic, np.char.add("tts-", dev.cues.family), dev.cues.family)
    assert (likeliest == truth)[~dev.cues.genuine].mean() > 0.6


def test_calibration_and_threshold_are_those_of_dev(models):
    model, dev = models["boosting"], table(seed=1)
    llr = model.calibration.llr(model.score(dev.inputs("boosting")))
    genuine = dev.cues.genuine
    assert cllr(llr[genuine], llr[~genuine]) < 1
    assert (llr[~genuine] >= model.run["threshold"]["llr"]).mean() <= 0.05


def test_a_strict_threshold_holds_for_every_kind_of_replay():
    train, dev = table(), table(seed=1)
    dev.cues.values[dev.cues.synthetic, NAMES.index("lower_edge")] -= (
        2  # what is synthetic passes more easily
    )
    loose, strict = (fit(train, dev, "logistic", strict=strict) for strict in (False, True))
    genuine, synthetic = dev.cues.genuine, dev.cues.synthetic
    for model, held in ((loose, False), (strict, True)):
        llr = model.calibration.llr(model.score(dev.inputs("logistic")))
        joined = model.fusion(np.column_stack([llr, dev.detector.llr]))
        for ratios, limit in (
            (llr, model.run["threshold"]["llr"]),
            (joined, model.run["fusion"]["threshold"]),
        ):
            assert (ratios[~genuine] >= limit).mean() <= 0.05
            if held:
                assert (ratios[synthetic] >= limit).mean() <= 0.05
                assert (ratios[~genuine & ~synthetic] >= limit).mean() <= 0.05
    assert strict.run["threshold"]["llr"] > loose.run["threshold"]["llr"]


def test_fusion_of_two_is_better_than_each_and_keeps_polarity():
    rng = np.random.default_rng(4)
    genuine = np.arange(4000) % 2 == 0
    llrs = np.where(genuine, 1.0, -1.0)[:, None] + rng.normal(size=(4000, 2)) * [1.5, 2.0]
    fusion = Fusion.fit(("a", "b"), llrs[:2000], genuine[:2000])
    rates = [eer(s[genuine[2000:]], s[~genuine[2000:]])[0] for s in (*llrs[2000:].T, fusion(llrs[2000:]))]
    assert rates[2] < min(rates[:2])
    assert fusion.weights[0] > fusion.weights[1] > 0
    known = [2 / 1.5**2, 2 / 2.0**2]  # of two Gaussians: twice the mean over the variance
    assert fusion.weights == pytest.approx(known, rel=0.2)
    assert Fusion(**json.loads(json.dumps(fusion.as_dict()))) == fusion


def test_fusion_refuses_what_it_cannot_join():
    with pytest.raises(ValueError, match="both classes"):
        Fusion.fit(("a",), np.zeros((4, 1)), np.ones(4, bool))
    with pytest.raises(ValueError, match="finite"):
        Fusion(("a", "b"), (1.0,), 0.0)


def test_ranges_hold_nine_in_ten():
    values = np.column_stack([np.arange(101.0), np.full(101, np.nan)])
    found = ranges(values)
    assert found[0].tolist() == [5, 50, 95]
    assert np.isnan(found[1]).all()


def test_a_judgement_of_sound(models, lenient):
    assert models["boosting"].judge(voice(mics=4), RATE, "D2").reason == "unlike-speech"
    model = lenient
    judged = model.judge(voice(mics=4), RATE, "D2", most=None)
    assert judged.decision in ("human", "device")
    assert (judged.llr >= model.run["threshold"]["llr"]) == (judged.decision == "human")
    assert sum(judged.kinds.values()) == pytest.approx(1)
    assert (judged.kind == "human") == (judged.decision == "human")
    known = cues_of(voice(mics=4), RATE, "D2")
    for reason in judged.explanation.reasons:
        assert reason.value is None or reason.value == pytest.approx(known[reason.cue], rel=1e-5, abs=1e-5)
    assert judged.explanation.beside[0].startswith("from ")  # where it came from is told and not judged
    assert not {"azimuth", "elevation"} & set(model.cues)
    json.dumps(judged.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (np.zeros((2, RATE)), "silent"),
        (voice(0.25, mics=2), "too-short"),
        (voice(mics=3), "channels"),
        (np.sign(voice(mics=2)), "clipped"),
    ],
)
def test_what_cannot_be_judged_is_undecided(models, x, reason):
    judged = models["boosting"].judge(x, RATE, "D1" if reason == "channels" else None)
    assert (judged.decision, judged.reason) == ("undecided", reason)
    assert judged.probability is None
    assert judged.kind == ""


@pytest.mark.parametrize("rate", [8000, 11025])
def test_a_narrow_recording_is_judged_by_the_cues_that_it_has(lenient, rate):
    x = voice(rate=rate, mics=4)
    judged = lenient.judge(x, rate, "D2", most=None, detector=object())  # it is not asked
    assert judged.decision != "undecided"
    assert judged.detail.startswith("narrow-band")
    assert judged.detector_llr is judged.fused_llr is None
    assert all(CUES[reason.cue].reach <= 3600 for reason in judged.explanation.reasons)
    assert lenient.judge(np.tile(x, 14), rate, "D2").reason == "too-long"
    assert lenient.judge(x[:1, : rate // 3], rate).reason == "few-cues"


def test_joined_with_a_detector_of_other_weights_is_refused(models):
    with pytest.raises(ValueError, match="other weights"):
        models["boosting"].judge(voice(mics=4), RATE, detector=load("default"))
    with pytest.raises(ValueError, match="--detector"):
        models["neural"].judge(voice(mics=4), RATE)


def cued(recording) -> np.ndarray:
    waveform, rate = read_audio(recording.path)
    return np.array(list(cues_of(waveform, rate, recording.array).values()), np.float32)


def test_a_table_is_measured_once_and_mended(tmp_path, monkeypatch):
    corpus = make_corpus(tmp_path / "corpus", clips=4)
    first = measure_table(list(corpus), tmp_path / "kept", workers=1, progress=False)
    path = next((tmp_path / "kept").iterdir())
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2].replace("1", "2") + lines[3][:20])
    again = measure_table(list(corpus), tmp_path / "kept", workers=1, progress=False)
    assert np.array_equal(first.values, again.values, equal_nan=True)
    one, two = corpus.filter(array=corpus[0].array)[:2]
    other = replace(one, path=two.path)  # the same name in another corpus
    found = measure_table([other], tmp_path / "kept", workers=1, progress=False)
    assert np.array_equal(found.values, cued(other)[None], equal_nan=True)
    assert not np.array_equal(found.values, cued(one)[None], equal_nan=True)
    monkeypatch.setattr("detector.source.table.cues_of", None)  # all is there: nothing is measured
    measure_table(list(corpus), tmp_path / "kept", workers=1, progress=False)


def test_a_source_model_says_what_is_wrong_with_its_folder(models, tmp_path):
    with pytest.raises(ValueError, match="no source model"):
        load_source("nope")
    folder = models["boosting"].save(tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="checksum"):
        load_source(folder)
    with pytest.raises(ValueError, match="no source model that this version reads"):
        load_source(
            next(p.parent for p in __import__("pathlib").Path("detector/bundled").glob("*/config.json"))
        )


def test_the_page_escapes_and_holds_the_figure(lenient):
    judged = lenient.judge(voice(mics=4), RATE, "D2", trial="<script>x.wav")
    page = source_report.page([judged], lenient, 0.5)
    assert "<script>" not in page
    assert page.count("<svg") == 1
    assert "http" not in page.replace("http-equiv", "")
    assert f"ratio of {lenient.run['threshold']['llr']:.3g} or more" in page  # what decides is told
    text = terminal_source.text(judged)
    assert all(reason.sentence in text for reason in judged.explanation.reasons)


@pytest.mark.parametrize("prior", [0.1, 0.5, 0.9])
def test_words_say_what_was_done_how_likely_and_what_kind_if_it_is_a_device(lenient, prior):
    """A device may be refused at P(human) 65 %: no word says that it is one, and no kind contradicts that."""
    x = voice(mics=4)
    for limit, word in ((-100.0, "accepted"), (100.0, "refused")):
        model = replace(lenient, run=lenient.run | {"threshold": {"llr": limit, "p_fa": 0.05}})
        judged = model.judge(x, RATE, "D2", prior=prior)
        assert judged.accepted is (word == "accepted")
        assert sum(judged.kinds_if_device.values()) == pytest.approx(1)
        for name, p in judged.kinds_if_device.items():
            assert judged.kinds[name] == pytest.approx((1 - judged.probability) * p)
        told = json.loads(terminal_source.json_line(judged))
        assert told["verdict"].startswith(f"{word}: llr ")
        page, text = source_report.page([judged], model, prior), terminal_source.text(judged)
        likeliest = max(judged.kinds_if_device, key=judged.kinds_if_device.get)
        for said in (page, text):
            assert word in said
            assert f"if a device: {likeliest} {judged.kinds_if_device[likeliest]:.0%}" in said
        assert "human  " not in text.split("\n")[0].replace("P(human)", "")
    silent = lenient.judge(np.zeros((4, RATE)), RATE, "D2")
    assert silent.accepted is None
    assert json.loads(terminal_source.json_line(silent))["verdict"].startswith("undecided: ")


def test_json_has_no_rounding_noise_and_its_parts_add_up(lenient):
    judged = lenient.judge(voice(mics=4), RATE, "D2", most=None)
    line = terminal_source.json_line(judged)
    assert max(map(len, re.findall(r"\d+\.\d+", line))) <= 13
    told = json.loads(line)
    parts = sum(reason["part"] for reason in told["explanation"]["reasons"])
    assert told["explanation"]["base"] + told["explanation"]["others"] + parts == pytest.approx(
        told["llr"], abs=1e-9
    )
    assert told["llr"] == pytest.approx(judged.llr, abs=1e-6)


bundled = pytest.mark.skipif(not bundled_sources(), reason="no source model is bundled")


@bundled
def test_the_bundled_model_is_small_and_current():
    model = load_source()
    assert model.cues == JUDGED
    folder = __import__("detector.source.model", fromlist=["BUNDLED"]).BUNDLED / "default"
    assert sum(p.stat().st_size for p in folder.iterdir()) < 300_000
    assert isinstance(model.heads["source"], Boosting)


def gated(x: np.ndarray) -> np.ndarray:
    return x * (np.arange(len(x)) // 4000 % 2)


TIMES = np.arange(2 * RATE) / RATE
NO_VOICE = {
    "pulses": 0.5 * (np.arange(2 * RATE) % 128 == 0),
    "tone": 0.3 * np.sin(2 * np.pi * 300 * TIMES),
    "sweep": 0.3 * np.sin(2 * np.pi * (200 + 400 * TIMES) * TIMES),
    "noise": 0.1 * np.random.default_rng(9).normal(size=2 * RATE),
}


@bundled
@pytest.mark.parametrize("mics", [1, 4])
@pytest.mark.parametrize("shape", [np.asarray, gated], ids=["steady", "gated"])
@pytest.mark.parametrize("name", NO_VOICE)
def test_what_is_no_voice_is_never_accepted(name, shape, mics):
    sound = np.tile(shape(NO_VOICE[name]), (mics, 1))
    sound = sound + 0.001 * np.random.default_rng(10).normal(size=sound.shape)
    assert load_source().judge(sound, RATE, "D2" if mics == 4 else None).decision != "human"


def test_the_command_explains_a_file(lenient, tmp_path, capsys):
    model = ["--model", str(lenient.save(tmp_path / "model"))]
    path = tmp_path / "one.wav"
    write_wav(path, voice(mics=4), RATE)
    page = tmp_path / "page.html"
    assert replayguard.main(["source", str(path), "--array", "D2", "--report", str(page), *model]) == 0
    out = capsys.readouterr().out
    assert "P(human)" in out
    assert "if a device: " in out
    assert "all other cues" in out
    assert "<svg" in page.read_text()
    assert replayguard.main(["source", str(path), "--json", "--reasons", "0", *model]) == 0
    line = json.loads(capsys.readouterr().out)
    told = line["explanation"]
    total = told["base"] + told["others"] + sum(reason["part"] for reason in told["reasons"])
    assert total == pytest.approx(line["llr"], abs=1e-6)
    assert replayguard.main(["source", str(tmp_path / "none.wav")]) == 1
    assert replayguard.main(["source", str(path), "--reasons", "-1"]) == 2


@bundled
@pytest.mark.parametrize(
    ("network", "sentence"),
    [(object(), "gives no embedding"), (SimpleNamespace(embed=None), "other weights")],
)
def test_a_detector_that_cannot_be_joined_is_refused_before_anything_is_said(
    tmp_path, capsys, monkeypatch, network, sentence
):
    other = SimpleNamespace(network=network, run={})
    monkeypatch.setattr("detector.source.backbone.load", lambda name: other)
    assert replayguard.main(["source", str(tmp_path / "a.wav"), "--detector", "other"]) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.out == ""


def test_an_undefined_cue_is_named_as_a_person_would_name_it():
    assert CUES["low_180"].say(np.nan) == "power from 180 to 260 Hz ? dB against the voice, undefined"
    assert CUES["f0_median"].say(120.0) == "voice at 120 Hz"


def test_bundled_source_model_was_joined_with_the_bundled_detector():
    """They ship together: after either is made again, so is the other."""
    check_same(load("default"), load_source("default").run["fusion"]["detector"])
