"""Pictures of regressions: forecasts in their units, errors by step, and fits as they came about."""

import json
import math
import re
import signal
from pathlib import Path

import pytest
import torch
from commands import ran
from PIL import Image
from safetensors.torch import load_file

from elman.checkpoint import RunFolder
from elman.cli import main
from elman.look import fits, forecasts
from elman.look.curves import training
from elman.look.page import svg_of
from elman.look.show import SECTIONS
from elman.runs import Run
from elman.task.fits import Ahead, Answers, Forecasts, Learning, Stretch, restored, saved
from elman.task.regress import Regress
from elman.task.regress_options import Options
from elman.train.schedule import snapshot_due

AHEAD = "--hidden 8 --context 12 --horizon 3 --batch 8 --steps 4 --season 4 --quantiles 0.1,0.5,0.9".split()
STEP = "--horizon 0 --inputs a --targets b --hidden 6 --context 10 --batch 4 --beside --validate-every 5".split()


def wave(rows):
    """Columns a and b by the hour, in units far from 0 and 1."""
    angle = torch.arange(rows) * 0.5
    days = [f"2024-01-{1 + t // 24:02d} {t % 24:02d}:00:00" for t in range(rows)]
    pairs = zip(days, 300 * torch.sin(angle) + 1000, 5 * torch.cos(angle))
    return "time,a,b\n" + "".join(f"{day},{a:.4f},{b:.4f}\n" for day, a, b in pairs)


@pytest.fixture
def csv(here):
    (here / "wave.csv").write_text(wave(200))
    return here / "wave.csv"


def trained(capsys, csv, *words):
    """The views of a run of the command line on what it held back."""
    ran(capsys, "train", "regress", csv, *words)
    folder = RunFolder.open("runs/regress")
    options = Options(**folder.read_json("config.json")["options"])
    task = Regress(options, {"regress.json": folder.read_json("regress.json")})
    folder.load_into(task.model, "model.safetensors")
    return task, {type(view): view for view in task.views()}


def predicted(capsys, *words):
    return [json.loads(line) for line in ran(capsys, "predict", *words, "--json").splitlines()]


# forecasts


def test_forecasts_are_those_of_predict_in_the_columns_units(csv, capsys):
    _, views = trained(capsys, csv, *AHEAD)
    view = views[Forecasts]
    assert (view.targets, view.levels, len(view.shown), view.of) == (("a", "b"), (0.1, 0.5, 0.9), 6, 18)
    lines = csv.read_text().splitlines(keepends=True)
    for one in (view.shown[0], view.shown[-1]):
        last = int(one.name.rsplit(" ", 1)[1])
        (csv.parent / "past.csv").write_text("".join(lines[: 1 + last - 3]))
        told = predicted(capsys, "runs/regress", "past.csv")
        for step, value in enumerate(told):
            assert value["time"] == str(one.places[-3 + step])
            for d, name in enumerate("ab"):
                assert one.found[step, d].tolist() == pytest.approx([*value["values"][name].values()], rel=1e-4)
        rows = [[float(cell) for cell in line.split(",")[1:]] for line in lines[1 + last - 15 : 1 + last]]
        assert torch.equal(one.true, torch.tensor(rows, dtype=torch.float64))
        torch.testing.assert_close(one.naive, one.true[8:11], rtol=1e-5, atol=1e-3)  # four steps before each


def test_bands_lie_between_the_quantiles(csv, capsys):
    _, views = trained(capsys, csv, *AHEAD)
    view = views[Forecasts]
    one = view.shown[2]
    assert (one.found.diff(dim=-1) >= 0).all()
    figure = forecasts.forecast(view, one)
    assert len(figure.axes) == 2
    for d, axes in enumerate(figure.axes):
        (band,) = axes.collections
        heights = band.get_paths()[0].vertices[:, 1]
        assert heights.min() == pytest.approx(float(one.found[:, d, 0].min()), rel=1e-5)
        assert heights.max() == pytest.approx(float(one.found[:, d, -1].max()), rel=1e-5)
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "what came", "the value 4 steps before", "forecast", "quantiles 0.1 to 0.9"
    }  # fmt: skip


