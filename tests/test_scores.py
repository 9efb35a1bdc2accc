"""The score file: what is written is read back, and what is not a score file is refused with file and line."""

import numpy as np
import pytest

from eval.scores import MAX_WORD, ScoreTable, asvspoof_format, read_scores, write_scores

PROTOCOL = """trial\tpartition\tlabel\tarray\tspeaker
core/1\ttrain\tgenuine\tD1\t1
core/2\tdev\tgenuine\tD1\t2
eval/1\teval\tgenuine\tD2\t3
eval/2\teval\treplay\tD3\t0
"""


def write(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def same(one: ScoreTable, other: ScoreTable) -> bool:
    columns = ("trial", "score", "label", "flag")
    return (
        all(np.array_equal(getattr(one, name), getattr(other, name)) for name in columns)
        and np.array_equal(one.llr, other.llr, equal_nan=True)
        and {k: v.tolist() for k, v in one.conditions.items()}
        == {k: v.tolist() for k, v in other.conditions.items()}
    )


@pytest.mark.parametrize("seed", range(5))
def test_written_is_read_back_bit_for_bit(tmp_path, seed):
    rng = np.random.default_rng(seed)
    n = 50
    table = ScoreTable(
        trial=[f"eval/{i} ü {rng.integers(9)}" for i in range(n)],
        score=rng.normal(size=n) * 10.0 ** rng.integers(-300, 300, n),
        llr=np.where(rng.random(n) < 0.5, np.nan, rng.normal(size=n)),
        label=rng.choice(["genuine", "replay", ""], n),
        flag=rng.choice(["", "too-short"], n),
        conditions={"array": rng.choice(["D1", "-"], n)},
    )
    write_scores(tmp_path / "scores.tsv", table)
    assert same(read_scores(tmp_path / "scores.tsv"), table)
    assert [p.name for p in tmp_path.iterdir()] == ["scores.tsv"]


def test_columns_in_any_order_line_ends_and_a_byte_order_mark(tmp_path):
    text = "label\ttrial\tscore\ngenuine\ta\t1.5\nreplay\tb\t-2e-3\n\tc\t0"
    table = read_scores(write(tmp_path / "plain.tsv", text))
    assert table.trial.tolist() == ["a", "b", "c"]
    assert table.score.tolist() == [1.5, -0.002, 0.0]
    assert table.genuine.tolist() == [True, False, False]
    assert table.replay.tolist() == [False, True, False]
    assert not table.calibrated
    assert not table.abstained.any()
    windows = write(tmp_path / "windows.tsv", b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n")
    assert same(read_scores(windows), table)


def test_llr_of_every_labelled_trial_makes_it_calibrated(tmp_path):
    text = "trial\tscore\tllr\tlabel\na\t1\t2\tgenuine\nb\t1\t\treplay\nc\t1\t\t\n"
    assert not read_scores(write(tmp_path / "a.tsv", text)).calibrated
    assert read_scores(write(tmp_path / "b.tsv", text.replace("\t\treplay", "\t3\treplay"))).calibrated


GOOD = "trial\tscore\tlabel\na\t1\tgenuine\nb\t2\treplay\n"


@pytest.mark.parametrize(
    ("text", "line", "fact"),
    [
        (GOOD + "a\t3\tgenuine\n", "line 4", "trial 'a' was already scored in line 2"),
        (GOOD.replace("2\treplay", "\treplay"), "line 3", "the score is missing"),
        (GOOD.replace("2\treplay", "nan\treplay"), "line 3", "the score is 'nan'"),
        (GOOD.replace("2\treplay", "1e999\treplay"), "line 3", "the score is '1e999'"),
        (GOOD.replace("2\treplay", "1_0\treplay"), "line 3", "the score is '1_0'"),
        (GOOD.replace("2\treplay", "٣\treplay"), "line 3", "the score is '٣'"),
        (GOOD.replace("replay", "spoof"), "line 3", "unknown label 'spoof'.*write 'replay'"),
        (GOOD.replace("replay", "1"), "line 3", "unknown label '1'"),
        (GOOD.replace("2\treplay", "2"), "line 3", "2 columns; expected 3"),
        (GOOD.replace("2\treplay", "2\treplay\tD1"), "line 3", "4 columns; expected 3"),
        (GOOD.replace("b\t2", "\t2"), "line 3", "the trial name is empty"),
        (GOOD.replace("b\t2", "b" * (MAX_WORD + 1) + "\t2"), "line 3", "over 1000 characters"),
        (GOOD.replace("score", "scores", 1), "line 1", "no column 'score'.*rename 'scores'"),
        ("a\t1\tgenuine\n", "line 1", "no column 'trial'"),
        (GOOD.replace("label", "score", 1), "line 1", "named twice"),
        (GOOD.replace("label", "", 1), "line 1", "not at all"),
        ("", "line 1", "the file is empty"),
        ("trial\tscore\n", "", "a header and no trials"),
        (GOOD.encode().replace(b"b\t", b"\xff\t"), "", "not UTF-8"),
        (GOOD.encode("utf-16"), "", "not UTF-8"),
        (GOOD.replace("b\t", "b\0\t"), "", "NUL"),
        ("trial\tscore\tllr\na\t1\tx\n", "line 2", "the llr is 'x'"),
        ("trial\tscore\tllr\na\t1\tinf\n", "line 2", "the llr is 'inf'"),
    ],
)
def test_what_is_not_a_score_file_is_refused(tmp_path, text, line, fact):
    path = write(tmp_path / "some.tsv", text)
    with pytest.raises(ValueError, match=f"(?s){line}.*{fact}") as caught:
        read_scores(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(OSError, match="nothing"):
        read_scores(tmp_path / "nothing.tsv")


def test_protocol_beside_it_gives_labels_and_conditions(tmp_path):
    write(tmp_path / "protocol.tsv", PROTOCOL)
    table = read_scores(write(tmp_path / "scores.tsv", "trial\tscore\neval/2\t-1\neval/1\t1\n"))
    assert table.partition == "eval"
    assert table.label.tolist() == ["replay", "genuine"]
    assert table.conditions["array"].tolist() == ["D3", "D2"]
    assert table.conditions["speaker"].tolist() == ["0", "3"]
    dev = read_scores(write(tmp_path / "dev.tsv", "trial\tscore\ncore/2\t1\n"), partition="dev")
    assert dev.partition == "dev"
    assert dev.label.tolist() == ["genuine"]


@pytest.mark.parametrize(
    ("rows", "fact"),
    [
        ("eval/1\t1\t\t\n", "1 of the 2 trials of partition 'eval'.*have no score.*'eval/2'"),
        ("eval/1\t1\t\t\neval/2\t1\t\t\neval/3\t1\t\t\n", "line 4: trial 'eval/3' is not listed"),
        (
            "eval/1\t1\t\t\neval/2\t1\t\t\ncore/2\t1\t\t\n",
            "line 4: trial 'core/2' belongs to partition 'dev'",
        ),
        ("eval/1\t1\treplay\t\neval/2\t1\t\t\n", "line 2: label is 'replay', and 'genuine'"),
        ("eval/1\t1\t\tD9\neval/2\t1\t\t\n", "line 2: array is 'D9', and 'D2'"),
    ],
)
def test_protocol_is_held(tmp_path, rows, fact):
    protocol = write(tmp_path / "rules.tsv", PROTOCOL)
    scores = write(tmp_path / "scores.tsv", "trial\tscore\tlabel\tarray\n" + rows)
    with pytest.raises(ValueError, match=fact):
        read_scores(scores, protocol=protocol)


def test_bad_protocols_are_refused(tmp_path):
    scores = write(tmp_path / "scores.tsv", "trial\tscore\neval/1\t1\neval/2\t1\n")
    for text, fact in (
        (PROTOCOL + PROTOCOL.splitlines()[-1] + "\n", "line 6: trial 'eval/2' is listed twice"),
        (PROTOCOL.replace("replay", "fake"), "line 5: unknown label 'fake'"),
        (PROTOCOL.replace("\teval\t", "\ttest\t"), "no trial in partition 'eval'; it has dev, test, train"),
        ("", "the file is empty"),
    ):
        with pytest.raises(ValueError, match=fact):
            read_scores(scores, protocol=write(tmp_path / "rules.tsv", text))


def test_what_a_file_cannot_keep_is_not_written(tmp_path):
    for name in ("a\tb", "a\nb", " a", "a\0b"):
        with pytest.raises(ValueError, match="cannot keep"):
            write_scores(tmp_path / "scores.tsv", ScoreTable(trial=[name], score=[1.0]))
    with pytest.raises(ValueError, match="one entry per trial"):
        ScoreTable(trial=["a", "b"], score=[1.0])
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    table = ScoreTable(trial=["a"], score=[1.0])
    write_scores(tmp_path / "scores.tsv", table)
    before = (tmp_path / "scores.tsv").read_bytes()

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_scores(tmp_path / "scores.tsv", ScoreTable(trial=["b"], score=[2.0]))
    assert (tmp_path / "scores.tsv").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_asvspoof_format():
    table = ScoreTable(trial=["a", "b"], score=[0.1, -3.0], label=["genuine", "replay"])
    scores, keys = asvspoof_format(table)
    assert scores == "filename\tcm-score\na\t0.1\nb\t-3.0\n"
    assert keys == "filename\tcm-label\na\tbonafide\nb\tspoof\n"
    with pytest.raises(ValueError, match="no label"):
        asvspoof_format(ScoreTable(trial=["a"], score=[0.1]))
