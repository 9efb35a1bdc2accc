"""Names that a person gives, and the files they stand for."""

import pytest

from remasc.files import sound_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.wav", "a.flac", "sub/c.WAV", "sub/notes.txt", "odd[1].wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def named(*patterns, **options) -> list[str]:
    return [str(path) for path in sound_files(patterns, **options)]


@pytest.mark.usefixtures("folder")
def test_files_folders_and_patterns_each_once_and_in_order():
    assert named("b.wav", "*.flac", "b.wav") == ["b.wav", "a.flac"]
    assert named("sub", "*.wav") == ["sub/c.WAV", "b.wav", "odd[1].wav"]
    assert named("odd[1].wav") == ["odd[1].wav"]  # a name that is there is no pattern
    assert named("gone.wav") == ["gone.wav"]  # reported with the others
    assert named("**/*.WAV") == ["sub/c.WAV"]


def test_a_list_of_files(folder):
    (folder / "list.txt").write_text("\ufeffb.wav\r\n\n# a comment\n  sub  \n", encoding="utf-8")
    assert named(file_list=folder / "list.txt") == ["b.wav", "sub/c.WAV"]
    (folder / "list.txt").write_bytes(b"\xff\xfeb")
    with pytest.raises(ValueError, match="not UTF-8"):
        named(file_list=folder / "list.txt")


@pytest.mark.parametrize(
    ("name", "said"),
    [("*.ogg", "no file matches"), ("empty", "holds no sound files"), ("x" * 5000, "expected a sound file")],
)
def test_names_that_stand_for_nothing(folder, name, said):
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=said) as error:
        named(name)
    assert len(str(error.value)) < 300
    with pytest.raises(ValueError, match="nothing to score"):
        named()


def test_what_is_hidden_is_not_taken(folder):
    (folder / ".cache").mkdir()
    for name in (".b.x1.partial.wav", "sub/._c.wav", ".cache/d.wav"):
        (folder / name).touch()
    assert named(".") == ["a.flac", "b.wav", "odd[1].wav", "sub/c.WAV"]
