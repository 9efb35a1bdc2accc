import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tiny_corpus import make_corpus, meta_row, real_corpus, real_root

from remasc import Corpus, Label, Recording
from remasc.corpus import read_meta
from remasc.schema import Environment, PlaybackDevice, RecordingDevice


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    return make_corpus(tmp_path, clips=16)


def write(root: Path, *rows: str, subset: str = "core") -> Path:
    (root / subset).mkdir(parents=True, exist_ok=True)
    (root / subset / "meta.csv").write_text("\n".join(rows) + "\n")
    return root


def test_real_meta_files_have_the_published_counts():
    corpus = real_corpus()
    assert len(corpus) == 44_529
    by_type = Counter((r.subset, r.speech_type.name) for r in corpus)
    assert by_type == {
        ("core", "SOURCE"): 3_441,
        ("core", "GENUINE"): 6_331,
        ("core", "REPLAY"): 17_175,
        ("eval", "SOURCE"): 1_302,
        ("eval", "GENUINE"): 2_118,
        ("eval", "REPLAY"): 14_162,
    }
    assert len({r.trial_id for r in corpus}) == len(corpus)
    assert not corpus.simulated
    assert not corpus.filter(array="D1", environment="indoor-1", label="genuine")
    assert len(corpus.filter(subset="eval", source_recorder="tts", label="replay")) == 8_856


def test_real_meta_files_load_in_a_second():
    root = real_root()
    took = []
    for _ in range(3):
        start = time.perf_counter()
        Corpus.from_meta(root)
        took.append(time.perf_counter() - start)
    assert min(took) < 1.0


def test_core_comes_before_eval_in_the_order_of_the_file(corpus):
    assert [r.subset for r in corpus] == ["core"] * 16 + ["eval"] * 8
    assert [r.file_id for r in corpus.filter(subset="core")] == [str(1000000 + n) for n in range(16)]
    assert all(r.path.is_file() for r in corpus)


def test_a_corpus_is_a_frozen_sequence(corpus):
    assert isinstance(corpus[0], Recording)
    assert corpus[-1] == list(corpus)[-1]
    assert isinstance(corpus[3:7], Corpus)
    assert corpus[:3].root == corpus.root
    assert corpus == Corpus.from_meta(corpus.root)
    assert corpus[2] in corpus
    with pytest.raises(TypeError):
        corpus[0] = corpus[1]


def test_filters_split_the_corpus_into_disjoint_parts_that_make_it_whole(corpus):
    for key in (
        "subset",
        "array",
        "environment",
        "position",
        "source_recorder",
        "playback_device",
        "speaker",
        "label",
    ):
        values = {getattr(r, key) for r in corpus}
        parts = [corpus.filter(**{key: value}) for value in values]
        assert sum(map(len, parts)) == len(corpus)
        assert corpus.filter(**{key: values}) == corpus
        assert all(getattr(r, key) == value for value, part in zip(values, parts, strict=True) for r in part)


def test_filters_take_enums_codes_words_and_collections(corpus):
    for one, other in (
        ({"environment": "indoor-1"}, {"environment": Environment.INDOOR_1}),
        ({"environment": 2}, {"environment": Environment.INDOOR_1}),
        ({"label": "replay"}, {"label": Label.REPLAY}),
        ({"label": "replay"}, {"label": 0}),
        ({"playback_device": "Small_Speaker"}, {"playback_device": PlaybackDevice.SMALL_SPEAKER}),
        ({"playback_device": "-"}, {"playback_device": None}),
        ({"array": "d2"}, {"array": RecordingDevice.D2}),
        ({"array": ["D1", "D2"]}, {"array": {"D2", "D1"}}),
        ({"speaker": range(1, 3)}, {"speaker": np.array([1, 2]).tolist()}),
    ):
        assert len(corpus.filter(**one)) > 0, one
        assert corpus.filter(**one) == corpus.filter(**other)
    assert corpus.filter(array="D1", label="genuine") == corpus.filter(label="genuine").filter(array="D1")
    assert len(corpus.filter(array=[])) == 0


@pytest.mark.parametrize(
    ("condition", "match"),
    [
        ({"enviroment": "vehicle"}, "did you mean environment"),
        ({"environment": "indor-1"}, "did you mean indoor-1"),
        ({"environment": 9}, "known: outdoor"),
        ({"array": "D9"}, "did you mean D"),
        ({"label": "fake"}, "genuine"),
        ({"speaker": "Anna"}, "integer"),
        ({"subset": "dev"}, "core"),
    ],
)
def test_unknown_conditions_are_refused(corpus, condition, match):
    with pytest.raises(ValueError, match=match):
        corpus.filter(**condition)


