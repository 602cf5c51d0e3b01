"""The command line, from words to exit codes: what works, and one clear line for all that does not."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from commands import refused
from safetensors.torch import load_file

from elman.begin import one_line
from elman.checkpoint import RunFolder
from elman.cli import main
from elman.task.text import Text
from elman.tensors import read_about

SMALL = """--hidden 12 --embedding 5 --batch 4 --window 8 --steps 6 --sample-length 20 --report-every 2
--validate-every 2""".split()


def train(text_file, *words):
    return main(["train", "text", str(text_file), *SMALL, *words])


@pytest.fixture
def run(text_file, capsys):
    """A trained run folder, runs/text, in the working folder."""
    assert train(text_file) == 0
    capsys.readouterr()
    return text_file.parent / "runs" / "text"


def test_train_prints_scores_and_what_comes_next(text_file, capsys):
    assert train(text_file) == 0
    said = capsys.readouterr().out
    assert "stateful  " in said
    assert "windows of 256  " in said
    assert "the weights that are kept, on the validation part, as one stream in place of 32:\n" in said
    assert said.endswith("next: elman sample runs/text\n")


def test_sample_streams_the_same_text_for_the_same_seed(run, capsys):
    texts = []
    for seed in ("1", "1", "2"):
        assert (
            main(["sample", str(run), "--prompt", "the ", "--length", "50", "--seed", seed, "--temperature", "1"]) == 0
        )
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("the ")
    assert len(texts[0]) == 4 + 50 + 1


def test_temperature_zero_and_one_best_are_greedy(run, capsys):
    texts = []
    for flags in (["--temperature", "0"], ["--top-k", "1"], ["--top-k", "1", "--seed", "9"]):
        assert main(["sample", str(run), "--length", "30", *flags]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] == texts[2]


def test_score_of_the_validation_part_and_of_a_file(run, capsys, tmp_path):
    assert main(["score", str(run), "--json"]) == 0
    own = json.loads(capsys.readouterr().out)
    assert list(own) == ["stateful", "windows of 256"]
    (tmp_path / "part.txt").write_text((tmp_path / "fox.txt").read_text()[int(84 * 60 * 0.9) :])
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert own["stateful"] == pytest.approx(log[-1]["validation"]["stateful"], rel=0.05)
    (tmp_path / "other.txt").write_text("hell -> ello!\n")
    assert main(["score", str(run), "other.txt"]) == 0
    said = capsys.readouterr().out
    assert "stateful" in said
    assert "not measured: the text is shorter than one window" in said


def test_words_and_bytes_from_file_to_sample(text_file, capsys):
    for level in ("word", "byte"):
        assert train(text_file, "--level", level, "--run", level, "--batch", "2", "--window", "4") == 0
        capsys.readouterr()
        assert main(["sample", level, "--prompt", "the quick", "--length", "5"]) == 0
        assert capsys.readouterr().out.startswith("the quick")


def test_resume_goes_on_and_ends_as_the_whole_run_does(text_file, capsys):
    assert train(text_file, "--schedule", "constant", "--run", "whole") == 0
    assert train(text_file, "--schedule", "constant", "--run", "part", "--steps", "4") == 0
    assert main(["train", "text", "--run", "part", "--resume", "--steps", "6"]) == 0
    for name in ("model.safetensors", "training.safetensors"):
        one, two = load_file(f"whole/{name}"), load_file(f"part/{name}")
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert "from step 4, until 6 steps" in capsys.readouterr().out


def test_resume_takes_the_newest_run_and_keeps_its_options(text_file, capsys):
    assert train(text_file, "--steps", "4") == 0
    assert main(["train", "text", "--resume", "--steps", "6"]) == 0
    assert "lstm 1 x 12" in capsys.readouterr().out
    assert "--hidden 13: runs/text was begun with 12, which cannot change" in refused(
        capsys, "train", "text", "--resume", "--steps", "8", "--hidden", "13"
    )
    assert "runs/text has reached its end, step 6" in refused(capsys, "train", "text", "--resume")
    text_file.write_text(text_file.read_text() + "more\n")
    assert "the data of runs/text has changed" in refused(capsys, "train", "text", "--resume", "--steps", "9")
    assert "the data of runs/text has changed" in refused(capsys, "score", "runs/text")
    assert main(["score", "runs/text", str(text_file)]) == 0


def test_resume_remembers_its_new_bound_and_takes_an_old_one_beside_another(text_file, capsys):
    assert train(text_file, "--steps", "4") == 0
    assert main(["train", "text", "--resume", "--steps", "6"]) == 0
    assert json.loads((text_file.parent / "runs/text/config.json").read_text())["options"]["steps"] == 6
    capsys.readouterr()
    assert main(["train", "text", "--resume", "--epochs", "1", "--steps", "7"]) == 0
    assert "until 7 steps" in capsys.readouterr().out
    for bad in (["--steps", "-3"], ["--seconds", "nan"], ["--epochs", "1e300"], ["--report-every", "0"]):
        refused(capsys, "train", "text", "--resume", *bad)


def test_resume_with_its_recipe_keeps_what_may_change(text_file, capsys):
    recipe = ["--recipe", "good", *SMALL, "--run", "runs/text"]
    assert main(["train", "text", str(text_file), *recipe, "--checkpoints", "3", "--early-stop", "9"]) == 0
    assert main(["train", "text", *recipe, "--steps", "8", "--resume"]) == 0  # the file need not be said again
    options = json.loads((text_file.parent / "runs/text/config.json").read_text())["options"]
    assert (options["checkpoints"], options["early_stop"], options["steps"]) == (3, 9, 8)


def test_what_a_run_has_on_may_be_said_again(text_file, capsys):
    assert train(text_file, "--locked", "--steps", "4") == 0
    assert train(text_file, "--locked", "--steps", "6", "--resume") == 0
    assert "from step 4, until 6 steps" in capsys.readouterr().out


def test_a_sliver_of_an_epoch_is_one_step(text_file, capsys):
    words = [word for word in SMALL if word not in ("--steps", "6")]
    assert main(["train", "text", str(text_file), *words, "--epochs", "1e-6"]) == 0
    assert "until 1 steps" in capsys.readouterr().out


def test_recipes_are_presets_that_flags_override(text_file, capsys):
    assert main(["train", "text", str(text_file), "--recipe", "min-char-rnn", "--steps", "3", "--hidden", "7"]) == 0
    config = json.loads((text_file.parent / "runs" / "text" / "config.json").read_text())["options"]
    assert (config["cell"], config["hidden"], config["window"], config["steps"]) == ("elman", 7, 25, 3)


def test_time_that_ends_while_it_is_measured_is_no_second_measurement(text_file, monkeypatch):
    measure = Text.validate

    def slowly(task):
        time.sleep(0.8)
        return measure(task)

    monkeypatch.setattr(Text, "validate", slowly)
    assert train(text_file, "--seconds", "0.7", "--validate-every", "2") == 0
    log = [json.loads(line) for line in (text_file.parent / "runs/text/log.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in log if "validation" in record]
    assert steps == [2]


def test_help_has_flags_recipes_and_examples(capsys):
    for words in (["train", "text", "--help"], ["sample", "--help"], ["score", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
        assert "Examples:" in capsys.readouterr().out
    assert main([]) == main(["--help"]) == main(["train"]) == 0
    assert "elman train text" in capsys.readouterr().out
    assert main(["--version"]) == 0


COMMANDS = {
    "unknown command 'trian': it is one of train, score, predict, sample": ["trian"],
    "unknown task 'txt': it is one of text": ["train", "txt"],
    "unknown recipe 'huge': text has default, good, best, names, min-char-rnn": ["train", "text", "--recipe", "huge"],
    "Unrecognized options: --stepz, 3 (did you mean --steps?)": ["train", "text", "--stepz", "3"],
    "--hidden abc: must be a whole number": ["train", "text", "--hidden", "abc"],
    "--seconds abc: must be a number": ["train", "text", "--seconds", "abc"],
    "--steps 1e3: must be a whole number": ["train", "text", "--steps", "1e3"],
    "--seconds -4.0: must be above 0": ["train", "text", "--seconds", "-4"],
    "--layers 1000000: must be at most 200": ["train", "text", "--layers", "1000000"],
    "--pictures fox.txt: is no folder": ["graph", "lstm", "--pictures", "fox.txt"],
    "invalid choice 'lsmt' for argument '--cell'. Expected one of": ["train", "text", "--cell", "lsmt"],
    "nowhere.txt: no such file": ["train", "text", "nowhere.txt"],
    "empty.txt: empty; name a file with text in it": ["train", "text", "empty.txt"],
    "the text is too short: training has 5 symbols": ["train", "text", "short.txt"],
    "latin.txt is not UTF-8 (byte 0xe9 at offset 3): use --level byte": ["train", "text", "latin.txt"],
    "--steps 0: must be at least 1": ["train", "text", "fox.txt", "--steps", "0"],
    "nowhere: no such run folder": ["sample", "nowhere"],
    "runs/empty holds no run: it has no config.json, which is written when one begins": ["sample", "runs/empty"],
    "no run to go on with": ["train", "text", "--resume"],
    "--from-step 5: goes with --resume": ["train", "text", "--from-step", "5"],
    "required": ["sample"],
    "File name too long": ["sample", "x" * 300],
    "runs is not empty and holds no run: name a new folder": ["train", "text", "fox.txt", "--run", "runs"],
}


@pytest.mark.parametrize("words", COMMANDS)
def test_bad_input_before_training(words, text_file, capsys):
    (text_file.parent / "empty.txt").touch()
    (text_file.parent / "short.txt").write_text("short\n")
    (text_file.parent / "latin.txt").write_bytes(b"caf\xe9" * 5000)
    (text_file.parent / "runs" / "empty").mkdir(parents=True)
    assert words in refused(capsys, *COMMANDS[words])
    assert os.listdir(text_file.parent / "runs") == ["empty"]


SAMPLES = {
    "does not have 'Z', 'é'": ["--prompt", "éZ"],
    "--temperature -1.0: must be at least 0": ["--temperature", "-1"],
    "--temperature nan": ["--temperature", "nan"],
    "--top-k 0: must be at least 1": ["--top-k", "0"],
    "--length 0: must be at least 1": ["--length", "0"],
}


@pytest.mark.parametrize("words", SAMPLES)
def test_bad_samples(words, run, capsys):
    assert words in refused(capsys, "sample", str(run), *SAMPLES[words])


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def reshape(path):
    tensors = load_file(path)
    tensors["output.bias"] = torch.zeros(3)
    RunFolder(path.parent).write_tensors(path.name, tensors)


def spoil(path):
    config = json.loads(path.read_text())
    config["options"]["hiddenn"] = 3
    path.write_text(json.dumps(config))


DAMAGE = {
    "model.safetensors is cut short or damaged": ("model.safetensors", cut),
    "model.safetensors: output.bias is (3,) of torch.float32, the model has (": ("model.safetensors", reshape),
    "config.json is damaged": ("config.json", cut),
    "does not fit this version of elman": ("config.json", spoil),
    "vocabulary.json is missing": ("vocabulary.json", os.unlink),
    "vocabulary.json is damaged": ("vocabulary.json", cut),
    "not a vocabulary": ("vocabulary.json", lambda path: path.write_text("{}")),
}


@pytest.mark.parametrize("words", DAMAGE)
def test_damaged_run_folders(words, run, capsys):
    name, harm = DAMAGE[words]
    harm(run / name)
    assert words in refused(capsys, "sample", str(run))


CONFIG = {
    "hidden is 'x'": {"hidden": "x"},
    "hidden is 12.0": {"hidden": 12.0},
    "layers is True": {"layers": True},
    "seed is 1000": {"seed": 10**30},
    "cell is 'lsmt'": {"cell": "lsmt"},
    "level is None": {"level": None},
    "files is (1,)": {"files": [1]},
    "rate is None": {"rate": None},
    "unknown field 'hiddenn'": {"hiddenn": 3},
    "--batch 0: must be at least 1": {"batch": 0},
    "does not fit in memory": {"hidden": 10**12},
}


@pytest.mark.parametrize("words", CONFIG)
def test_options_of_a_run_that_cannot_be(words, run, capsys):
    config = json.loads((run / "config.json").read_text())
    config["options"] |= CONFIG[words]
    (run / "config.json").write_text(json.dumps(config))
    for command in (["sample", str(run)], ["score", str(run)], ["train", "text", "--resume", "--steps", "9"]):
        said = refused(capsys, *command)
        assert words in said
        assert "runs/text does not fit this version of elman" in said


@pytest.mark.parametrize(
    "config", [None, [], {}, {"task": []}, {"task": "text"}, {"task": "text", "options": {}, "data": None}]
)
def test_configs_that_are_none(config, run, capsys):
    (run / "config.json").write_text(json.dumps(config))
    refused(capsys, "score", str(run))
    refused(capsys, "train", "text", "--resume", "--steps", "9")


def place(change):
    return lambda tensors, about: about.update(training=json.dumps(json.loads(about["training"]) | change))


TRAINING = {
    "no tensor random": lambda tensors, about: tensors.pop("random"),
    "no memory": lambda tensors, about: tensors.pop("optimizer.0.exp_avg"),
    "memory of another shape": lambda tensors, about: tensors.update({"optimizer.0.step": torch.zeros(7)}),
    "memory of nobody": lambda tensors, about: tensors.update({"optimizer.x.y": torch.zeros(2)}),
    "random of floats": lambda tensors, about: tensors.update(random=torch.zeros(3)),
    "random of zeros": lambda tensors, about: tensors.update(random=torch.zeros_like(tensors["random"])),
    "weights not finite": lambda tensors, about: tensors["model.output.bias"].fill_(float("nan")),
    "no state": lambda tensors, about: tensors.pop("state.0.0"),
    "no place": lambda tensors, about: about.clear(),
    "a place that is no JSON": lambda tensors, about: about.update(training="{"),
    "half a place": lambda tensors, about: about.update(training='{"step": 3}'),
    "a step of text": place({"step": "x"}),
    "a step of fractions": place({"step": 1.5}),
    "a step below zero": place({"step": -1}),
    "a step beyond all": place({"step": 10**40}),
    "measurements below zero": place({"stale": -1}),
    "falls below zero": place({"falls": -1}),
    "seconds of none": place({"seconds": None}),
    "a log of fractions": place({"log": 1.5}),
}


@pytest.mark.parametrize("what", TRAINING)
def test_checkpoints_that_cannot_be(what, run, capsys):
    path = run / "training.safetensors"
    tensors, about = load_file(path), read_about(path)
    TRAINING[what](tensors, about)
    RunFolder(run).write_tensors(path.name, tensors, about)
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    assert "training.safetensors" in refused(capsys, "train", "text", "--resume", "--steps", "9")
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before


def test_what_resume_may_change_is_checked_too(run, capsys):
    assert "--sample-every -1: must be at least 1" in refused(
        capsys, "train", "text", "--resume", "--steps", "9", "--sample-every", "-1"
    )


def test_a_checkpoint_cut_short_is_refused_on_resume(run, capsys):
    cut(run / "training.safetensors")
    assert "training.safetensors is cut short or damaged" in refused(
        capsys, "train", "text", "--resume", "--steps", "9"
    )


def test_a_run_folder_that_is_taken_is_left_alone(run, text_file, capsys):
    before = (run / "model.safetensors").read_bytes()
    assert "already holds a run: go on with it by --resume" in refused(
        capsys, "train", "text", str(text_file), "--run", str(run)
    )
    assert (run / "model.safetensors").read_bytes() == before
    assert train(text_file) == 0
    assert (run.parent / "text-2" / "model.safetensors").exists()


def limited(size):
    """In a child process: no file may grow beyond this size, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def command(*words, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "elman", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_a_full_disk_while_saving_keeps_the_last_good_checkpoint(run, capsys):
    before = (run / "training.safetensors").read_bytes()
    size = len(before) // 2
    child = command("train", "text", "--resume", "--steps", "9", preexec_fn=lambda: limited(size))
    _, said = child.communicate()
    assert child.returncode == 2
    assert said.startswith("elman: cannot write runs/text/training.safetensors: ")
    assert "the last good checkpoint stays" in said
    assert said.count("\n") == 1
    assert (run / "training.safetensors").read_bytes() == before
    assert not list(run.glob("*.part"))
    assert main(["score", str(run)]) == 0  # by the best weights, which are whole too
    assert main(["train", "text", "--resume", "--steps", "9"]) == 0


@pytest.mark.parametrize("size", [10, 3000], ids=["for nothing", "for all but the weights"])
def test_a_disk_full_from_the_start_leaves_no_folder(text_file, size):
    child = command("train", "text", str(text_file), *SMALL, preexec_fn=lambda: limited(size))
    _, said = child.communicate()
    assert child.returncode == 2
    assert "nothing was saved: free some space, or name another folder with --run" in said
    assert not (text_file.parent / "runs" / "text").exists()


def test_a_precision_that_the_processor_lacks_is_refused_before_anything_is_done(text_file, monkeypatch, capsys):
    monkeypatch.setenv("ELMAN_VECTOR", "128")
    monkeypatch.delenv("ELMAN_BF16", raising=False)
    assert main(["train", "text", str(text_file), *SMALL, "--precision", "bf16"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("elman: precision bf16 cannot run here: ")
    assert said.out == ""
    assert not (text_file.parent / "runs").exists()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"])
def test_a_signal_saves_says_how_to_go_on_and_that_works(text_file, name):
    child = command("train", "text", str(text_file), *SMALL, "--steps", "1000000")
    log = text_file.parent / "runs" / "text" / "log.jsonl"
    for _ in range(600):
        if log.exists() and log.stat().st_size:
            break
        time.sleep(0.1)
    child.send_signal(getattr(signal, name))
    said, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (128 + getattr(signal, name), "")
    assert said.splitlines()[-1] == "stopped and saved; go on with: elman train text --run runs/text --resume"
    assert main(["train", "text", "--run", "runs/text", "--resume", "--seconds", "0.001"]) == 2  # its time is over
    step = json.loads(log.read_text().splitlines()[-1])["step"]
    assert main(["train", "text", "--run", "runs/text", "--resume", "--steps", str(step + 100)]) == 0


def test_a_reader_who_has_had_enough_is_no_error(run):
    child = command("sample", str(run), "--length", "5000")
    child.stdout.read(10)
    child.stdout.close()
    assert child.stderr.read() == ""
    assert child.wait(60) == 0
    child.stderr.close()


def test_the_installed_command_is_there():
    script = shutil.which("elman", path=os.path.dirname(sys.executable))
    assert script, "install the project first: pip install -e ."
    assert subprocess.run([script, "--version"], capture_output=True, text=True).stdout.startswith("elman ")


BOXES = {
    "borders": "╭─ Title ────╮\n│ two words: │\n│ and more.  │\n│ ────────── │\n│ help       │\n╰────────────╯\n",
    "no help": "╭─ Title ────╮\n│ two words: │\n│ and more.  │\n╰────────────╯\n",
    "no borders": " Title\n ----------- \n  two words:\n  and more.\n  ----------\n  help\n",
    "no borders, no help": " Title\n ----------- \n  two words:\n  and more.\n  \n",
}


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_a_box_becomes_a_line(box):
    assert one_line(box) == "two words: and more"
