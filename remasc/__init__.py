"""What was recorded: ReMASC and corpora in its layout, arrays, sound files, protocols, prepared caches."""

from remasc.arrays import ARRAYS, MicArray, get_array
from remasc.audio import read_audio
from remasc.corpus import Corpus
from remasc.schema import Label, Recording

__all__ = ["ARRAYS", "Corpus", "Label", "MicArray", "Recording", "get_array", "read_audio"]
