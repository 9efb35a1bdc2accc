"""A sound device as a source of blocks that survives what devices do: overflow, unplugging, another rate.

The callback copies into a ring and does nothing else; whoever iterates polls the ring. A device that is gone is
looked for again, less and less often; the blocks that follow are said to come after a loss.
Shapes: M microphones, C channels of the device, t samples of one block.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from remasc.sentences import plain, reason
from streaming.blocks import Block
from streaming.capture import Capture
from streaming.devices import find, inputs, portaudio, takes
from streaming.notices import Notice

BLOCK_SECONDS = 0.01
RING_SECONDS = 10.0  # how long the listener may be away
POLL_SECONDS = 0.005
TOLD_SECONDS = 1.0  # a machine that loses samples all the time says so once a second
FROZEN_SECONDS = 0.5  # without a turn for this thread: a suspended machine, a debugger
STALLED_SECONDS = 3.0  # so long without a sample, and the device counts as gone
WAIT_SECONDS = (0.25, 8.0)  # before the first and, doubled each time, at most before a later attempt
RATE_WINDOW, RATE_TOLERANCE = 10.0, 0.02  # seconds over which samples are counted; sound cards err by 0.01 %


@dataclass
class Pace:
    """Counts samples against the clock: a device that gives another rate than it says shifts every frequency."""

    rate: int
    since: float = 0.0
    count: int = 0
    before: float | None = None  # what the window before measured

    def restart(self, now: float) -> None:
        self.since, self.count, self.before = now, 0, None

    def step(self, samples: int, now: float) -> float | None:
        """Measured Hz, where two windows in a row agree: a buffer that empties itself at once is no rate."""
        self.count += samples
        if now - self.since < RATE_WINDOW:
            return None
        measured, before = self.count / (now - self.since), self.before
        self.since, self.count, self.before = now, 0, measured
        agreed = before is not None and abs(measured - before) <= RATE_TOLERANCE * self.rate
        return measured if agreed else None


class Microphone:
    """Blocks (M, t) of the chosen channels of a device, until `stop` is called or `seconds` of sound were given.

    `channels` are those of the device, from 0; `sample_rate` None takes what `array_rate` says where the device
    can, or its own default. The device is found and opened at once: ValueError where it is not there or does not
    record so. After that it is waited for. `sample_rate` may change after it came back;
    whoever listens looks at it with each block.
    """

    def __init__(
        self,
        device: str | None,
        channels: tuple[int, ...],
        sample_rate: int | None = None,
        *,
        array_rate: int | None = None,
        seconds: float | None = None,
        notice: Callable[[Notice], None] = lambda _: None,
        patience: tuple[float, float] = WAIT_SECONDS,
    ):
        self.device, self.channels = device, tuple(channels)
        self.num_mics = len(self.channels)
        self.notice, self.patience = notice, patience
        self.rate_is_wrong = False
        self._wish, self._array_rate = sample_rate, array_rate
        self._limit = float("inf") if seconds is None else seconds
        self._away = False  # it was lost and not heard since
        self._silent = False  # it was opened again and gave nothing
        self._wait = patience[0]  # seconds before the next attempt to open it
        self._told = float("-inf")  # when a loss was last said
        self._given = 0  # samples given out since the beginning
        self._seconds = 0.0
        self._stopped = threading.Event()
        self._stream = self._capture = None
        self.name, self.sample_rate = "", sample_rate or array_rate or 0
        self._sound = portaudio()
        self._open()

    @property
    def seconds(self) -> float:
        """Of sound given out since the beginning."""
        return self._seconds

    def stop(self) -> None:
        """End the iteration; from any thread."""
        self._stopped.set()

    def close(self) -> None:
        """Let go of the device."""
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.abort()
                stream.close()
            except self._sound.PortAudioError:
                pass  # it was unplugged: there is nothing left to close

    def __iter__(self) -> Iterator[Block]:
        try:
            while not self._stopped.is_set():
                if self._stream is None and not self._reopen():
                    break
                yield from self._blocks()
                self.close()
        finally:
            self.close()

    def _say(self, word: str, detail: str = "") -> None:
        self.notice(Notice(word, detail, at=round(self._seconds, 3)))

    def _open(self) -> None:
        """Find the device and start it. ValueError says why it cannot be."""
        one = find(self.device, inputs(rates=False))
        wanted = max(self.channels) + 1
        if one.channels < wanted:
            raise ValueError(
                f"the input {one.name!r} has {one.channels} channels, but channel {wanted} is asked for; choose "
                "others by --channels, or another --device"
            )
        rate = self._rate(one.index, wanted, one.default_rate)
        capture = Capture(wanted, round(RING_SECONDS * rate))

        def callback(samples: np.ndarray, _frames: int, _time: object, status: object) -> None:
            capture.write(samples, status.input_overflow if status else False)

        try:
            self._stream = self._sound.InputStream(
                device=one.index, channels=wanted, samplerate=rate, dtype="float32",
                blocksize=round(BLOCK_SECONDS * rate), latency="high", callback=callback,
            )  # fmt: skip
            self._stream.start()
        except (self._sound.PortAudioError, ValueError) as error:
            self.close()
            raise ValueError(
                f"the input {one.name!r} cannot be opened with {wanted} channels at {rate} Hz "
                f"({plain(reason(error))}); `replayguard devices` lists what there is"
            ) from None
        self._capture, self.name, self.sample_rate = capture, one.name, rate

    def _rate(self, index: int, channels: int, default: int) -> int:
        """What was asked for, what it had before, what the array says, or its default: the first it can do."""
        for rate in (self._wish or 0, self.sample_rate, self._array_rate or 0):
            if rate and takes(self._sound, index, channels, rate):
                return rate
            if rate and rate == self._wish and not self._given:
                raise ValueError(f"the input does not record at {rate} Hz; leave --rate out to take its own")
        return default

    def _reopen(self) -> bool:
        """Wait until the device is back, with growing pauses; False when stopped."""
        told, before = self._silent, self.sample_rate
        while not self._stopped.wait(self._wait):
            self._wait = min(2 * self._wait, self.patience[1])
            try:
                self._rescan()
                self._open()
            except ValueError as error:
                if not told:
                    self._say("waiting", str(error))
                told = True
                continue
            if self.sample_rate != before:
                self._say("rate", f"the device came back with {self.sample_rate} Hz, it had {before}")
            return True
        return False

    def _rescan(self) -> None:
        """PortAudio lists the devices when it starts; only a new start sees what was plugged in."""
        try:
            self._sound._terminate()
            self._sound._initialize()
        except self._sound.PortAudioError as error:
            raise ValueError(f"PortAudio does not start ({reason(error)})") from None

    def _blocks(self) -> Iterator[Block]:
        """What the open stream gives, until it ends or says nothing for too long."""
        capture, stream = self._capture, self._stream
        picked = list(self.channels)
        heard = now = time.monotonic()
        pace, again, self._away = Pace(self.sample_rate), self._away, False
        lost = int(again)
        while not self._stopped.is_set():
            before, now = now, time.monotonic()
            stood_still = now - before > FROZEN_SECONDS and not capture.covers(now - before, self.sample_rate)
            block = capture.read()
            if stood_still:
                self._say("overflow", f"this program stood still for {now - before:.1f} s, so sound was lost")
                lost = 1
            if block is None:
                if not stream.active or (now - heard > STALLED_SECONDS and not stood_still):
                    # what opens again and again and gives no sound is said once, and tried more rarely
                    self._silent = again
                    if not again:
                        self._say("unplugged", f"{self.name!r} {'stopped' if stream.active else 'is gone'}")
                    self._away = True
                    return
                heard = now if stood_still else heard
                time.sleep(POLL_SECONDS)
                continue
            if again:
                self._say("reconnected", f"{self.name!r} is heard again at {self.sample_rate} Hz")
                again = False
            heard, self._wait = now, self.patience[0]
            self._tell_losses(block, capture)
            self._keep_pace(pace, block.samples.shape[1], now, restart=bool(lost or block.lost))
            self._given += block.samples.shape[1]
            self._seconds += block.samples.shape[1] / self.sample_rate
            yield Block(block.samples[picked], lost or block.lost)
            lost = 0
            if self._seconds >= self._limit:
                self.stop()

    def _tell_losses(self, block: Block, capture: Capture) -> None:
        if not block.lost or time.monotonic() - self._told < TOLD_SECONDS:
            return
        self._told = time.monotonic()
        if block.samples.shape[1] == 0:
            self._say("behind", f"{block.lost / self.sample_rate:.2f} s of sound were not taken in time")
        else:
            self._say("overflow")

    def _keep_pace(self, pace: Pace, samples: int, now: float, *, restart: bool) -> None:
        """Tell once when samples come at another rate, and once when that is over."""
        if restart or pace.since == 0.0:
            return pace.restart(now)
        measured = pace.step(samples, now)
        if measured is None:
            return None
        wrong = abs(measured / self.sample_rate - 1) > RATE_TOLERANCE
        if wrong != self.rate_is_wrong:
            said = f"{self.name!r} gives {measured:.0f} samples a second and says {self.sample_rate}"
            self._say("rate" if wrong else "rate-restored", said)
        self.rate_is_wrong = wrong
        return None
