"""What --tensorboard writes, read back by TensorBoard's own reader and held to log.jsonl."""

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import ran, refused
from safetensors.torch import load_file
from test_train import SMALL as LITTLE
from test_train import Interrupted, Killed, start

from elman.task.text import Text
from elman.task.text_options import Options

pytest.importorskip("tensorboard", reason='needs tensorboard: pip install "elman[tensorboard]"')
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

FIGURES = {"loss": "train", "smoothed": "smoothed", "gradient norm": "norm", "rate": "rate"}


@pytest.fixture
def watched(text_file):
    return Options(files=(str(text_file),), tensorboard=True, **LITTLE)


def events(folder):
    found = EventAccumulator(str(folder.path / "tensorboard"), size_guidance={"tensors": 0, "histograms": 0})
    return found.Reload()


def records(folder):
    return [json.loads(line) for line in (folder.path / "log.jsonl").read_text().splitlines()]


def scalars(found, tag):
    return [(event.step, event.value) for event in found.Scalars(tag)]


def as_logged(folder):
    """Every scalar of log.jsonl, as 32-bit numbers, which is what events hold."""
    log = records(folder)
    told = {f"train/{tag}": [(r["step"], r[key]) for r in log if key in r] for tag, key in FIGURES.items()}
    told["validation/stateful"] = [(r["step"], r["validation"]["stateful"]) for r in log if "validation" in r]
    return {tag: [(step, float(np.float32(value))) for step, value in points] for tag, points in told.items()}


def shown(folder):
    found = events(folder)
    return {tag: scalars(found, tag) for tag in as_logged(folder)}


def text(event):
    return event.tensor_proto.string_val[0].decode()


def test_the_figures_are_those_of_the_log(watched):
    _, folder, _ = start(watched, "one")
    assert len(as_logged(folder)["train/loss"]) == 4
    assert shown(folder) == as_logged(folder)
    speed = scalars(events(folder), "train/steps per second")
    assert [step for step, _ in speed] == [5, 10, 15, 20]
    assert all(value > 0 for _, value in speed)


def test_samples_are_shown_as_they_are(watched):
    _, folder, _ = start(watched, "one")
    found = [text(event) for event in events(folder).Tensors("sample/text_summary")]
    said = (folder.path / "samples.txt").read_text().split("--- step ")[1:]
    assert len(found) == 5
    assert ["".join(line[4:] for line in one.split("\n")) for one in found] == [
        "".join(one.split("\n")[1:]) for one in said
    ]


def test_histograms_of_parameters_and_gradients_at_each_validation(watched):
    _, folder, task = start(replace(watched, keep="last"), "one")
    found = events(folder)
    for name, parameter in task.model.named_parameters():
        for kind in ("parameters", "gradients"):
            seen = found.Histograms(f"{kind}/{name}")
            assert [event.step for event in seen] == [5, 10, 15, 20]
            assert seen[-1].histogram_value.num == parameter.numel()
        last = found.Histograms(f"parameters/{name}")[-1].histogram_value
        assert last.sum == pytest.approx(parameter.double().sum().item(), rel=1e-9, abs=1e-9)
        assert last.max > last.min


def test_entries_that_are_not_finite_are_left_out_of_histograms(watched):
    class Bursting(Text):
        def validate(self):
            scores = super().validate()
            self.model.output.bias.grad[0] = math.inf
            self.model.output.weight.grad.fill_(math.nan)
            return scores

    _, folder, task = start(watched, "one", task=Bursting(watched))
    found = events(folder)
    seen = found.Histograms("gradients/output.bias")[-1].histogram_value
    assert seen.num == task.model.output.bias.numel() - 1
    assert "gradients/output.weight" not in found.Tags()["histograms"]


def test_the_graph_is_the_step_of_each_recurrent_layer(watched):
    _, folder, task = start(replace(watched, layers=2, weight_dropout=0.2), "one")
    found = events(folder)
    nodes = {node.name: node for node in found.Graph().node}
    layers = {name.split("/")[0] for name in nodes}
    assert layers <= {name for name, _ in task.model.named_modules()}
    assert len(layers) == 2
    assert all(source in nodes for node in nodes.values() for source in node.input)
    for layer in layers:
        assert {f"{layer}/{name}" for name in ("x_t", "h_t-1", "c_t-1", "h_t", "c_t", "y_t")} <= nodes.keys()
        ops = [node.op for name, node in nodes.items() if name.startswith(f"{layer}/during/")]
        assert ops.count("tanh") == 2
        assert ops.count("sigmoid") == 3
        (said,) = found.Tensors(f"graph/{layer}/text_summary")
        assert "backend: fused" in text(said)


