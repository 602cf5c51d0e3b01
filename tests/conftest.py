"""Small texts, and the real ones where they are at hand."""

import os
from pathlib import Path

import pytest

SENTENCE = "the quick brown fox jumps over the lazy dog, and (then) the dog says: hell -> ello!\n"


@pytest.fixture
def text_file(tmp_path, monkeypatch):
    """A short text in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "fox.txt"
    path.write_text(SENTENCE * 60)
    return path


@pytest.fixture(scope="session")
def tinyshakespeare():
    """The real file, or a skip that says where it was looked for."""
    folder = Path(os.environ.get("ELMAN_DATA", Path(__file__).parents[2] / "shared" / "data"))
    path = folder / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        pytest.skip(f"no {path}: set ELMAN_DATA to a folder that holds tinyshakespeare/input.txt")
    return path