def test_the_errors_by_step_have_the_mean_of_the_score(csv, capsys):
    task, views = trained(capsys, csv, *AHEAD)
    view, scores = views[Ahead], task.score()
    assert (view.count, view.of) == (18, 18)
    for d, name in enumerate("ab"):
        assert float(view.error[:, d].mean()) == pytest.approx(scores[f"MAE of {name}"].value, rel=1e-5)
    ends = [task.held_back[i] for i in range(18)]
    true = torch.stack([w.table.values[w.at : w.end] for w in ends])
    before = torch.stack([w.table.values[w.at - 4 : w.end - 4] for w in ends])
    torch.testing.assert_close(view.naive, (true - before).abs().mean(0), rtol=1e-4, atol=1e-4)
    assert view.better == [int((view.error[:, d] < view.naive[:, d]).sum()) for d in range(2)]


def test_a_forecast_of_one_step_has_bands_and_points(here, capsys):
    (here / "one.csv").write_text("a\n" + "".join(f"{math.sin(t):.3f}\n" for t in range(80)))
    words = [*AHEAD, "--horizon", "1", "--quantiles", "0.1,0.3,0.7,0.9"]
    _, views = trained(capsys, here / "one.csv", *words)
    figure = forecasts.forecast(views[Forecasts], views[Forecasts].shown[0])
    assert len(figure.axes[0].collections) == 2
    assert all(line.get_marker() == "o" for line in forecasts.ahead(views[Ahead]).axes[0].lines)


# answers in step


def test_answers_are_those_of_predict(csv, capsys):
    task, views = trained(capsys, csv, *STEP, "--steps", "8")
    (one,) = views[Answers].shown
    assert one.name.endswith("rows 181 to 200")
    told = predicted(capsys, "runs/regress", csv)[180:]
    assert one.found[:, 0, 0].tolist() == pytest.approx([value["values"]["b"] for value in told], rel=1e-4, abs=1e-5)
    assert [str(place) for place in one.places] == [value["time"] for value in told]
    assert torch.equal(one.x, task.held_back[0].table.values[180:, 0])
    assert one.alone.shape == one.found.shape == (20, 1, 1)


def test_the_points_that_are_marked_have_one_sine_and_opposite_cosines():
    task = Regress(Options(horizon=0, beside=True, hidden=4))
    (view,) = task.views()
    assert len(view.shown) == 4
    for stretch in view.shown:
        one, other = stretch.twins
        assert float(stretch.x[one]) == pytest.approx(float(stretch.x[other]), abs=0.02)
        cosines = float(stretch.true[one, 0]), float(stretch.true[other, 0])
        assert cosines[0] == pytest.approx(-cosines[1], abs=0.01)
        assert abs(cosines[0]) > 0.99
        for axes in fits.fit(stretch).axes:  # over time, and in the plane
            marked = axes.lines[-1]
            assert marked.get_label() == "one input, two answers"
            assert [float(y) for y in marked.get_ydata()] == [*cosines]
        plane = fits.fit(stretch).axes[1].lines[-1]
        assert [float(x) for x in plane.get_xdata()] == [float(stretch.x[one]), float(stretch.x[other])]


def test_where_the_input_tells_the_answer_nothing_is_marked():
    x = torch.linspace(0, 1, 50, dtype=torch.float64)
    made = {"name": "n", "places": range(50), "targets": ("y",), "columns": 1, "levels": (), "input": "x", "x": x}
    assert Stretch(**made, true=x[:, None] ** 2, found=x[:, None, None]).twins is None
    missing = x[:, None].clone()
    missing[:] = torch.nan
    view = Stretch(**made, true=missing, found=x[:, None, None])
    assert view.twins is None
    assert fits.why(view) == []


# how it came about


class Interrupted(Regress):
    """The task, with a Ctrl-C in the middle of step 12."""

    def loss(self, k, state):
        if k == 12:
            signal.raise_signal(signal.SIGINT)
        return super().loss(k, state)


class Killed(Regress):
    """The task, that dies in step 14 as by kill -9: nothing runs after it."""

    def loss(self, k, state):
        if k == 14:
            raise SystemError("killed")
        return super().loss(k, state)


class Unseen(Regress):
    """The task, of which no snapshot is taken."""

    def snapshot(self, k):
        return {}


def lines(run):
    return [json.loads(line) for line in RunFolder.open(run).lines("snapshots.jsonl")]


def test_snapshots_are_taken_often_at_first():
    assert [k for k in range(201) if snapshot_due(k)] == [
        *range(9), 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192
    ]  # fmt: skip
    assert sum(map(snapshot_due, range(10**6))) < 80


