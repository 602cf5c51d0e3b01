"""A disk that fills, a folder that closes while a run is in it: one line, the last checkpoint whole, and it goes on."""

import os
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from commands import ran, refused
from safetensors.torch import load_file

from elman.task.text import Text

WORDS = """--hidden 12 --embedding 5 --batch 4 --window 8 --steps 20 --dropout 0.2 --report-every 5 --validate-every 5
--sample-every 5 --sample-length 20 --checkpoints 2""".split()
NOBODY = 65534

pytestmark = pytest.mark.skipif(os.name != "posix", reason="file systems are mounted so on POSIX alone")


@pytest.fixture
def disk(text_file):
    """A file system of one megabyte, at `disk` in the working folder."""
    path = text_file.parent / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", path], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield path
    subprocess.run(["umount", path], check=True)


@contextmanager
def full(disk, left):
    """So many bytes are free, no more."""
    with open(disk / "filler", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            file.truncate(file.tell() - left)
    yield
    (disk / "filler").unlink()


@contextmanager
def read_only(disk):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@contextmanager
def forbidden(folder):
    """The folder and its files may be read only; root, who may write all the same, is nobody for the time."""
    for path in (folder, *folder.iterdir()):
        path.chmod(0o555)
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    yield
    os.seteuid(before)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)


def hold(run, harm, monkeypatch, capsys):
    """Train, do harm in the middle of step 12, be refused, mend it, go on: the same bits as without harm."""
    ran(capsys, "train", "text", "fox.txt", *WORDS, "--run", "straight")
    before, loss = {}, Text.loss
    with ExitStack() as harmed:

        def harming(task, k, state):
            if k == 12:
                before.update({path: path.read_bytes() for path in run.glob("training*")})
                harmed.enter_context(harm())
            return loss(task, k, state)

        with monkeypatch.context() as patch:
            patch.setattr(Text, "loss", harming)
            said = refused(capsys, "train", "text", "fox.txt", *WORDS, "--run", run)
        again = refused(capsys, "train", "text", "--run", run, "--resume")
        assert len(before) == 2
        assert {path: path.read_bytes() for path in before} == before
        assert not list(run.glob("*.part"))
    for line in (said, again):
        assert "the last good checkpoint stays: free some space or mend the folder, then go on with --run" in line
    ran(capsys, "train", "text", "--run", run, "--resume")
    for name in ("model", "training", "training-15"):
        one, two = (load_file(folder / f"{name}.safetensors") for folder in (run.parents[1] / "straight", run))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    return said


@pytest.mark.parametrize("left", [0, 8192], ids=["to the last byte", "but for a line of the log"])
def test_a_disk_that_is_full(disk, left, monkeypatch, capsys):
    said = hold(disk / "run", lambda: full(disk, left), monkeypatch, capsys)
    assert "No space left on device" in said
    assert left == 0 or "/run/model.safetensors: " in said or "/run/training.safetensors: " in said


def test_a_disk_that_may_be_read_only(disk, monkeypatch, capsys):
    assert "Read-only file system" in hold(disk / "run", lambda: read_only(disk), monkeypatch, capsys)
    with read_only(disk):
        assert "cannot make the run folder" in refused(
            capsys, "train", "text", "fox.txt", *WORDS, "--run", disk / "new"
        )


def test_a_folder_that_may_be_read_only(text_file, monkeypatch, capsys):
    for folder in list(text_file.parents)[:4]:  # pytest's own, which it closes to others
        folder.chmod(0o755)
    run = Path("disk/run")
    assert "Permission denied" in hold(run, lambda: forbidden(run), monkeypatch, capsys)
