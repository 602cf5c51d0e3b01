"""Text with documents: the state begins anew with each, in training, validation, scores and samples."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from commands import refused
from safetensors.torch import load_file

from elman import DataError, OptionError
from elman.cli import main
from elman.task.language import stateful_loss, window_loss, write
from elman.task.options import SampleOptions
from elman.task.text import Text
from elman.task.text_options import Options
from elman.train.training import Training

SMALL = dict(hidden=12, embedding=5, batch=1, window=8, steps=3, layers=2, validation=0.0)
MARK = "<|end|>"
FLAGS = """--hidden 12 --embedding 5 --batch 4 --window 10 --sample-length 20 --report-every 2 --validate-every 2
--schedule constant --vary""".split()


@pytest.fixture
def stories(tmp_path, monkeypatch):
    """A file of documents of unlike length, with marks between them."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "stories.txt"
    path.write_text(MARK.join("the fox and the dog. "[: 3 + i % 17] * (1 + i % 5) for i in range(40)))
    return path


def documents(task):
    """Each document alone: the symbol that ended the one before, and all up to its own last."""
    edges = [0, *task._begins.tolist(), len(task._ids) - 1]
    return [task._ids[a : b + 1].long() for a, b in pairwise(edges) if a < b]


def alone(model, parts):
    """-log p of every symbol, each document read from an initial state."""
    found = []
    for part in parts:
        logits, _ = model(part[:-1, None])
        found.append(F.cross_entropy(logits[:, 0], part[1:], reduction="none"))
    return torch.cat(found)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.parameters()]


def test_a_document_begins_at_the_last_symbol_of_a_mark(stories):
    task = Text(Options(files=(str(stories),), document=MARK, **SMALL))
    parts = [task.vocabulary.decode(part) for part in documents(task)]
    assert len(parts) == 40
    assert parts[0].endswith(MARK)
    assert all(part[0] == ">" and MARK not in part[:-1] and part.endswith(MARK) for part in parts[1:-1])
    assert task.data["documents"] == 40
    assert ", 40 documents" in task.about()["data"]
    assert "fused: one kernel a sequence" in task.about()["backend"]


def test_training_over_documents_is_each_read_alone(stories):
    """Values and gradients of the whole text as one window; values window by window."""
    whole = Text(Options(files=(str(stories),), document=MARK, **SMALL, seed=1))
    N = len(whole._ids) - 1
    whole = Text(Options(files=(str(stories),), document=MARK, **{**SMALL, "window": N}, seed=1))
    loss = whole.loss(0, whole.initial())
    want = alone(whole.model, documents(whole))
    assert len(want) == N  # every symbol but the first is predicted once
    assert loss.value == pytest.approx(want.mean().item(), rel=1e-5)
    for one, two in zip(gradients(whole.model, loss.objective), gradients(whole.model, want.mean())):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    task, state, values = Text(Options(files=(str(stories),), document=MARK, **SMALL, seed=1)), None, []
    for k in range(task.batches):
        loss = task.loss(k, state)
        state = loss.state
        values.append(loss.value)
    read = 8 * task.batches
    assert sum(values) / len(values) == pytest.approx(want[:read].mean().item(), rel=1e-5)


def test_without_resets_the_loss_is_another(stories):
    one, two = (Text(Options(files=(str(stories),), document=mark, **SMALL)) for mark in (MARK, None))
    assert one.data != two.data
    ids, begins = one._ids, one._begins
    assert stateful_loss(one.model, ids, begins=begins) != pytest.approx(stateful_loss(one.model, ids), rel=1e-4)


@pytest.mark.parametrize("streams", [1, 3])
def test_scores_begin_anew_with_each_document(stories, streams):
    task = Text(Options(files=(str(stories),), document=MARK, **SMALL))
    task.model.eval()
    ids, begins = task._ids, task._begins
    length = (len(ids) - 1) // streams
    parts = []
    for a in range(0, streams * length, length):
        edges = [a, *(b for b in begins.tolist() if a < b < a + length), a + length]
        parts += [ids[a : b + 1].long() for a, b in pairwise(edges)]
    want = alone(task.model, parts).double().mean().item()
    assert stateful_loss(task.model, ids, streams, begins=begins) == pytest.approx(want, rel=1e-5)