@pytest.mark.parametrize("task", [Interrupted, Killed])
def test_a_resumed_run_has_each_snapshot_once(csv, capsys, monkeypatch, task):
    ran(capsys, "train", "regress", csv, *STEP, "--steps", "20", "--run", "straight")
    monkeypatch.setattr("elman.begin.TASKS", {"regress": task})
    if task is Killed:
        with pytest.raises(SystemError):
            main(["train", "regress", str(csv), *STEP, "--steps", "20", "--run", "broken"])
        assert [line["step"] for line in lines("broken")][-1] == 14  # its last checkpoint is of step 10
    else:
        assert main(["train", "regress", str(csv), *STEP, "--steps", "20", "--run", "broken"]) == 130
    monkeypatch.undo()
    monkeypatch.chdir(csv.parent)
    ran(capsys, "train", "regress", "--run", "broken", "--resume")
    assert [line["step"] for line in lines("broken")] == [*range(9), 10, 12, 14, 16, 20]
    assert lines("broken") == lines("straight")


def test_going_back_takes_later_snapshots_back(csv, capsys):
    ran(capsys, "train", "regress", csv, *STEP, "--steps", "20", "--checkpoints", "9", "--run", "one")
    before = lines("one")
    ran(capsys, "train", "regress", "--run", "one", "--resume", "--from-step", "5")
    assert lines("one") == before


