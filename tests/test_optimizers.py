"""Optimisers, their decay by name, steps of several batches: that they are what they say, and that resume is exact."""

import math
import signal

import pytest
import torch
from test_train import SMALL, Interrupted, quiet, same, start, whole

from elman import OptionError
from elman.checkpoint import RunFolder
from elman.cli import main
from elman.task.regress import Options as RegressOptions
from elman.task.regress import Regress
from elman.task.text import Text
from elman.task.text_options import Options
from elman.train import train
from elman.train.training import Training


@pytest.fixture
def make(text_file):
    """A function from options to a training of the small text."""

    def made(**change):
        options = Options(**{**SMALL, "files": (str(text_file),), "dropout": 0.0, **change})
        return Training(Text(options), RunFolder.create("x", "text"), quiet())

    return made


RESUMED = {
    "sgd": dict(optimizer="sgd", rate=0.5),
    "sgd with momentum": dict(optimizer="sgd", rate=0.5, momentum=0.9),
    "rmsprop": dict(optimizer="rmsprop"),
    "rmsprop with momentum": dict(optimizer="rmsprop", momentum=0.9),
    "adagrad": dict(optimizer="adagrad", average=0.9),
    "adam": dict(optimizer="adam"),
    "three batches a step": dict(accumulate=3, reset=0.3),
    "rules of decay": dict(decay_rules=("*.W.weight=0.5", "*bias=0.1", "output*=0"), average=0.9),
}


@pytest.mark.parametrize("change", RESUMED.values(), ids=RESUMED)
def test_an_interrupted_run_ends_as_the_straight_one(text_file, change):
    options = Options(files=(str(text_file),), **SMALL, **change)

    class Halted(Text):
        def loss(self, k, state):
            if k == 12 * options.accumulate:
                signal.raise_signal(signal.SIGINT)
            return super().loss(k, state)

    _, straight, _ = start(options, "straight")
    finished, _, _ = start(options, "broken", task=Halted(options))
    assert not finished
    finished, broken, _ = start(options, "broken", resume=True)
    assert finished
    same(whole(straight), whole(broken))


@pytest.mark.parametrize("change", [dict(), dict(optimizer="sgd", momentum=0.9)], ids=["adamw", "sgd"])
def test_a_parameter_whose_first_gradient_comes_after_the_checkpoint(text_file, change):
    options = Options(files=(str(text_file),), **SMALL, **change)

    class Late(Text):
        def loss(self, k, state):
            self.model.output.bias.requires_grad_(k >= 15)
            return super().loss(k, state)

    class Halted(Late, Interrupted):
        pass

    _, straight, _ = start(options, "straight", task=Late(options))
    start(options, "broken", task=Halted(options))
    train(again := Late(options), RunFolder.open("broken"), quiet(), resume=True)
    assert again.model.output.bias.requires_grad
    same(whole(straight), whole(RunFolder.open("broken")))


def test_optimisers_are_torchs(make):
    for change, kind, kept in (
        (dict(optimizer="sgd"), torch.optim.SGD, set()),
        (dict(optimizer="sgd", momentum=0.7), torch.optim.SGD, {"momentum_buffer"}),
        (dict(optimizer="rmsprop"), torch.optim.RMSprop, {"step", "square_avg"}),
        (dict(optimizer="rmsprop", momentum=0.7), torch.optim.RMSprop, {"step", "square_avg", "momentum_buffer"}),
    ):
        run = make(**change)
        run.advance()
        assert type(run.optimizer) is kind
        assert all(group["momentum"] == change.get("momentum", 0.0) for group in run.optimizer.param_groups)
        assert all(run.optimizer.state[p].keys() == kept for p in run.parameters)


def test_plain_sgd_takes_the_rate_times_the_gradient(make):
    run = make(optimizer="sgd", rate=0.25, decay=0.0, warmup=0, schedule="constant", clip_norm=None)
    before = [p.detach().clone() for p in run.parameters]
    run.advance()
    for p, old in zip(run.parameters, before):
        assert torch.equal(p, old - 0.25 * p.grad)