def test_the_window_score_begins_anew_too(stories):
    task = Text(Options(files=(str(stories),), document=MARK, **SMALL))
    task.model.eval()
    ids, begins, parts = task._ids, task._begins, []
    for a in range(0, (len(ids) - 1) // 256 * 256, 256):
        edges = [a, *(b for b in begins.tolist() if a < b < a + 256), a + 256]
        parts += [ids[a : b + 1].long() for a, b in pairwise(edges)]
    want = alone(task.model, parts).double().mean().item()
    assert window_loss(task.model, ids, begins=begins) == pytest.approx(want, rel=1e-5)


def test_validation_and_scores_of_the_task_know_documents(stories):
    task = Text(Options(files=(str(stories),), document=MARK, **{**SMALL, "validation": 0.3}))
    held = task.validation
    part = stories.with_name("held.txt")
    part.write_text(task.vocabulary.decode(held))
    scores = [task.score(), task.score([str(part)])]
    inside = [i for i in range(len(MARK), len(held)) if task.vocabulary.decode(held[: i + 1]).endswith(MARK)]
    assert task._held_begins[task._held_begins >= len(MARK)].tolist() == inside
    want = stateful_loss(task.model, held, begins=torch.tensor(inside))
    for found in scores:
        assert found["stateful"].value == pytest.approx(want, rel=1e-3)
        by_windows = window_loss(task.model, held, begins=torch.tensor(inside))
        assert found["windows of 256"].value == pytest.approx(by_windows, rel=1e-3)
    assert task.validate()["stateful"].value == pytest.approx(
        stateful_loss(task.model, held, 32, begins=task._held_begins)
    )


def test_writing_begins_anew_behind_a_mark(stories):
    task = Text(Options(files=(str(stories),), document="f", **SMALL))
    model, mark = task.model.eval(), task._mark
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(8)  # so that what was read before matters
    ids = [*task.vocabulary.encode("dog of the").tolist()]
    n = len(ids)
    found = list(write(model, torch.tensor(ids), 30, 1.0, None, 0, mark))
    plain = list(write(model, torch.tensor(ids), 30, 1.0, None, 0))
    assert mark[0] in found  # or the test shows nothing
    draw = torch.Generator().manual_seed(0)
    for symbol in found:
        begin = max(i for i, one in enumerate(ids) if one == mark[0])
        p = model(torch.tensor(ids[begin:])[:, None])[0][-1, 0].double().softmax(-1)
        drawn = torch.multinomial(p, 1, generator=draw)
        assert int(drawn) == symbol
        ids.append(symbol)
    assert ids[n:] == found != plain


def test_an_empty_prompt_is_the_end_of_a_mark(stories):
    task = Text(Options(files=(str(stories),), document=MARK, **SMALL))
    assert task._opening(torch.empty(0)).tolist() == task.vocabulary.encode(">").tolist()
    assert len("".join(task.write(SampleOptions(length=30)))) == 30


def test_files_are_documents(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in (("a", "one two three\n"), ("b", "four five\n"), ("c", "six " * 9)):
        (tmp_path / name).write_text(text)
    options = {**SMALL, "files": ("a", "b", "c")}
    assert Text(Options(**options, document=""))._begins.tolist() == [13, 23]
    assert Text(Options(**options, document=r"\n"))._begins.tolist() == [13, 23]
    assert Text(Options(**options, document="e "))._begins.tolist() == [3, 13, 23]
    words = Text(Options(**options, level="word", document=""))
    assert words._begins.tolist() == [3, 6]


def test_an_empty_line_stands_between_documents(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("one\ntwo\n\nthree\n\n\nfour and five and six")
    task = Text(Options(files=("a",), document=r"\n\n", **SMALL))
    assert task._begins.tolist() == [8, 15, 16]
    words = Text(Options(files=("a",), document=r"\n\n", level="word", **SMALL))
    assert words._begins.tolist() == [4, 7, 8]


def test_shuffled_lines_are_documents_by_their_ends(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("".join(f"name{i}\n" for i in range(50)))
    task = Text(Options(files=("a",), shuffle=True, document=r"\n", **SMALL))
    assert [task.vocabulary.decode(task._ids[i : i + 1]) for i in task._begins] == ["\n"] * 50


def test_the_rate_goes_with_the_length_of_a_window(stories):
    options = dict(files=(str(stories),), **{**SMALL, "window": 20}, schedule="constant", warmup=0)
    steady, task = Text(Options(**options)), Text(Options(**options, vary=True))
    assert steady.batches == task.batches
    assert {steady.pace(k) for k in range(50)} == {1.0}
    lengths = [len(task._streams[k][0]) for k in range(task.batches)]
    assert len(set(lengths)) > 5
    run = Training(task, None, None)
    for k, length in enumerate(lengths[:3]):
        assert run.rate() == pytest.approx(task.options.rate * length / 20)
        assert run.advance()["rate"] == run.optimizer.param_groups[0]["lr"]
        assert run.step == k + 1


def test_documents_and_varied_windows_resume_to_the_same_bits(stories):
    words = ["train", "text", str(stories), *FLAGS, "--document", MARK]
    assert main([*words, "--run", "whole", "--steps", "6"]) == 0
    assert main([*words, "--run", "part", "--steps", "3"]) == 0
    assert main(["train", "text", "--run", "part", "--resume", "--steps", "6"]) == 0
    for name in ("model.safetensors", "training.safetensors"):
        one, two = load_file(f"whole/{name}"), load_file(f"part/{name}")
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_what_cannot_change_on_the_way_is_named(stories, capsys):
    assert main(["train", "text", str(stories), *FLAGS, "--document", MARK, "--run", "r", "--steps", "2"]) == 0
    for flag, old, new in (("--batch", "4", "8"), ("--window", "10", "12"), ("--document", MARK, "fox")):
        said = refused(capsys, "train", "text", "--run", "r", "--resume", "--steps", "4", flag, new)
        assert f"{flag} {new}: r was begun with {old}, which cannot change on the way; leave it out" in said


def test_documents_that_cannot_be(stories):
    options = dict(files=(str(stories),), **SMALL)
    for words, change in {
        "--document 'den fox': the text never says that": {"document": "den fox"},
        "--document '': one file is one document": {"document": ""},
        "does not have 'Z'": {"document": "Z"},
        "'Z' is no word of the text": {"document": "Z", "level": "word"},
        "' ' is no word of the text": {"document": " ", "level": "word"},
    }.items():
        with pytest.raises(DataError, match=words):
            Text(Options(**options, **change))
    (stories.parent / "other.txt").write_text("more of the fox")
    with pytest.raises(DataError, match="never says that"):
        Text(Options(**{**options, "files": (str(stories), "other.txt")}, document="den fox"))
    with pytest.raises(OptionError, match="--shuffle mixes the lines of all files"):
        Options(shuffle=True, document="")
    with pytest.raises(OptionError, match="--window 9 is too short for --vary: give at least 10"):
        Options(vary=True, window=9)
