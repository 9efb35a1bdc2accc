"""Laws of the live page: who may ask, how much, what stays (nothing), and that it says what offline says."""

import asyncio
import json
import re
import socket
import tempfile
import threading
import time

import numpy as np
import pytest
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import detector
from remasc import get_array
from remasc.arrays import tdoa
from remasc.audio import write_wav
from streaming import StreamingDetector, listen
from streaming.sources import ArraySource
from streaming.web.analysis import analyse, spectrogram
from streaming.web.app import FILES, MOST_UPLOADS, MOST_VIEWERS, STATIC, Page, build_app
from streaming.web.bearing import bearing
from streaming.web.feed import Feed, Hub
from streaming.web.guard import HEADERS, MIN_TOKEN, door, host_name
from streaming.web.limits import CLIENTS, RateLimit
from streaming.web.server import Impatient, Punctual, listening, server

HERE, LIVE = "http://127.0.0.1:8765", "ws://127.0.0.1:8765/api/live"
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def judge():
    return detector.load()


@pytest.fixture
def page(judge):
    return Page(judge, door("127.0.0.1"), get_array("D4"))


@pytest.fixture
def client(page):
    return TestClient(build_app(page), base_url=HERE, raise_server_exceptions=False)


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """Where uploads lie while they are judged."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def command(seed=0, mics=7, seconds=1.5, rate=16000):
    """Something like a command: bursts of coloured noise from one side, and the microphones' own noise."""
    g = np.random.default_rng(seed)
    n = round(seconds * rate)
    voice = np.convolve(g.standard_normal(n), [1, 0.9, 0.5], "same")
    voice *= np.clip(np.sin(np.linspace(0, 2 * np.pi * 2.5, n)), 0, 1) * (np.arange(n) > 0.2 * rate)
    x = 0.05 * np.stack([np.roll(voice, m % 3) for m in range(mics)]) + 2e-3 * g.standard_normal((mics, n))
    return x.astype(np.float32)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "command.wav"
    write_wav(path, command(), 16000)
    return path


# ---- the door


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "u@localhost", "10.0.0.1", "", "["],
)
def test_another_name_is_refused(client, host):
    for path in ("/", "/api/about", "/api/analyse"):
        assert client.get(path, headers={"host": host}).status_code == 403, host


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9000", "[::1]:8765"])
def test_our_own_names_are_let_in(client, host):
    assert client.get("/", headers={"host": host}).status_code == 200


def test_two_hosts_are_one_too_many(page):
    assert (
        asyncio.run(status(build_app(page), "/", headers=[(b"host", b"localhost"), (b"host", b"localhost")]))
        == 403
    )
    assert asyncio.run(status(build_app(page), "/", headers=[])) == 403


LOCAL = [(b"host", b"localhost")]


async def status(page, path, *, headers=LOCAL, method="GET", receive=None):
    """The status of a raw request, so that no client tidies it up."""
    answers = []

    async def nothing():
        raise AssertionError("the body was read")

    async def send(message):
        answers.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": headers,
        "query_string": b"", "client": ("1.2.3.4", 1), "server": ("127.0.0.1", 8765), "scheme": "http",
        "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    await build_app(page)(scope, receive or nothing, send)
    return answers[0]["status"]


def upload_status(page, headers=(), receive=None):
    where = {"headers": [*LOCAL, *headers], "method": "POST", "receive": receive}
    return asyncio.run(status(page, "/api/analyse", **where))


def sending(*messages):
    """What a client sends; to ask for more is an error."""
    left = [
        {"type": "http.request", "body": m, "more_body": True} if isinstance(m, bytes) else m
        for m in messages
    ]

    async def receive():
        assert left, "more was read than was sent"
        return left.pop(0)

    return receive


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1:8765.evil.example"]
)
def test_another_site_is_refused(client, origin):
    assert client.post("/api/analyse", content=b"x", headers={"origin": origin}).status_code == 403
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(LIVE, headers={"origin": origin}),
    ):
        pass


def test_a_request_that_another_site_made_is_refused(client):
    assert (
        client.post("/api/analyse", content=b"x", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    )
    assert client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200  # a link


def test_the_page_itself_is_let_in(client, recording):
    answer = client.post("/api/analyse", content=recording.read_bytes(), headers={"origin": HERE})
    assert answer.status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "kitchen.local"])
