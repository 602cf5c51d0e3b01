"""The training loop: exact resume, Ctrl-C, schedules, divergence, what the run folder holds."""

import io
import json
import math
import signal
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from elman import DivergenceError, OptionError, RunError
from elman.checkpoint import RunFolder
from elman.console import Report
from elman.task.base import Score
from elman.task.text import Text
from elman.task.text_options import Options
from elman.tensors import read_about
from elman.train import train
from elman.train.signals import STOPS, interruptible
from elman.train.training import Training

SMALL = dict(
    hidden=12,
    embedding=5,
    batch=4,
    window=8,
    steps=20,
    dropout=0.2,
    report_every=5,
    validate_every=5,
    sample_every=5,
    sample_length=20,
)


@pytest.fixture
def options(text_file):
    return Options(files=(str(text_file),), **SMALL)


def quiet():
    return Report(Console(file=io.StringIO(), width=100, emoji=False))


def start(options, name, resume=False, task=None):
    folder = RunFolder.open(name) if resume else RunFolder.create(name, "text")
    task = task or Text(options, {"vocabulary.json": folder.read_json("vocabulary.json")} if resume else None)
    return not train(task, folder, quiet(), resume), folder, task


class Interrupted(Text):
    """The task, with a Ctrl-C in the middle of step 12."""

    def loss(self, k, state):
        if k == 12:
            signal.raise_signal(signal.SIGINT)
        return super().loss(k, state)


class Killed(Text):
    """The task, that dies in step 12 as by kill -9: nothing runs after it."""

    def loss(self, k, state):
        if k == 12:
            raise SystemError("killed")
        return super().loss(k, state)


def whole(folder):
    """All that a run leaves behind, but for times."""
    log = [json.loads(line) for line in (folder.path / "log.jsonl").read_text().splitlines()]
    for record in log:
        del record["seconds"]
    tensors = load_file(folder.path / "training.safetensors")
    return log, (folder.path / "samples.txt").read_text(), tensors, load_file(folder.path / "model.safetensors")


def same(one, two):
    assert one[:2] == two[:2]
    for a, b in zip(one[2:], two[2:]):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_two_runs_with_one_seed_are_the_same_to_the_bit(options):
    (_, one, _), (_, two, _) = start(options, "one"), start(options, "two")
    same(whole(one), whole(two))
    (_, other, _) = start(replace(options, seed=1), "other")
    assert not torch.equal(whole(one)[3]["output.weight"], whole(other)[3]["output.weight"])


def test_ctrl_c_saves_the_step_and_resume_ends_as_if_nothing_had_been(options):
    finished, straight, _ = start(options, "straight")
    assert finished
    finished, broken, _ = start(options, "broken", task=Interrupted(options))
    assert not finished
    assert json.loads(whole_metadata(broken))["step"] == 13
    finished, broken, _ = start(options, "broken", resume=True)
    assert finished
    same(whole(straight), whole(broken))


def test_a_killed_run_goes_on_from_its_last_checkpoint_and_ends_the_same(options):
    _, straight, _ = start(options, "straight")
    with pytest.raises(SystemError):
        start(options, "broken", task=Killed(options))
    folder = RunFolder.open("broken")
    assert json.loads(whole_metadata(folder))["step"] == 10
    _, broken, _ = start(options, "broken", resume=True)
    same(whole(straight), whole(broken))


class Measured(Text):
    """The task, with validation scores that are given by step: the best is in the middle."""

    def loss(self, k, state):
        self.step = k + 1
        return super().loss(k, state)

    def validate(self):
        return {"stateful": Score({5: 3.0, 10: 1.0, 15: 2.0, 20: 2.5}[self.step], "")}


