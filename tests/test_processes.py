"""Training by two processes that torchrun starts: as by one; killed, stopped, restarted, resumed, refused."""

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from commands import ran
from conftest import SENTENCE
from safetensors import safe_open
from safetensors.torch import load_file

import elman
from elman import OptionError
from elman.begin import prepared
from elman.cli import carry_through
from elman.data.grammar import grammar_sentences
from elman.task.base import Loss
from elman.task.text import Text
from elman.task.text_options import Options
from elman.train import Processes
from elman.train.processes import Together

WORKER = """
import contextlib, os, signal, sys
import torch
from elman import cli
from elman.cli import main
from elman.task.text import Text

number, at, name = os.environ.get("BLOW", "-1 -1 SIGKILL").split()  # a process gets a signal in the middle of a step
read = Text.loss

def loss(self, k, state):
    if self.share.number == int(number) and k == int(at) and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.Signals[name])
    return read(self, k, state)

Text.loss = loss
torch.set_default_dtype(torch.float64)
first, *others = " ".join(sys.argv[1:]).split(" then ")
if not others:
    sys.exit(main(["train", *first.split()]))
with cli.joined() as processes:  # once for several commands, to save time
    cli.joined = lambda: contextlib.nullcontext(processes)
    sys.exit(max(main(["train", *command.split()]) for command in (first, *others)))
"""
TEXT = "text fox.txt --hidden 12 --embedding 5 --batch 4 --window 8 --sample-length 20 --report-every 1"
DRAWN = f"{TEXT} --dropout 0.2 --reset 0.1 --steps 40 --validate-every 10 --sample-every 10 --checkpoints 2"
EVEN = "--dropout 0 --steps 50 --validate-every 20 --report-every 1 --schedule constant"
CURVES = {
    "text": f"{TEXT} {EVEN}",
    "tag": "tag tags.txt --hidden 8 --embedding 6 --letter-hidden 4 --letter-embedding 5 --batch 2 --word-dropout 0 "
    f"--average 0.9 {EVEN}",
    "classify": f"classify tales.tsv --kind texts --hidden 8 --embedding 6 --batch 4 --word-dropout 0 {EVEN}",
}


@pytest.fixture
def folder(here):
    """A working folder with a text, tagged and labelled sentences of unequal lengths, and what torchrun starts."""
    sentences = grammar_sentences(17, seed=1)
    (here / "fox.txt").write_text(SENTENCE * 60)
    (here / "tags.txt").write_text("\n".join("".join(f"{w} {t}\n" for w, t in zip(s.words, s.tags)) for s in sentences))
    lines = (f"{('short', 'long')[len(s.words) > 6]}\t{' '.join(s.words)}\n" for s in sentences)
    (here / "tales.tsv").write_text("label\ttext\n" + "".join(lines))
    (here / "worker.py").write_text(WORKER)
    return here