def test_beyond_this_machine_a_token_is_needed(host):
    with pytest.raises(ValueError, match="token"):
        door(host)
    with pytest.raises(ValueError, match="weak"):
        door(host, "x" * (MIN_TOKEN - 1))
    assert door(host, TOKEN).token == TOKEN


def test_all_addresses_are_asked_for_by_address_or_by_a_given_name():
    open_door = door("0.0.0.0", TOKEN, ("kitchen.local",))
    assert open_door.addresses
    assert "kitchen.local" in open_door.names
    assert not door("192.168.1.5", TOKEN).addresses


@pytest.fixture
def guarded(judge):
    page = Page(judge, door("0.0.0.0", TOKEN))
    return TestClient(build_app(page), base_url="http://192.168.1.5:8765", follow_redirects=False)


def test_without_the_token_nothing_is_given(guarded):
    for path in (*FILES, "/api/about"):
        assert guarded.get(path).status_code == 401
    assert guarded.post("/api/analyse", content=b"x").status_code == 401
    assert guarded.get("/", headers={"host": "kitchen.local"}).status_code == 403
    with pytest.raises(WebSocketDisconnect), guarded.websocket_connect("ws://192.168.1.5:8765/api/live"):
        pass


def test_the_token_leaves_the_address_for_a_cookie(guarded):
    answer = guarded.get(f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert guarded.get("/").status_code == 200
    assert guarded.get("/api/about").status_code == 200


def test_a_program_gives_the_token_as_a_header(guarded):
    assert guarded.get("/api/about", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert guarded.get("/api/about", headers={"authorization": "Bearer wrong"}).status_code == 401


def test_tokens_cannot_be_tried_out(guarded):
    codes = [guarded.get(f"/?token=guess-number-{n}").status_code for n in range(12)]
    assert codes[:10] == [401] * 10
    assert codes[-1] == 429
    assert guarded.get("/", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize("text", ["a b", "a/b", "a?b", "u@h", "[::1", "h:port"])
def test_what_is_no_host_name(text):
    assert host_name(text) is None


# ---- what is served


@pytest.mark.parametrize("path", ["/", "/page.js", "/nothing", "/api/about", "/api/analyse"])
def test_every_answer_keeps_the_page_to_itself(client, path):
    headers = client.get(path).headers
    for name, value in HEADERS.items():
        assert headers[name] == value
    assert "'unsafe" not in headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    ["/../app.py", "/page.css/../../app.py", "/%2e%2e/app.py", "//etc/passwd", "/..\\app.py", "/app.py"],
)
def test_no_path_leads_out(page, path):
    assert asyncio.run(status(page, path)) == 404


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_inline():
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", text), path
        assert "innerHTML" not in text, path
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?! src=)|<style|\son[a-z]+=|\sstyle=", html)
    assert {f"/{name}" for name in re.findall(r'(?:src|href)="/([^"]+)"', html)} <= set(FILES)
    assert {what[0] for what in FILES.values()} == {path.name for path in STATIC.iterdir()}


def test_every_element_that_the_script_asks_for_is_there():
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    asked = set(re.findall(r'(?:at|say)\("([a-z-]+)"', (STATIC / "page.js").read_text(encoding="utf-8")))
    assert asked <= set(re.findall(r'id="([a-z-]+)"', html))


# ---- uploads


def test_an_upload_is_judged_as_offline_and_not_kept(client, judge, recording, empty_folder):
    answer = client.post("/api/analyse?array=D4", content=recording.read_bytes())
    offline = judge.judge_file(recording, "D4")
    said = answer.json()
    assert answer.status_code == 200
    assert said["score"] == pytest.approx(offline.score, abs=1e-5)
    assert (said["decision"], said["accepted"]) == (offline.decision, offline.accepted)
    assert (said["channels"], said["sample_rate"], len(said["levels"])) == (7, 16000, 7)
    assert said["spectrogram"]["height"] > 0
    assert said["direction"]["width"] == len(said["direction"]["best"])
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"RIFF", b"not a sound file at all", b"\0" * 5000, b"fLaC" + b"\xff" * 400]
)
def test_what_is_no_sound_is_undecided_and_tells_no_path(client, empty_folder, content):
    said = client.post("/api/analyse", content=content).json()
    assert (said["decision"], said["accepted"], said["reason"]) == ("undecided", False, "unreadable")
    assert str(empty_folder) not in json.dumps(said)
    assert list(empty_folder.iterdir()) == []


