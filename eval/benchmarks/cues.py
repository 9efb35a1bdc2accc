"""How long the acoustic cues take, and against librosa one by one: `python -m eval.benchmarks.cues`.

    OMP_NUM_THREADS=1 python -m eval.benchmarks.cues [--seconds 3] [--array D4] [--repeats 7] [--out FOLDER]

The command is made up (a pulsed voice in syllables, arriving as a plane wave over noise): the work is that of
speech. Everything runs once to warm up (librosa compiles), then in turns; times are medians of what this thread
worked (cpu), which is what a busy machine still tells, and of what passed (wall). Goals: all cues of a 3 s,
7-channel command within 350 ms of one core, and within 150 ms without pYIN. Prints JSON; --out writes it.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro

from detector.frontends.cepstral import cepstra, mel_bands
from detector.source import cues
from detector.source.cues import cues_of, residual
from detector.source.cues.clip import HOP, N_FFT, RATE, TOP_HZ, Clip, hear
from detector.source.cues.pitch import FRAME, HIGHEST, LOWEST, pitch_track
from remasc import get_array
from remasc.arrays import MicArray, tdoa
from remasc.atomic import write_text

GOALS = {"all": 350.0, "all but pYIN": 150.0}  # ms


def main(seconds: float = 3.0, array: str = "D4", repeats: int = 7, out: Path | None = None) -> None:
    """Measure, print, and where `out` is given write cues.json there."""
    from threadpoolctl import threadpool_limits

    warnings.simplefilter("ignore")
    mics = get_array(array)
    command = made_up(mics, seconds)
    with threadpool_limits(1):
        clip = hear(command, RATE, mics)
        whole = timed({"all": lambda: cues_of(command, RATE, mics)}, repeats)
        pyin = timed({"pYIN": lambda: pitch_track(fresh(command, mics))}, repeats)
        modules = timed(_modules(command, mics), repeats)
        single = timed(_one_by_one(clip), repeats)
    rest = {key: round(whole["all"][key] - pyin["pYIN"][key], 2) for key in ("cpu_ms", "wall_ms")}
    report = {
        "command": {
            "seconds": seconds,
            "array": mics.name,
            "channels": mics.num_mics,
            "cues": len(cues.NAMES),
        },
        "machine": {"python": platform.python_version(), "machine": platform.machine(), "threads": 1},
        "repeats": repeats,
        "times": whole | pyin | {"all but pYIN": rest},
        "goals_ms": GOALS,
        "met": {
            name: bool((whole | {"all but pYIN": rest})[name]["cpu_ms"] <= goal)
            for name, goal in GOALS.items()
        },
        "by_module": modules,
        "against_librosa": single,
    }
    text = json.dumps(report, indent=1)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "cues.json", text + "\n")
    print(text)


def made_up(mics: MicArray, seconds: float) -> np.ndarray:
    """(M, T) at 16 kHz: syllables of 250 ms with pauses, from 30 degrees, 25 dB above noise."""
    rng, t = np.random.default_rng(0), np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(125 + 20 * np.sin(2 * np.pi * 0.6 * t)) / RATE
    voice = sum(np.cos(k * phase) / k for k in range(1, 40))
    gate = np.clip(4 * np.sin(2 * np.pi * 2 * t), 0, 1) * (t > 0.25) * (t < seconds - 0.4)
    spectrum = np.fft.rfft(voice * gate, 2 * len(t))
    delays = tdoa(mics, np.radians(30), 0.0)[:, 0]
    hertz = np.fft.rfftfreq(2 * len(t), 1 / RATE)
    x = np.fft.irfft(spectrum * np.exp(-2j * np.pi * hertz * delays[:, None]), axis=1)[:, : len(t)]
    x += 10 ** (-25 / 20) * x[0][gate > 0].std() * rng.normal(size=x.shape)
    return (0.3 * x / np.abs(x).max()).astype(np.float32)


def fresh(command: np.ndarray, mics: MicArray) -> Clip:
    """A clip whose band-passed reference and frames are ready, so that what follows is timed alone."""
    clip = hear(command, RATE, mics)
    assert clip is not None
    clip.level, clip.low  # noqa: B018 (computed and kept)
    return clip


def _modules(command: np.ndarray, mics: MicArray) -> dict[str, Callable[[], object]]:
    clip = fresh(command, mics)
    f0 = pitch_track(clip)
    clip.speech_power  # noqa: B018
    calls: dict[str, Callable[[], object]] = {"hearing, framing": lambda: fresh(command, mics).speech_power}
    for module in cues.MODULES:
        arguments = (clip, f0) if module in cues.VOICED else (clip,)
        calls[module.__name__.rpartition(".")[2]] = lambda m=module, a=arguments: m.measure(*a)
    return calls


def _one_by_one(clip: Clip) -> dict[str, Callable[[], object]]:
    """Ours and librosa's for the same quantity of the same channel, frames and hop."""
    import librosa

    x, power = clip.reference, clip.power
    padded = np.pad(x.astype(np.float64), residual.SIZE // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, residual.SIZE)[:: 2 * HOP]
    bank = mel_bands(40, N_FFT, RATE, 60.0, TOP_HZ)
    options = {"sr": RATE, "n_fft": N_FFT, "hop_length": HOP}
    limits = {"fmin": LOWEST, "fmax": HIGHEST, "sr": RATE, "hop_length": HOP}

    def ours_framed() -> Clip:
        again = Clip(clip.waveform[:1], clip.top)
        again.power  # noqa: B018
        return again

    return {
        "spectrogram": ours_framed,
        "spectrogram, librosa": lambda: np.abs(librosa.stft(x, n_fft=N_FFT, hop_length=HOP)) ** 2,
        "pitch (pYIN as set here)": lambda: pitch_track(clip),
        "pitch, librosa (same frames, its defaults)": lambda: librosa.pyin(
            clip.low, frame_length=FRAME, **limits
        ),
        "mfcc": lambda: cepstra(power, bank, 13),
        "mfcc, librosa": lambda: librosa.feature.mfcc(
            S=librosa.power_to_db(librosa.feature.melspectrogram(S=power, n_mels=40, **options)), n_mfcc=13
        ),
        "centroid, flatness, flux": lambda: cues.spectral._shape(power, 0.0),
        "centroid, flatness, onset strength, librosa": lambda: (
            librosa.feature.spectral_centroid(S=np.sqrt(power), sr=RATE),
            librosa.feature.spectral_flatness(S=power, power=1.0),
            librosa.onset.onset_strength(S=librosa.power_to_db(power), sr=RATE),
        ),
        "linear prediction": lambda: residual.prediction(frames),
        "linear prediction, librosa (Burg)": lambda: librosa.lpc(frames + 1e-9, order=residual.ORDER),
    }


def timed(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Medians in ms of each call, in turns, after one of each."""
    for call in calls.values():
        call()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.thread_time()
            call()
            times[name].append((time.thread_time() - cpu, time.perf_counter() - wall))
    return {
        name: {
            key: round(1e3 * statistics.median(pair[i] for pair in pairs), 2)
            for i, key in enumerate(("cpu_ms", "wall_ms"))
        }
        for name, pairs in times.items()
    }


if __name__ == "__main__":
    tyro.cli(main)
