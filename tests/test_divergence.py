"""A training that meets a number that is not finite: where it arose, what is kept, and how training goes on."""

import io
import json
import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from elman import DivergenceError
from elman.checkpoint import RunFolder
from elman.cli import main
from elman.console import Report
from elman.task.regress import Regress
from elman.task.regress_options import Options as RegressOptions
from elman.task.text import Text
from elman.task.text_options import Options
from elman.tensors import read_about
from elman.train import train
from elman.train.training import Training

SMALL = dict(
    hidden=12, embedding=5, batch=4, window=8, steps=30, dropout=0.2, report_every=5, validate_every=5, sample_every=50,
    sample_length=5,
)  # fmt: skip


@pytest.fixture
def options(text_file, monkeypatch):
    """Of a small run; its tasks are told of the training that they are in."""

    class Known(Training):
        def __init__(self, task, *others):
            super().__init__(task, *others)
            task.run = self

    monkeypatch.setattr("elman.train.loop.Training", Known)
    return Options(files=(str(text_file),), **SMALL)


class Planted(Text):
    """The task, with factors that make a window's loss infinite, not a number, or its gradient infinite."""

    bad = {7: 1e39}

    def loss(self, k, state):
        found = super().loss(k, state)
        if k not in self.bad:
            return found
        objective = found.objective * self.bad[k]  # planted
        return found._replace(objective=objective, value=objective.item())


class TooFast(Planted):
    """Windows whose loss overflows only while the rate is above a third of what it is now."""

    at = 7

    def loss(self, k, state):
        self.bad = {self.at: 1e39} if self.run.rate() > self.options.rate / 3 else {}
        return super().loss(k, state)


class KilledError(RuntimeError):
    """As by kill -9."""


def start(task, name, resume=False, kill=None):
    """The folder of a run and what it printed; `kill`: dies before this step."""
    report = Report(Console(file=io.StringIO(), width=400, emoji=False))
    folder = RunFolder.open(name) if resume else RunFolder.create(name, "text")
    own = task.loss

    def loss(k, state):
        if k == kill:
            raise KilledError
        return own(k, state)

    task.loss = loss
    train(task, folder, report, resume)
    return folder, report.console.file.getvalue()


def whole(folder):
    log = [json.loads(line) for line in folder.lines("log.jsonl")]
    for record in log:
        del record["seconds"]
    return log, load_file(folder.path / "training.safetensors"), load_file(folder.path / "model.safetensors")


def same(one, two):
    assert one[0] == two[0]
    for a, b in zip(one[1:], two[1:]):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_stop_says_where_and_keeps_the_batch(options):
    with pytest.raises(
        DivergenceError,
        match=r"the loss became inf at step 7: inf first comes from mul at test_divergence.py:\d+ `objective = found"
        r"\.objective \* self\.bad\[k\]  # planted` \(diverged-7\.safetensors and \.json in one\); "
        r"lower --rate \(now 0\.006\) or --clip-norm, or go on with --resume --on-divergence back; "
        r"one keeps its last checkpoint",
    ):
        start(Planted(options), "one")
    folder = RunFolder.open("one")
    told = folder.read_json("diverged-7.json")
    assert told["step"] == 7
    assert (told["located"]["kind"], told["located"]["op"]) == ("forward", "mul")
    kept = load_file(folder.path / "diverged-7.safetensors")
    task = Text(options)
    x, y = task._streams[7]
    assert torch.equal(kept["batch.ids"], x)
    assert torch.equal(kept["batch.cross_entropy.1"], y.flatten())
    assert json.loads(read_about(folder.path / "training.safetensors")["training"])["step"] == 5


def test_what_is_kept_runs_the_step_again_to_the_same_bits(options):
    class Noting(Planted):
        seen = {}

        def loss(self, k, state):
            found = super().loss(k, state)
            self.seen.setdefault(k, found.objective.item() / self.bad.get(k, 1.0) if k != 7 else found.state)
            return found

    with pytest.raises(DivergenceError):
        start(Noting(options), "one")
    (RunFolder.open("one").path / "diverged-7.safetensors").replace("one/training.safetensors")
    run = Training(Text(options), RunFolder.open("one"), Report())
    tensors = load_file("one/training.safetensors")
    with pytest.raises(Exception, match=r"has the tensor 'batch\."):
        run.take_up(*run.found())
    run.task.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    torch.set_rng_state(tensors["random"])
    state = [layer._make(tensors[f"state.0.{i}"] for i in range(2)) for layer in run.state]
    again = run.task.loss(7, tuple(state)).state
    assert all(torch.equal(a, b) for one, two in zip(again, Noting.seen[7]) for a, b in zip(one, two))


