"""As much of the module sounddevice as `streaming` uses, with a device that tests plug in, feed and pull out."""

from types import SimpleNamespace

import numpy as np


class PortAudioError(Exception):
    pass


class FakeStream:
    def __init__(self, sound, settings):
        self.sound, self.settings, self.active, self.closed = sound, settings, False, False

    def start(self):
        self.active = True
        self.sound.streams.append(self)

    def abort(self):
        self.active = False

    def close(self):
        self.active, self.closed = False, True


class FakePortAudio:
    """`plugged` maps names to (channels, rates); `feed` calls the open stream's callback."""

    PortAudioError = PortAudioError

    def __init__(self, **plugged):
        self.plugged = plugged or {"ReSpeaker 4 Mic Array (UAC1.0)": (6, (16000,))}
        self.streams, self.started, self.gone = [], 0, False
        self.default = SimpleNamespace(device=[0, 0])

    def query_hostapis(self):
        return ({"name": "ALSA"},)

    def query_devices(self):
        return [
            {
                "name": name,
                "hostapi": 0,
                "max_input_channels": channels,
                "default_samplerate": float(rates[0]),
            }
            for name, (channels, rates) in self.plugged.items()
        ]

    def check_input_settings(self, *, device, channels, samplerate, dtype):
        most, rates = list(self.plugged.values())[device]
        if channels > most or samplerate not in rates:
            raise PortAudioError("Invalid sample rate [PaErrorCode -9997]")

    def InputStream(self, **settings):
        self.check_input_settings(
            device=settings["device"], channels=settings["channels"], samplerate=settings["samplerate"],
            dtype=settings["dtype"],
        )  # fmt: skip
        return FakeStream(self, settings)

    def _terminate(self):
        assert all(stream.closed for stream in self.streams), "PortAudio was ended under an open stream"

    def _initialize(self):
        self.started += 1

    @property
    def stream(self):
        return self.streams[-1]

    def feed(self, samples, *, overflow=False):
        """(C, T) samples in one call."""
        frames = np.ascontiguousarray(samples[: self.stream.settings["channels"]].T.astype(np.float32))
        status = SimpleNamespace(input_overflow=True) if overflow else None
        self.stream.settings["callback"](frames, len(frames), None, status)

    def unplug(self):
        self.stream.active = False
        self.plugged = {}
