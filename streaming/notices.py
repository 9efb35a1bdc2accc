"""What befalls the sound path while it is listened to: said on stderr and in the stream of JSON lines."""

from __future__ import annotations

from dataclasses import dataclass

NOTICES = {
    "overflow": "the device lost samples before they reached this program",
    "behind": "this program took samples too slowly and lost some",
    "unplugged": "the device is gone or stopped",
    "waiting": "the device cannot be opened yet",
    "reconnected": "the device is heard again",
    "rate": "the samples a second are not what they should be",
    "rate-restored": "the samples a second are again what they should be",
    "dead": "microphones give no sound",
    "alive": "microphones give sound again",
    "clipping": "microphones are at full scale",
    "clipping-over": "microphones are below full scale again",
    "copied": "microphones give the same signal",
    "copied-over": "microphones give signals of their own again",
    "swapped": "the order of the microphones does not fit the array",
    "refused": "a block could not be listened to",
    "overloaded": "commands come faster than they can be scored",
    "hook": "the hook failed",
    "record": "an utterance could not be kept",
    "outlet": "a place that decisions are sent to does not take them",
}


@dataclass(frozen=True)
class Notice:
    """`notice` is a word of `NOTICES`, `at` seconds since the stream began, `channels` are counted from 1."""

    notice: str
    detail: str = ""
    at: float = 0.0
    channels: tuple[int, ...] = ()

    @property
    def sentence(self) -> str:
        which = f" (microphone {', '.join(map(str, self.channels))})" if self.channels else ""
        return f"{self.at:.2f} s: {self.detail or NOTICES[self.notice]}{which}"

    def as_dict(self) -> dict[str, object]:
        """Of another kind than every decision, and nothing that a door opens for."""
        return {
            "kind": "notice",
            "notice": self.notice,
            "detail": self.detail or NOTICES[self.notice],
            "at": self.at,
            "channels": list(self.channels),
            "genuine": None,
        }