def test_an_infinite_gradient_of_a_finite_loss(options):
    class Steep(Planted):
        def loss(self, k, state):
            found = super(Planted, self).loss(k, state)
            if k != 7:
                return found
            at_zero = (self.model.output.bias[:1] - self.model.output.bias[:1].detach()).exp() - 1
            return found._replace(objective=found.objective + at_zero.sqrt().sum())  # steep

    with pytest.raises(DivergenceError, match=r"the gradient's norm became (nan|inf) at step 7: the gradient first"):
        start(Steep(options), "one")
    told = RunFolder.open("one").read_json("diverged-7.json")["located"]
    assert (told["kind"], told["op"], told["value"]) == ("backward", "sqrt", "inf")
    assert told["parameters"] == ["output.bias"]
    assert told["line"].endswith("# steep")


def test_a_lost_parameter_and_a_lost_state(options):
    for policy in ("stop", "skip"):
        task = Text(replace(options, on_divergence=policy))
        task.model.embedding.weight.data[5, 2] = math.nan
        run = Training(task, RunFolder.create(policy, "text"), Report())
        said = r"the parameter embedding.weight holds nan at \(5, 2\)"
        with pytest.raises(DivergenceError, match=said):
            run.advance()
    run = Training(Text(options), RunFolder.create("state", "text"), Report())
    run.advance()
    run.state[0].c[2, 7] = math.inf
    run.state[0].h[2, 7] = math.nan
    with pytest.raises(DivergenceError, match=r"the input state\.0\.0 holds nan at \(2, 7\)"):
        run.advance()


def test_data_that_is_not_finite(here):
    rows = ["a,b"] + [f"{math.sin(k / 5):.4f},{math.cos(k / 5):.4f}" for k in range(400)]
    (here / "waves.csv").write_text("\n".join(rows))
    o = RegressOptions(
        files=(str(here / "waves.csv"),), inputs="a", targets="b", horizon=0, context=20, batch=4, hidden=8, steps=50
    )
    task = Regress(o)
    table = task.training[0].table
    table.values[45, 0] = math.inf
    with pytest.raises(DivergenceError, match=r"the input inputs\.values holds inf at \(5, \d, 0\)"):
        start(task, "one")


def test_a_rate_of_a_thousand_is_found_in_the_layer_that_overflows(options):
    """Weights grow without bound; the layer and step found are those of a loop over the cell's own equation."""
    o = replace(options, cell="elman-relu", rate=1e3, warmup=0, dropout=0.0, layers=2, window=16, clip_norm=None)
    with pytest.raises(DivergenceError):
        start(Text(replace(o, validation=0.0)), "one")
    folder = RunFolder.open("one")
    told_file = next(folder.path.glob("diverged-*.json"))
    told = json.loads(told_file.read_text())
    tensors = load_file(told_file.with_suffix(".safetensors"))
    y = tensors["model.embedding.weight"][tensors["batch.ids"]]
    want = None
    for k, part in enumerate((1, 3)):
        h = tensors[f"state.{k}.0"]
        weight = {n: tensors[f"model.recurrent.parts.{part}.cell.{n}"] for n in ("U.weight", "U.bias", "W.weight")}
        ys = []
        for t, x in enumerate(y):
            u, w = x @ weight["U.weight"].T + weight["U.bias"], h @ weight["W.weight"].T
            h = torch.relu(u + w)
            if want is None and not h.isfinite().all():
                want = (f"recurrent.parts.{part}.cell", t)
            ys.append(h)
        y = torch.stack(ys)
    found = told["located"]
    assert found["kind"] == "forward"
    assert (found["path"].removesuffix(".U").removesuffix(".W"), found["step"]) == want