def test_a_damaged_analysis_leaves_no_file(client, empty_folder, recording, monkeypatch):
    def fails(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("streaming.web.app.analyse", fails)
    answer = client.post("/api/analyse", content=recording.read_bytes())
    assert answer.status_code == 500
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "ZeroDivision" not in answer.text
    assert list(empty_folder.iterdir()) == []


def test_what_says_it_is_too_large_is_refused_unread(page, empty_folder):
    page.max_bytes = 1000
    assert upload_status(page, [(b"content-length", b"1001")]) == 413
    assert list(empty_folder.iterdir()) == []


def test_what_turns_out_too_large_is_refused_at_once(page, empty_folder):
    page.max_bytes = 1000
    assert upload_status(page, receive=sending(*[b"x" * 400] * 3)) == 413
    assert list(empty_folder.iterdir()) == []


def test_a_client_that_leaves_leaves_no_file(page, empty_folder):
    with pytest.raises(ClientDisconnect):
        upload_status(page, receive=sending(b"x" * 400, {"type": "http.disconnect"}))
    assert list(empty_folder.iterdir()) == []
    assert page.uploads == 0


def test_an_upload_that_takes_for_ever_is_ended(page, empty_folder):
    page.upload_seconds = 0.05

    async def drip():
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    assert upload_status(page, receive=drip) == 408
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "²"])
def test_a_length_that_is_no_number_is_refused(page, length):
    assert upload_status(page, [(b"content-length", length.encode("latin-1"))]) == 400


def test_an_empty_upload_is_refused(client):
    assert client.post("/api/analyse", content=b"").status_code == 400


def test_an_array_is_a_name_and_no_path(client, tmp_path):
    (tmp_path / "mine.json").write_text("{}")
    for name in (str(tmp_path / "mine.json"), "../D4", "D9"):
        answer = client.post("/api/analyse", params={"array": name}, content=b"x")
        assert answer.status_code == 400
        assert "Unknown array" in answer.json()["error"]


def test_more_uploads_at_once_are_sent_away(client, page):
    page.uploads = MOST_UPLOADS
    answer = client.post("/api/analyse", content=b"x")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_too_many_in_a_short_time_are_sent_away(client, page):
    page.rate = RateLimit(3, 3600)
    codes = [client.post("/api/analyse", content=b"x").status_code for _ in range(4)]
    assert codes == [200, 200, 200, 429]


def test_the_rate_limit_fills_again_and_stays_small():
    now = [0.0]
    limit = RateLimit(2, 10.0, clock=lambda: now[0])
    assert [limit.take("me") for _ in range(3)] == [True, True, False]
    now[0] = 5.1
    assert [limit.take("me") for _ in range(2)] == [True, False]
    now[0] = 1000.0
    assert sum(limit.take("me") for _ in range(9)) == 2
    for n in range(3 * CLIENTS):
        limit.take(str(n))
    assert len(limit._clients) == CLIENTS


def test_a_recording_too_large_in_memory_is_refused_before_it_is_read(tmp_path, judge, monkeypatch):
    monkeypatch.setattr("streaming.web.analysis.MOST_SAMPLES", 1000)
    monkeypatch.setattr("streaming.web.analysis.read_audio", lambda *_, **__: pytest.fail("it was read"))
    path = tmp_path / "x.wav"
    write_wav(path, command(), 16000)
    assert "too much" in analyse(path, judge, None, None)["because"]


def test_words_do_not_contradict_the_decision(judge, recording):
    score = judge.judge_file(recording, "D4").score
    for threshold in (score - 1, score + 1):
        said = analyse(recording, judge, get_array("D4"), threshold)
        assert said["accepted"] == (threshold < score)
        assert ("at or above" in said["because"]) == said["accepted"]
        if said["llr"] > 0 and not said["accepted"]:
            assert said["words"].startswith("Not accepted")


