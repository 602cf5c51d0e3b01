"""A training that is killed three times ends as one that nobody killed; bench/kill.py does thirty, of three tasks."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

KILL = Path(__file__).parents[1] / "bench" / "kill.py"
pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill -9 is for POSIX")


@pytest.fixture(scope="module")
def kill():
    spec = importlib.util.spec_from_file_location("bench_kill", KILL)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_three_kills(kill, tmp_path):
    """At any moment, as a file is written, and as the best weights are."""
    found = kill.endure("text", tmp_path, 3, seed=0)
    assert found.wrong == []
    assert found.kills == 3


def test_what_is_not_the_same_is_told(kill):
    one = {"log.jsonl": [1], "model.safetensors: W": b"1", "samples.txt": b""}
    assert kill.differences(one, dict(one)) == []
    assert kill.differences(one, {**one, "log.jsonl": [2]}) == ["log.jsonl"]
    assert kill.differences({"samples.txt": b""}, one) == ["log.jsonl", "model.safetensors: W"]
