"""What `replayguard live` costs beside its goals: the sound path, a scoring, the first decision, the cold start.

    python -m eval.benchmarks.live [--detector default] [--channels 7] [--rate 44100] [--seconds 60]

The sound path is what has to be done with every 10 ms: the callback (a copy into the capture ring), the read from
it, ring, voice activity and the look after sick microphones; goal: p99 of 2 ms. Scoring runs beside it; goal: p99
of 100 ms. The first decision on a growing command is due a second after speech began; goal: 300 ms later. All of it
is at most a tenth of real time on one core (a fiftieth for the edge variant), begins within 4 s, and takes at most
250 MB above `import torch`.
The stream is that of `eval.benchmarks.streaming`: noise with commands of 2 s, whose verdicts mean nothing. Times
are given as they passed (wall) and as the thread worked (cpu), which is what a busy machine still tells. Prints
JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import tyro

from eval.benchmarks.streaming import BLOCK_SECONDS, Clock, Stream, one_period, peak_mib, stretch
from streaming.capture import Capture
from streaming.memory import keep_no_lengths
from streaming.watch import Watch

GOALS = {
    "sound path, p99 ms": 2.0,
    "scoring, p99 ms": 100.0,
    "real-time factor": 0.1,
    "first decision, ms": 300.0,
    "cold start, s": 4.0,
    "memory above import torch, MiB": 250.0,
}
EDGE_FACTOR = 0.02  # real-time factor of the edge variant
LIVE_SECONDS = 20.0  # of the paced session, in real time


def main(options: Stream) -> None:
    keep_no_lengths()  # as `live` does
    import torch

    torch.set_num_threads(options.threads)
    memory = peak_mib()
    from detector.score import load
    from streaming import StreamingDetector

    ears = StreamingDetector(load(options.detector), options.array, options.rate)
    figures = measure(ears, options.channels, options.seconds)
    grown = peak_mib() - memory
    figures |= paced(ears, options.channels)
    figures["cold start, s"] = cold_start(options)
    figures["memory above import torch, MiB"] = round(grown)
    edge = Path(options.detector).name.startswith("edge")
    figures["goals"] = GOALS | ({"real-time factor": EDGE_FACTOR} if edge else {})
    print(json.dumps(asdict(options) | {"load of the machine": os.getloadavg()[0]} | figures, indent=1))


def measure(ears, channels: int, seconds: float) -> dict[str, object]:
    """Sound path and scoring of one stream in blocks of 10 ms, in one thread, so that each is timed by itself."""
    rate = ears.sample_rate
    period, block = one_period(channels, rate), round(BLOCK_SECONDS * rate)
    capture, watch = Capture(channels, 10 * rate), Watch(channels, rate)
    path, scoring = Clock(), Clock()

    def sound_path(frames):
        capture.write(frames)
        heard = list(ears.hear(capture.read().samples))
        watch.feed(frames.T)
        return heard

    for start in range(0, round(seconds * rate), block):
        frames = stretch(period, start, start + block).T.copy()
        for heard in path.time(sound_path, frames):
            scoring.time(ears.decide, heard)
    busy = {kind: sum(getattr(path, kind)) + sum(getattr(scoring, kind)) for kind in ("wall", "cpu")}
    return {
        "sound path, ms": path.percentiles(),
        "scoring, ms": scoring.percentiles(),
        "scorings": len(scoring.wall),
        "real-time factor": {kind: round(value / seconds, 4) for kind, value in busy.items()},
    }


def paced(ears, channels: int) -> dict[str, object]:
    """A session at the pace of its sound: how long after it was due each decision came."""
    import numpy as np

    from streaming.session import Said, Session
    from streaming.sources import ArraySource, Paced

    rate = ears.sample_rate
    ears.reset()
    sound = stretch(one_period(channels, rate), 0, round(LIVE_SECONDS * rate))
    session = Session(Paced(ArraySource(sound, rate)), lambda _: ears)
    said = [one for one in session if isinstance(one, Said)]
    first, begun = [], set()
    for one in said:
        if one.decision.start not in begun:
            first.append(1e3 * one.latency)
        begun.add(one.decision.start)
    return {
        "first decision, ms": {"median": round(float(np.median(first)), 1), "max": round(max(first), 1)},
        "decisions in real time": len(said),
        "real-time factor of the session, cpu": round(session.view.real_time_factor, 4),
    }


def cold_start(options: Stream) -> float:
    """Seconds from the start of the program to "listening", of a file played as a microphone would be heard."""
    from remasc.audio import write_wav

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.wav"
        write_wav(path, one_period(options.channels, options.rate)[:, : options.rate // 10], options.rate)
        command = [sys.executable, "-m", "replayguard", "live", "--from", str(path), "--real-time", "--json"]
        command += ["--detector", options.detector] + (["--array", options.array] if options.array else [])
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in process.stderr or ():
            if "listening" in line:
                break
        took = time.perf_counter() - began
        process.communicate()
    return round(took, 2)


if __name__ == "__main__":
    main(tyro.cli(Stream, description=__doc__))