def test_cues_are_told_beside_and_decide_nothing(page, recording):
    pytest.importorskip("sklearn")
    from detector.source.model import bundled_sources, load_source

    if "default" not in bundled_sources():
        pytest.skip("no source model ships")
    page.second = load_source()
    with_cues = analyse(recording, page.detector, page.array, None, page.second)
    without = analyse(recording, page.detector, page.array, None)
    assert without.pop("cues") is None
    assert {name: with_cues[name] for name in without} == without
    assert with_cues["cues"]["words"].startswith("By these cues alone")
    assert {reason["speaks_for"] for reason in with_cues["cues"]["reasons"]} <= {"genuine", "replay"}


# ---- pictures


@pytest.mark.parametrize("name", ["D1", "D2", "D3", "D4"])
@pytest.mark.parametrize("degrees", [-60, -20, 0, 35, 70])
def test_a_far_source_is_heard_where_it_is(name, degrees):
    array, g = get_array(name), np.random.default_rng(abs(degrees))
    delays = tdoa(array, np.radians(degrees), 0.0)[:, 0]
    spectrum = np.fft.rfft(g.standard_normal(16000))
    hertz = np.fft.rfftfreq(16000, 1 / 16000)
    x = np.fft.irfft(spectrum * np.exp(-2j * np.pi * hertz * delays[:, None]))
    x = 0.05 * x + 1e-3 * g.standard_normal(x.shape)
    found = bearing(x.astype(np.float32), 16000, array)
    assert abs(found.typical - degrees) <= 6
    assert np.isfinite(found.best).mean() > 0.9


def test_where_no_direction_can_be_none_is_said():
    g = np.random.default_rng(0)
    apart = bearing(g.standard_normal((7, 16000)).astype(np.float32), 16000, get_array("D4"))
    assert np.isnan(apart.best).mean() > 0.8
    assert bearing(np.zeros((1, 16000), np.float32), 16000, get_array("D4").select((0,))) is None
    assert bearing(np.zeros((7, 100), np.float32), 16000, get_array("D4")) is None
    assert bearing(np.zeros((7, 16000), np.float32), 16000, get_array("D4")).typical is None


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_tone_is_drawn_at_its_height(rate):
    import base64

    tone = np.sin(2 * np.pi * 2000 * np.arange(2 * rate) / rate).astype(np.float32)
    image = spectrogram(tone, rate)
    pixels = np.frombuffer(base64.b64decode(image["pixels"]), np.uint8).reshape(
        image["height"], image["width"]
    )
    row = pixels.mean(axis=1).argmax()
    assert abs((1 - row / image["height"]) * 8000 - 2000) < 130
    assert spectrogram(tone[:100], rate) is None


# ---- the live side


def stream():
    """Two commands with the microphones' noise around them."""
    noise = 2e-3 * np.random.default_rng(5).standard_normal((7, 24000)).astype(np.float32)
    return np.concatenate([noise, command(1), noise, command(2), noise], axis=1)


def ears(judge):
    return lambda rate: StreamingDetector(judge, "D4", rate)


def messages(socket, until="ended"):
    got = [socket.receive_json()]
    while got[-1]["type"] != until:
        got.append(socket.receive_json())
    return got


def test_a_viewer_hears_what_offline_says(judge):
    waveform = stream()
    offline = [
        d for d in listen(ArraySource(waveform, 16000), StreamingDetector(judge, "D4", 16000)) if d.final
    ]
    go = threading.Event()

    class Waiting(ArraySource):
        def __iter__(self):
            go.wait(10)
            return super().__iter__()

    feed = Feed(lambda: Waiting(waveform, 16000), ears(judge), get_array("D4"))
    page = Page(judge, door("127.0.0.1"), get_array("D4"), feed=feed, source="test")
    with TestClient(build_app(page), base_url=HERE) as client:
        with client.websocket_connect(LIVE) as socket:
            go.set()
            got = messages(socket)
        with client.websocket_connect(LIVE) as socket:
            late = messages(socket)
    assert got[0]["type"] == "about"
    assert got[0]["microphones"] == 7
    finals = [m for m in got if m["type"] == "decision" and m["kind"] == "final"]
    assert len(finals) == len(offline) == 2
    for message, decision in zip(finals, offline, strict=True):
        assert (message["start"], message["end"]) == (decision.start, decision.end)
        assert message["score"] == pytest.approx(decision.score, abs=1e-5)
        assert message["genuine"] is decision.genuine
    assert [m["score"] for m in late[0]["past"]] == [m["score"] for m in finals]
    assert not feed.hub.viewers


