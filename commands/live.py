"""`replayguard live`: commands judged while they are heard, from a microphone array or a file."""

import contextlib
import itertools
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from commands import AsJson
from commands.microphone import chosen, microphone, quiet_libraries, recording


def live(
    device: str | None = None,
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
    array: str | None = None,
    channels: str | None = None,
    rate: int | None = None,
    detector: str = "default",
    as_json: AsJson = False,
    threshold: float | None = None,
    margin: float | None = None,
    vad: Literal["energy", "silero"] = "energy",
    record: Path | None = None,
    hook: str | None = None,
    hook_timeout: float = 5.0,
    socket: Path | None = None,
    mqtt: str | None = None,
    dashboard: Literal["auto", "on", "off"] = "auto",
    real_time: bool = False,
    seconds: float | None = None,
) -> int:
    """Find the commands in what a microphone array hears, or in a long recording, and judge each, block by block.

    Runs until Ctrl-C (or a recording's end). What befalls the microphones is said on standard error and, with
    --json, as lines of kind "notice". Only a line whose "genuine" is true is to be accepted.
    Exit code: 0 when every command was decided, 1 when one was not or none was heard, 2 on bad arguments.

    Args:
        device: The sound input by name, part of its name, or number (`replayguard devices`); default: the system's.
        source: Listen to this sound file instead.
        array: The array that records: D1, D2, D3, D4 or an array file (TOML/JSON).
        channels: The device's channels that are the array's microphones, from 1, such as 2-5 or 1,4,2,3; default:
            the first ones, as many as the array has.
        rate: Sample rate in Hz; default: the array's where the device can, else the device's own.
        detector: A bundled detector's name or a checkpoint folder.
        as_json: One JSON object a line, also of commands that still grow (kind "provisional" or "early").
        threshold: Accept at or above this score; default: the detector's own.
        margin: Decide early when the llr is so far from the threshold; default: at the end of a command alone.
        vad: What finds speech: energy above the noise, or Silero's network (needs the extra `vad`).
        record: Keep every utterance as sound, with its decision, in this folder. Nothing is kept without it.
        hook: A program that is run, without a shell, for every decision, which it reads as JSON from standard
            input. Unless it exits with 0 in time the decision accepts nothing.
        hook_timeout: Seconds that the hook may take.
        socket: Offer the JSON lines on a Unix socket at this path as well.
        mqtt: Send the JSON lines to a broker as well: HOST/TOPIC or HOST:PORT/TOPIC (needs the extra `mqtt`).
        dashboard: Draw the microphones and decisions; default: auto, where standard output is a terminal.
            A recording is drawn with --real-time alone.
        real_time: Play --from at its own pace, as a microphone would be heard.
        seconds: Stop after so many seconds of sound.
    """
    if source is not None and device is not None:
        raise ValueError("give either --device or --from, not both")
    if as_json and dashboard == "on":
        raise ValueError("give either --json or --dashboard on, not both")
    if source is not None and not real_time and dashboard == "on":
        raise ValueError("--dashboard on draws a recording at its own pace; give --real-time as well")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"--seconds is {seconds:g}; expected more than 0")
    from streaming.memory import keep_no_lengths

    keep_no_lengths()
    from remasc import get_array
    from streaming import Settings
    from streaming.delivery import Delivery
    from streaming.hook import Hook
    from streaming.online import StreamingDetector
    from streaming.record import Recorder

    geometry = None if array is None else get_array(array)
    settings = Settings(threshold=threshold, margin=margin)
    gate = None if hook is None else Hook(hook, timeout=hook_timeout)
    sound: Any = _file(source, channels, real_time, seconds, geometry) if source is not None else None
    picked = chosen(channels, geometry) if sound is None else ()
    if sound is None:  # a misspelt name is said before a detector is loaded
        from streaming.devices import find, inputs

        with quiet_libraries():
            find(device, inputs(rates=False))
    from detector.score import load

    loaded = load(detector)

    def ears(sample_rate: int) -> StreamingDetector:
        return StreamingDetector(loaded, geometry, sample_rate, settings=settings, vad=_vad(vad, sample_rate))

    with contextlib.ExitStack() as closing:
        recorder = None if record is None else Recorder(record)
        delivery = Delivery(_outlets(as_json, socket, mqtt, closing), recorder, live=source is None)
        if sound is None:
            closing.enter_context(quiet_libraries())
            sound = microphone(device, picked, geometry, rate, seconds)
            closing.callback(sound.close)
        if recorder is not None:
            _tell(recorder.warning)
        if source is not None and not real_time:
            _lines(_one_after_the_other(sound, ears(sound.sample_rate), gate), delivery, as_json)
        else:
            from streaming.session import Session

            session = Session(sound, ears, gate=gate, study=_study(geometry))
            closing.enter_context(_stopped_by_signals(sound))
            _tell(
                f"listening to {sound.name}, {sound.num_mics} channels at {sound.sample_rate} Hz; Ctrl-C ends"
            )
            if dashboard == "on" or (dashboard == "auto" and sys.stdout.isatty() and not as_json):
                from streaming.dashboard import draw

                title = f"replayguard live: {sound.name}, {sound.num_mics} channels at {sound.sample_rate} Hz"
                draw(
                    session,
                    delivery,
                    title=title,
                    threshold=loaded.threshold if threshold is None else threshold,
                )
            else:
                _lines(session, delivery, as_json)
    if not delivery.finals:
        _tell(f"{source or sound.name}: no command was heard")
    return int(delivery.undecided > 0 or not delivery.finals)