def test_trials_leave_out_the_source_recordings(tmp_path):
    root = write(tmp_path, meta_row(1, kind=1, device=-1), meta_row(2), meta_row(3, kind=3))
    assert [r.file_id for r in Corpus.from_meta(root).trials()] == ["2", "3"]


def test_published_quirks_are_kept(tmp_path):
    root = write(
        tmp_path,
        meta_row(1010204, kind=2, environment=1, position=-1, recorder=1),
        meta_row(2010204567, kind=2, environment=4, position=26),
        meta_row(3010204, kind=3, environment=4, position=0, speaker=0, recorder=3, playback=5),
    )
    outdoor, seat, built_in = Corpus.from_meta(root)
    assert outdoor.source_recorder is not None
    assert outdoor.position == -1
    assert (seat.position, seat.file_id) == (26, "2010204567")
    assert (built_in.speaker, built_in.playback_device) == (0, PlaybackDevice.VEHICLE)


def test_layouts(tmp_path):
    write(tmp_path / "a", meta_row(1), subset="")
    write(tmp_path / "b", meta_row(1), subset="complete")
    for subset in ("core", "eval", "complete"):
        write(tmp_path / "c", meta_row(1), subset=subset)
    assert [r.trial_id for r in Corpus.from_meta(tmp_path / "a")] == ["1"]
    assert [r.trial_id for r in Corpus.from_meta(tmp_path / "b")] == ["complete/1"]
    assert [r.trial_id for r in Corpus.from_meta(tmp_path / "c")] == ["core/1", "eval/1"]  # not its union too
    assert Corpus.from_meta(tmp_path / "a")[0].path == tmp_path / "a" / "data" / "1.wav"
    for nothing in (tmp_path, tmp_path / "gone"):
        with pytest.raises(ValueError, match=r"data/README.md"):
            Corpus.from_meta(nothing)


def test_line_ends_blank_lines_and_a_byte_order_mark_are_harmless(tmp_path):
    root = write(tmp_path, meta_row(1), meta_row(2))
    plain = Corpus.from_meta(root)
    text = "\ufeff" + (root / "core" / "meta.csv").read_text().replace("\n", "\r\n") + "\r\n"
    (root / "core" / "meta.csv").write_bytes(text.encode())
    assert Corpus.from_meta(root) == plain


def test_simulated_is_what_the_card_says(tmp_path):
    root = write(tmp_path, meta_row(1))
    assert not Corpus.from_meta(root).simulated
    (root / "corpus.json").write_text('{"name": "tiny", "simulated": true}')
    corpus = Corpus.from_meta(root)
    assert corpus.simulated
    assert corpus.name == "tiny"
    assert corpus.filter(array="D1").simulated
    for bad in ("[]", '{"simulated": "yes"}', "{", "[" * 100_000):
        (root / "corpus.json").write_text(bad)
        with pytest.raises(ValueError, match=r"corpus\.json"):
            Corpus.from_meta(root)


@pytest.mark.parametrize(
    ("column", "cell", "match"),
    [
        (0, "", "file id"),
        (0, "../../etc", "file id"),
        (1, "4", "speech type '4'; expected 1, 2, 3"),
        (1, "-1", "speech type"),
        (2, "x", "speaker 'x'; expected an integer"),
        (2, "-3", "speaker"),
        (3, "0", "environment"),
        (4, "1.5", "position"),
        (4, "-2", "position"),
        (5, "7", "source recorder '7'; expected 1, 2, 3 or -1"),
        (6, "6", "playback device"),
        (7, "5", "recording device"),
        (7, "-1", "recording device -1"),
        (8, "nan", "seconds"),
        (8, "-1", "seconds"),
        (8, "1e9", "seconds"),
    ],
)
def test_a_malformed_row_is_named_by_file_line_and_column(tmp_path, column, cell, match):
    cells = meta_row(2).split(",")
    cells[column] = cell
    root = write(tmp_path, meta_row(1), "", ",".join(cells))
    with pytest.raises(ValueError, match=match) as error:
        Corpus.from_meta(root)
    assert str(error.value).startswith(f"{root / 'core' / 'meta.csv'}, line 3: ")


def test_missing_columns_doubles_and_empty_files_are_refused(tmp_path):
    path = tmp_path / "core" / "meta.csv"
    for rows, match in (
        (["1,2,3"], "line 1: 3 columns; expected 9"),
        ([meta_row(1) + ",0"], "line 1: 10 columns"),
        ([meta_row(1), meta_row(2), meta_row(1)], "line 3: file id 1 stands in line 1"),
        ([""], "holds no rows"),
    ):
        write(tmp_path, *rows)
        with pytest.raises(ValueError, match=match):
            read_meta(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        read_meta(path)
