"""The tag task: from files to scores and tags, by its own network and by the command line."""

import io
import json
import sys

import pytest
import torch
from commands import refused
from safetensors.torch import load_file

from elman import DataError, OptionError
from elman.cli import main
from elman.data.grammar import grammar_sentences
from elman.data.lexicon import Lexicon
from elman.data.tagged import Tagged
from elman.module import ways
from elman.task import tagger
from elman.task.tag import RECIPES, Options, Tag
from elman.task.tagger import Tagger, batch_of

SMALL = "--hidden 8 --embedding 6 --letter-hidden 4 --letter-embedding 5 --batch 8 --report-every 4".split()
NUMBERS = dict(hidden=8, embedding=6, letter_hidden=4, letter_embedding=5, batch=8)


def lines(sentences, end=""):
    """A file of words and tags."""
    return "\n".join("".join(f"{w} {t}{end}\n" for w, t in zip(s.words, s.tags)) for s in sentences)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with train.txt and test.txt."""
    monkeypatch.chdir(tmp_path)
    sentences = grammar_sentences(60, seed=3)
    (tmp_path / "train.txt").write_text(lines(sentences[:45]))
    (tmp_path / "test.txt").write_text(lines(sentences[45:]))
    return tmp_path


@pytest.fixture
def run(folder, capsys):
    """A trained run folder."""
    assert main(["train", "tag", "train.txt", *SMALL, "--steps", "6", "--run", "run"]) == 0
    capsys.readouterr()
    return folder / "run"


def test_one_example_at_least_is_held_back(folder):
    (folder / "two.txt").write_text("the DET\n\na DET\n")
    for share, held in (("0", 0), ("0.01", 1), ("0.5", 1)):
        assert len(Tag(Options(files=("two.txt",), validation=share, **NUMBERS)).held_back) == held
    (folder / "one.txt").write_text("the DET\n")
    with pytest.raises(DataError, match="1 examples are too few to hold 0.1 of them back"):
        Tag(Options(files=("one.txt",), **NUMBERS))


# the network


def network(options=None):
    torch.manual_seed(0)
    return Tagger(5, 6, 3, options or Options(**NUMBERS, layers=2)).eval()


def test_each_word_is_spelled_once_and_found_again():
    batch = batch_of([("Ab", "a", "Ab"), ("a",)], Lexicon(["ab"], "?"), Lexicon(["a", "b"], "?"))
    assert batch.words.tolist() == [[1, 0], [0, 0], [1, 0]]
    assert batch.lengths.tolist() == [3, 1]
    assert batch.spelled.tolist() == [[0, 1], [1, 0], [0, 0]]
    assert batch.characters.tolist() == [[0, 1], [2, 0]]
    assert batch.letters.tolist() == [2, 1]


def test_a_sentence_is_tagged_alike_alone_and_among_others(monkeypatch):
    monkeypatch.setattr(tagger, "PART", 2)  # the five words are spelled in three parts
    model, words, letters = network(), Lexicon(["ab", "c"], "?"), Lexicon("abcd", "?")
    sentences = [("ab", "c", "dab"), ("c",), ("abcdabcd", "ab"), ("d", "d", "d", "d")]
    together = model(batch_of(sentences, words, letters))
    for i, sentence in enumerate(sentences):
        alone = model(batch_of([sentence], words, letters))[:, 0]
        torch.testing.assert_close(together[: len(sentence), i], alone)


def test_a_spelling_is_the_last_output_of_each_direction():
    model, ids = network(), torch.tensor([1, 2, 3])
    _, (ahead, back) = model.spelling.recurrent(model.spelling.embedding(ids)[:, None])
    padded = torch.tensor([[1, 4], [2, 0], [3, 0], [0, 0]])
    found = model.spelling(padded, torch.tensor([3, 1]))[0]
    torch.testing.assert_close(found, torch.cat([ahead.h, back.h], -1)[0])


def test_rare_words_are_unknown_and_case_is_only_in_characters():
    task = Tag(Options(**NUMBERS))
    task.prepare(task.fit([Tagged(("The", "the", "dog"), ("A", "A", "B"), "x", (1, 2, 3))]))
    assert task.words.words == ("<unknown>", "the")
    assert set(task.characters.words) == {"<unknown>", *"Thetdog"}
    assert "Dog" not in task.seen


# training


def test_the_loss_falls_and_everything_is_fused():
    task = Tag(Options(**NUMBERS, rate=2e-2))
    before = task.validate()
    optimizer = torch.optim.Adam(task.model.parameters(), 2e-2)
    for k in range(25):
        optimizer.zero_grad()
        task.loss(k, ()).objective.backward()
        optimizer.step()
    after = task.validate()
    assert after["loss"].value < 0.8 * before["loss"].value
    assert after["accuracy"].value > before["accuracy"].value
    assert list(after) == ["accuracy", "unseen words", "loss"]
    assert ways(task.model, task.batch(task.training[:2])) == "fused: one kernel a sequence"


def test_padding_counts_nothing_in_the_loss():
    task = Tag(Options(**NUMBERS, dropout=0.0, word_dropout=0.0))
    some = [task.training[0], min(task.training, key=task.length)]
    both, each = task.objective(some)[1], [task.objective([s])[1] * task.length(s) for s in some]
    assert both == pytest.approx(sum(each) / sum(map(task.length, some)), rel=1e-5)


def test_the_scores_are_counted_by_hand():
    task = Tag(Options(**NUMBERS))
    sentences = [s for s in task.held_back if any(w not in task.seen for w in s.words)][:3]
    task.model.eval()
    right, new = [], []
    for s in sentences:
        found = task.tags(task.log_p([s])[0])
        right += [a == b for a, b in zip(found, s.tags)]
        new += [w not in task.seen for w in s.words]
    scores = task.figures(sentences)
    assert scores["accuracy"].value == pytest.approx(sum(right) / len(right))
    assert scores["unseen words"].value == pytest.approx(sum(r for r, n in zip(right, new) if n) / sum(new))


def test_default_and_recipes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "tag", "--steps", "3"]) == 0
    said = capsys.readouterr().out
    assert "sentences made here: 540 sentences" in said
    assert "fused: one kernel a sequence" in said
    assert "unseen words" in said
    assert said.endswith("next: elman predict runs/tag FILE\n")
    assert all(recipe.options.files == () for recipe in RECIPES.values())


def test_resume_ends_as_the_whole_run_does(folder):
    begin = ["train", "tag", "train.txt", *SMALL, "--schedule", "constant", "--average", "0.9", "--keep", "last"]
    assert main([*begin, "--run", "whole", "--steps", "9"]) == 0
    assert main([*begin, "--run", "part", "--steps", "4"]) == 0
    assert main(["train", "tag", "--run", "part", "--resume", "--steps", "9"]) == 0
    for name in ("model.safetensors", "training.safetensors"):
        one, two = load_file(f"whole/{name}"), load_file(f"part/{name}")
        assert all(torch.equal(one[key], two[key]) for key in one)


# use


def test_score_and_predict_files_from_the_run_folder(run, folder, capsys):
    (folder / "train.txt").unlink()
    assert main(["score", "run", "test.txt", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["accuracy", "unseen words", "loss"]
    outputs = []
    plain = "\n".join(" ".join(s.words) for s in grammar_sentences(60, seed=3)[45:])
    (folder / "plain.txt").write_text(plain)
    for name in ("test.txt", "plain.txt"):
        assert main(["predict", "run", name]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert [" ".join(w.rpartition("/")[0] for w in line.split()) for line in outputs[0].splitlines()] == (
        plain.splitlines()
    )
    assert main(["predict", "run", "plain.txt", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [" ".join(f"{w}/{t}" for w, t in zip(f["words"], f["tags"])) for f in found] == outputs[0].splitlines()


def test_predict_reads_standard_input_line_by_line(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the can\r\n\n caf\xc3\xa9 ?")))
    assert main(["predict", "run"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert [w.rpartition("/")[0] for w in (first + " " + second).split()] == ["the", "can", "café", "?"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the\ncaf\xe9")))
    assert "standard input, line 2: byte 0xe9 is not UTF-8" in refused(capsys, "predict", "run")


def test_spans_are_scored_where_tags_are_bio(folder, capsys):
    text = "Ann B-PER\nLee I-PER\nsees O\nRome B-LOC\n. O\n\n"
    (folder / "names.txt").write_text(text * 20)
    assert main(["train", "tag", "names.txt", *SMALL, "--epochs", "15", "--rate", "0.05", "--run", "bio"]) == 0
    capsys.readouterr()
    assert main(["score", "bio", "names.txt"]) == 0
    said = capsys.readouterr().out
    assert "F1  100.00% of spans (precision 100.00%, recall 100.00%)" in said
    assert "unseen words  not measured: there are none" in said


# errors


def test_a_tag_that_training_did_not_have(run, folder, capsys):
    (folder / "other.txt").write_text("the DET\ncan NUON\n")
    assert "other.txt, line 2: 'can' has the tag 'NUON', never seen in training, which had " in refused(
        capsys, "score", "run", "other.txt"
    )
    with pytest.raises(DataError, match="line 2: 'can' has the tag 'NUON'"):
        Tag(Options(files=("train.txt",), validation="other.txt", **NUMBERS))


def test_a_rare_tag_of_the_same_file_may_be_held_back(folder):
    (folder / "rare.txt").write_text("the DET\n\n" * 9 + "can NOUN\n")
    for seed in range(10):
        task = Tag(Options(files=("rare.txt",), seed=seed, **NUMBERS))
        assert sorted(task.labels.words) == ["DET", "NOUN"]
        assert task.validate()["accuracy"].value is not None


COMMANDS = {
    "empty.txt holds no words": ["train", "tag", "empty.txt"],
    "narrow.txt, line 2: 1 column, 'can'": ["train", "tag", "narrow.txt"],
    "train.txt, line 1: 2 columns": ["train", "tag", "train.txt", "--column", "3"],
    "--column upos names a column of CoNLL-U": ["train", "tag", "train.txt", "--column", "upos"],
    "nowhere.txt: no such file": ["train", "tag", "nowhere.txt"],
    "--dropout 1.0: must be below 1": ["train", "tag", "train.txt", "--dropout", "1"],
    "--letter-hidden 0: must be at least 1": ["train", "tag", "train.txt", "--letter-hidden", "0"],
}


@pytest.mark.parametrize("words", COMMANDS)
def test_bad_input_before_training(words, folder, capsys):
    (folder / "empty.txt").write_text("\n")
    (folder / "narrow.txt").write_text("the DET\ncan\n")
    assert words in refused(capsys, *COMMANDS[words])
    assert not (folder / "runs").exists()


def test_bad_files_to_score_and_predict(run, folder, capsys):
    (folder / "empty.txt").write_text("\n")
    for verb in ("score", "predict"):
        assert "empty.txt holds no words" in refused(capsys, verb, "run", "empty.txt")
        assert "nowhere.txt: no such file" in refused(capsys, verb, "run", "nowhere.txt")


def test_a_damaged_run_folder(run, capsys):
    saved = json.loads((run / "tag.json").read_text())
    for harmed in (saved | {"labels": 3}, saved | {"words": ["a", "a"]}, saved | {"seen": None}, {}, None, []):
        (run / "tag.json").write_text(json.dumps(harmed))
        assert "run does not fit this version of elman" in refused(capsys, "score", "run", "test.txt")


def test_options_are_checked():
    with pytest.raises(OptionError, match="--word-dropout 1.5: must be below 1"):
        Options(word_dropout=1.5)