def decays(run):
    """The decay of each parameter, by name."""
    names = {p: name for name, p in run.task.model.named_parameters()}
    groups = run.optimizer.param_groups
    return {names[p]: group["weight_decay"] for group in groups for p in group["params"]}


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "adagrad", "sgd", "rmsprop"])
def test_rules_of_decay_by_name(make, optimizer):
    rules = ("*.weight=0.2", "embedding*=0", "output.bias=0.3", "*.W.*=0.1")
    assert decays(make(optimizer=optimizer, decay_rules=rules, hidden=9)) == {
        "embedding.weight": 0.0,
        "recurrent.parts.1.cell.U.weight": 0.2,
        "recurrent.parts.1.cell.U.bias": 0.0,
        "recurrent.parts.1.cell.W.weight": 0.1,
        "output.weight": 0.2,
        "output.bias": 0.3,
    }
    without = decays(make(optimizer=optimizer))
    assert without["output.weight"] == 0.01
    assert without["output.bias"] == 0.0
    assert decays(make(decay_rules=("output.bias=0.3",)))["output.weight"] == 0.01


def test_a_rule_for_nobody_is_refused_and_leaves_no_folder(text_file, capsys):
    words = ["train", "text", str(text_file), "--decay-rules", "output*=0", "embeding*=0"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "elman: --decay-rules output*=0 embeding*=0: embeding* fits no parameter; there are embedding."
    )
    assert said.count("\n") == 1
    assert not (text_file.parent / "runs" / "text").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"momentum": 1.0, "optimizer": "sgd"}, "--momentum 1.0: must be below 1"),
        ({"momentum": -0.1, "optimizer": "sgd"}, "--momentum -0.1: must be at least 0"),
        ({"momentum": 0.9}, "--momentum 0.9: adamw takes none, only sgd and rmsprop do"),
        ({"accumulate": 0}, "--accumulate 0: must be at least 1"),
        ({"decay_rules": ("book.txt",)}, "--decay-rules book.txt: not PATTERN=DECAY"),
        ({"decay_rules": ("=1",)}, "--decay-rules =1: not PATTERN=DECAY"),
        ({"decay_rules": ("a=b",)}, "--decay-rules a=b: not PATTERN=DECAY"),
        ({"decay_rules": ("a=-1",)}, "--decay-rules a=-1: not PATTERN=DECAY"),
        ({"decay_rules": ("a=inf",)}, "--decay-rules a=inf: not PATTERN=DECAY"),
    ],
)
@pytest.mark.parametrize("kind", [Options, RegressOptions], ids=["text", "regress"])
def test_what_cannot_be(kind, change, words):
    with pytest.raises(OptionError) as error:
        kind(**change)
    assert str(error.value).startswith(words)


def gradients(model):
    return [p.grad.clone() for p in model.parameters()]


def test_a_step_of_two_batches_has_the_gradient_of_their_mean(here):
    options = RegressOptions(batch=4, hidden=6, accumulate=2, steps=8)
    run = Training(Regress(options), RunFolder.create("x", "regress"), quiet())
    run.step = 3
    value = run.differentiate().value
    found = gradients(run.task.model)
    run.optimizer.zero_grad()
    losses = [run.task.loss(k, ()) for k in (6, 7)]
    ((losses[0].objective + losses[1].objective) / 2).backward()
    assert value == pytest.approx((losses[0].value + losses[1].value) / 2)
    assert losses[0].value != pytest.approx(losses[1].value, rel=1e-3)
    for mine, theirs in zip(found, gradients(run.task.model)):
        torch.testing.assert_close(mine, theirs)


def test_a_step_of_text_carries_the_state_through_its_windows(make):
    run = make(accumulate=3)
    run.advance()
    one = make()
    state, total = one.task.initial(), 0.0
    for k in range(3):
        loss = one.task.loss(k, state)
        loss.objective.backward()
        state, total = loss.state, total + loss.value
    assert run.state[0].h.equal(state[0].h)
    again = make(accumulate=3)
    assert again.differentiate().value == pytest.approx(total / 3)
    for mine, theirs in zip(gradients(again.task.model), gradients(one.task.model)):
        torch.testing.assert_close(mine, theirs / 3)


def test_steps_are_updates_and_epochs_are_data(make):
    one, five = make(steps=None, epochs=2.0), make(steps=None, epochs=2.0, accumulate=5)
    assert one.steps == 2 * one.task.batches
    assert five.steps == math.ceil(2 * one.task.batches / 5) < one.steps / 4
    assert make(accumulate=5).steps == SMALL["steps"]
