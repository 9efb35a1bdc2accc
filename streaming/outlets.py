"""Where decisions and notices go: JSON lines on a stream, on a Unix socket, to an MQTT broker.

An outlet takes lines and never keeps the detector waiting: who does not read is left behind. Nothing that an
outlet does can turn a decision into an acceptance, and a line that is missing accepts nothing.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

from remasc.sentences import quoted, reason

BACKLOG_BYTES = 1 << 20  # of lines that a reader of the socket may owe
MOST_READERS = 32
ANSWER_SECONDS = 5.0  # for a broker to take us in
MOST_UNANSWERED = 100  # lines that a broker may owe its word on


class Outlet(Protocol):
    def send(self, line: str) -> None:
        """One line of JSON without its end; OSError where it could not be sent."""

    def close(self) -> None: ...


class TextOutlet:
    """A stream of text, such as standard output; flushed after every line."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def send(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None: ...


class SocketOutlet:
    """A Unix socket; whoever connects gets every line from then on. Only this user may connect.

    A socket file that nobody listens on any more is replaced; one that is in use, or another kind of file, is a
    ValueError.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._server = _listening(self.path)
        self._inode = self.path.stat().st_ino
        self._readers: dict[socket.socket, bytearray] = {}
        self._lock = threading.Lock()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._open = True
        self._thread = threading.Thread(target=self._serve, name="socket", daemon=True)
        self._thread.start()

    @property
    def readers(self) -> int:
        return len(self._readers)

    def send(self, line: str) -> None:
        data = line.encode() + b"\n"
        with self._lock:
            for reader, owed in list(self._readers.items()):
                if len(owed) + len(data) > BACKLOG_BYTES:
                    self._drop(reader)
                else:
                    owed += data
        self._wake()

    def close(self) -> None:
        """Send what is owed to those who read, and remove the file."""
        self._open = False
        self._wake()
        self._thread.join(timeout=2)
        self._server.close()
        with suppress(OSError):
            if self.path.stat().st_ino == self._inode:  # not the one of whoever came after us
                self.path.unlink()

    def _wake(self) -> None:
        with suppress(OSError):  # full: it will wake anyway
            self._wake_in.send(b"\0")

    def _drop(self, reader: socket.socket) -> None:
        self._readers.pop(reader, None)
        reader.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self._server, selectors.EVENT_READ)
            ready.register(self._wake_out, selectors.EVENT_READ)
            patience = 4  # rounds of 0.25 s for what is owed at the end
            while self._open or (patience and any(self._readers.values())):
                patience -= not self._open
                for key, _ in ready.select(timeout=0.25):
                    if key.fileobj is self._server:
                        self._welcome()
                    else:
                        self._wake_out.recv(4096)
                with self._lock:
                    for reader in list(self._readers):
                        self._pay(reader)
        with self._lock:
            for reader in list(self._readers):
                self._drop(reader)

    def _welcome(self) -> None:
        try:
            reader, _ = self._server.accept()
        except OSError:
            return
        with self._lock:
            if len(self._readers) >= MOST_READERS:
                reader.close()
                return
            reader.setblocking(False)
            self._readers[reader] = bytearray()

    def _pay(self, reader: socket.socket) -> None:
        """As much of what a reader is owed as it takes now."""
        owed = self._readers[reader]
        try:
            if owed:
                del owed[: reader.send(owed)]
            elif reader.recv(4096, socket.MSG_DONTWAIT) == b"":
                self._drop(reader)  # it went away
        except BlockingIOError:
            pass
        except OSError:
            self._drop(reader)


def _listening(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists():
            _make_way(path)
        mask = os.umask(0o177)
        try:
            server.bind(str(path))
        finally:
            os.umask(mask)
        server.listen(MOST_READERS)
        server.setblocking(False)
    except OSError as error:
        server.close()
        raise ValueError(
            f"--socket {path} cannot be made ({reason(error)}); give a path of at most 107 characters in a "
            "folder that you may write"
        ) from None
    except ValueError:
        server.close()
        raise
    return server


def _make_way(path: Path) -> None:
    """Remove a socket that nobody listens on; ValueError for anything else."""
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise ValueError(f"--socket {path} is a file that is no socket; give a path that is free")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        try:
            other.connect(str(path))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise
            path.unlink()
            return
    raise ValueError(f"--socket {path} is in use by another program; give another path, or end that program")


class MqttOutlet:
    """A topic of an MQTT broker, given as HOST/TOPIC or HOST:PORT/TOPIC; port 8883 speaks TLS.

    Lines are sent with quality of service 1 and never retained: an old acceptance must not greet a new listener.
    A broker that is away is looked for in the background; lines that came meanwhile are dropped, and send says so,
    as are those to a broker that is there and answers nothing.
    User and password come from REPLAYGUARD_MQTT_USER and REPLAYGUARD_MQTT_PASSWORD.
    """

    def __init__(self, place: str):
        host, port, self.topic = mqtt_place(place)
        try:
            from paho.mqtt import client as mqtt
        except ImportError:
            raise ValueError(
                "--mqtt needs paho-mqtt; install it by `pip install 'replayguard[mqtt]'`"
            ) from None
        self._client: Any = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        if user := os.environ.get("REPLAYGUARD_MQTT_USER"):
            self._client.username_pw_set(user, os.environ.get("REPLAYGUARD_MQTT_PASSWORD"))
        if port == 8883:
            self._client.tls_set()
        self._client.reconnect_delay_set(1, 30)
        self._client.max_queued_messages_set(MOST_UNANSWERED)
        try:
            self._client.connect(host, port, keepalive=30)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"the MQTT broker {host}:{port} does not answer ({reason(error)}); start it, or give --mqtt another"
            ) from None
        self._client.loop_start()
        self._welcomed(f"{host}:{port}")

    def _welcomed(self, broker: str) -> None:
        """Wait until the broker took us in; ValueError where it does not."""
        until = time.monotonic() + ANSWER_SECONDS
        while not self._client.is_connected():
            if time.monotonic() > until:
                self.close()
                raise ValueError(
                    f"the MQTT broker {broker} does not take us in; check REPLAYGUARD_MQTT_USER and "
                    "REPLAYGUARD_MQTT_PASSWORD, and that it speaks MQTT"
                )
            time.sleep(0.01)

    def send(self, line: str) -> None:
        if not self._client.is_connected():
            raise OSError(f"the MQTT broker is away; a line for {self.topic} was dropped")
        if self._client.publish(self.topic, line, qos=1, retain=False).rc:
            raise OSError(f"the MQTT broker does not answer; a line for {self.topic} was dropped")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def mqtt_place(text: str) -> tuple[str, int, str]:
    """HOST, port and topic.

    >>> mqtt_place("broker.local/home/door"), mqtt_place("[::1]:1884/a")
    (('broker.local', 1883, 'home/door'), ('::1', 1884, 'a'))
    """
    address, _, topic = text.partition("/")
    host, _, port = address.rpartition(":") if ":" in address.rpartition("]")[2] else (address, "", "1883")
    host = host.strip("[]")
    if not host or not topic or set(topic) & set("#+\0") or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(
            f"--mqtt is {quoted(text)}; expected HOST/TOPIC or HOST:PORT/TOPIC, such as localhost/home/door, "
            "and no wildcard in the topic"
        )
    return host, int(port), topic
