"""The README is true: its Python runs, and its commands are there."""

import re
from pathlib import Path

import pytest

from elman.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_python_runs():
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 6
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["y"].shape == (100, 8, 28)
    assert names["out"].shape == (8, 100, 256)
    assert names["pixels"].shape == (8, 10, 12, 64)
    assert names["best"].symbols.shape[1:] == (8, 3)
    assert set(names["seen"]) == {"c", "forget_gate"}
    assert names["forward"].h.shape == (8, 32)


def test_its_files_are_there():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    for name in [*pictures, "scripts/demo", "scripts/test", "scripts/check", ".ci/run"]:
        assert (ROOT / name).is_file(), name


def test_its_flags_are_known(capsys):
    said = ""
    for command in (["train", "text"], ["sample"], ["score"]):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        said += capsys.readouterr().out
    flags = set(
        re.findall(r"(?<![\w-])--[a-z][a-z-]+", " ".join(re.findall(r"elman (?:train|sample|score) .*", README)))
    )
    assert flags - {"--help"}
    assert [flag for flag in sorted(flags - {"--recipe"}) if flag not in said] == []
    assert "--recipe min-char-rnn" in said
