"""A simulated corpus's card: what is in it, by class, and pictures of it, in one folder that can be read anywhere.

ROOT/card/card.md with its pictures (`PICTURES`) beside it. Everything is read from what the corpus says of itself
(corpus.json, scenes.jsonl) and from a few of its files; the leak probes' verdict joins it when they have been run
(ROOT/probes.json, written by `replayguard corpus probe`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from eval import card_figures
from eval.card_laws import Law, laws_of, laws_table
from eval.probes import VERSION, Verdict, conclusion, table
from remasc import Corpus, Recording
from remasc.atomic import whole_file, write_text
from remasc.protocol import partitions
from remasc.schema import name_of
from remasc.simulate.layout import by_file, read_scenes, scene_of

FOLDER = "card"
PROBES = "probes.json"
PICTURES = {
    "laws.png": "What share of each class lies below a value, law by law; lines part where the classes do",
    "scene-plan.png": "From above: stands with their direction, talkers and devices as they face, background",
    "spectrograms.png": "Spectrograms of first channels, 70 dB from their loudest: genuine above, below a "
    "replay of its words",
    "devices.png": "Some instances of each family of playback devices: response on the axis, directivity of the "
    "largest driver for speech, the mouth's beside it",
}


def write_card(root: str | Path) -> Path:
    """Write the card of a simulated corpus; returns the path of card.md. ValueError for any other corpus."""
    root = Path(root)
    corpus, scenes = Corpus.from_meta(root), read_scenes(root)
    if not scenes:
        raise ValueError(f"{root}: has no scenes.jsonl; expected a corpus that `replayguard simulate` wrote")
    folder = root / FOLDER
    folder.mkdir(exist_ok=True)
    files = recordings_of(corpus, scenes)
    laws = laws_of(corpus.name, scenes, files)
    figures = {
        "laws.png": card_figures.laws(laws),
        "scene-plan.png": card_figures.plans(scenes),
        "spectrograms.png": card_figures.spectrograms(files, _sibling_pairs(scenes)),
        "devices.png": card_figures.devices(corpus.name, scenes),
    }
    for name, image in figures.items():
        with whole_file(folder / name) as temporary:
            temporary.write_bytes(image)
    write_text(folder / "card.md", "\n".join(_sections(corpus, laws, kept_verdicts(root))) + "\n")
    return folder / "card.md"


def keep_verdicts(root: Path, verdicts: Sequence[Verdict]) -> None:
    """Keep what the probes found beside a simulated corpus, and in its card; any other corpus is left alone."""
    if (root / "scenes.jsonl").is_file():
        found = {
            "corpus": _stamp(root),
            "probes": VERSION,
            "verdicts": [verdict.as_dict() for verdict in verdicts],
        }
        write_text(root / PROBES, json.dumps(found, indent=1) + "\n")
        write_card(root)


def _stamp(root: Path) -> str:
    """Which corpus the folder holds: the hash of its scenes."""
    return hashlib.sha256((root / "scenes.jsonl").read_bytes()).hexdigest()


def kept_verdicts(root: Path) -> list[Verdict]:
    """What these very probes found on this very corpus; nothing where others did, or looked at another one."""
    try:
        found = json.loads((root / PROBES).read_text(encoding="utf-8"))
        same = found["corpus"] == _stamp(root) and found.get("probes", 1) == VERSION
        rows = found["verdicts"] if same else []
        return [Verdict.from_dict(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def recordings_of(corpus: Corpus, scenes: Sequence[dict]) -> dict[str, list[Recording]]:
    """scene_id -> its recordings, one an array."""
    owner = by_file(scenes)
    out: dict[str, list[Recording]] = {}
    for recording in corpus:
        if (scene := scene_of(recording.file_id, owner)) is not None:
            out.setdefault(scene["scene_id"], []).append(recording)
    return out


def _sibling_pairs(scenes: Sequence[dict]) -> list[tuple[dict, dict]]:
    """A genuine scene and a replay of the same utterance, or of the same environment where there are no pairs;
    one for each environment."""
    genuine = [s for s in scenes if s["label"] == "genuine"]
    found: dict[int, tuple[dict, dict]] = {}
    by_pair = {s["pair"]: s for s in scenes if s["label"] == "replay"}
    by_place = {s["environment"]: s for s in scenes if s["label"] == "replay"}
    for scene in genuine:
        sibling = by_pair.get(scene["pair"]) or by_place.get(scene["environment"])
        if sibling is not None:
            found.setdefault(scene["environment"], (scene, sibling))
    return [found[environment] for environment in sorted(found)]


def _sections(corpus: Corpus, laws: Sequence[Law], verdicts: Sequence[Verdict]) -> list[str]:
    card, recipe = corpus.card, corpus.card["recipe"]
    return [
        f"# {corpus.name} (simulated)",
        "",
        f"Simulator version {card.get('version')}, seed {card.get('seed')}, recipe `{recipe['name']}` version "
        f"{recipe['version']} (SHA-256 {card.get('recipe_sha256', '')[:12]}), {recipe['protocol']} protocol. "
        "Nothing here was recorded in a room: speech and background are real where the sources below are, "
        "everything between them and the file is a model.",
        "",
        "## Counts",
        "",
        *_counts(corpus),
        "",
        "## Laws, as drawn and as measured",
        "",
        "Median and 5 to 95 % range of each class; a law that both classes share shows the same numbers.",
        "",
        *laws_table(laws),
        "",
        "## Does it leak?",
        "",
        *_leaks(verdicts),
        "",
        "## Sources",
        "",
        *(f"- speech: {row['source']} ({row['licence']})" for row in card.get("speech", [])),
        *(f"- background: {row['source']} ({row['licence']})" for row in card.get("noise", [])),
        *_shared_noise(corpus),
        *(f"- {what}: {is_really}" for what, is_really in card.get("stand_ins", {}).items()),
        "",
        "## Pictures",
        "",
        *(f"{words}.\n\n![{Path(name).stem}]({name})\n" for name, words in PICTURES.items()),
    ]


def _shared_noise(corpus: Corpus) -> list[str]:
    """Whether partitions hear the same background clips, which is so where there are fewer than three."""
    homes = [name for name, part in partitions(corpus).items() if len(part)]
    if not corpus.card.get("noise") or corpus.card.get("noise_disjoint", True) or len(homes) < 2:
        return []
    return [f"- background clips are shared by {', '.join(homes)}, for there are fewer than three of them"]


def _counts(corpus: Corpus) -> list[str]:
    parts = partitions(corpus)
    lines = [
        "| partition | array | genuine | replay | environments (genuine / replay) |",
        "|---|---|---:|---:|---|",
    ]
    for name, part in parts.items():
        for array in sorted({str(r.array) for r in part}):
            rows = [r for r in part if r.array == array]
            classes = Counter(name_of(r.label) for r in rows)
            places = Counter((name_of(r.environment), name_of(r.label)) for r in rows)
            words = ", ".join(
                f"{place} {places[place, 'genuine']}/{places[place, 'replay']}"
                for place in sorted({place for place, _ in places})
            )
            lines.append(f"| {name} | {array} | {classes['genuine']:,} | {classes['replay']:,} | {words} |")
    return lines


def _leaks(verdicts: Sequence[Verdict]) -> list[str]:
    if not verdicts:
        return ["Not probed yet: `replayguard corpus probe ROOT` says, and writes it here."]
    return [table(verdicts), conclusion(verdicts)]
