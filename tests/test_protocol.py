import csv
import hashlib
from collections import Counter

import pytest
from tiny_corpus import make_corpus, meta_row, real_corpus

from remasc import Corpus, Label
from remasc.protocol import held_out, partitions, write_protocol

DEV_SPEAKERS = [4, 5, 21, 23, 26, 30, 37, 43]


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    """Ten speakers in core, two in eval; every speaker in every cell."""
    for subset, speakers, first in (("core", range(1, 11), 1000000), ("eval", (11, 12, 0), 5000000)):
        folder = tmp_path / subset
        folder.mkdir()
        cells = [
            (s, d, k, e, p)
            for s in speakers
            for d in (1, 4)
            for k in (2, 3, 1)
            for e in (2, 4)
            for p in (1, 3)
        ]
        rows = [
            meta_row(first + n, k, s, e, 1, d if k > 1 else -1, playback=p if k == 3 else -1)
            for n, (s, d, k, e, p) in enumerate(cells)
            if s or k == 3
        ]
        (folder / "meta.csv").write_text("\n".join(rows))
    return Corpus.from_meta(tmp_path)


def speakers(part: Corpus) -> set[int]:
    return {r.speaker for r in part} - {0}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_partitions_hold_every_trial_once_and_share_no_speaker(corpus, seed, share):
    parts = partitions(corpus, dev_share=share, seed=seed)
    assert list(parts) == ["train", "dev", "eval"]
    assert Counter(r for part in parts.values() for r in part) == Counter(corpus.trials())
    assert {r.subset for r in parts["eval"]} == {"eval"}
    assert {r.subset for r in (*parts["train"], *parts["dev"])} == {"core"}
    assert not speakers(parts["train"]) & speakers(parts["dev"])
    assert not (speakers(parts["train"]) | speakers(parts["dev"])) & speakers(parts["eval"])
    assert len(parts["dev"]) == pytest.approx(share * len(corpus.trials().filter(subset="core")))


def test_seeds_draw_different_speakers_and_the_same_seed_the_same(corpus):
    drawn = {frozenset(speakers(partitions(corpus, seed=seed)["dev"])) for seed in range(10)}
    assert len(drawn) > 3
    assert partitions(corpus, seed=7) == partitions(corpus, seed=7)


def test_the_order_of_rows_does_not_matter(corpus):
    turned = corpus.replace(reversed(corpus.recordings))
    assert speakers(partitions(turned)["dev"]) == speakers(partitions(corpus)["dev"])


def test_real_dev_set_keeps_all_conditions():
    corpus = real_corpus()
    parts = partitions(corpus)
    assert [len(parts[name]) for name in ("train", "dev", "eval")] == [18_825, 4_681, 16_280]
    # Drawn once and for all: a change here makes every published figure incomparable.
    assert sorted(speakers(parts["dev"])) == DEV_SPEAKERS
    whole = Counter((r.array, r.environment, r.label) for r in corpus.filter(subset="core").trials())
    dev = Counter((r.array, r.environment, r.label) for r in parts["dev"])
    assert set(dev) == set(whole)
    for cell, count in whole.items():
        assert 0.02 < dev[cell] / count < 0.6, cell


def test_one_speaker_cannot_be_cut(tmp_path):
    (tmp_path / "meta.csv").write_text("\n".join(meta_row(n) for n in range(1, 5)))
    with pytest.raises(ValueError, match="one speaker"):
        partitions(Corpus.from_meta(tmp_path))


@pytest.mark.parametrize("share", [0, 1, -1, 2])
def test_dev_share_is_a_share(corpus, share):
    with pytest.raises(ValueError, match="dev_share"):
        partitions(corpus, dev_share=share)


def listing(corpus: Corpus, rule) -> str:
    return "trial\tpartition\n" + "".join(f"{r.trial_id}\t{rule(r)}\n" for r in corpus.trials())


def test_the_simulators_own_partition_rules(corpus):
    rule = lambda r: "eval" if r.subset == "eval" else "dev" if r.speaker == 3 else "train"  # noqa: E731
    (corpus.root / "partitions.tsv").write_text(listing(corpus, rule))
    parts = partitions(corpus, seed=99)
    assert all(rule(r) == name for name, part in parts.items() for r in part)
    d4 = partitions(corpus.filter(array="D4"))
    assert speakers(d4["dev"]) == {3}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda text: text.replace("trial\t", "id\t"), "header"),
        (lambda text: text.replace("train", "test", 1), "line 2: partition 'test'"),
        (lambda text: text + text.splitlines()[1] + "\n", "listed twice"),
        (lambda text: "\n".join(text.splitlines()[:-1]) + "\n", "not listed"),
        (lambda text: "", "header"),
        (lambda text: text.replace("train", "dev", 1), "speaker 1 is in both train and dev"),
    ],
)
def test_bad_partition_lists_are_refused(corpus, change, match):
    text = listing(corpus, lambda r: "eval" if r.subset == "eval" else "train")
    (corpus.root / "partitions.tsv").write_text(change(text))
    with pytest.raises(ValueError, match=match):
        partitions(corpus)


