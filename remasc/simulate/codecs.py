"""What a lossy codec leaves of an utterance that the attacker stored: the real encoders of libsndfile, in memory.

AAC is not among them; Vorbis stands in its place.
"""

from __future__ import annotations

import io

import numpy as np
import soundfile as sf
from scipy import fft as sfft

# name -> format, subtype, and the compression levels (0 best .. 1 worst) that people use for speech at 16 kHz
CODECS = {
    "mp3": ("MP3", "MPEG_LAYER_III", (0.3, 0.9)),  # about 110 to 25 kbit/s
    "opus": ("OGG", "OPUS", (0.6, 0.97)),  # about 110 to 16 kbit/s
    "vorbis": ("OGG", "VORBIS", (0.2, 0.95)),  # about 80 to 30 kbit/s
}


def coded(x: np.ndarray, rate: int, name: str, compression: float) -> np.ndarray:
    """`x` (N,) at `rate` after the codec and back, in its place: encoders' delays are taken out again.

    Raises ValueError for a name that is not in `CODECS`.
    """
    if name not in CODECS:
        raise ValueError(f"unknown codec {name!r}; expected one of {', '.join(CODECS)}")
    kind, subtype, _ = CODECS[name]
    peak = float(np.abs(x).max()) + 1e-12
    store = io.BytesIO()
    options = {"bitrate_mode": "CONSTANT"} if name == "mp3" else {}
    sf.write(
        store, 0.5 * x / peak, rate, format=kind, subtype=subtype, compression_level=compression, **options
    )
    store.seek(0)
    decoded = sf.read(store, dtype="float32")[0] * np.float32(2 * peak)
    out = np.zeros_like(x)
    delay = max(0, lag(decoded, x, most=rate // 4))
    kept = decoded[delay : delay + len(x)]
    out[: len(kept)] = kept
    return out


def lag(late: np.ndarray, early: np.ndarray, most: int) -> int:
    """By how many samples `late` follows `early` where they are most alike, -most to most."""
    size = sfft.next_fast_len(len(late) + len(early))
    alike = sfft.irfft(sfft.rfft(late, size) * np.conj(sfft.rfft(early, size)), size)
    near = np.concatenate([alike[-most:], alike[: most + 1]])
    return int(np.argmax(near)) - most
