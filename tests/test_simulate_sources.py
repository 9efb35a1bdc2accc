"""Folders of speech and noise that a corpus is made of: what is refused, in one sentence and before anything is
drawn; known again when a run goes on; never all in memory."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eval.card import write_card
from remasc.audio import write_wav
from remasc.identity import scene_rng
from remasc.simulate import generate
from remasc.simulate import speech as speeches
from remasc.simulate.background import LEAST_SHARE, check_noise
from remasc.simulate.noise import band_share
from remasc.simulate.speech import audio_files, check_speech, fingerprint, load_mono, scan_speech
from tests.fuzzing import is_sentence
from tests.test_simulate_corpus import TINY, digest, speech  # noqa: F401 (a fixture)
from tests.test_simulate_template import shared

FEW = dataclasses.replace(TINY, pairs={"train": 1, "dev": 1, "eval": 1}, real_noise_share=1.0)


@pytest.fixture
def nothing_drawn(monkeypatch):
    """From here on whatever draws fails, and not with a sentence."""
    monkeypatch.setattr(sys.modules["remasc.simulate.generate"], "cast_of", None)


@pytest.fixture
def own(speech, tmp_path) -> Path:  # noqa: F811
    """A speech folder that may be spoilt."""
    return shutil.copytree(speech, tmp_path / "speech")


def refused(out: Path, **options) -> str:
    """The sentence with which a corpus is refused, no folder left behind."""
    with pytest.raises(ValueError) as caught:
        generate(FEW, out, arrays=["D4"], workers=1, progress=False, **options)
    assert not out.exists()
    assert is_sentence(str(caught.value))
    return str(caught.value)


def hiss(seconds: float, rate: int = 16000) -> np.ndarray:
    return (0.1 * scene_rng("hiss", str(seconds)).standard_normal((1, int(seconds * rate)))).astype(
        np.float32
    )


def noise_folder(root: Path, count: int) -> Path:
    root.mkdir()
    for n in range(count):
        write_wav(root / f"{n}.wav", hiss(3.0 + n), 16000)
    return root


def test_a_broken_speech_file_is_named_before_anything_is_drawn(own, tmp_path, nothing_drawn):
    path = own / "set" / "s7-4.wav"
    path.write_bytes(path.read_bytes()[:5000])
    assert "s7-4.wav: not a readable sound file" in refused(tmp_path / "out", speech=own)


def test_speech_that_ends_below_the_band_is_refused(own, tmp_path, nothing_drawn):
    write_wav(own / "set" / "s3-1.wav", hiss(1.0, 8000), 8000)
    told = refused(tmp_path / "out", speech=own)
    assert "s3-1.wav: has a sample rate of 8000 Hz; expected speech of 16000 Hz or more" in told


def test_headers_alone_are_looked_at(own, monkeypatch):
    monkeypatch.setattr(speeches, "read_audio", None)
    check_speech(own, scan_speech(own))


def test_noise_that_is_not_finite_or_silent_is_refused(own, tmp_path, nothing_drawn):
    noise = noise_folder(tmp_path / "noise", 4)
    broken = hiss(3.0)
    broken[0, 40000] = np.nan
    soundfile.write(noise / "2.wav", broken.T, 16000, subtype="FLOAT")
    told = refused(tmp_path / "out", speech=own, noise=noise)
    assert "2.wav: holds samples that are NaN" in told
    write_wav(noise / "2.wav", 0 * hiss(3.0), 16000)
    assert "2.wav: is silent" in refused(tmp_path / "out", speech=own, noise=noise)


def test_noise_that_would_drown_the_speech_is_refused(own, tmp_path, nothing_drawn):
    noise = noise_folder(tmp_path / "noise", 4)
    t = np.arange(48000) / 16000
    write_wav(noise / "1.wav", 0.9 * np.sin(2 * np.pi * 40 * t)[None] + 0.1 * hiss(3.0), 16000)
    told = refused(tmp_path / "out", speech=own, noise=noise)
    assert "1.wav: 0.02% of its power lies between 200 and 7000 Hz" in told
    assert "would drown the speech" in told


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("seconds", [0.05, 3.0, 90.0])
def test_the_share_in_the_band_is_that_of_two_tones(rate, seconds):
    """20 dB apart, one in the band and one below it; what lies above 8 kHz and the mean do not count."""
    t = np.arange(int(seconds * rate)) / rate
    tones = np.sin(2 * np.pi * 1000 * t) + 10 * np.sin(2 * np.pi * 60 * t) + 3.0
    if rate > 40000:
        tones += 5 * np.sin(2 * np.pi * 15000 * t)
    share = band_share(tones.astype(np.float32), rate)
    assert share == pytest.approx(1 / 101, rel=0.2 if seconds < 1 else 0.01)
    assert np.isnan(band_share(np.full(3, 0.5, np.float32), rate))


def test_the_noise_that_is_there_passes():
    for path in audio_files(shared().parent / "noise"):
        check_noise(path)
    assert LEAST_SHARE == 0.01  # the least of those clips has 1.5 %


def test_clips_too_long_for_memory_are_refused(own, tmp_path, monkeypatch, nothing_drawn):
    noise = noise_folder(tmp_path / "noise", 4)
    monkeypatch.setattr(speeches, "MOST_SAMPLES", 5 * 16000)
    told = refused(tmp_path / "out", speech=own, noise=noise)
    assert "3.wav: lasts 0.1 minutes, too long to be read whole" in told
    assert "crowd/0.wav: lasts 0.1 minutes" in refused(tmp_path / "out", speech=own)


def test_no_more_sound_is_kept_than_it_may_be(tmp_path, monkeypatch):
    recent = speeches._Recent(5 * 64000)
    monkeypatch.setattr(speeches, "_recent", recent)
    paths = [str(path) for path in audio_files(noise_folder(tmp_path / "noise", 6))]  # 3 to 8 seconds
    for path in [*paths, *paths[::-1]]:
        load_mono(path, 16000)
        assert 0 < recent.bytes <= 8 * 64000
        assert recent.bytes == sum(sound.nbytes for sound in recent._sounds.values())
        assert recent.bytes <= 5 * 64000 or len(recent._sounds) == 1
    short = load_mono(paths[0], 16000)
    assert load_mono(paths[0], 16000) is short
    write_wav(paths[0], hiss(2.0), 16000)
    assert len(load_mono(paths[0], 16000)) == 32000  # not what was kept of the file of before


def test_a_run_goes_on_with_the_sound_it_began_with(own, tmp_path):
    noise = noise_folder(tmp_path / "noise", 4)
    out = tmp_path / "out"
    options = {"noise": noise, "arrays": ["D4"], "workers": 1, "progress": False}
    generate(FEW, out, speech=own, **options)
    whole = digest(out)
    for path in out.rglob("data/*.wav"):
        path.unlink()
    moved = shutil.copytree(noise, tmp_path / "elsewhere" / "noise")  # a copy is the same
    generate(FEW, out, speech=shutil.copytree(own, tmp_path / "copy"), **options | {"noise": moved})
    assert digest(out) == whole
    heard = {json.loads(line)["noise"]["clip"] for line in (out / "scenes.jsonl").read_text().splitlines()}
    for name in heard - {None}:
        write_wav(noise / name, -hiss(3.0 + int(Path(name).stem)), 16000)  # as long as it was
    with pytest.raises(ValueError, match="begun with other noise files of the same names") as caught:
        generate(FEW, out, speech=own, **options)
    assert is_sentence(str(caught.value))
    assert digest(out) == whole
    scenes = [json.loads(line) for line in (out / "scenes.jsonl").read_text().splitlines()]
    for name in {part["file"] for scene in scenes for part in scene["utterance"]}:
        path = own / name
        data = bytearray(path.read_bytes())
        data[-2] ^= 1  # the last bit of the last sample
        path.write_bytes(data)
    with pytest.raises(ValueError, match="begun with other speech"):
        generate(FEW, out, speech=own, **options | {"noise": moved})
    assert digest(out) == whole
    generate(FEW, out, speech=own, resume=False, **options)
    assert digest(out) != whole


def test_a_run_begun_before_sources_were_kept_goes_on(own, tmp_path):
    out = tmp_path / "out"
    options = {"speech": own, "arrays": ["D4"], "workers": 1, "progress": False}
    generate(FEW, out, **options)
    mark = out / "plan.json"
    before = {key: value for key, value in json.loads(mark.read_text()).items() if key != "sources"}
    mark.write_text(json.dumps(before))
    next(out.rglob("data/*.wav")).unlink()
    generate(FEW, out, **options)
    assert json.loads(mark.read_text()) == before  # nobody knows what the older files were made of
    mark.write_text(json.dumps(before | {"sources": [1]}))
    with pytest.raises(ValueError, match="another simulated corpus"):
        generate(FEW, out, **options)


def test_a_fingerprint_sees_names_sizes_and_both_ends(tmp_path):
    (tmp_path / "a").write_bytes(bytes(300_000))
    (tmp_path / "b").write_bytes(b"b")
    names, sound = fingerprint(tmp_path, ["b", "a", "a"])
    assert fingerprint(tmp_path, ["a", "b"]) == [names, sound]
    assert fingerprint(tmp_path, ["a"])[0] != names
    for change in (bytes(299_999), b"x" + bytes(299_999), bytes(299_999) + b"x"):
        (tmp_path / "a").write_bytes(change)
        assert fingerprint(tmp_path, ["a", "b"])[0] == names
        assert fingerprint(tmp_path, ["a", "b"])[1] != sound


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (
            "file;speaker",
            r"metadata\.csv: not readable \(its header is 'file;speaker'\); expected CSV with commas",
        ),
        ("File,Speaker", r"its header is 'File,Speaker'"),
        (
            "filename,who",
            r"partitions that share none; expected a metadata\.csv .* has the header 'filename,who'\)",
        ),
        ("file,speaker", None),
    ],
)
def test_a_table_that_labels_nothing_is_named(own, tmp_path, nothing_drawn, header, told):
    table = own / "set" / "metadata.csv"
    separator = ";" if ";" in header else ","
    rows = [header, *(row.replace(",", separator) for row in table.read_text().splitlines()[1:])]
    table.write_text("\n".join(rows) + "\n")
    if told is None:
        with pytest.raises(TypeError):  # it is not the table: something is drawn
            generate(FEW, tmp_path / "out", speech=own, progress=False)
        return
    with pytest.raises(ValueError, match=told):
        generate(FEW, tmp_path / "out", speech=own, progress=False)


def test_rows_without_a_file_are_named(own, tmp_path, nothing_drawn):
    table = own / "set" / "metadata.csv"
    healthy = table.read_text()
    table.write_text(healthy.replace(".wav", ".mp3"))
    told = refused(tmp_path / "out", speech=own)
    assert "names 40 files and none is there (the first: 's0-0.mp3')" in told
    rows = healthy.splitlines(keepends=True)
    table.write_text("".join(rows[:6] + [row.replace("s", "x", 1) for row in rows[6:]]))
    told = refused(tmp_path / "out", speech=own)
    assert "names 1 speaker for 3 partitions that share none" in told
    assert f"35 rows of {table} without a sound file, the first 'x1-0.wav'" in told


@pytest.mark.parametrize("seed", ["a", 1.5, None, True])
def test_a_seed_is_an_integer(own, tmp_path, seed):
    assert "seed is" in refused(tmp_path / "out", speech=own, seed=seed)


def test_the_card_says_when_partitions_hear_the_same_noise(own, tmp_path, monkeypatch):
    for picture in ("laws", "plans", "spectrograms", "devices"):
        monkeypatch.setattr(f"eval.card.card_figures.{picture}", lambda *_: b"\x89PNG")
    words = "- background clips are shared by train, dev, eval, for there are fewer than three of them"
    for count in (2, 3):
        root = tmp_path / str(count)
        noise = noise_folder(tmp_path / f"noise{count}", count)
        generate(FEW, root, speech=own, noise=noise, arrays=["D4"], workers=1, progress=False)
        assert (words in write_card(root).read_text().splitlines()) == (count < 3)
