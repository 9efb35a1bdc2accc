"""Lines reach whoever reads; who does not read holds nobody up."""

import io
import json
import socket
import stat
import struct
import threading
import time

import pytest

from streaming import outlets
from streaming.outlets import MqttOutlet, SocketOutlet, TextOutlet, mqtt_place


def reader(path):
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(5)
    one.connect(str(path))
    return one


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_text_is_flushed_line_by_line():
    class Stream(io.StringIO):
        flushed = 0

        def flush(self):
            self.flushed += 1

    stream = Stream()
    TextOutlet(stream).send("{}")
    assert (stream.getvalue(), stream.flushed) == ("{}\n", 1)


def test_every_reader_gets_every_line_from_then_on(tmp_path):
    outlet = SocketOutlet(tmp_path / "s")
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    outlet.send("nobody hears it")
    one = reader(tmp_path / "s")
    until(lambda: outlet.readers == 1)
    outlet.send('{"n": 1}')
    two = reader(tmp_path / "s")
    until(lambda: outlet.readers == 2)
    outlet.send('{"n": 2}')
    outlet.close()
    assert [json.loads(line)["n"] for line in one.makefile()] == [1, 2]
    assert [json.loads(line)["n"] for line in two.makefile()] == [2]
    assert not (tmp_path / "s").exists()


def test_who_does_not_read_is_left_behind_and_holds_nobody_up(tmp_path, monkeypatch):
    monkeypatch.setattr(outlets, "BACKLOG_BYTES", 50_000)
    outlet = SocketOutlet(tmp_path / "s")
    lazy, keen = reader(tmp_path / "s"), reader(tmp_path / "s")
    until(lambda: outlet.readers == 2)
    got = []
    threading.Thread(target=lambda: got.extend(keen.makefile()), daemon=True).start()
    line = "x" * 999
    slowest = 0.0
    for _ in range(2000):
        began = time.perf_counter()
        outlet.send(line)
        slowest = max(slowest, time.perf_counter() - began)
        if len(got) % 20 == 0:
            time.sleep(0.001)
    until(lambda: outlet.readers <= 1)
    assert slowest < 1.0
    lazy.close()
    outlet.close()


def test_a_reader_that_leaves_is_forgotten(tmp_path):
    outlet = SocketOutlet(tmp_path / "s")
    one = reader(tmp_path / "s")
    until(lambda: outlet.readers == 1)
    one.close()
    outlet.send("{}")
    until(lambda: outlet.readers == 0)
    outlet.close()


def test_a_socket_that_is_left_over_is_replaced_and_nothing_else(tmp_path):
    path = tmp_path / "s"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    outlet = SocketOutlet(path)
    with pytest.raises(ValueError, match="in use"):
        SocketOutlet(path)
    assert reader(path)
    outlet.close()
    path.write_text("mine")
    with pytest.raises(ValueError, match="no socket"):
        SocketOutlet(path)
    assert path.read_text() == "mine"
    with pytest.raises(ValueError, match="cannot be made"):
        SocketOutlet(tmp_path / "none" / "s")
    with pytest.raises(ValueError, match="cannot be made"):
        SocketOutlet(tmp_path / ("s" * 120))


@pytest.mark.parametrize(
    "text", ["", "host", "host/", "/topic", "host:x/t", "host:0/t", "host:70000/t", "host/a/#", "host/+/a"]
)
def test_brokers_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="--mqtt"):
        mqtt_place(text)


class Broker(threading.Thread):
    """As much of MQTT 3.1.1 as one publisher needs: CONNECT, PUBLISH with quality 1, DISCONNECT."""

    def __init__(self, answer=0, silent=False):
        super().__init__(daemon=True)
        self.silent = silent  # takes what is published and says nothing
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port, self.answer, self.published = self.server.getsockname()[1], answer, []
        self.connection = None
        self.start()

    def run(self):
        while True:
            try:
                self.connection, _ = self.server.accept()
            except OSError:
                return
            file = self.connection.makefile("rb")
            while head := file.read(1):
                size, shift = 0, 0
                while True:
                    (byte,) = file.read(1)
                    size, shift = size | (byte & 127) << shift, shift + 7
                    if byte < 128:
                        break
                self._packet(head[0], file.read(size))

    def _packet(self, head, body):
        if head >> 4 == 1:
            self.connection.sendall(bytes([0x20, 2, 0, self.answer]))
        if head >> 4 == 3:
            (length,) = struct.unpack(">H", body[:2])
            quality, retained = head >> 1 & 3, head & 1
            self.published.append(
                (body[2 : 2 + length].decode(), body[4 + length :].decode(), quality, retained)
            )
            if not self.silent:
                self.connection.sendall(bytes([0x40, 2]) + body[2 + length : 4 + length])


def test_mqtt_lines_reach_the_broker_and_are_never_retained():
    pytest.importorskip("paho.mqtt", reason="paho-mqtt (the extra mqtt) is not installed")
    broker = Broker()
    outlet = MqttOutlet(f"127.0.0.1:{broker.port}/home/door")
    outlet.send('{"genuine": null}')
    until(lambda: broker.published)
    assert broker.published == [("home/door", '{"genuine": null}', 1, 0)]
    broker.server.close()
    broker.connection.shutdown(socket.SHUT_RDWR)
    until(lambda: not outlet._client.is_connected())
    with pytest.raises(OSError, match="away"):
        outlet.send("{}")
    outlet.close()


def test_an_mqtt_broker_that_answers_nothing_does_not_fill_the_memory():
    pytest.importorskip("paho.mqtt", reason="paho-mqtt (the extra mqtt) is not installed")
    outlet = MqttOutlet(f"127.0.0.1:{Broker(silent=True).port}/a")
    for _ in range(outlets.MOST_UNANSWERED):
        outlet.send("{}")
    with pytest.raises(OSError, match="does not answer"):
        outlet.send("{}")
    assert len(outlet._client._out_messages) == outlets.MOST_UNANSWERED
    outlet.close()


def test_mqtt_brokers_that_refuse_or_are_away_are_said_at_once(monkeypatch):
    pytest.importorskip("paho.mqtt", reason="paho-mqtt (the extra mqtt) is not installed")
    monkeypatch.setattr(outlets, "ANSWER_SECONDS", 0.5)
    with pytest.raises(ValueError, match="does not take us in"):
        MqttOutlet(f"127.0.0.1:{Broker(answer=5).port}/a")
    with socket.create_server(("127.0.0.1", 0)) as closed:  # a thread within accept would keep it open
        port = closed.getsockname()[1]
    with pytest.raises(ValueError, match="does not answer"):
        MqttOutlet(f"127.0.0.1:{port}/a")