def test_snapshots_change_nothing(csv, capsys, monkeypatch):
    words = [*STEP, "--steps", "20", "--dropout", "0.3", "--average", "0.9"]
    ran(capsys, "train", "regress", csv, *words, "--run", "seen")
    monkeypatch.setattr("elman.begin.TASKS", {"regress": Unseen})
    ran(capsys, "train", "regress", csv, *words, "--run", "unseen")
    assert lines("seen")
    assert not (csv.parent / "unseen/snapshots.jsonl").exists()
    one, two = (load_file(csv.parent / run / "training.safetensors") for run in ("seen", "unseen"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_snapshot_is_what_the_weights_answered(csv, capsys):
    task, views = trained(capsys, csv, *STEP, "--steps", "8", "--keep", "last")
    (learning,) = task.evolved(lines("runs/regress"))
    assert isinstance(learning, Learning)
    assert [*learning.frames] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    last, now = learning.frames[8], views[Answers].shown[0]
    for name in ("true", "found", "alone", "x"):
        torch.testing.assert_close(getattr(last, name), getattr(now, name), rtol=1e-4, atol=1e-4)
    assert (last.name, last.targets, [*last.places]) == (now.name, now.targets, [*now.places])
    assert not torch.allclose(learning.frames[0].found, last.found)


def test_what_is_missing_stays_missing_and_quantiles_give_their_middle():
    true = torch.tensor([[1.0], [torch.nan]], dtype=torch.float64)
    found = torch.tensor([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]], dtype=torch.float64)
    stretch = Stretch("n", (1, 2), ("y",), 1, (0.1, 0.5, 0.9), true, found)
    text = json.dumps({"step": 0, **saved(stretch, whole=True)}, allow_nan=False)
    frame = restored([json.loads(text)]).frames[0]
    assert frame.found[..., 0].tolist() == [[2.0], [5.0]]
    assert (frame.true[0, 0], bool(frame.true[1, 0].isnan())) == (1.0, True)


# the page


def test_the_page_plays_as_many_frames_as_the_film_has(csv, capsys):
    ran(capsys, "train", "regress", csv, *STEP, "--steps", "200", "--validate-every", "100")
    ran(capsys, "show", "runs/regress", "--pictures", "drawn")
    text = (csv.parent / "runs/regress/show.html").read_text()
    data = json.loads(re.search('<script type="application/json" id="film-data">(.*?)</script>', text)[1])
    steps = [line["step"] for line in lines("runs/regress")]
    assert data["names"] == [f"after {step} steps" for step in steps]
    assert 20 <= len(steps) <= 40
    assert set(data["paths"]) == {"found-0-over", "alone-0-over", "found-0-plane", "alone-0-plane"}
    for name, paths in data["paths"].items():
        assert len(paths) == len(steps)
        assert f'-{name}">' in text
        assert all(path.count("L") == 19 for path in paths)
    with Image.open(csv.parent / "drawn/fit.gif") as film:
        assert film.n_frames == len(steps)
    assert {path.name for path in (csv.parent / "drawn").iterdir()} >= {"fit.svg", "fit.png", "answers-1.svg"}


def test_lines_move_to_where_the_figure_has_them(csv, capsys):
    task, _ = trained(capsys, csv, *STEP, "--steps", "20")
    film = fits.film(task.evolved(lines("runs/regress"))[0])
    svg = svg_of(film.at([*film.frames][3]))
    for line, paths in film.data()["paths"].items():
        drawn = re.search(f'id="{line}">\\s*<path d="(.*?)"', svg, flags=re.DOTALL)[1]
        first = [float(word) for word in drawn.split()[1:3]]
        assert [float(word) for word in paths[3].split("L")[0][1:].split()] == pytest.approx(first, abs=0.06)


def test_of_very_many_frames_some_are_kept(csv, capsys):
    _, views = trained(capsys, csv, *STEP, "--steps", "2")
    section = SECTIONS[Learning](Learning(dict.fromkeys(range(100), views[Answers].shown[0])))
    names = section.data["film"]["names"]
    assert (len(names), names[0], names[-1]) == (30, "after 0 steps", "after 99 steps")
    assert "30 of 100 snapshots" in section.body


def test_names_with_markup_or_dollars_in_them_stay_text(here, capsys):
    csv = here / "bad<b>.csv"
    csv.write_text(
        '<img src=x onerror=alert(1)>,"$x_{"\n' + "".join(f"{math.sin(t)},{math.cos(t)}\n" for t in range(90))
    )
    ran(capsys, "train", "regress", csv, *AHEAD)
    ran(capsys, "train", "regress", csv, *STEP, "--inputs", "$x_{", "--targets", "<img src=x onerror=alert(1)>")
    for run in ("runs/regress", "runs/regress-2"):
        ran(capsys, "show", run, "--pictures", "drawn")
        text = (here / run / "show.html").read_text()
        assert "<img" not in text
        assert "<b>" not in text
        assert "$x_{" in text


def test_a_single_report_is_a_point(csv, capsys):
    ran(capsys, "train", "regress", csv, *AHEAD, "--report-every", "4")
    figure = training(Run.read(csv.parent / "runs/regress"))
    drawn = {axes.get_ylabel(): axes for axes in figure.axes if axes.lines}
    assert [*drawn] == ["loss", "scores", "gradient norm", "learning rate"]
    for axes in drawn.values():
        for line in axes.lines:
            assert (len(line.get_xdata()), line.get_marker()) == (1, "o")


def test_answers_far_off_are_said_to_be_out_of_the_picture():
    y = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    near = Stretch("n", (1, 2), ("y",), 1, (), y, found=1.5 * y[..., None])
    far = Stretch("n", (1, 2), ("y",), 1, (), y, found=1e6 * y[..., None])
    assert fits.limits([near], 0) == pytest.approx((-0.075, 1.575))
    assert fits.limits([near, far], 0) == pytest.approx((-0.1, 2.1))  # one range of what is right beyond, and a margin
    assert "out of the picture" not in fits.learning(Learning({0: near})).body
    assert "out of the picture" in fits.learning(Learning({0: near, 1: far})).body


def test_clipped_steps_and_scores_of_other_scales_have_places_of_their_own():
    log = [
        {"step": k, "seconds": k, "train": 1 / k, "smoothed": 1 / k, "norm": 2.0, "rate": 0.1, "clipped": (k % 2) / 2,
         "validation": {"BLEU": 10.0 * k, "exact": 0.1, "loss": 2 / k}}
        for k in range(1, 6)
    ]  # fmt: skip
    figure = training(Run(Path("run"), "translate", {}, tuple(log)))
    drawn = {axes.get_ylabel(): axes for axes in figure.axes}
    assert [line.get_label() for line in drawn["loss"].lines][1:] == ["training, smoothed", "validation: loss"]
    assert [line.get_label() for line in drawn["scores"].lines] == ["validation: BLEU", "validation: exact"]
    assert drawn["scores"].get_yscale() == "symlog"
    bars = next(axes.patches for axes in figure.axes if axes.patches)
    assert [bar.get_height() for bar in bars] == [0.5, 0.0, 0.5, 0.0, 0.5]
