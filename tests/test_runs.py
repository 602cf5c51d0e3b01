"""Runs beside each other: elman runs and elman compare, on runs that are written here by hand."""

import json

import pytest
from commands import ran, refused

from elman.cli import main


def written(folder, name, task="text", log=(), data=None, **options):
    """A run folder with what these commands read of one."""
    (folder / name).mkdir(parents=True)
    config = {
        "elman": "0",
        "task": task,
        "options": {"files": ["/data/a.txt"], "rate": 0.1, **options},
        "data": data or {},
    }
    (folder / name / "config.json").write_text(json.dumps(config))
    (folder / name / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log))
    return folder / name


def validated(values, score="stateful"):
    return [{"step": 10 * i, "seconds": 2.0 * i, "validation": {score: v, "loss": 9}} for i, v in enumerate(values, 1)]


def columns(text):
    """A table's rows by their first cell."""
    rows = [row.split("  ") for row in text.splitlines()]
    return {row[0].strip(): [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}


def test_each_run_has_a_row_with_its_best_score(here, capsys):
    written(here / "runs", "low", log=validated([3.0, 1.5, 2.0]))
    written(here / "runs", "high", "tag", log=validated([0.3, 0.9, 0.5, 0.9], "accuracy"))
    written(here / "runs", "new", files=[])
    rows = columns(ran(capsys, "runs"))
    assert rows["runs/low"] == ["text", "a.txt", "30", "6", "stateful 1.5000", "20"]
    assert rows["runs/high"] == ["tag", "a.txt", "40", "8", "accuracy 0.9000", "40"]  # of equals, the last
    assert rows["runs/new"] == ["text", "its own", "0", "0"]


def test_names_are_printed_whole(here, capsys):
    name = "a" * 150
    written(here, name)
    assert name in ran(capsys, "runs", here)


def test_runs_are_compared_by_what_differs(here, capsys):
    a = written(here, "a", log=validated([3.0, 2.0, 1.0]), hidden=5)
    b = written(here, "b", log=validated([3.5, 2.5]), hidden=6, reset=0.1)
    rows = columns(ran(capsys, "compare", a, b))
    assert rows["--hidden"] == ["5", "6"]
    assert rows["--reset"] == ["0.1"]  # a was made before there was such an option
    assert "--rate" not in rows
    assert not {"--files", "data"} & set(rows)
    assert rows["at step 20"] == ["stateful 2.0000", "stateful 2.5000"]
    assert "at step 30" not in rows
    assert rows["best"] == ["stateful 1.0000", "stateful 2.5000"]


def test_data_that_differ_are_told(here, capsys):
    a = written(here, "a", data={"symbols": 12000, "sha256": "ab" * 32})
    b = written(here, "b", data={"symbols": 13000, "sha256": "cd" * 32}, files=["/other/a.txt"])
    rows = columns(ran(capsys, "compare", a, b))
    assert rows["data"] == ["/data/a.txt", "/other/a.txt"]
    assert rows["symbols"] == ["12,000", "13,000"]
    assert rows["sha256"] == ["abababababab", "cdcdcdcdcdcd"]


def test_many_validations_are_thinned(here, capsys):
    a, b = (written(here, name, log=validated(range(100))) for name in "ab")
    steps = [row for row in columns(ran(capsys, "compare", a, b)) if row.startswith("at step")]
    assert len(steps) == 12
    assert steps[-1] == "at step 1,000"


def test_programs_get_json(here, capsys):
    a = written(here, "a", log=validated([3.0, 2.0]))
    for words in (["runs", here], ["compare", a, a]):
        found = json.loads(ran(capsys, *words, "--json"))[0]
        assert found["best"] == {"step": 20, "stateful": 2.0, "loss": 9}
        assert (found["steps"], found["seconds"], found["options"]["rate"]) == (20, 4.0, 0.1)


def test_a_line_that_is_still_being_written_is_left_out(here, capsys):
    a = written(here, "a", log=validated([3.0]))
    with (a / "log.jsonl").open("a") as file:
        file.write('{"step": 20, "sec')
    assert json.loads(ran(capsys, "runs", here, "--json"))[0]["steps"] == 10


def test_what_cannot_be_compared(here, capsys):
    a, b = written(here, "a"), written(here, "b", "tag")
    assert "takes two runs or more; got 1" in refused(capsys, "compare", a)
    assert "only runs of one task" in refused(capsys, "compare", a, b)
    assert "no such run folder" in refused(capsys, "compare", a, "none")
    assert "none holds no run" in refused(capsys, "runs", "none")


def test_a_damaged_run_is_left_out_of_the_list(here, capsys):
    written(here, "a", log=validated([1.0]))
    (written(here, "b") / "log.jsonl").write_text("{\n")
    assert main(["runs", str(here)]) == 0
    said = capsys.readouterr()
    assert list(columns(said.out))[1:] == [str(here / "a")]
    assert "b is no whole run" in said.err


def test_steps_are_those_of_the_checkpoint(text_file, capsys):
    ran(capsys, "train", "text", "fox.txt", *"--hidden 4 --batch 4 --window 8 --validation 0 --steps 7".split())
    assert columns(ran(capsys, "runs"))["runs/text"][2] == "7"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.jsonl", "nonsense\n"),
        ("log.jsonl", "5\n"),
        ("log.jsonl", '{"step": "ten"}\n'),
        ("log.jsonl", '{"step": 10}\n'),
        ("log.jsonl", '{"step": 10, "seconds": 1, "validation": {"stateful": "low"}}\n'),
        ("log.jsonl", "[" * 100_000 + "\n"),
        ("config.json", "[]"),
        ("config.json", '{"task": "dance", "options": {}}'),
        ("config.json", '{"task": "text", "options": 5}'),
        ("config.json", '{"task": []}'),
    ],
)
def test_damaged_runs_are_named(here, capsys, name, text):
    run = written(here, "a", log=validated([1.0]))
    (run / name).write_text(text)
    said = refused(capsys, "runs", here)
    assert "no whole run" in said or "is damaged" in said
