"""Run folders: whole or not at all, and clear words for what is damaged."""

import errno
import os

import pytest
import torch
from torch import nn

from elman import RunError
from elman.checkpoint import RunFolder
from elman.tensors import flatten, read_about, read_tensors, rebuild


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return RunFolder.create("run", "text")


def test_run_folders_are_numbered_when_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("text", "text-2", "text-3"):
        assert RunFolder.create(None, "text").path == RunFolder(tmp_path / "runs" / name).path.relative_to(tmp_path)


def test_a_named_folder_that_holds_a_run_is_left_alone(folder):
    assert RunFolder.create("run", "text").path == folder.path  # nothing in it yet
    folder.write_json("config.json", {})
    with pytest.raises(RunError, match="run already holds a run: go on with it by --resume"):
        RunFolder.create("run", "text")


def test_what_a_run_left_before_its_first_step_makes_way(folder):
    for name in ("training.safetensors.part", "model.safetensors"):
        (folder.path / name).touch()
    with pytest.raises(RunError, match="is not empty and holds no run"):
        RunFolder.create("run", "text")
    (folder.path / "mine.txt").touch()
    with pytest.raises(RunError, match="is not empty and holds no run"):
        RunFolder.create("run", "text", ["training.safetensors", "model.safetensors"])
    assert [path.name for path in folder.path.iterdir()] == ["mine.txt"]
    (folder.path / "mine.txt").unlink()
    assert RunFolder.create("run", "text", ["training.safetensors"]).path == folder.path


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot make the run folder .*; name another with --run"):
        RunFolder.create(str(tmp_path / "file" / "run"), "text")


def test_the_newest_run_is_the_one_to_go_on_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="no run to go on with"):
        RunFolder.newest("text")
    for age, name in enumerate(("text-2", "text", "text-3")):
        made = RunFolder.create(f"runs/{name}", "text")
        made.write_json("config.json", {})
        os.utime(made.path / "config.json", (1000 - age, 1000 - age))
    assert RunFolder.newest("text").path.name == "text-2"
    (tmp_path / "runs/text/training.safetensors").touch()  # it was begun before, and trained after
    assert RunFolder.newest("text").path.name == "text"


def test_tensors_and_json_come_back(folder):
    tensors = {"a": torch.randn(3, 2), "b.c": torch.arange(4), "empty": torch.zeros(0)}
    folder.write_tensors("t", tensors, {"note": "é"})
    back, about = read_tensors(folder.path / "t", tensors), read_about(folder.path / "t")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[k], tensors[k]) for k in back)
    assert about == {"note": "é"}
    folder.write_json("j.json", {"a": ["é", 1.5, None]})
    assert folder.read_json("j.json") == {"a": ["é", 1.5, None]}


def test_tensors_that_were_read_hang_on_their_file_no_longer(folder):
    folder.write_tensors("t", {"a": torch.ones(100)})
    path = folder.path / "t"
    back = read_tensors(path, {"a": torch.ones(100)})
    with open(path, "r+b") as file:  # in place: a mapping of the file would see it, and keep a file on the disk
        file.write(bytes(path.stat().st_size))
    assert torch.equal(back["a"], torch.ones(100))


def test_a_full_disk_keeps_the_old_file_whole(folder, monkeypatch):
    folder.write_tensors("training.safetensors", {"a": torch.ones(3)})
    folder.write_json("config.json", {})
    whole = (folder.path / "training.safetensors").read_bytes()

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        RunError, match=r"No space left on device; the last good checkpoint stays: .* --run run --resume"
    ):
        folder.write_tensors("training.safetensors", {"a": torch.zeros(3)})
    assert (folder.path / "training.safetensors").read_bytes() == whole
    assert sorted(os.listdir(folder.path)) == ["config.json", "training.safetensors"]


def test_a_new_folder_is_whole_or_not_there(folder):
    def stopped():
        with folder.whole():
            folder.write_json("vocabulary.json", {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not folder.path.exists()


def test_missing_and_damaged_files_are_named(folder):
    with pytest.raises(RunError, match="nowhere: no such run folder"):
        RunFolder.open("nowhere")
    with pytest.raises(RunError, match=r"run is not a whole run folder: t is missing"):
        read_tensors(folder.path / "t", {})
    folder.write_tensors("t", {"a": torch.ones(100)})
    data = (folder.path / "t").read_bytes()
    for damaged in (data[:-1], data[: len(data) // 2], data[:4], b"", b"\xff" * 50, data + b"more"):
        (folder.path / "t").write_bytes(damaged)
        with pytest.raises(RunError, match=r"run.t is cut short or damaged"):
            read_tensors(folder.path / "t", {"a": torch.ones(100)})
    for damaged in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        (folder.path / "j.json").write_bytes(damaged)
        with pytest.raises(RunError, match=r"j\.json is damaged"):
            folder.read_json("j.json")


def test_weights_of_another_model_are_refused_and_the_model_is_untouched(folder):
    model = nn.Linear(3, 2)
    before = model.weight.clone()
    good = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    wrong = {
        "lacks the tensor bias": {"weight": good["weight"]},
        r"weight is \(2, 4\) of torch.float32, the model has \(2, 3\)": good | {"weight": torch.zeros(2, 4)},
        r"bias is \(2,\) of torch.float64": good | {"bias": torch.zeros(2, dtype=torch.float64)},
        "bias holds values that are not finite": good | {"bias": torch.tensor([1.0, float("nan")])},
        "has the tensor 'more', which the model has not": good | {"more": torch.zeros(1)},
    }
    for words, tensors in wrong.items():
        folder.write_tensors("m", tensors)
        with pytest.raises(RunError, match=words):
            folder.load_into(model, "m")
        assert torch.equal(model.weight, before)
    folder.write_tensors("m", good)
    folder.load_into(model, "m")
    assert torch.equal(model.weight, good["weight"])


def test_nests_of_states_are_taken_apart_and_put_together(folder):
    nest = ((torch.ones(2), torch.zeros(1)), (torch.full((3,), 2.0),))
    flat = flatten(nest, "state")
    assert sorted(flat) == ["state.0.0", "state.0.1", "state.1.0"]
    assert rebuild(nest, flat, "state") == nest


def test_growing_files_are_cut_back(folder):
    folder.append("log", "one\n")
    size = folder.size("log")
    folder.append("log", "two\n")
    folder.cut("log", size)
    folder.cut("log", 1000)
    folder.cut("absent", 0)
    assert (folder.path / "log").read_text() == "one\n"