def test_a_recording_that_comes_again_goes_on_in_seconds_and_in_work(judge, monkeypatch):
    monkeypatch.setattr("streaming.web.feed.PAUSE_SECONDS", 0.01)
    x = np.zeros((7, 16000), np.float32)
    feed = Feed(lambda: ArraySource(x, 16000), ears(judge), None, again=True)
    first = feed.session
    feed.start(None)
    assert until(lambda: feed.session is not first and feed.session.view.seconds > 2)
    assert feed.session.view.listen_busy > first.view.listen_busy
    feed.stop()


def test_a_slow_viewer_loses_the_oldest_and_nothing_grows():
    hub, queue = Hub(), asyncio.Queue(maxsize=4)
    hub.viewers.add(queue)
    for n in range(100):
        hub.give({"type": "decision", "kind": "final", "n": n})
    assert [queue.get_nowait()["n"] for _ in range(4)] == [96, 97, 98, 99]
    assert len(hub.past) == 50


def test_there_are_not_more_viewers_than_allowed(judge):
    feed = Feed(lambda: ArraySource(stream(), 16000), ears(judge), None)
    page = Page(judge, door("127.0.0.1"), feed=feed)
    feed.hub.viewers |= {asyncio.Queue() for _ in range(MOST_VIEWERS)}
    client = TestClient(build_app(page), base_url=HERE)
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(LIVE):
        pass


def test_without_a_source_there_is_no_live_side(client):
    assert client.get("/api/about").json()["live"] is False
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(LIVE):
        pass


def test_what_fails_while_listening_is_said(judge):
    class Broken(ArraySource):
        def __iter__(self):
            raise ValueError("the cable is cut")

    feed = Feed(lambda: Broken(stream(), 16000), ears(judge), None)
    page = Page(judge, door("127.0.0.1"), feed=feed)
    with (
        TestClient(build_app(page), base_url=HERE) as client,
        client.websocket_connect(LIVE) as socket,
    ):
        assert "cable" in messages(socket)[-1]["detail"]
        assert client.get("/").status_code == 200


# ---- the front door


def test_the_command_refuses_what_cannot_be(capsys):
    import replayguard

    for arguments, words in (
        (["--host", "0.0.0.0", "--token", "short"], "weak"),
        (["--port", "70000"], "port"),
        (["--max-mib", "0"], "max-mib"),
        (["--device", "x", "--from", "y.wav"], "not both"),
        (["--from", "no-such-file.wav", "--port", "0"], "no-such-file"),
    ):
        assert replayguard.main(["serve", *arguments]) == 2
        assert words in capsys.readouterr().err


def test_a_source_model_that_cannot_be_used_does_not_close_the_page(capsys, monkeypatch):
    from commands import serve
    from detector.source import model

    def fails():
        raise ValueError("of another version")

    monkeypatch.setattr(model, "bundled_sources", lambda: ("default",))
    monkeypatch.setattr(model, "load_source", fails)
    assert serve._second_opinion() is None
    assert "of another version" in capsys.readouterr().err


