"""Regress: windows in the order of time, forecasts and answers in step, scores by another way, and every refusal."""

import json
import os
from pathlib import Path

import pytest
import torch
from commands import refused
from safetensors.torch import load_file

from elman import DataError
from elman.checkpoint import RunFolder
from elman.cli import main
from elman.task.regress import Regress
from elman.task.regress_options import RECIPES, Options
from elman.task.regressors import Forecaster, Inputs, Sizes
from elman.task.tally import pinball
from elman.task.windows import Columns, Windows, ahead
from elman.train.training import Training

SMALL = "--hidden 8 --context 12 --horizon 3 --batch 8 --steps 4 --report-every 2 --validate-every 2".split()
STEP = "--horizon 0 --inputs a --targets b --hidden 6 --context 10 --batch 4 --steps 4 --validate-every 2".split()


def wave(rows, begin=0):
    """Columns a and b, by the hour: a wave, and its running sum."""
    a = torch.sin(torch.arange(begin, begin + rows) * 0.5) * 3 + 10
    b = torch.cos(torch.arange(begin, begin + rows) * 0.5)
    days = [f"2024-01-{1 + t // 24:02d} {t % 24:02d}:00:00" for t in range(begin, begin + rows)]
    return "time,a,b\n" + "".join(f"{day},{x:.4f},{y:.4f}\n" for day, x, y in zip(days, a, b))