def test_synthetic_voices_may_be_on_both_sides(tmp_path):
    make_corpus(tmp_path, clips=8)
    for subset, first in (("core", 1900000), ("eval", 5900000)):
        path = tmp_path / subset / "meta.csv"
        path.write_text(path.read_text() + meta_row(first, kind=3, speaker=0, recorder=3) + "\n")
    corpus = Corpus.from_meta(tmp_path)
    rule = lambda r: "eval" if r.subset == "eval" else "train"  # noqa: E731
    (tmp_path / "partitions.tsv").write_text(listing(corpus, rule))
    assert 0 in {r.speaker for r in partitions(corpus)["train"]}


@pytest.mark.parametrize("condition", [{"environment": "vehicle"}, {"array": "D4"}, {"playback_device": 3}])
def test_held_out_conditions_are_unseen(corpus, condition):
    parts = partitions(corpus)
    held = held_out(parts, **condition)
    replay = {"label": Label.REPLAY}
    for name in ("train", "dev"):
        assert not held[name].filter(**condition, **replay)
        assert set(held[name]) <= set(parts[name])
    assert held["eval"].filter(**condition, **replay) == held["eval"].filter(**replay)
    assert len(held["eval"].filter(**replay)) > 0
    genuine = held["eval"].filter(label=Label.GENUINE)
    if "playback_device" in condition:  # genuine trials have none: all of them stay, everywhere
        assert all(held[n].filter(label="genuine") == parts[n].filter(label="genuine") for n in parts)
    else:
        assert genuine == genuine.filter(**condition)


@pytest.mark.parametrize(
    "condition",
    [
        {"environment": "vehicle", "playback_device": 3},
        {"environment": "vehicle", "array": "D4", "playback_device": 1},
        {"position": 1, "playback_device": 3},
    ],
)
def test_a_device_held_out_in_a_place_leaves_both_classes_there(corpus, condition):
    parts = partitions(corpus)
    held = held_out(parts, **condition)
    place = {k: v for k, v in condition.items() if k != "playback_device"}
    for name in ("train", "dev"):
        gone = set(parts[name]) - set(held[name])
        assert gone == set(parts[name].filter(**condition))
        for environment in ("indoor-1", "vehicle"):
            for array in ("D1", "D4"):
                cell = held[name].filter(environment=environment, array=array)
                assert {r.label for r in cell} == set(Label)
    assert held["eval"].filter(label="genuine") == parts["eval"].filter(**place, label="genuine")
    assert held["eval"].filter(label="replay") == parts["eval"].filter(**condition)


@pytest.mark.parametrize(
    "condition",
    [
        {"playback_device": (1, 3)},
        {"environment": "vehicle", "playback_device": (1, 3)},
        {"array": "D1", "source_recorder": 1},
    ],
)
def test_holding_out_never_leaves_a_place_that_tells_the_class(corpus, condition):
    with pytest.raises(
        ValueError, match=r"only genuine trials of D1 in .* tell the class; hold out"
    ) as error:
        held_out(partitions(corpus), **condition)
    assert "\n" not in str(error.value)


def test_every_single_condition_of_the_real_protocol_can_be_held_out_or_says_why():
    """All replays of outdoor have a position that no genuine trial has."""
    parts = partitions(real_corpus())
    for condition in (
        *({"environment": e} for e in range(1, 5)),
        *({"playback_device": p} for p in range(1, 6)),
        *({"source_recorder": s} for s in (1, 2)),
        *({"array": f"D{d}"} for d in range(1, 5)),
    ):
        held_out(parts, **condition)
    with pytest.raises(ValueError, match="outdoor"):
        held_out(parts, position=(1, 2))


def test_written_protocol_holds_every_trial_and_its_hash(corpus, tmp_path):
    parts = partitions(corpus)
    path = tmp_path / "protocol.tsv"
    digest = write_protocol(path, parts)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == write_protocol(tmp_path / "again.tsv", parts)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["trial"] for row in rows] == [r.trial_id for part in parts.values() for r in part]
    columns = "trial partition label array environment position source_recorder playback_device speaker"
    assert list(rows[0]) == columns.split()
    assert {row["label"] for row in rows} == {"genuine", "replay"}
    with pytest.raises(ValueError, match="two partitions"):
        write_protocol(path, {"train": corpus, "eval": corpus})