@pytest.mark.parametrize(("host", "needed"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_a_token_is_made_and_printed_where_others_reach_the_page(host, needed, page, capsys, monkeypatch):
    import replayguard

    monkeypatch.setattr("streaming.web.server.run", lambda *_: None)
    monkeypatch.setattr("commands.serve._page", lambda *_: page)
    assert replayguard.main(["serve", "--host", host, "--port", "0"]) == 0
    said = capsys.readouterr()
    token = re.search(r"\?token=(\S+)", said.out)
    assert (token is not None, page.door.token is not None, page.door.addresses) == (needed,) * 3
    assert ("put this machine's address" in said.err) == needed
    if needed:
        assert page.door.token == token[1]
        assert len(token[1]) >= MIN_TOKEN


def test_a_port_in_use_is_one_sentence(capsys):
    import replayguard

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert replayguard.main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "choose another" in capsys.readouterr().err


@pytest.fixture
def serving(page, monkeypatch):
    """A real server that is impatient, in a thread, and its address; the system holds little of what it sends."""
    monkeypatch.setattr(Punctual, "patience", 0.3)
    monkeypatch.setattr(Impatient, "taking", 0.5)
    with listening("127.0.0.1", 0) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        one = server(page)
        thread = threading.Thread(target=one.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        yield one, bound.getsockname()
        one.should_exit = True
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.fixture
def address(serving):
    return serving[1]


ASKED = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", ASKED[:20], ASKED + b"GET"])
def test_who_connects_and_does_not_ask_is_shown_out(address, sent):
    with socket.create_connection(address, timeout=10) as idle:
        idle.sendall(sent)
        said = b""
        while part := idle.recv(65536):  # a timeout would be an OSError
            said += part
    assert said.startswith(b"HTTP/1.1 200") == sent.startswith(ASKED)


def trickle(slow):
    for _ in range(100):
        slow.sendall(b"x")
        time.sleep(0.05)


def test_a_header_that_trickles_in_is_shown_out(address):
    with socket.create_connection(address, timeout=10) as slow, pytest.raises(OSError):
        trickle(slow)


@pytest.mark.parametrize("asked", [b"POST / HTTP/1.1", b"POST /api/analyse?array=no HTTP/1.1"])
def test_a_body_that_trickles_in_after_its_answer_is_shown_out(address, asked):
    with socket.create_connection(address, timeout=10) as slow:
        slow.sendall(asked + b"\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n")
        assert slow.recv(12).startswith(b"HTTP/1.1 4")
        with pytest.raises(OSError):
            trickle(slow)


def stingy(address):
    """A connection whose system takes little before somebody reads."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.settimeout(10)
    reader.connect(address)
    return reader


def until(what, seconds=8.0):
    ends = time.monotonic() + seconds
    while not what() and time.monotonic() < ends:
        time.sleep(0.02)
    return what()


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
def test_who_asks_and_does_not_read_is_shown_out(serving, more):
    one, address = serving
    asked = b"GET /pictures.js HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with stingy(address) as reader:
        reader.sendall(40 * (asked + b"\r\n") + asked + more + b"\r\n")
        assert until(lambda: len(one.server_state.connections) == 1)
        assert until(lambda: not one.server_state.connections)
        assert until(lambda: not one.server_state.tasks)  # ends a moment after its connection
    with socket.create_connection(address, timeout=10) as prompt:
        prompt.sendall(ASKED)
        assert prompt.recv(12) == b"HTTP/1.1 200"


def test_who_reads_slowly_but_reads_gets_all(address):
    with stingy(address) as reader:
        reader.sendall(b"GET /pictures.js HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        said = b""
        while part := reader.recv(2048):
            said += part
            time.sleep(0.005)
    assert said.endswith((STATIC / "pictures.js").read_bytes())


UPGRADE = (
    b"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Endless(ArraySource):
    """Sound for as long as the test takes."""

    over = False

    def stop(self):
        self.over = True

    def __iter__(self):
        while not self.over:
            time.sleep(0.05)
            yield from super().__iter__()


@pytest.fixture
def on_air(page, judge):
    """The page's live side; ask for it before `serving`."""
    page.feed = Feed(lambda: Endless(np.zeros((7, 160), np.float32), 16000), ears(judge), None)
    return page.feed


def test_a_viewer_that_does_not_read_is_shown_out(on_air, serving):
    one, address = serving
    with stingy(address) as reader, stingy(address) as other:
        for viewer in (reader, other):
            viewer.sendall(UPGRADE)
            assert viewer.recv(12) == b"HTTP/1.1 101"
        assert until(lambda: len(on_air.hub.viewers) == 2)
        for _ in range(400):
            on_air.hub.publish({"type": "notice", "sentence": "x" * 2000})
            other.recv(65536)
        assert until(lambda: len(on_air.hub.viewers) < 2)
        assert until(lambda: len(one.server_state.connections) < 2)
        assert len(on_air.hub.viewers) == len(one.server_state.connections) == 1


def test_who_pings_and_does_not_read_the_answers_owes_no_more_than_allowed(on_air, serving, monkeypatch):
    monkeypatch.setattr("streaming.web.server.MOST_OWED", 50_000)
    monkeypatch.setattr(Impatient, "taking", 60.0)
    ping = b"\x89\xfd" + b"\0" * 4 + b"x" * 125
    with stingy(serving[1]) as reader:
        reader.sendall(UPGRADE)
        with pytest.raises(OSError):
            reader.sendall(ping * 200_000)
