"""elman search: small searches of a few steps, ended early, killed and taken up again, and what it refuses."""

import math
import shlex
import signal
import sys

import pytest
import torch
from commands import ran, refused
from safetensors.torch import load_file

from elman.cli import main
from elman.runs import Run
from elman.search import parted
from elman.search import study as study_file
from elman.task.base import Score
from elman.task.text import Text

optuna = pytest.importorskip("optuna", reason='needs optuna: pip install "elman[search]"')

SMALL = "--hidden 6 --embedding 3 --batch 4 --window 8 --steps 6 --validate-every 2".split()
OVER = ["rate=1e-3..1e-1 log", "cell=gru|lstm", "dropout=0..0.5", "layers=1..2", "locked=True|False"]


def words(*more, trials=3, run="found", over=OVER):
    return ["search", "text", "fox.txt", *SMALL, "--trials", trials, "--over", *over, "--run", run, *more]


def trials(run="found"):
    """What a study remembers of its trials."""
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{run}/study.db")
    return [(t.state.name, t.params, t.value, t.intermediate_values) for t in study.trials]


def states(run="found"):
    return [state for state, *_ in trials(run)]


def test_each_trial_is_a_run_with_its_score(text_file, capsys):
    said = ran(capsys, *words())
    for (state, params, value, seen), name in zip(trials(), ("trial-001", "trial-002", "trial-003"), strict=True):
        run = Run.read(text_file.parent / "found" / name)
        assert state == "COMPLETE"
        assert value == run.score(run.best) == min(seen.values())
        assert seen == {step: scores["stateful"] for step, scores in run.validations.items()}
        assert list(seen) == [2, 4, 6]
        for option in ("rate", "cell", "dropout", "layers"):
            assert run.options[option] == params[option]
        assert run.options["locked"] is (params["locked"] == "True")
        assert 1e-3 <= params["rate"] <= 1e-1
        assert type(params["layers"]) is int
        assert f"{name}" in ran(capsys, "runs", "found")
    best = min(range(3), key=lambda i: trials()[i][2])
    assert f"best  trial {best + 1}: stateful {trials()[best][2]:.4f} with rate " in said
    assert "3 finished, 0 ended early, 0 failed" in said
    assert said.endswith("next: elman runs found\n")
    assert len({str(params) for _, params, *_ in trials()}) == 3


def test_the_command_that_is_printed_repeats_the_best_to_the_bit(text_file, capsys):
    said = ran(capsys, *words())
    (line,) = [line for line in said.splitlines() if line.startswith("repeats it  elman ")]
    ran(capsys, *shlex.split(line)[3:], "--run", "again")
    best = min(range(3), key=lambda i: trials()[i][2])
    one, two = load_file("again/model.safetensors"), load_file(f"found/trial-00{best + 1}/model.safetensors")
    assert all(torch.equal(one[key], two[key]) for key in one)


class Killer:
    """Text.loss that dies, or gets a signal, in one step of one trial, counted over the search."""

    def __init__(self, at, end):
        self.at, self.end, self.done = at, end, 0

    def __call__(self, task, k, state, plain=Text.loss):
        self.done += 1
        if self.done == self.at:
            self.end()
        return plain(task, k, state)


def killed():
    raise SystemError("killed")


def killing(monkeypatch, at, end=killed):
    killer = Killer(at, end)
    monkeypatch.setattr(Text, "loss", lambda task, k, state: killer(task, k, state))


@pytest.mark.parametrize("at", [1, 6 + 5], ids=["before the first checkpoint", "in the second trial"])
def test_a_killed_search_goes_on_as_if_it_had_not_been(text_file, capsys, monkeypatch, at):
    straight = ran(capsys, *words(run="straight")).replace("straight", "found")
    killing(monkeypatch, at)
    with pytest.raises(SystemError):
        main([*map(str, words())])
    assert states()[-1] == "RUNNING"
    monkeypatch.undo()
    monkeypatch.chdir(text_file.parent)
    assert ran(capsys, *words()).splitlines()[-4:] == straight.splitlines()[-4:]
    assert trials() == trials("straight")
    for k in (1, 2, 3):
        one, two = (load_file(f"{run}/trial-00{k}/training.safetensors") for run in ("found", "straight"))
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_one_killed_between_its_last_step_and_its_score_is_not_trained_again(text_file, capsys, monkeypatch):
    monkeypatch.setattr(study_file.Run, "read", lambda path: killed())
    with pytest.raises(SystemError):
        main([*map(str, words())])
    monkeypatch.undo()
    monkeypatch.chdir(text_file.parent)
    assert states() == ["RUNNING"]
    killing(monkeypatch, 12 + 1)  # two trials are left to train, and no step more
    ran(capsys, *words())
    assert states() == ["COMPLETE"] * 3


