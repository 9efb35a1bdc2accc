"""The live page as a person sees it: a real server, headless Chromium, a recording made by the simulator."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import Browser, chromium

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow
PAINTED = """(id => {
  const sheet = document.getElementById(id), pen = sheet.getContext('2d');
  return new Set(new Uint32Array(pen.getImageData(0, 0, sheet.width, sheet.height).data.buffer)).size > 3;
})"""


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """One command of a simulated corpus as D4 recorded it."""
    pytest.importorskip(
        "espeakng_loader", reason="needs the embedded voices: pip install replayguard[voices]"
    )
    from remasc import Corpus
    from remasc.simulate import generate

    root = generate(
        "small", tmp_path_factory.mktemp("page") / "corpus", arrays=("D4",), scale=0.01, workers=1
    )
    return max(Corpus.from_meta(root).trials(), key=lambda recording: recording.path.stat().st_size).path


@pytest.fixture(scope="module")
def address(recording):
    """A server that plays the recording over and over."""
    command = [sys.executable, "replayguard.py", "serve", "--from", recording, "--array", "D4", "--port", "0"]
    with subprocess.Popen(
        [str(part) for part in command], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()
            assert server.wait(timeout=20) is not None


@pytest.fixture(scope="module")
def browser():
    program = chromium()
    if program is None:
        pytest.skip("needs Chromium, and there is none on this machine")
    with Browser(program) as one:
        yield one


@pytest.mark.parametrize(("width", "dark"), [(1100, False), (390, False), (390, True)])
def test_a_person_sees_the_live_side_and_a_judged_recording(
    browser, address, recording, tmp_path, width, dark
):
    import detector

    browser.errors.clear()
    browser.open(address, width=width, dark=dark)
    browser.wait("document.querySelectorAll('#levels .level').length === 7")
    browser.wait("document.querySelectorAll('#decisions tr').length > 0", 60)
    browser.wait("document.querySelectorAll('#array option').length > 3")
    browser.choose("#file", recording)
    browser.wait("!document.getElementById('result').hidden", 60)
    judged = detector.load().judge_file(recording, "D4")
    assert judged.decision in browser.script("document.getElementById('result-verdict').className")
    assert f"{judged.score:+.2f}" in browser.script("document.getElementById('facts').textContent")
    for name in ("trace", "spectrogram", "direction", "scale"):
        assert browser.script(f"{PAINTED}('{name}')"), name
    assert browser.script("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    paper = browser.script("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(17, 20, 24)" if dark else "rgb(245, 246, 248)")
    browser.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert browser.errors == []


def test_a_file_that_is_no_sound_is_said(browser, address, tmp_path):
    browser.open(address)
    browser.wait("document.querySelectorAll('#array option').length > 3")
    (tmp_path / "letter.txt").write_text("no sound")
    browser.choose("#file", tmp_path / "letter.txt")
    browser.wait("!document.getElementById('result').hidden", 60)
    assert "cannot be judged" in browser.script("document.getElementById('result-words').textContent")


def test_a_page_of_another_site_gets_nothing(browser, address):
    """What a script on another origin (about:blank) may not do: post a recording, listen."""
    browser.open("about:blank")
    posted = (
        "fetch('" + address + "api/analyse', {method: 'POST', body: 'x'}).then(() => 'sent', () => 'refused')"
    )
    assert browser.script(posted) == "refused"
    heard = (
        "new Promise(done => { const s = new WebSocket('" + address.replace("http", "ws") + "api/live');"
        "s.onopen = () => done('heard'); s.onclose = () => done('refused'); })"
    )
    assert browser.script(heard) == "refused"
