"""What a validation score that stalls leads to: a lower rate, an early end. Both to the same bits after a resume."""

import json
import signal
from dataclasses import replace

import pytest
from commands import ran, refused
from test_train import SMALL, quiet, same, start, whole, whole_metadata

from elman import OptionError
from elman.checkpoint import RunFolder
from elman.task.base import Score
from elman.task.regress import Options as RegressOptions
from elman.task.text import Text
from elman.task.text_options import Options
from elman.train import train

PLATEAU = dict(schedule="plateau", warmup=0, rate=0.02)


class Scored(Text):
    """The task, whose validation gives these scores one after another, with a Ctrl-C in a step if one is named."""

    def __init__(self, options, scores, halt=None, higher=False):
        super().__init__(options)
        self.scores, self.halt, self.higher = iter(scores), halt, higher

    def validate(self):
        value = next(self.scores)
        return {"stateful": Score(value, str(value))}

    def loss(self, k, state):
        if k == self.halt:
            signal.raise_signal(signal.SIGINT)
        return super().loss(k, state)


@pytest.fixture
def options(text_file):
    return Options(files=(str(text_file),), **{**SMALL, "validate_every": 1, "report_every": 1, "sample_every": 100})


def rates(folder):
    """The rate of each step, over the first."""
    log = [record["rate"] for record in whole(folder)[0] if "rate" in record]
    return [rate / log[0] for rate in log]


def test_the_rate_falls_when_the_score_stalls(options):
    scores = [3.0, 2.0, 2.5, 2.0, 1.9, 1.95, 1.9, 1.91, 1.93, 1.0]
    o = replace(options, **PLATEAU, steps=10, patience=2, plateau_factor=0.1)
    _, folder, _ = start(o, "one", task=Scored(o, scores))
    #    after:          3.0  2.0  2.5 | 2.0  1.9  1.95 | 1.9  1.91 | 1.93
    assert rates(folder) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001])


def test_a_higher_score_may_be_the_better(options):
    o = replace(options, **PLATEAU, steps=6, patience=1)
    _, folder, _ = start(o, "one", task=Scored(o, [1.0, 2.0, 3.0, 2.0, 4.0, 1.0], higher=True))
    assert rates(folder) == pytest.approx([1, 1, 1, 1, 0.5, 0.5])


def test_plateau_warms_up_and_does_not_fall_by_itself(options):
    o = replace(options, **{**PLATEAU, "warmup": 4}, steps=6)
    _, folder, _ = start(o, "one", task=Scored(o, range(9, 3, -1)))
    assert rates(folder) == pytest.approx([1, 2, 3, 4, 4, 4])


def test_the_run_ends_early_and_says_so(options):
    o, report = replace(options, early_stop=3, steps=50, schedule="constant"), quiet()
    folder, task = RunFolder.create("one", "text"), Scored(o, [3.0, 2.0, 2.0, 2.1, 1.0, 1.5, 1.0, 1.1])
    assert train(task, folder, report) == 0
    assert "stopped early at step 8: the validation score has not become better for 3 measurements" in (
        report.console.file.getvalue()
    )
    log, samples, _, kept = whole(folder)
    assert [record["step"] for record in log if "validation" in record] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert json.loads(whole_metadata(folder))["stale"] == 3
    assert all(value.equal(kept[name]) for name, value in task.model.state_dict().items())
    unbounded = replace(o, early_stop=None, steps=8)
    _, other, _ = start(unbounded, "two", task=Scored(unbounded, [3.0, 2.0, 2.0, 2.1, 1.0, 1.5, 1.0, 1.1]))
    whole_two = whole(other)
    assert all(value.equal(whole_two[3][name]) for name, value in kept.items()), "the best weights, of step 7"
    assert samples == whole_two[1].split("--- step 8")[0]


def test_an_early_end_is_an_end_until_more_patience_is_given(options):
    scores = [3.0, 2.0, 2.1, 2.2, 1.0, 1.1, 1.2, 1.3, 1.4]
    o = replace(options, early_stop=4, steps=50)
    _, straight, _ = start(o, "straight", task=Scored(o, scores))
    impatient = replace(o, early_stop=2)
    assert start(impatient, "broken", task=Scored(impatient, scores))[0]
    with pytest.raises(OptionError, match="broken has stopped early, at step 4: .* a larger --early-stop to go on"):
        start(impatient, "broken", resume=True)
    assert start(o, "broken", resume=True, task=Scored(o, scores[4:]))[0]
    same(whole(straight), whole(RunFolder.open("broken")))


@pytest.mark.parametrize("halt", [3, 5, 8])
def test_an_interrupted_run_stalls_and_ends_as_the_straight_one(options, halt):
    scores = [3.0, 2.0, 2.5, 2.1, 2.2, 1.9, 1.95, 2.0, 2.1, 2.2, 2.3, 2.4, 2.5]
    o = replace(options, **PLATEAU, patience=2, early_stop=5, steps=50)
    _, straight, _ = start(o, "straight", task=Scored(o, scores))
    finished, broken, _ = start(o, "broken", task=Scored(o, scores, halt))
    assert not finished
    done = json.loads(whole_metadata(broken))["step"]
    assert done == halt + 1
    assert start(o, "broken", resume=True, task=Scored(o, scores[done:]))[0]
    same(whole(straight), whole(broken))
    assert json.loads(whole_metadata(broken))["step"] == 11
    assert min(rates(broken)) == pytest.approx(0.125)


def test_scores_that_cannot_be_measured_are_not_better(options):
    o = replace(options, early_stop=2, steps=50)
    _, folder, _ = start(o, "one", task=Scored(o, [1.0, None, None, 2.0]))
    assert json.loads(whole_metadata(folder))["step"] == 3


def test_by_the_command_line(text_file, capsys):
    small = "--hidden 9 --embedding 4 --batch 4 --window 8 --sample-length 9 --validate-every 2 --rate 0".split()
    train_text = ["train", "text", text_file, *small, "--steps", "40", "--early-stop", "2"]
    assert "stopped early at step 6" in ran(capsys, *train_text)
    assert "runs/text has stopped early, at step 6" in refused(capsys, "train", "text", "--resume", "--steps", "50")
    assert "stopped early at step 8" in ran(capsys, "train", "text", "--resume", "--early-stop", "3")
    ran(capsys, "train", "text", "--resume", "--early-stop", "None", "--steps", "12")
    assert "reached its end, step 12" in refused(capsys, "train", "text", "--resume")
    for asked in (["--schedule", "plateau"], ["--early-stop", "2"]):
        said = refused(capsys, "train", "text", text_file, *small, "--validation", "0", *asked)
        assert f"{' '.join(asked)} goes by the validation score, and this run holds nothing back" in said
    assert [path.name for path in (text_file.parent / "runs").iterdir()] == ["text"]


@pytest.mark.parametrize("kind", [Options, RegressOptions], ids=["text", "regress"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patience": 0}, "--patience 0: must be at least 1"),
        ({"early_stop": 0}, "--early-stop 0: must be at least 1"),
        ({"plateau_factor": 0.0}, "--plateau-factor 0.0: must be above 0"),
        ({"plateau_factor": 1.0}, "--plateau-factor 1.0: must be below 1"),
    ],
)
def test_what_cannot_be(kind, change, words):
    with pytest.raises(OptionError) as error:
        kind(**change)
    assert str(error.value) == words