@pytest.mark.parametrize("name", ["training.safetensors", "model.safetensors"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_run_killed_around_either_write_of_its_best_weights_ends_with_them(options, monkeypatch, name, done):
    _, straight, _ = start(options, "straight", task=Measured(options))
    write = RunFolder.write_tensors

    def killed(folder, file, *tensors):
        last = file == name and folder.lines("log.jsonl")[-1:]
        if not last or json.loads(last[0])["step"] < 10:
            return write(folder, file, *tensors)
        if done:
            write(folder, file, *tensors)
        raise SystemError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_tensors", killed)
        with pytest.raises(SystemError):
            start(options, "broken", task=Measured(options))
    files = {"vocabulary.json": straight.read_json("vocabulary.json")}
    _, broken, _ = start(options, "broken", resume=True, task=Measured(options, files))
    same(whole(straight), whole(broken))


def kept(folder):
    return sorted(path.name for path in folder.path.glob("training*"))


def test_the_last_checkpoints_stay_under_their_steps(options):
    _, folder, _ = start(replace(options, checkpoints=3), "three")
    assert kept(folder) == ["training-10.safetensors", "training-15.safetensors", "training.safetensors"]
    for step in (10, 15):
        assert json.loads(read_about(folder.path / f"training-{step}.safetensors")["training"])["step"] == step
    _, folder, _ = start(replace(options, checkpoints=2, steps=25), "three", resume=True)
    assert kept(folder) == ["training-20.safetensors", "training.safetensors"]


def test_a_run_that_goes_back_to_an_older_checkpoint_forgets_what_came_after_and_ends_the_same(options):
    options = replace(options, checkpoints=4)
    _, straight, _ = start(options, "straight", task=Measured(options))
    _, broken, _ = start(options, "broken", task=Measured(options))

    class Stopped(Measured):
        def loss(self, k, state):
            raise SystemError("killed")

    files = {"vocabulary.json": straight.read_json("vocabulary.json")}
    with pytest.raises(SystemError):
        start(options, "broken", resume=True, task=Stopped(replace(options, from_step=5), files))
    assert kept(broken) == ["training-5.safetensors", "training.safetensors"]
    log, samples, tensors, model = whole(broken)
    assert log[-1]["step"] == 5
    assert samples.count("--- step ") == 2
    for name, value in model.items():  # the weights that were the best then, not those of step 10
        assert torch.equal(value, tensors[f"kept.{name}"])
    assert not torch.equal(model["output.weight"], whole(straight)[3]["output.weight"])
    start(options, "broken", resume=True, task=Measured(options, files))
    same(whole(straight), whole(broken))
    assert kept(broken) == kept(straight)


def test_a_damaged_newest_checkpoint_is_said_and_an_older_one_is_taken_when_asked_for(options):
    options = replace(options, checkpoints=3)
    _, straight, _ = start(options, "straight")
    _, broken, _ = start(options, "broken")
    newest = broken.path / "training.safetensors"
    newest.write_bytes(newest.read_bytes()[:-9])
    before = {path.name: path.read_bytes() for path in broken.path.iterdir()}
    with pytest.raises(RunError, match=r"training.safetensors is cut short .*; or go back .* with --from-step 15"):
        start(options, "broken", resume=True)
    with pytest.raises(RunError, match=r"no older checkpoint of step 12: it keeps 10, 15"):
        start(replace(options, from_step=12), "broken", resume=True)
    assert {path.name: path.read_bytes() for path in broken.path.iterdir()} == before
    start(replace(options, from_step=15), "broken", resume=True)
    same(whole(straight), whole(broken))


@pytest.mark.parametrize("call", ["retain", "write_tensors", "forget"])
def test_a_run_killed_while_a_checkpoint_takes_anothers_place_keeps_the_same_ones(options, monkeypatch, call):
    options = replace(options, checkpoints=2)
    _, straight, _ = start(options, "straight")
    own, calls = getattr(RunFolder, call), []

    def killed(folder, *words):
        own(folder, *words)
        calls.append(call)
        if folder.size("log.jsonl") and len(calls) > 2:
            raise SystemError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, call, killed)
        with pytest.raises(SystemError):
            start(options, "broken")
    _, broken, _ = start(options, "broken", resume=True)
    same(whole(straight), whole(broken))
    assert kept(broken) == kept(straight) == ["training-15.safetensors", "training.safetensors"]


def whole_metadata(folder):
    return read_about(folder.path / "training.safetensors")["training"]


def test_the_handlers_of_signals_are_put_back(options):
    before = [signal.getsignal(number) for number in STOPS]
    start(options, "one")
    assert [signal.getsignal(number) for number in STOPS] == before


def test_ctrl_c_after_another_signal_ends_at_once():
    with interruptible() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop == [signal.SIGTERM] * 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_run_folder_holds_what_it_should(options):
    _, folder, task = start(options, "one")
    assert sorted(p.name for p in folder.path.iterdir()) == [
        "config.json", "log.jsonl", "model.safetensors", "samples.txt", "training.safetensors", "vocabulary.json"
    ]  # fmt: skip
    config = folder.read_json("config.json")
    assert config["task"] == "text"
    assert config["options"]["hidden"] == 12
    assert config["data"]["symbols"] == len(task._ids)
    log = whole(folder)[0]
    assert [record["step"] for record in log if "train" in record] == [5, 10, 15, 20]
    assert [record["step"] for record in log if "validation" in record] == [5, 10, 15, 20]
    assert all(record["norm"] > 0 for record in log if "train" in record)
    assert (folder.path / "samples.txt").read_text().count("--- step ") == 5


def test_training_lowers_the_loss(options):
    task = Text(replace(options, steps=150, rate=0.02, dropout=0.0))
    before = task.validate()["stateful"].value
    _, folder, task = start(task.options, "one", task=task)
    assert task.validate()["stateful"].value < 0.6 * before
    assert whole(folder)[0][-1]["validation"] == {name: score.value for name, score in task.validate().items()}


def test_a_run_in_bf16_is_trained_so_and_measured_in_float32(options, monkeypatch):
    monkeypatch.setenv("ELMAN_BF16", "emulated")
    losses = {}
    for kind in ("float32", "bf16"):
        _, folder, task = start(replace(options, precision=kind), kind)
        log = [json.loads(line) for line in (folder.path / "log.jsonl").read_text().splitlines()]
        losses[kind] = [record["train"] for record in log if "train" in record]
        folder.load_into(task.model, "model.safetensors")
        best = min(record["validation"]["stateful"] for record in log if "validation" in record)
        assert task.validate()["stateful"].value == best  # out here nothing is rounded
        assert folder.read_json("config.json")["options"]["precision"] == kind
        assert all(value.dtype == torch.float32 for value in task.model.state_dict().values())
    assert losses["bf16"] == pytest.approx(losses["float32"], abs=0.01)
    assert losses["bf16"] != losses["float32"]


def test_a_run_in_bf16_goes_on_to_the_same_bits(options, monkeypatch):
    monkeypatch.setenv("ELMAN_BF16", "emulated")
    options = replace(options, precision="bf16")
    _, straight, _ = start(options, "straight")
    start(options, "stopped", task=Interrupted(options))
    _, stopped, _ = start(options, "stopped", resume=True)
    same(whole(straight), whole(stopped))


def test_a_run_without_a_validation_part(options):
    finished, folder, _ = start(replace(options, validation=0.0), "one")
    assert finished
    assert not any("validation" in record for record in whole(folder)[0])


def test_schedule_and_bounds(options):
    run = Training(
        Text(replace(options, steps=None, epochs=2.0, warmup=10, rate=1.0)), RunFolder.create("x", "text"), quiet()
    )
    assert run.steps == 2 * run.task.batches
    assert run.rate() == pytest.approx(0.1)
    run.step = run.steps // 2
    assert run.rate() == pytest.approx(0.5, abs=0.02)
    run.step = run.steps
    assert run.progress == 1.0
    assert run.rate() == pytest.approx(0.0)
    timed = Training(Text(replace(options, steps=None, seconds=10.0)), run.folder, quiet())
    assert timed.steps == math.inf
    timed.seconds = 7.5
    assert timed.progress == 0.75


def test_seconds_bound_a_run(options):
    finished, folder, _ = start(replace(options, steps=None, seconds=0.5), "one")
    assert finished
    assert 0.5 <= json.loads(whole_metadata(folder))["seconds"] < 10


def test_gradients_are_clipped_by_value_and_by_norm(options):
    for change in ({"clip_value": 1e-6, "clip_norm": None}, {"clip_norm": 1e-6}):
        run = Training(Text(replace(options, **change)), RunFolder.create("x", "text"), quiet())
        measured = run.advance()
        largest = max(p.grad.abs().max().item() for p in run.task.model.parameters())
        assert measured["norm"] > 1e-3
        assert 0 < largest <= 1.0001e-6


def test_a_diverging_run_stops_and_keeps_its_checkpoint(options):
    class Bursting(Text):
        def loss(self, k, state):
            found = super().loss(k, state)
            return found._replace(value=math.nan) if k == 7 else found

    said = r"the loss became nan at step 7: computed once more, .*lower --rate \(now 0.006\)"
    with pytest.raises(DivergenceError, match=said):
        start(options, "one", task=Bursting(options))
    assert json.loads(whole_metadata(RunFolder.open("one")))["step"] == 5


def test_a_finished_run_says_that_nothing_is_left(options):
    start(options, "one")
    with pytest.raises(OptionError, match="one has reached its end, step 20"):
        start(options, "one", resume=True)
    finished, folder, _ = start(replace(options, steps=25), "one", resume=True)
    assert finished
    assert json.loads(whole_metadata(folder))["step"] == 25


def test_ctrl_c_in_the_last_step_is_too_late_to_stop(options):
    class Late(Text):
        def loss(self, k, state):
            if k == 19:
                signal.raise_signal(signal.SIGINT)
            return super().loss(k, state)

    finished, folder, _ = start(options, "one", task=Late(options))
    assert finished
    assert whole(folder)[0][-1]["step"] == 20


def test_a_run_killed_before_its_first_measurement_can_go_on(options):
    _, straight, _ = start(options, "straight")

    class Early(Text):
        def loss(self, k, state):
            raise SystemError("killed")

    with pytest.raises(SystemError):
        start(options, "broken", task=Early(options))
    _, broken, _ = start(options, "broken", resume=True)
    same(whole(straight), whole(broken))


def test_a_validation_or_a_sample_that_is_no_number_stops_before_saving(options):
    class Bursting(Text):
        def validate(self):
            return {"stateful": Score(math.inf, "much")}

    with pytest.raises(DivergenceError, match=r"the validation \(stateful\) became inf at step 5"):
        start(options, "one", task=Bursting(options))
    task = Text(options)
    task.model.output.bias.data.fill_(math.nan)
    with pytest.raises(DivergenceError, match="no longer finite"):
        task.sample(0)


def test_going_back_to_where_nothing_is_left_to_do_loses_nothing(options):
    options = replace(options, checkpoints=4)
    _, folder, _ = start(options, "one")
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    with pytest.raises(OptionError, match="has reached its end, step 10"):
        start(replace(options, from_step=10, steps=10), "one", resume=True)
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before


def test_all_time_counts(options, monkeypatch):
    monkeypatch.setattr("elman.train.training.time.perf_counter", iter(range(10_000)).__next__)  # a second a look
    _, folder, _ = start(options, "one")
    seconds = json.loads(whole_metadata(folder))["seconds"]
    assert seconds >= 20 + 5 + 4, "20 steps, 5 samples and snapshots, 4 measurements and what they save"


def test_two_do_not_train_in_one_folder(options):
    folder = RunFolder.create("one", "text")
    with folder.alone(), pytest.raises(RunError, match="another process is training in one: wait for it, stop it"):
        train(Text(options), folder, quiet())
    assert not train(Text(options), folder, quiet())


def test_an_average_or_a_smoothing_of_one_is_refused(options):
    for name in ("average", "smoothing"):
        with pytest.raises(OptionError, match=f"--{name} 99.0: must be below 1"):
            replace(options, **{name: 99.0})


def test_samples_are_printed_as_they_are():
    report = Report()
    report.console.file = io.StringIO()
    report.sample(0, "x = {1:heart:2} a[:100:] [bold]")
    assert "x = {1:heart:2} a[:100:] [bold]" in report.console.file.getvalue()


def test_weight_decay_spares_biases(options):
    groups = Training(Text(options), RunFolder.create("x", "text"), quiet()).optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert all(p.dim() > 1 for p in groups[0]["params"])
    assert all(p.dim() == 1 for p in groups[1]["params"])


def test_a_report_says_what_is_trained(options):
    report, task = quiet(), Text(options)
    train(task, RunFolder.create("one", "text"), report)
    said = report.console.file.getvalue()
    for words in """fox.txt: 5,040 chars|first 4,536 to train, last 504 to validate|lstm 1 x 12|backend  fused: one
kernel a sequence|step 5/20|nats/char (|bits)|grad|steps/s|sample at step 0""".replace("\n", " ").split("|"):
        assert words in said
    assert f"{sum(p.numel() for p in task.model.parameters()):,}" in said


def test_losses_for_people(options):
    task = Text(options)
    assert task.in_units(math.log(2)) == "0.6931 nats/char (1.0000 bits)"
    words = Text(replace(options, level="word", batch=1))
    assert words.in_units(math.log(50)).endswith("perplexity 50.0")


def test_resume_refuses_a_state_of_another_shape(options):
    start(options, "one", task=Interrupted(options))
    with pytest.raises(RunError, match=r"state\.0\.0 is \(4, 12\) of torch.float32, the model has \(2, 12\)"):
        start(replace(options, batch=2), "one", resume=True)
