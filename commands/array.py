"""`replayguard array check`: whether a microphone array is wired as its geometry claims."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import tyro

from commands import AsJson
from commands.microphone import chosen, microphone, quiet_libraries, recording

MARKS = {"ok": "ok", "fault": "FAULT", "unknown": "unknown"}


def check(
    device: str | None = None,
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
    array: str | None = None,
    channels: str | None = None,
    rate: int | None = None,
    seconds: float = 10.0,
    as_json: AsJson = False,
) -> int:
    """Check an array from some seconds of speech: channels in time, polarity, gain, order, distances.

    Speak to the array from several sides while it records. What it cannot tell from what it heard is "unknown".
    Exit code: 0 when nothing is wrong and all could be told, 1 when something is wrong or could not be told, 2 on
    bad arguments.

    Args:
        device: The sound input by name, part of its name, or number (`replayguard devices`); default: the system's.
        source: Check this recording instead.
        array: The array that it should be: D1, D2, D3, D4 or an array file (TOML/JSON).
        channels: The device's or file's channels that are the array's microphones, from 1, such as 2-5 or 1,4,2,3.
        rate: Sample rate of the device in Hz; default: the array's where the device can, else the device's own.
        seconds: How long to record.
        as_json: The findings as one JSON object.
    """
    if array is None:
        raise ValueError(
            "--array is missing; name the array that is to be checked: D1, D2, D3, D4 or an array file"
        )
    if source is not None and device is not None:
        raise ValueError("give either --device or --from, not both")
    if not 1 <= seconds <= 30:
        raise ValueError(f"--seconds is {seconds:g}; expected 1 to 30")
    from remasc import get_array
    from streaming.array_check import check_array

    geometry = get_array(array)
    if source is None:
        waveform, sample_rate = _recorded(device, channels, geometry, rate, seconds)
    else:
        waveform, sample_rate = recording(source, channels, seconds=30)
    report = check_array(waveform, sample_rate, geometry)
    if as_json:
        told = {"array": report.array, "sound": report.sound, "sure": report.sure}
        print(
            json.dumps(told | {"findings": [asdict(finding) for finding in report.findings]}, allow_nan=False)
        )
    else:
        for finding in report.findings:
            print(f"{finding.question:<12}{MARKS[finding.state]:<9}{finding.detail}")
        print(_verdict(report))
    return int(not report.sure)


def _verdict(report: Any) -> str:
    if report.sure:
        return f"as the array {report.array} should be"
    if report.sound:
        return f"nothing speaks against the array {report.array}, but not all could be told"
    return f"not the array {report.array} as it should be"


def _recorded(
    device: str | None, channels: str | None, geometry: Any, rate: int | None, seconds: float
) -> tuple[Any, int]:
    """Sound from a device; ValueError where samples were lost or it went away."""
    import numpy as np

    with quiet_libraries():
        mic = microphone(device, chosen(channels, geometry), geometry, rate, seconds)
        print(
            f"replayguard array check: listening to {mic.name} for {seconds:g} s; speak to it",
            file=sys.stderr,
        )
        told: list[Any] = []
        mic.notice = told.append
        blocks = []
        for block in mic:
            if block.lost or told:
                raise ValueError(
                    f"{mic.name}: samples were lost while it was heard; end what else uses it, and try again"
                )
            blocks.append(block.samples)
    return np.concatenate(blocks, axis=1), mic.sample_rate