def test_one_killed_before_there_was_a_run_begins_anew(text_file, capsys, monkeypatch):
    monkeypatch.setattr("elman.train.loop.describe", lambda task: killed())
    with pytest.raises(SystemError):
        main([*map(str, words(trials=1))])
    monkeypatch.undo()
    monkeypatch.chdir(text_file.parent)
    (text_file.parent / "found" / "trial-001").mkdir()
    (text_file.parent / "found" / "trial-001" / "vocabulary.json").touch()
    ran(capsys, *words(trials=1))
    assert states() == ["COMPLETE"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_printed_command_goes_on(text_file, capsys, monkeypatch, number):
    killing(monkeypatch, 6 + 3, lambda: signal.raise_signal(number))
    assert main([*map(str, words())]) == 128 + number
    line = capsys.readouterr().out.splitlines()[-1]
    monkeypatch.undo()
    monkeypatch.chdir(text_file.parent)
    assert states() == ["COMPLETE", "RUNNING"]
    assert Run.read(text_file.parent / "found" / "trial-002").steps < 6
    assert "from step 3, until 6 steps" in ran(capsys, *shlex.split(line.partition("elman ")[2]))
    assert states() == ["COMPLETE"] * 3


def test_ctrl_c_outside_of_training_says_how_to_go_on_too(text_file, capsys, monkeypatch):
    def stopped(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(study_file.Run, "read", stopped)
    assert main([*map(str, words())]) == 130
    assert "stopped and saved; go on with: elman search text fox.txt" in capsys.readouterr().out


def test_more_trials_go_on_and_none_more_says_the_best(text_file, capsys):
    first = ran(capsys, *words(trials=2))
    before = trials()
    assert ran(capsys, *words(trials=2)).strip() == first[first.index("    trials") :].strip()
    ran(capsys, *words("--report-every", 3, trials=3))
    assert trials()[:2] == before
    assert len(trials()) == 3


def failing(monkeypatch, which):
    """Trials whose numbers are among `which` diverge."""
    plain = Text.loss

    def loss(task, k, state):
        found = plain(task, k, state)
        return found._replace(value=math.nan) if len(trials()) in which else found

    monkeypatch.setattr(Text, "loss", loss)


def test_a_trial_that_diverges_is_a_failed_one(text_file, capsys, monkeypatch):
    failing(monkeypatch, {1, 3})
    said = ran(capsys, *words())
    assert states() == ["FAIL", "COMPLETE", "FAIL"]
    assert "trial 1 failed: the loss became nan at step 0" in said
    assert "1 finished, 0 ended early, 2 failed" in said
    assert "best  trial 2" in said


def test_flags_that_contradict_each_other_fail_their_trial(text_file, capsys):
    over = ["embedding=0|3", "tied=True|False"]
    said = ran(capsys, *[w for w in words(trials=6, over=over) if w not in ("--embedding", "3")])
    assert {"FAIL", "COMPLETE"} == set(states())
    assert "failed: --tied ties the output to the embedding, and --embedding 0 makes none" in said


def test_data_that_does_not_suit_a_trial_fails_it(text_file, capsys):
    over = ["window=8|100000"]
    said = ran(capsys, *[w for w in words(trials=4, over=over) if w not in ("--window", "8")])
    assert {"FAIL", "COMPLETE"} == set(states())
    assert "failed: " in said


def test_one_killed_while_its_values_were_drawn_has_them_all(text_file, capsys, monkeypatch):
    ran(capsys, *words(run="straight"))
    suggest = optuna.Trial._suggest

    def killed(trial, name, values):
        if trial.number == 1 and name == "dropout":
            raise SystemError("killed")
        return suggest(trial, name, values)

    monkeypatch.setattr(optuna.Trial, "_suggest", killed)
    with pytest.raises(SystemError):
        main([str(word) for word in words()])
    monkeypatch.setattr(optuna.Trial, "_suggest", suggest)
    ran(capsys, *words())
    assert states() == ["COMPLETE"] * 3
    assert {len(params) for _, params, *_ in trials()} == {len(OVER)}


def test_none_that_succeeds_is_an_error(text_file, capsys, monkeypatch):
    failing(monkeypatch, {1, 2, 3})
    assert "found: none of 3 trials came to a score" in refused(capsys, *words())


def scored(monkeypatch, by_trial, higher=False):
    """Validations that give a trial the score that its number has in a list."""
    monkeypatch.setattr(Text, "higher", higher)
    monkeypatch.setattr(Text, "validate", lambda task: {"stateful": Score(by_trial[len(trials()) - 1], "so much")})


@pytest.mark.parametrize(("higher", "best"), [(False, 2), (True, 3)])
def test_the_task_says_which_score_is_better(text_file, capsys, monkeypatch, higher, best):
    scored(monkeypatch, [2.0, 1.0, 3.0], higher)
    assert f"best  trial {best}:" in ran(capsys, *words())


def test_what_is_worse_than_the_median_ends_early(text_file, capsys, monkeypatch):
    scored(monkeypatch, [3.0, 3.0, 3.0, 3.0, 3.0, 4.0, 2.0])
    said = ran(capsys, *words(trials=7, over=OVER[:1]))
    assert states() == ["COMPLETE"] * 5 + ["PRUNED", "COMPLETE"]
    assert "trial 6 ends early: worse than the median of those before" in said
    assert "6 finished, 1 ended early, 0 failed" in said
    ended = Run.read(text_file.parent / "found" / "trial-006")
    assert list(ended.validations) == [2]
    assert (ended.path / "model.safetensors").exists()
    ran(capsys, "score", ended.path)


BAD = {
    "takes a task and --over": ["--over"],
    "'fox': expected NAME=LOW..HIGH or NAME=A|B; files stand before --over": ["--over", "fox"],
    "'rate=1': expected LOW..HIGH or choices, as A|B": ["--over", "rate=1"],
    "'cell=1..2': expected choices, as A|B": ["--over", "cell=1..2"],
    "'rate=0.2..0.1': 0.2..0.1: the lower end must be below the upper one\n": ["--over", "rate=0.2..0.1"],
    "0..1: the lower end must be below the upper one and above 0\n": ["--over", "rate=0..1 log"],
    "a..b: expected two numbers, as LOW..HIGH": ["--over", "rate=a..b"],
    "1.5..3: expected two whole numbers, as LOW..HIGH": ["--over", "layers=1.5..3"],
    "'cell=gru|x': invalid choice 'x' for argument '--cell'": ["--over", "cell=gru|x"],
    "'dropout=0..1.5': --dropout 1.5: must be below 1": ["--over", "dropout=0..1.5"],
    "'locked=1|2': a flag without a value is searched by True|False": ["--over", "locked=1|2"],
    "'speed=1..2': no flag to search; elman train text --help lists them": ["--over", "speed=1..2"],
    "'run=a|b': no flag to search": ["--over", "run=a|b"],
    "'hidden=1..2': this flag is given already": ["--over", "hidden=1..2"],
    "'rate=2..3': this flag is given already": ["--over", "rate=1..2", "rate=2..3"],
    "--trials 0: must be at least 1": ["--over", "rate=1..2", "--trials", "0"],
    "Unrecognized options: --fast": ["--over", "rate=1..2", "--fast"],
    "leave --resume out": ["--over", "rate=1..2", "--resume"],
    "--validation 0 leaves none": ["--over", "rate=1..2", "--validation", "0"],
}


@pytest.mark.parametrize("said", BAD)
def test_what_cannot_be_searched_is_one_line_and_nothing_is_made(text_file, capsys, said):
    assert said in refused(capsys, "search", "text", "fox.txt", *SMALL, *BAD[said])
    assert [path.name for path in text_file.parent.iterdir()] == ["fox.txt"]


def test_a_task_or_a_file_that_is_not_there(text_file, capsys):
    assert "takes a task and --over" in refused(capsys, "search")
    assert "unknown task 'txt': it is one of text" in refused(capsys, "search", "txt", "--over", "rate=1..2")
    assert "no.txt: no such file" in refused(capsys, "search", "text", "no.txt", "--over", "rate=1..2")
    assert [path.name for path in text_file.parent.iterdir()] == ["fox.txt"]


def test_a_folder_that_holds_something_else_is_left_alone(text_file, capsys):
    ran(capsys, *words(trials=1))
    before = trials()
    assert "found holds another search: hidden was 6, now it is 7" in refused(capsys, *words("--hidden", 7))
    assert "found holds another search: --over was ['cell=gru|lstm'" in refused(capsys, *words(over=OVER[:1]))
    assert trials() == before
    assert "found/trial-001 is not empty and holds no search" in refused(capsys, *words(run="found/trial-001"))
    (text_file.parent / "found" / "study.db").write_text("nonsense " * 1000)
    assert "found/study.db cannot be used (" in refused(capsys, *words())


def test_a_missing_package_is_named(text_file, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert 'elman search needs the package optuna: pip install "elman[search]"' in refused(capsys, *words())
    assert not (text_file.parent / "found").exists()


def test_words_are_parted():
    own, rest = parted(
        "text a.txt --trials 3 b.txt --hidden 5 --over x=1..2 y=1|2 --locked --run=r --over z=3..4".split()
    )
    assert own == "--trials 3 --over x=1..2 y=1|2 z=3..4 --run r".split()
    assert rest == "text a.txt b.txt --hidden 5 --locked".split()
    assert parted(["text", "--help"]) == (["--help"], ["text"])


def test_help_has_the_grammar(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["search", "text", "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert '"rate=1e-3..1e-2 log"' in said
    assert "elman search TASK [FILE ...]" in ran(capsys, "--help")
    assert "--trials INT" in said
