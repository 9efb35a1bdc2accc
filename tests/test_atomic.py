import os

import pytest

from remasc.atomic import whole_file, write_text


def write_half(path, error: type[BaseException]) -> None:
    with whole_file(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_file_is_whole_or_not_there(tmp_path, error):
    path = tmp_path / "a.txt"
    with pytest.raises(error):
        write_half(path, error)
    assert os.listdir(tmp_path) == []
    write_text(path, "whole\n")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "whole\n"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_suffix_is_kept_and_the_mode_is_an_ordinary_files(tmp_path):
    with whole_file(tmp_path / "a.wav") as temporary:
        assert temporary.suffix == ".wav"
        assert temporary.parent == tmp_path
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "a.wav").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_line_ends_and_letters_are_written_as_given(tmp_path):
    write_text(tmp_path / "a", "ä\r\nb\n")
    assert (tmp_path / "a").read_bytes() == "ä\r\nb\n".encode()