def _tell(text: str) -> None:
    from remasc.sentences import plain

    print(f"replayguard live: {plain(text)}", file=sys.stderr, flush=True)


def _file(path: Path, channels: str | None, real_time: bool, seconds: float | None, geometry: Any) -> Any:
    from streaming.sources import ArraySource, Paced

    sound = ArraySource(*recording(path, channels, seconds, geometry))
    return Paced(sound, str(path)) if real_time else sound


def _vad(name: str, sample_rate: int) -> Any:
    if name == "energy":
        return None
    from streaming.silero import SileroVad

    return SileroVad(sample_rate)


def _outlets(
    as_json: bool, socket: Path | None, mqtt: str | None, closing: contextlib.ExitStack
) -> list[Any]:
    from streaming.outlets import MqttOutlet, SocketOutlet, TextOutlet

    outlets: list[Any] = [TextOutlet(sys.stdout)] if as_json else []
    for given, kind in ((socket, SocketOutlet), (mqtt, MqttOutlet)):
        if given is not None:
            outlets.append(kind(given))
            closing.callback(outlets[-1].close)
    return outlets


def _study(geometry: Any) -> Any:
    """What is looked at beside the sound path, where the array is known."""
    if geometry is None or geometry.num_mics < 2:
        return None
    from streaming.study import Study

    return Study(geometry)


@contextlib.contextmanager
def _stopped_by_signals(sound: Any) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the sound, so that what was heard is still judged; a second one ends at once."""
    if threading.current_thread() is not threading.main_thread():  # where signals cannot be taken
        yield
        return

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, before[number])
        sound.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _one_after_the_other(sound: Any, ears: Any, gate: Any) -> Iterator[Any]:
    """A recording as fast as it can be judged: every look at a growing command is taken."""
    from streaming.session import Said

    heard = (one for block in sound for one in ears.hear(block.samples))
    for one in itertools.chain(heard, (one for _ in "1" for one in ears.hear_end())):
        decision = ears.decide(one)
        yield Said(decision if gate is None else gate(decision), one, ears.sample_rate)


def _lines(said: Any, delivery: Any, as_json: bool) -> None:
    """A line for each decision; notices on standard error."""
    from streaming.notices import Notice

    for one in said:
        if one is None:
            continue
        for notice in [one] * isinstance(one, Notice) + delivery.take(one):
            _tell(notice.sentence)
        if not as_json and not isinstance(one, Notice):
            decision = one.decision
            if decision.genuine is not None or decision.final:
                print(decision.sentence, flush=True)