@pytest.fixture
def float64():
    """All is computed in float64, as the worker does."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def of_one(monkeypatch):
    """The one process of a job of one, without torchrun."""
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield Together()
    dist.destroy_process_group()


def torchrun(command, restarts=0, blow=None):
    """`elman train COMMAND` by two processes: the exit code of torchrun, what was printed, what was complained of."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    how = ["--nproc-per-node", "2", "--master-port", str(port), "--max-restarts", str(restarts)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(elman.__file__).parents[1])}
    words = [sys.executable, "-m", "torch.distributed.run", *how, "--", "worker.py", *command.split()]
    done = subprocess.run(
        words, env=env | ({"BLOW": blow} if blow else {}), capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout, done.stderr


def log(run):
    """The lines of a run's log, without times."""
    lines = [json.loads(line) for line in (Path(run) / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def curve(run):
    """Training loss and gradient norm of every step."""
    return torch.tensor([[line["train"], line["norm"]] for line in log(run) if "train" in line])


def place(run):
    with safe_open(Path(run) / "training.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["training"])["step"]


def tensors(run):
    return load_file(Path(run) / "training.safetensors")


@pytest.mark.usefixtures("float64")
def test_two_processes_learn_what_one_learns(folder, capsys):
    together = [f"{command} --run two-{name}" for name, command in CURVES.items()]
    code, said, complained = torchrun(" then ".join([*together, f"{TEXT} --seconds 0.5 --run timed"]))
    assert code == 0, complained
    assert said.count("next: elman") == 4, "one process prints"
    assert "1 threads in each of 2 processes" in said
    for name, command in CURVES.items():
        ran(capsys, "train", *command.split(), "--run", f"one-{name}")
        one, two = curve(f"one-{name}"), curve(f"two-{name}")
        assert one.shape == two.shape == (50, 2)
        assert (one - two).abs().max() < 1e-5
        scores = [
            [line["validation"] for line in log(run) if "validation" in line] for run in (f"one-{name}", f"two-{name}")
        ]
        assert scores[0] == [pytest.approx(score, abs=1e-5) for score in scores[1]]
        one, two = tensors(f"one-{name}"), tensors(f"two-{name}")
        assert two.keys() - one.keys() == {"random.1"}, "a checkpoint is that of one process, and what the other draws"
        assert all(torch.allclose(one[key], two[key], rtol=0, atol=1e-5) for key in one if key != "random")
    for run in ("one-text", "two-text"):  # one process can go on with what two began
        ran(capsys, "train", "text", "--run", run, "--resume", "--steps", 60)
    assert len(curve("two-text")) == 60
    assert (curve("one-text") - curve("two-text")).abs().max() < 1e-5


def test_killed_resumed_stopped_and_restarted_they_end_as_if_nothing_had_been(folder):
    code, _, complained = torchrun(f"{DRAWN} --run straight")
    assert code == 0, complained
    code, _, complained = torchrun(f"{DRAWN} --run broken", blow="1 25 SIGKILL")
    assert code != 0
    assert complained.count("elman: another process of this training has ended") == 1
    assert place("broken") == 20
    code, said, complained = torchrun(f"{TEXT.split()[0]} --run broken --resume", blow="1 27 SIGTERM")
    assert code != 0
    assert said.count("stopped and saved; go on with: elman train text --run broken --resume") == 1
    assert place("broken") == 28
    code, said, complained = torchrun(f"{DRAWN} --run broken", restarts=1, blow="0 33 SIGKILL")
    assert code == 0, complained
    assert said.count("broken, from step 28") == 1
    assert said.count("broken, from step 30") == 1
    one, two = tensors("straight"), tensors("broken")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    older = [sorted(path.name for path in Path(run).glob("training-*")) for run in ("straight", "broken")]
    assert older[0] == older[1] != []
    assert log("straight") == log("broken")
    assert (folder / "straight/samples.txt").read_text() == (folder / "broken/samples.txt").read_text()


def test_a_batch_that_cannot_be_divided_is_refused_once_and_leaves_no_run(folder):
    code, _, complained = torchrun(f"{TEXT} --batch 5")
    assert code != 0
    assert complained.count("elman: ") == 1
    assert "elman: --batch 5 cannot be divided among 2 processes: give a multiple of 2" in complained
    assert complained.count("exitcode  : 2 ") >= 1
    assert not (folder / "runs").exists()


def test_a_job_that_is_restarted_must_say_what_to_go_on_with(folder):
    class Restarted(Processes):
        restarts = True

    with pytest.raises(OptionError, match="--max-restarts starts the same command again: name the run to go on with"):
        prepared(TEXT.split(), Restarted())
    with pytest.raises(OptionError, match="--from-step would go back each time"):
        prepared([*TEXT.split(), "--run", "one", "--resume", "--from-step", "5"], Restarted())


def test_a_job_that_is_given_again_after_its_end_ends_well(folder, capsys):
    class Restarted(Processes):
        restarts = True

    words = [*TEXT.split(), "--steps", "3", "--run", "one"]
    for said in ("one, new, until 3 steps", "one has reached its end, step 3"):
        assert carry_through(*prepared(words, Restarted()), Restarted()) == 0
        assert said in capsys.readouterr().out


def test_what_processes_add_up_and_tell_each_other(of_one):
    x = torch.tensor(3.0, requires_grad=True)
    assert of_one.combined(Loss(x, 3.0, weight=7))[:2] == (3.0, 3.0)
    assert math.isnan(of_one.combined(Loss(x, math.nan, weight=7)).value)
    none = of_one.combined(Loss(x * math.nan, math.nan, weight=0))  # a share without anything to learn from
    none.objective.backward()
    assert none.value == 0
    assert x.grad is None
    used, unused = torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(4))
    used.grad = torch.arange(6.0).view(2, 3)
    of_one.add_gradients([used, unused])
    assert used.grad.equal(torch.arange(6.0).view(2, 3))
    assert unused.grad is None, "what no process has a gradient for does not decay either"
    assert of_one.told({"accuracy": [0.1, "10 %"], "loss": [math.inf, "ä"]}) == {
        "accuracy": [0.1, "10 %"],
        "loss": [math.inf, "ä"],
    }
    assert of_one.most(15) == 15


PLANT = """    found, bad = read(self, k, state), self.share.number == 1 and k == 7
    return found._replace(value=found.value * 0 * 1e999, objective=found.objective * 1e999) if bad else found"""


def test_what_only_the_second_process_meets_is_located_there_and_both_act_alike(folder):
    (folder / "worker.py").write_text(WORKER.replace("    return read(self, k, state)", PLANT))
    short = f"{TEXT} --dropout 0.2 --steps 10 --validate-every 5"
    ways = ("skip", "back")
    commands = [f"{short} --on-divergence {way} --run {way}" for way in ways]
    code, _, complaint = torchrun(" then ".join(commands))
    assert code != 0  # going back does not help here
    assert "the loss became nan at step 7: inf first comes from mul at worker.py:" in complaint
    assert "training has gone back 3 times" in complaint
    (skipped,) = [line for line in log("skip") if "diverged" in line]
    assert skipped["diverged"]["located"]["op"] == "mul"
    assert (skipped["step"], log("skip")[-1]["step"]) == (7, 10)
    assert [line["step"] for line in log("back") if "diverged" in line] == [5, 5, 5]
    kept = load_file("skip/diverged-7.safetensors")
    assert {"random", "random.1", "batch.ids"} <= kept.keys()
    assert not torch.equal(kept["random"], kept["random.1"])
    task = Text(Options(files=("fox.txt",), hidden=12, embedding=5, batch=4, window=8))
    assert torch.equal(kept["batch.ids"], task._streams[7][0][:, 1::2]), "the rows of the process that met it"
