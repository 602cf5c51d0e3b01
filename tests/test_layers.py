"""Imports between elman's folders run one way only: this table is the architecture."""

import ast
import re
from pathlib import Path

import pytest

import elman

ROOT = Path(elman.__file__).parent
MAY_IMPORT = {
    "errors": set(),
    "cell": {"errors"},
    "compiler": {"errors"},
    "module": {"errors", "cell", "compiler"},
    "nn": {"errors", "cell", "module"},
    "data": {"errors"},
    "tensors": {"errors"},
    "task": {"errors", "cell", "module", "data", "tensors"},
    "checkpoint": {"errors", "tensors"},
    "console": {"errors", "checkpoint", "task"},
    "train": {"errors", "module", "task", "tensors", "checkpoint", "console", "__init__"},
    "runs": {"errors", "task", "tensors", "checkpoint"},
    "arguments": {"task"},
    "look": {"errors", "cell", "compiler", "module", "task", "checkpoint", "runs"},
    "begin": {"errors", "task", "checkpoint", "train", "__init__"},
    "search": {"errors", "task", "checkpoint", "console", "train", "runs", "arguments"},
    "cli": {
        "errors",
        "task",
        "tensors",
        "checkpoint",
        "console",
        "train",
        "begin",
        "search",
        "runs",
        "arguments",
        "look",
        "__init__",
    },
    "__main__": {"cli"},
    "__init__": {"errors", "cell", "module", "nn"},
}
COMPILER = {
    "collection": set(),
    "graph": set(),
    "aten_ops": {"graph"},
    "written": set(),
    "frames": set(),
    "modes": {"aten_ops", "frames"},
    "trace": {"graph", "aten_ops", "frames", "modes", "written"},
    "simplify": {"graph"},
    "derive": {"graph"},
    "replay": {"graph", "simplify"},
    "unfold": {"graph"},
    "emit": {"collection", "graph", "simplify", "unfold"},
    "segments": {"collection", "graph", "replay", "emit"},
    "spare": {"emit"},
    "run": {"collection", "graph", "simplify", "derive", "segments", "spare", "emit"},
    "verify": {"aten_ops", "modes", "trace", "emit", "run"},
    "__init__": {"collection", "graph", "aten_ops", "trace", "simplify", "unfold", "emit", "segments", "run", "verify"},
}
FILES = sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    """The folder or file directly under elman/ that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The rooms that a file imports from, wherever in it the import stands."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "elman":
                second = parts[1] if len(parts) > 1 else "__init__"
                rooms.add(second if second in MAY_IMPORT else "__init__")
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    own = room(path)
    assert own in MAY_IMPORT, f"{own} has no place in the architecture yet: say in MAY_IMPORT what it may import"
    assert imported(path) - {own} <= MAY_IMPORT[own]


@pytest.mark.parametrize("path", [p for p in FILES if room(p) == "compiler"], ids=lambda p: str(p.relative_to(ROOT)))
def test_passes_of_the_compiler_import_one_way(path):
    own = path.relative_to(ROOT / "compiler").parts[0].removesuffix(".py")
    text = path.read_text(encoding="utf-8")
    used = set(re.findall(r"from elman\.compiler\.(\w+)", text))
    used |= set(re.findall(r"from elman\.compiler import (\w+)", text))
    assert used - {own} <= COMPILER[own]
    assert "torch.nn" not in text or own in ("emit", "modes", "aten_ops"), "the compiler knows no modules"
    assert "nn.Module" not in text


@pytest.mark.parametrize("table", [MAY_IMPORT, COMPILER], ids=["elman", "compiler"])
def test_the_table_has_no_circle(table):
    left = {name: set(others) for name, others in table.items()}
    while left:
        free = {name for name, others in left.items() if not others & left.keys()}
        assert free, f"these import each other in a circle: {sorted(left)}"
        left = {name: others for name, others in left.items() if name not in free}


def test_files_keep_their_size():
    long = {str(path.relative_to(ROOT)): n for path in FILES if (n := len(path.read_text().splitlines())) > 400}
    assert not long
