"""Small texts, and the real ones where they are at hand."""

import os
from pathlib import Path

import pytest
import torch

SENTENCE = "the quick brown fox jumps over the lazy dog, and (then) the dog says: hell -> ello!\n"


@pytest.fixture
def text_file(tmp_path, monkeypatch):
    """A short text in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "fox.txt"
    path.write_text(SENTENCE * 60)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def threads():
    """Sets torch's number of threads, which is put back at the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def real(name):
    """A real data set's file or folder, or a skip that says where it was looked for."""
    folder = Path(os.environ.get("ELMAN_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / name).exists():
        pytest.skip(f"no {folder / name}: set ELMAN_DATA to a folder that holds {name}")
    return folder / name


@pytest.fixture(scope="session")
def real_data():
    """A function that finds a real data set by its name, or skips the test."""
    return real


@pytest.fixture(scope="session")
def tinyshakespeare():
    """The real file, or a skip that says where it was looked for."""
    return real("tinyshakespeare/input.txt")