def test_skip_leaves_the_batch_out_and_counts_it(options):
    o = replace(options, on_divergence="skip")
    folder, said = start(Planted(o), "one")
    log, *_ = whole(folder)
    (record,) = [r for r in log if "diverged" in r]
    assert record["step"] == 7
    assert record["then"] == "skip"
    assert record["diverged"]["located"]["op"] == "mul"
    assert "the loss became inf at step 7" in said
    assert "skipped, 1 so far" in said
    assert [r["step"] for r in log if "train" in r] == [5, 10, 15, 20, 25, 30]
    assert [r.get("skipped") for r in log if "train" in r] == [None, 1, 1, 1, 1, 1]
    assert "steps/s  skipped 1" in said


def test_a_skipped_batch_changes_no_weight(options):
    run = Training(Planted(replace(options, on_divergence="skip")), RunFolder.create("x", "text"), Report())
    for _ in range(7):
        run.advance()
    before = [p.clone() for p in run.parameters]
    assert run.advance() is None
    assert run.step == 8
    assert all(torch.equal(a, b) for a, b in zip(before, run.parameters))
    assert run.advance() is not None
    assert not all(torch.equal(a, b) for a, b in zip(before, run.parameters))


def test_ten_in_a_row_may_be_skipped_and_ten_batches_are_kept(options):
    class Many(Planted):
        bad = dict.fromkeys([3, *range(12, 40)], math.nan)

    with pytest.raises(DivergenceError, match=r"became nan at step 22: .*10 batches were skipped; lower --rate"):
        start(Many(replace(options, on_divergence="skip", steps=60)), "one")
    folder = RunFolder.open("one")
    steps = sorted(int(p.stem.split("-")[1]) for p in folder.path.glob("diverged-*.json"))
    assert steps == [3, *range(12, 21)]


def test_back_goes_on_at_half_the_rate_and_at_a_quarter(options):
    o = replace(options, on_divergence="back", schedule="constant", warmup=0)
    folder, said = start(TooFast(o), "one")
    log, *_ = whole(folder)
    assert [(r["step"], r["diverged"]["step"], r["then"]) for r in log if "diverged" in r] == [(5, 7, "back")] * 2
    assert [r["rate"] for r in log if "train" in r] == [0.006] + [0.0015] * 5
    assert "back to step 5 and on at a rate of 0.003" in said
    assert "back to step 5 and on at a rate of 0.0015" in said


def test_back_gives_up_after_three_times(options):
    with pytest.raises(
        DivergenceError, match=r"at step 7: .*training has gone back 3 times; lower --rate \(now 0.00075"
    ):
        start(Planted(replace(options, on_divergence="back")), "one")


def test_back_to_the_very_beginning(options):
    class Early(TooFast):
        at = 4

    for optimizer in ("adamw", "adagrad"):
        task = Early(replace(options, on_divergence="back", optimizer=optimizer, schedule="constant", warmup=0))
        folder, _ = start(task, optimizer)
        assert [r["step"] for r in whole(folder)[0] if "diverged" in r] == [0, 0]
        other = Text(replace(task.options, rate=task.options.rate / 4))
        plain, _ = start(other, f"plain-{optimizer}")
        for name, tensor in whole(plain)[1].items():
            assert name.endswith("state") or torch.equal(tensor, whole(folder)[1][name]), name


def test_a_step_of_several_batches_is_found_and_skipped_whole(options):
    o = replace(options, accumulate=3, on_divergence="skip", steps=6, report_every=1)
    folder, _ = start(Planted(o), "one")
    log, *_ = whole(folder)
    (record,) = [r for r in log if "diverged" in r]
    assert (record["step"], record["diverged"]["located"]["op"]) == (2, "mul")  # batch 7 is of the third step
    assert [r["step"] for r in log if "train" in r] == [1, 2, 4, 5, 6]


@pytest.mark.parametrize("kill", [9, 13, 24])
@pytest.mark.parametrize("policy", ["skip", "back"])
def test_a_run_killed_after_a_divergence_resumes_to_the_same_bits(options, policy, kill):
    class Twice(TooFast):
        def loss(self, k, state):
            if policy == "back":
                return super().loss(k, state)
            self.bad = {7: math.nan, 12: 1e39, 13: 1e39}
            return Planted.loss(self, k, state)

    o = replace(options, on_divergence=policy, schedule="constant", warmup=0)
    straight, _ = start(Twice(o), "straight")
    with pytest.raises(KilledError):
        start(Twice(o), "broken", kill=kill)
    files = {"vocabulary.json": straight.read_json("vocabulary.json")}
    broken, _ = start(Twice(o, files), "broken", resume=True)
    same(whole(straight), whole(broken))
    assert sum("diverged" in record for record in whole(straight)[0]) == (3 if policy == "skip" else 2)


