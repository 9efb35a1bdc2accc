"""The walls of the house: who imports whom, what stays light, what a file may hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = {"remasc": set(), "detector": {"remasc"}, "streaming": {"remasc", "detector"}}
SOURCES = sorted(p for room in (*ROOMS, "eval") for p in (ROOT / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Full names of the modules a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            # `from eval import words` names the module eval.words
            package = node.module in ("eval", "detector", "remasc", "streaming")
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if package else {node.module or ""}
            )
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        top = name.split(".")[0]
        assert name != "eval", f"{path}: `import eval` hides the builtin; import from eval.metrics"
        assert top not in ("replayguard", "commands"), f"{path}: nothing imports the front door"
        if room != "eval":
            assert top not in ROOMS or top == room or top in ROOMS[room], f"{path}: {room} imports {name}"
            assert top != "eval" or name == "eval.metrics", f"{path}: {room} imports {name}"


def test_metrics_need_numpy_alone():
    names = {name.split(".")[0] for name in imported(ROOT / "eval/metrics.py")}
    assert names <= set(sys.stdlib_module_names) | {"numpy"}


def test_sound_files_are_opened_in_one_place():
    for path in SOURCES:
        if "soundfile" in imported(path):
            # codecs.py codes and decodes in memory and opens nothing
            allowed = path in (ROOT / "remasc/audio.py", ROOT / "remasc/simulate/codecs.py")
            assert allowed, f"{path} opens sound files; use remasc.audio"


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import remasc", ["torch", "matplotlib", "pyroomacoustics", "joblib"]),
        ("import detector, detector.config", ["torch", "matplotlib"]),
        ("import replayguard", ["numpy", "torch", "rich.progress"]),
        ("import eval.metrics", ["torch", "scipy"]),
    ],
)
def test_imports_stay_light(code, heavy):
    check = f"import sys; {code}; print([m for m in {heavy!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=True)
    assert out.stdout.strip() == "[]"


def test_no_pickle_is_read():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        names = {name.split(".")[0] for name in imported(path)}
        assert not names & {"pickle", "dill", "cloudpickle", "shelve"}, path
        assert "allow_pickle=True" not in text, path
        for line in text.splitlines():
            assert "torch.load(" not in line or "weights_only=True" in line, f"{path}: {line}"