@pytest.fixture
def csv(tmp_path, monkeypatch):
    """A file of 120 rows in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "wave.csv"
    path.write_text(wave(120))
    return path


def shared(name):
    """A real file, or a skip that says where it was looked for."""
    path = Path(os.environ.get("ELMAN_DATA", Path(__file__).parents[3] / "shared" / "data")) / name
    if not path.is_file():
        pytest.skip(f"no {path}: set ELMAN_DATA to a folder that holds {name}")
    return path


def train(*words):
    return main(["train", "regress", *map(str, words)])


def scored(capsys, *words):
    capsys.readouterr()
    assert main(["score", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def predicted(capsys, *words):
    capsys.readouterr()
    assert main(["predict", *map(str, words), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# rows


def test_validation_begins_where_training_ends(csv):
    task = Regress(Options(files=(str(csv),), context=12, horizon=3, split="70,30"))
    assert max(w.end for w in task.training) == 70
    assert (min(w.at for w in task.held_back), max(w.end for w in task.held_back)) == (70, 100)
    columns = task.known
    values = task.parts[0].table.values[:70]
    torch.testing.assert_close(columns.mean, values.mean(0))
    torch.testing.assert_close(columns.deviation, values.std(0, unbiased=False))


def test_a_score_reads_only_what_training_did_not(csv, tmp_path, capsys):
    assert train(csv, *SMALL, "--split", "70,20,20") == 0
    assert scored(capsys, "runs/regress")["scored"] == 18  # rows 71 to 90
    assert scored(capsys, "runs/regress", csv)["scored"] == 18  # rows 91 to 110
    other = tmp_path / "other.csv"
    other.write_text(wave(50, begin=7))
    assert scored(capsys, "runs/regress", other)["scored"] == 50 - 12 - 2
    assert train(csv, *SMALL, "--run", "all") == 0
    assert "after row 120: too few" in refused(capsys, "score", "all", csv)
    csv.write_text(wave(130))
    assert scored(capsys, "all", csv)["scored"] == 8  # the rows that the file has grown by


def test_another_file_validates(csv, tmp_path, capsys):
    other = tmp_path / "other.csv"
    other.write_text(wave(40, begin=30))
    assert train(csv, *SMALL, "--validation", other) == 0
    said = capsys.readouterr().out
    assert "120 rows to train, validated on" in said
    assert "a, b and hour, weekday -> a, b" in said
    assert scored(capsys, "runs/regress")["scored"] == 40 - 12 - 2
    other.write_text("a,b\n" + "1,2\n" * 40)
    said = refused(capsys, "train", "regress", csv, *SMALL, "--validation", other)
    assert "other.csv has no column 'time' for the time; it has a, b" in said


def test_several_files_are_split_each_by_itself(csv, tmp_path, capsys):
    other = tmp_path / "other.csv"
    other.write_text(wave(60, begin=7))
    assert train(csv, other, *SMALL, "--split", "0.5,0.25") == 0
    assert "90 rows to train, 45 to validate, 45 left to score" in capsys.readouterr().out
    assert scored(capsys, "runs/regress", other)["scored"] == 15 - 2


# forecasts


def test_scores_of_forecasts_by_hand(csv):
    task = Regress(Options(files=(str(csv),), context=12, horizon=3, hidden=8, season=2, split="70,30"))
    task.model.eval()
    table, at = task.parts[0].table, range(70, 98)
    z = (table.values - task.known.mean) / task.known.deviation
    with torch.no_grad():
        outs = [task.model(task.batch([w]))[0, ..., 0].double() for w in Windows([ahead(table, 70, 100, 12, 3)])]
    right = [z[t : t + 3] for t in at]
    naive = [z[[t - 2, t - 1, t - 2]] for t in at]
    errors = torch.stack(outs) - torch.stack(right)
    scores = task.score()
    assert scores["MSE"].value == pytest.approx(errors.pow(2).mean().item(), rel=1e-5)
    assert scores["MAE"].value == pytest.approx(errors.abs().mean().item(), rel=1e-5)
    assert scores["naive MSE"].value == pytest.approx((torch.stack(naive) - torch.stack(right)).pow(2).mean().item())
    scale = (z[2:70] - z[:68]).abs().mean(0)
    assert scores["MASE"].value == pytest.approx((errors.abs().mean((0, 1)) / scale).mean().item(), rel=1e-5)
    in_units = (errors[..., 0].abs().mean() * task.known.deviation[0]).item()
    assert scores["MAE of a"].value == pytest.approx(in_units, rel=1e-5)


def forecaster(columns=3, **options):
    torch.manual_seed(0)
    o = Options(**{"hidden": 8, "context": 12, "horizon": 4, **options})
    return Forecaster(o, Sizes(columns, tuple(range(columns)), False, 2, 1)).eval()


def inputs(columns=3):
    draw = torch.Generator().manual_seed(1)
    values, clock = torch.randn(12, 5, columns, generator=draw), torch.randn(12, 5, 2, generator=draw)
    return Inputs(values, values[..., :0], clock)


@pytest.mark.parametrize("centre", ["last", "window"])
@pytest.mark.parametrize("apart", [False, True])
def test_a_centred_forecast_moves_with_its_window(centre, apart):
    model, x = forecaster(centre=centre, apart=apart), inputs()
    out, moved = model(x), model(x._replace(values=x.values + 2))
    torch.testing.assert_close(moved, out + 2, rtol=1e-4, atol=1e-4)
    assert out.shape == (5, 4, 3, 1)


@pytest.mark.parametrize("segment", [1, 4])
def test_columns_apart_do_not_see_each_other(segment):
    model, x = forecaster(apart=True, segment=segment), inputs()
    order = [2, 0, 1]
    torch.testing.assert_close(model(x._replace(values=x.values[..., order])), model(x)[:, :, order])
    changed = x.values.clone()
    changed[..., 0] = 0
    torch.testing.assert_close(model(x._replace(values=changed))[:, :, 1:], model(x)[:, :, 1:])


def test_quantiles_are_learned_and_do_not_cross(csv, capsys):
    assert train(csv, *SMALL, "--quantiles", "0.1,0.5,0.9") == 0
    assert list(scored(capsys, "runs/regress"))[:4] == ["pinball", "MSE", "MAE", "MASE"]
    for found in predicted(capsys, "runs/regress", csv):
        for values in found["values"].values():
            assert list(values) == ["0.1", "0.5", "0.9"]
            assert values["0.1"] <= values["0.5"] <= values["0.9"]


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_the_pinball_loss_is_least_at_the_quantile(q):
    y = torch.arange(1, 100.0)
    losses = [pinball(torch.full((99, 1), float(k)), y, torch.tensor([q])).mean() for k in range(1, 100)]
    assert int(torch.stack(losses).argmin()) + 1 == round(100 * q)


def test_what_follows_the_end_of_a_file(csv, capsys):
    assert train(csv, *SMALL, "--targets", "a") == 0
    found = predicted(capsys, "runs/regress", csv)
    assert [f["time"] for f in found] == ["2024-01-06 00:00:00", "2024-01-06 01:00:00", "2024-01-06 02:00:00"]
    assert [f["step"] for f in found] == [1, 2, 3]
    assert all(list(f["values"]) == ["a"] and 0 < f["values"]["a"] < 20 for f in found)
    assert main(["predict", "runs/regress", str(csv)]) == 0
    assert capsys.readouterr().out.startswith("2024-01-06 00:00:00\ta ")


def test_training_forecasts_better_with_every_epoch(csv):
    train(csv, *SMALL, "--steps", "150", "--rate", "0.01", "--validate-every", "50", "--run", "r")
    log = [json.loads(line) for line in Path("r/log.jsonl").read_text().splitlines()]
    errors = [line["validation"]["MSE"] for line in log if "validation" in line]
    assert errors[-1] < 0.05 < errors[0] * 2


def test_holes_are_filled_and_not_scored(csv, capsys):
    lines = csv.read_text().splitlines()
    for i in (3, 50, 100, 118):
        time, a, _ = lines[i].split(",")
        lines[i] = f"{time},{a},"
    csv.write_text("\n".join(lines))
    assert "line 4: b is missing (''); --missing fill" in refused(capsys, "train", "regress", csv, *SMALL)
    assert train(csv, *SMALL, "--missing", "fill") == 0
    task = Regress(Options(files=(str(csv),), missing="fill", context=12, horizon=3))
    x = task.batch(task.held_back[:1])
    assert x.missing.shape == x.values.shape
    assert x.missing[100 - 1 - task.held_back[0].begin, 0].tolist() == [0, 1]
    assert len(predicted(capsys, "runs/regress", csv)) == 3


def test_figures_without_anything_to_compare_with(csv):
    lines = csv.read_text().splitlines()
    csv.write_text("\n".join([*lines[:-20], *(f"{line.rsplit(',', 1)[0]}," for line in lines[-20:])]))
    task = Regress(Options(files=(str(csv),), missing="fill", context=12, horizon=3, targets="b", hidden=4))
    assert task.validate() == {}
    scores = task.figures(task.held_back)
    assert [name for name, score in scores.items() if score.value is None] == ["MSE", "MAE"]
    task = Regress(Options(files=(str(csv),), missing="fill", context=12, horizon=3, hidden=4))
    scores = task.figures(task.held_back)
    assert scores["MSE"].value > 0
    assert scores["MAE of b"].text == "not measured: every value to compare with is missing"


# in step


def test_sine_to_cosine_needs_memory():
    task = Regress(RECIPES["sine-cosine"].options)
    assert (task.options.cell, task.options.hidden, task.options.context) == ("lstm", 16, 20)
    run = Training(task, RunFolder(Path()), None)
    errors = [run.advance()["train"] for _ in range(200)]
    assert sum(errors[-20:]) / 20 < 0.001
    w = task.held_back[0]
    scores = task.figures([w._replace(at=1000, end=2000)])
    assert scores["MSE"].value < 0.005
    assert scores["memoryless MSE"].value > 0.9


def test_the_state_is_carried_as_if_windows_were_one(csv):
    task = Regress(Options(files=(str(csv),), horizon=0, inputs="a", targets="b", context=10, batch=2, carry=True))
    first = task.loss(0, task.initial())
    second = task.loss(1, first.state)
    streams = [task.training[i] for i in task._batches[0]]
    whole = [w._replace(end=w.end + 10) for w in streams]
    out, _ = task.model(task.batch(whole))
    y, seen = task.asked(whole)
    assert task.error(out, y, seen).item() == pytest.approx((first.value + second.value) / 2, rel=1e-5)
    assert not second.state[0].h.requires_grad


def test_the_state_is_fresh_where_rows_do_not_go_on(csv, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text(wave(30, begin=40))
    options = dict(horizon=0, inputs="a", targets="b", context=10, batch=1, carry=True, validation="0")
    task = Regress(Options(files=(str(csv), str(other)), **options))
    warm = tuple(layer._make(v + 1 for v in layer) for layer in task.initial())
    at = next(k for k in range(task.batches) if task.training[k].table is not task.training[k - 1].table and k)
    for k, fresh in ((0, True), (1, False), (at, True), (task.batches, True)):
        assert (task.loss(k, warm).value == task.loss(k, task.initial()).value) == fresh


def test_a_carried_training_resumes_to_the_same_bits(csv):
    words = [csv, *STEP, "--carry", "--beside", "--schedule", "constant"]
    assert train(*words, "--run", "whole") == 0
    assert train(*words, "--run", "part", "--steps", "2") == 0
    assert main(["train", "regress", "--run", "part", "--resume", "--steps", "4"]) == 0
    for name in ("model.safetensors", "training.safetensors"):
        one, two = load_file(f"whole/{name}"), load_file(f"part/{name}")
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_scores_in_step_are_the_whole_file_read_once(csv):
    task = Regress(Options(files=(str(csv),), horizon=0, inputs="a", targets="b", context=10, split="80,40"))
    task.model.eval()
    table = task.parts[0].table
    with torch.no_grad():
        out, _ = task.model(task.known.inputs([(table, 0, 120)], False))
    y, _ = task.known.outputs([(table, 0, 120)])
    want = (out[80:, 0, :, 0] - y[80:, 0]).pow(2).mean().item()
    scores = task.score()
    assert scores["MSE"].value == pytest.approx(want, rel=1e-5)
    assert scores["naive MSE"].value == pytest.approx((y[79:-1] - y[80:]).pow(2).mean().item(), rel=1e-5)
    assert scores["scored"].value == 40


def test_answers_in_step_go_on_from_a_saved_state(csv, tmp_path, capsys):
    assert train(csv, *STEP) == 0
    only = [line.rsplit(",", 1)[0] for line in wave(40).splitlines()]  # no targets: not needed
    for name, rows in (("whole", only), ("one", only[:26]), ("two", [only[0], *only[26:]])):
        (tmp_path / f"{name}.csv").write_text("\n".join(rows))
    whole = [f["values"]["b"] for f in predicted(capsys, "runs/regress", "whole.csv")]
    parts = []
    for name in ("one.csv", "two.csv"):
        parts += [f["values"]["b"] for f in predicted(capsys, "runs/regress", name, "--state", "now.safetensors")]
    assert parts == pytest.approx(whole, rel=1e-5)
    cold = [f["values"]["b"] for f in predicted(capsys, "runs/regress", "two.csv")]
    assert cold != pytest.approx(whole[25:], rel=1e-3)
    Path("now.safetensors").write_bytes(b"no")
    assert "now.safetensors is cut short or damaged" in refused(
        capsys, "predict", "runs/regress", "two.csv", "--state", "now.safetensors"
    )


# refusals

REFUSED = {
    "wave.csv has no column 'c'; it has time, a, b": ["--targets", "c"],
    "no column 'when' for the time": ["--time", "when"],
    "wave.csv, line 61: b is 'oops', not a number": ["OOPS"],
    "wave.csv, line 61: b is missing ('nan')": ["NAN"],
    "too few for one window of 200 steps and 3 ahead": ["--context", "200"],
    "wave.csv, rows 110 to 120: too few for one window": ["--split", "109,11", "--horizon", "12"],
    "--split asks for 300 to train and to validate": ["--split", "200,100"],
    "--split 3: give the rows": ["--split", "3"],
    "--validation wave.csv and --split 90,20 both say": ["--split", "90,20", "--validation", "wave.csv"],
    "the targets must be other columns than the inputs": ["--horizon", "0"],
    "a is an input and a target": ["--horizon", "0", "--inputs", "a", "--targets", "a"],
    "--quantiles 0.9,0.1: must rise": ["--quantiles", "0.9,0.1"],
    "--quantiles x: give numbers": ["--quantiles", "x"],
    "--calendar dawn: 'dawn' is none of hour, weekday, month": ["--calendar", "dawn"],
    "--carry is for answers in step": ["--carry"],
    "--context 12 is no multiple of --segment 5": ["--segment", "5"],
    "--season 24 is longer than --context 12": ["--season", "24"],
    "--apart reads each target alone": ["--apart", "--inputs", "a"],
    "--apart and --segment are for forecasts": ["--apart", "--horizon", "0"],
    "--dropout 1.0: must be below 1": ["--dropout", "1"],
    "windows are too few for 50 streams": [*STEP, "--carry", "--batch", "50"],
}


@pytest.mark.parametrize("words", REFUSED)
def test_bad_input_before_training(words, csv, capsys):
    flags = REFUSED[words]
    if flags[0].isupper():
        lines = csv.read_text().splitlines()
        lines[60] = lines[60].rsplit(",", 1)[0] + "," + flags[0].lower()
        csv.write_text("\n".join(lines))
        flags = []
    assert words in refused(capsys, "train", "regress", csv, *SMALL, *flags)
    assert not Path("runs").exists()


def test_bad_input_to_a_run(csv, tmp_path, capsys):
    assert train(csv, *SMALL) == 0
    short = tmp_path / "short.csv"
    short.write_text(wave(9))
    assert "short.csv has 9 rows; a forecast reads the last 12" in refused(capsys, "predict", "runs/regress", short)
    assert "short.csv, rows 1 to 9: too few" in refused(capsys, "score", "runs/regress", short)
    short.write_text(wave(40).replace("a,b", "a,c"))
    assert "has no column 'b'; it has time, a, c" in refused(capsys, "score", "runs/regress", short)
    assert "no state" in refused(capsys, "predict", "runs/regress", csv, "--state", "s.safetensors")
    Path("runs/regress/regress.json").write_text('{"columns": ["a"], "targets": ["b"], "units": {}}')
    assert "not the columns of a run" in refused(capsys, "score", "runs/regress")


def test_a_damaged_list_of_columns():
    for saved in (None, [], {"columns": ["a"]}, {"columns": 3, "targets": ["a"]}):
        with pytest.raises(DataError, match="not the columns of a run"):
            Columns(saved)


# as people meet it


def test_the_default_trains_scores_and_predicts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train("--steps", "3", "--hidden", "8") == 0
    said = capsys.readouterr().out
    assert "hours made here" in said
    assert "fused: one kernel a sequence" in said
    assert scored(capsys, "runs/regress")["scored"] == 336 - 23
    assert train("--steps", "2", "--recipe", "sine-cosine", "--run", "sine", "--validate-every", "5") == 0
    assert "memoryless MSE" in capsys.readouterr().out


def test_ett_has_its_official_parts():
    options = RECIPES["ett"].options
    task = Regress(Options(files=(str(shared("ett_small/ETTh1.csv.gz")),), split=options.split, context=336))
    table = task.parts[0].table
    assert table.values.shape == (17_420, 7)
    assert task.parts[0][1:] == (8640, 11_520, 14_400)
    assert (str(table.times[0]), str(table.times[-1])) == ("2016-07-01 00:00:00", "2018-06-26 19:00:00")
    test = task.read(task.options.files, training=False)
    assert (len(test), test[0].at, test[-1].end) == (2880 - 23, 11_520, 14_400)


def test_real_series_of_months_and_days():
    for name, rows, first in (("Airline", 144, 112.0), ("daily-min-temperatures", 3650, 20.7)):
        options = Options(files=(str(shared(f"airline/{name}.csv")),), context=24, horizon=12)
        table = Regress(options).parts[0].table
        assert (len(table), table.values[0, 0]) == (rows, first)
        assert len(table.times) == rows
