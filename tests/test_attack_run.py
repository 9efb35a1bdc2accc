"""From names to the table: clips, air, defences, the page; a classifier as victim."""

import json

import numpy as np
import pytest
import torch
from tiny_corpus import make_corpus

from commands.attack import attack
from detector.calibration import Calibration
from detector.score import load
from detector.source.cues import cues_of
from eval.attack_page import attack_example, write_page
from remasc import Corpus, Label
from remasc.protocol import partitions
from remasc.simulate.layout import read_scenes
from streaming.attack.air import other_place, scene_path
from streaming.attack.campaign import Plan
from streaming.attack.pulses import Budget
from streaming.attack.run import Robustness, examples, measure
from streaming.attack.victims import DetectorVictim

TINY = Plan(
    Budget(below_db=-20, pulses=2), attacks=("none", "random", "expert"), generations=1, individuals=3,
    random_draws=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    make_corpus(root, clips=64, seconds=0.8)
    return root


def task(root, **options) -> Robustness:
    base = {"array": "D1", "clips": 1, "genuine": 1, "training": 1, "dev_clips": 1, "plan": TINY}
    return Robustness(root, **(base | options))


def test_from_names_to_the_table(corpus, tmp_path):
    record, campaign, clips = measure(task(corpus), tmp_path, progress=False)
    assert [line["attack"] for line in record["lines"]] == ["none", "random", "expert"]
    assert record["threshold"] == load("default").threshold
    assert record["simulated"] is None
    assert json.loads((tmp_path / "attack.json").read_text())["victim_sha256"] == record["victim_sha256"]
    shown = [
        attack_example(tmp_path / "clips", f"{clip}: {name}", waveform, 16000, row)
        for name, clip, waveform, row in examples(campaign, clips, 1)
    ]
    page = write_page(tmp_path / "attack.html", record, shown).read_text()
    assert page.count("<audio") == 3
    assert "own detector" in page
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched
    again, victim, _ = measure(task(corpus), tmp_path, progress=False)
    assert again["lines"] == record["lines"]
    assert victim.victim.queries == 0


def test_the_score_before_is_the_detectors_own(corpus, tmp_path):
    _, campaign, clips = measure(task(corpus), tmp_path, progress=False)
    case = campaign.plan.cases()[0]
    detector = load("default")
    judged = detector.judge(clips[0].waveform, 16000)
    assert campaign.rows[case.name][0].score_before == pytest.approx(judged.score, abs=1e-6)


def test_systems_that_are_compared_have_their_thresholds_set_alike(corpus, tmp_path):
    plan = Plan(Budget(pulses=0), attacks=("none",))
    record, campaign, _ = measure(
        task(corpus, split="dev", own_threshold=False, p_fa=0.0, plan=plan), tmp_path, progress=False
    )
    found = partitions(Corpus.from_meta(corpus))["dev"].filter(array="D1", label=Label.REPLAY)
    attacked = [row.clip for row in campaign.rows[plan.cases()[0].name]]
    others = [r for r in found if r.trial_id not in attacked]
    assert (len(attacked), len(others)) == (1, 1)
    # that of a clip which is not attacked
    score = load("default").judge_file(others[0].path, "D1").score
    assert record["threshold"] == pytest.approx(np.nextafter(score, np.inf), abs=1e-6)
    assert "not attacked" in record["origin"]


def test_a_defence_has_its_own_threshold(corpus, tmp_path):
    record, campaign, _ = measure(task(corpus, defence="limiter+windows", draws=2), tmp_path, progress=False)
    assert record["threshold"] != load("default").threshold
    assert campaign.victim.draws == 2
    assert "clean dev" in record["origin"]


class TwoCues:
    """As much of a source model as an ensemble asks of it."""

    reads_embeddings, cues, config, run = False, ("centroid", "flatness"), {}, {}

    def score(self, values: np.ndarray) -> np.ndarray:
        return values @ np.array([1e-3, 2.0], np.float32)

    def calibration_of(self, values: np.ndarray) -> Calibration:
        return Calibration(0.5, -1.0)


def test_the_source_classifier_is_a_partner_whom_the_attacker_knows(corpus, tmp_path, monkeypatch):
    """The joint score is the mean of both ratios: a black box in its cues, with the network's gradients alone."""
    monkeypatch.setattr("detector.source.model.load_source", lambda name: TwoCues())
    source = task(corpus, defence="ensemble", partner="source")
    record, campaign, clips = measure(source, tmp_path, progress=False)
    assert "source classifier" in record["defence"]
    victim, bare = campaign.victim, load("default")
    x = clips[0].waveform
    cues = cues_of(x, 16000, "D1")
    joint = (bare.llr(x, 16000) + 0.5 * (1e-3 * cues["centroid"] + 2 * cues["flatness"]) - 1) / 2
    assert victim.verdict(x, 0)[0] == pytest.approx(joint, abs=1e-4)
    heard = torch.from_numpy(x)[None].requires_grad_()
    odds = victim.gradient_odds(heard, 0)
    assert odds.item() == pytest.approx(-joint, abs=1e-4)  # the value is the whole system's
    (slope,) = torch.autograd.grad(odds.sum(), heard)
    alone = DetectorVictim(bare).gradient_odds(heard, 0)
    (half,) = torch.autograd.grad(alone.sum(), heard)
    assert torch.allclose(slope, bare.calibration.slope / 2 * half, atol=1e-3 * float(half.abs().max()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"clips": 0}, "clips is 0"),
        ({"dev_clips": -3}, "dev clips is -3"),
        ({"partner": "source"}, "expected --defence ensemble"),
        ({"defence": "ensemble", "partner": "nobody"}, "nobody"),
        ({"split": "nowhere"}, "unknown split"),
        ({"array": "D9"}, "D9"),
        ({"air": "same"}, "scenes.jsonl"),
        ({"air": "wire"}, "unknown way"),
        ({"defence": "luck"}, "unknown defence"),
        ({"defence": "ensemble"}, "partner"),
    ],
)
def test_wrong_names_are_said(corpus, tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        measure(task(corpus, **options), tmp_path, progress=False)


def test_the_command_says_what_it_needs():
    with pytest.raises(ValueError, match="--corpus"):
        attack()
    with pytest.raises(ValueError, match="--data"):
        attack(classifier="somewhere")


def test_the_way_through_a_room():
    """A hand-made scene: unit energy, causal, later from farther away; another place is another path."""
    scene = hand_made()
    paths = {where: scene_path(scene, "hand", "D1", 16000, where) for where in ("same", "elsewhere")}
    for path in paths.values():
        assert path.shape[0] == 2
        assert path.dtype == np.float32
        assert np.isclose(np.square(path).sum() / 2, 1, rtol=0.01)
    assert not np.allclose(paths["same"][:, :400], paths["elsewhere"][:, :400])
    assert np.array_equal(paths["same"], scene_path(scene, "hand", "D1", 16000, "same"))
    direct = int(1.5 / 343 * 16000)  # the source is 1.5 m away: before the sound there is nothing
    peak = np.abs(paths["same"][0]).argmax()
    assert direct - 3 <= peak <= direct + 60
    assert np.abs(paths["same"][:, : direct - 30]).max() < 0.05 * np.abs(paths["same"]).max()
    assert scene_path(scene, "hand", "D1", 16000, "direct") is None
    fine = scene_path(scene, "hand", "D1", 44100, "same")
    assert abs(fine.shape[1] / paths["same"].shape[1] - 44100 / 16000) < 0.01
    with pytest.raises(ValueError, match="another version"):
        scene_path({k: v for k, v in scene.items() if k != "stand"}, "hand", "D1", 16000, "same")
    with pytest.raises(ValueError, match="no playback device"):
        scene_path(scene | {"device": None}, "hand", "D1", 16000, "same")


def test_another_place_is_in_the_room():
    from remasc.simulate.rooms import room_of

    for number in range(20):
        scene = hand_made() | {"scene_id": f"s{number}"}
        place, facing = other_place(scene, "hand", room_of(scene["room"]))
        assert (place > 0).all()
        assert (place < np.array(scene["room"]["dims"])).all()
        assert np.isclose(np.linalg.norm(facing), 1)


def hand_made() -> dict:
    absorption = [[0.4] * 7] * 6
    room = {
        "id": "r", "kind": "room", "dims": [5.0, 4.0, 2.6], "absorption": absorption, "rt60": [0.3] * 7,
        "temperature": 20.0, "tail_db": 0.0,
    }  # fmt: skip
    return {
        "scene_id": "s", "room": room, "stand": [1.5, 2.0, 1.0], "forward": [1.0, 0.0, 0.0],
        "source": [3.0, 2.0, 1.0], "facing": [-1.0, 0.0, 0.0],
        "device": {"id": "d", "family": 3, "built_in": False},
    }  # fmt: skip


def test_no_scenes_no_rooms(tmp_path):
    assert read_scenes(tmp_path) == []


@pytest.mark.slow
def test_a_keyword_classifier_is_a_victim(tmp_path):
    from detector.checkpoint import save_checkpoint
    from detector.classify.network import Architecture, build
    from detector.classify.store import load_classifier
    from remasc.audio import write_wav
    from streaming.attack.keywords import Keywords, classifier_victim, measure_keywords

    torch.manual_seed(0)
    architecture = Architecture(("yes", "no"), size="tiny", frames=32)
    network = build(architecture)
    config = {"kind": "classifier", "architecture": architecture.as_dict(), "training": {}}
    folder = save_checkpoint(tmp_path / "kws", network, config, {})
    rng = np.random.default_rng(0)
    for word in ("yes", "no"):
        (tmp_path / "words" / word).mkdir(parents=True)
        for number in range(6):
            x = rng.normal(0, 0.1, (1, 6000)).astype(np.float32)
            write_wav(tmp_path / "words" / word / f"{number}.wav", x, 16000)
    plan = Plan(Budget(12, 2), attacks=("none", "random", "pgd"), shape="constant", iterations=3, generations=1,
                individuals=3)  # fmt: skip
    words = Keywords(folder, tmp_path / "words", clips=3, training=2, seconds=0.32, plan=plan)
    record, campaign, clips = measure_keywords(words, tmp_path / "out", progress=False)
    assert len(clips) == 3 or len(clips) == 2
    assert "p_fa" not in record["lines"][0]
    victim = classifier_victim(load_classifier(folder))
    score, right = victim.verdict(clips[0].waveform, clips[0].truth)
    row = campaign.rows[campaign.plan.cases()[0].name][0]
    assert (row.score_before, row.right_before) == (pytest.approx(score, abs=1e-5), right)