def test_the_batch_of_several_networks_is_kept_too(options):
    with pytest.raises(DivergenceError):
        start(Planted(replace(options, members=2)), "one")
    kept = load_file("one/diverged-7.safetensors")
    assert torch.equal(kept["batch.ids"], Text(options)._streams[7][0])


def test_what_follows_batches_that_were_not_read_begins_anew(options):
    class Noting(Planted):
        seen = {}

        def loss(self, k, state):
            self.seen[k] = state
            return super().loss(k, state)

    start(Noting(replace(options, accumulate=3, on_divergence="skip", steps=4)), "one")
    first = Text(options).initial()
    assert torch.equal(Noting.seen[9][0].h, first[0].h), "batch 7 diverged, 8 was not read"
    assert not torch.equal(Noting.seen[6][0].h, first[0].h)


def test_back_where_a_validation_is_not_finite(options):
    class Bursting(Text):
        def validate(self):
            scores = super().validate()
            if self.run.step == 10 and not self.run.counts.back:
                return {name: score._replace(value=math.nan) for name, score in scores.items()}
            return scores

    folder, said = start(Bursting(replace(options, on_divergence="back")), "one")
    (record,) = [r for r in whole(folder)[0] if "diverged" in r]
    assert (record["step"], record["then"]) == (5, "back")
    assert "the validation (stateful) became nan at step 10" in said
    with pytest.raises(DivergenceError, match="became nan at step 10"):
        start(Bursting(options), "two")


def test_the_share_of_clipped_steps_is_in_the_log_and_on_the_line(options):
    folder, said = start(Text(replace(options, clip_norm=1e-6)), "all")
    assert {r["clipped"] for r in whole(folder)[0] if "train" in r} == {1.0}
    assert "clipped 100%" in said
    folder, said = start(Text(replace(options, clip_norm=1e6)), "none")
    assert {r["clipped"] for r in whole(folder)[0] if "train" in r} == {0.0}
    assert "clipped" not in said
    log = whole(start(Text(replace(options, clip_norm=None)), "off")[0])[0]
    norms = [r["norm"] for r in log if "train" in r]
    middle = sorted(norms)[3]
    run = Training(Text(replace(options, clip_norm=middle, steps=12)), RunFolder.create("some", "text"), Report())
    over = [run.advance()["norm"] > middle for _ in range(12)]
    assert run.counts.shown()["clipped"] == sum(over) / 12
    assert 0 < sum(over) < 12


def test_a_checkpoint_of_lost_weights_is_not_written(options):
    run = Training(Text(options), RunFolder.create("x", "text"), Report())
    run.advance()
    run.save()
    run.task.model.output.bias.data[0] = math.inf
    with pytest.raises(DivergenceError, match=r"step 1 left output.bias with values that are not finite"):
        run.save()
    run.take_up(*run.found())
    assert run.task.model.output.bias.isfinite().all()


def test_the_command_line_exits_with_two_and_resume_may_choose_another_way(options, monkeypatch, capsys):
    monkeypatch.setattr("elman.begin.TASKS", {"text": Planted})
    small = "--hidden 8 --embedding 4 --batch 4 --window 8 --steps 9 --sample-length 5 --validate-every 5".split()
    assert main(["train", "text", *options.files, "--run", "x", *small]) == 2
    assert "at step 7: inf first comes from mul" in capsys.readouterr().err
    assert main(["train", "text", "--run", "x", "--resume", "--on-divergence", "skip"]) == 0


def test_the_gradient_against_lag_is_in_the_log(options):
    o = replace(options, steps=10, window=20)
    folder, _ = start(Text(o), "one")
    lags = [record["lags"] for record in whole(folder)[0] if "validation" in record]
    assert [list(found) for found in lags] == [["1", "2", "4", "8", "16"]] * 2
    assert all(0 < found["16"] < found["1"] for found in lags)
    random = torch.get_rng_state()
    task = Text(o)
    torch.set_rng_state(random)
    task.gradient_by_lag()
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in task.model.parameters())