@pytest.mark.parametrize("broken", [Interrupted, Killed])
def test_a_resumed_run_has_every_step_once(watched, broken):
    if broken is Killed:
        with pytest.raises(SystemError):
            start(watched, "one", task=broken(watched))
    else:
        start(watched, "one", task=broken(watched))
    _, folder, _ = start(watched, "one", resume=True)
    assert len(as_logged(folder)["train/loss"]) == 4
    assert shown(folder) == as_logged(folder)
    found = events(folder)
    assert [event.step for event in found.Tensors("sample/text_summary")] == [0, 5, 10, 15, 20]
    assert [event.step for event in found.Histograms("gradients/output.bias")] == [5, 10, 15, 20]
    assert len([tag for tag in found.Tags()["tensors"] if tag.startswith("graph/")]) == 1


def test_what_came_after_the_checkpoint_of_a_killed_run_is_taken_back(watched):
    class Late(Text):
        def loss(self, k, state):
            if k == 14:
                raise SystemError("killed")
            return super().loss(k, state)

    often = replace(watched, report_every=2)
    with pytest.raises(SystemError):
        start(often, "one", task=Late(often))
    _, folder, _ = start(often, "one", resume=True)
    assert [step for step, _ in shown(folder)["train/loss"]] == [*range(2, 21, 2)]
    assert shown(folder) == as_logged(folder)


def test_many_resumes_in_a_moment_are_read_in_their_order(watched):
    for steps in range(2, 8):
        _, folder, _ = start(replace(watched, steps=steps, report_every=1), "one", resume=steps > 2)
    names = [path.name.split(".")[3] for path in sorted((folder.path / "tensorboard").iterdir())]
    assert len(set(names)) == 6
    assert [step for step, _ in shown(folder)["train/loss"]] == [*range(1, 8)]


def test_watching_changes_no_bit_of_the_training(watched):
    _, one, _ = start(watched, "one")
    _, two, _ = start(replace(watched, tensorboard=False), "two")
    assert not (two.path / "tensorboard").exists()
    for name in ("model.safetensors", "training.safetensors"):
        a, b = load_file(one.path / name), load_file(two.path / name)
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert (one.path / "samples.txt").read_text() == (two.path / "samples.txt").read_text()


def test_running_means_are_as_without_it(here, capsys, monkeypatch):
    from elman.data.shapes import drawn_shapes

    monkeypatch.setattr("elman.task.caption.drawn_shapes", lambda *how: drawn_shapes(*how)[::100])
    small = "--side 8 --width 8 --hidden 4 --embedding 4 --batch 8 --steps 2 --validation 0.1".split()
    for run, flag in (("one", ["--tensorboard"]), ("two", [])):
        ran(capsys, "train", "caption", *small, "--run", run, *flag)
    a, b = (load_file(f"{run}/model.safetensors") for run in ("one", "two"))
    assert any("running_mean" in name for name in a)
    assert all(torch.equal(a[name], b[name]) for name in a)


SMALL = "--hidden 6 --embedding 3 --batch 4 --window 8 --validate-every 2 --report-every 2 --sample-length 5".split()


def test_the_flag_may_come_with_resume_and_stays(text_file, capsys):
    run = text_file.parent / "one"
    ran(capsys, "train", "text", text_file, *SMALL, "--run", run, "--steps", 2)
    assert not (run / "tensorboard").exists()
    ran(capsys, "train", "text", "--run", run, "--resume", "--steps", 4, "--tensorboard")
    ran(capsys, "train", "text", "--run", run, "--resume", "--steps", 6)
    ran(capsys, "train", "text", "--run", run, "--resume", "--steps", 8, "--tensorboard")
    found = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [step for step, _ in scalars(found, "train/loss")] == [4, 6, 8]
    assert found.Tags()["graph"]


def test_a_missing_package_is_named_before_anything_is_made(text_file, capsys, monkeypatch):
    run = text_file.parent / "one"
    ran(capsys, "train", "text", text_file, *SMALL, "--run", run, "--steps", 2)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    said = '--tensorboard needs the package tensorboard: pip install "elman[tensorboard]"'
    assert said in refused(capsys, "train", "text", text_file, *SMALL, "--run", "two", "--tensorboard")
    assert not (text_file.parent / "two").exists()
    assert said in refused(capsys, "train", "text", "--run", run, "--resume", "--steps", 4, "--tensorboard")
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_nothing_of_it_is_imported_without_the_flag(text_file):
    code = f"""
import sys
from elman.cli import main
assert main({["train", "text", str(text_file), *SMALL, "--steps", "2", "--run", "one"]}) == 0
print([name for name in ("tensorboard", "torch.utils.tensorboard", "optuna") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_signal_keeps_what_was_shown(watched):
    class Stopped(Text):
        def loss(self, k, state):
            if k == 11:
                signal.raise_signal(signal.SIGTERM)
            return super().loss(k, state)

    often = replace(watched, report_every=1)
    _, folder, _ = start(often, "one", task=Stopped(often))
    assert [step for step, _ in shown(folder)["train/loss"]] == [*range(1, 13)]
