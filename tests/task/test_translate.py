"""The translate task: its network by another way, its figures, what it answers, and what it refuses."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from commands import refused
from safetensors.torch import load_file

from elman.cli import main
from elman.data.pairs import Pair, made_dates
from elman.data.pieces import joined
from elman.task.alignment import Translation, answer, drawn
from elman.task.bleu import bleu
from elman.task.translate import RECIPES, Options, Translate
from elman.task.translator import Taught, smoothed

NUMBERS = "zero one two three four five six seven eight nine".split()
SMALL = dict(hidden=16, embedding=16, batch=8, steps=2, dropout=0.0, beam=2)
WORDS = "--hidden 16 --embedding 16 --batch 8 --beam 2 --least 1 --report-every 2 --sample-every 2".split()


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Forty pairs in two files, digits and their names, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(10, (1 + n % 4,), generator=draw).tolist() for n in range(40)]
    (tmp_path / "a.num").write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    (tmp_path / "a.name").write_text("".join(" ".join(NUMBERS[i] for i in row) + "\n" for row in rows))
    return "a.num", "a.name"


@pytest.fixture
def run(files, capsys):
    """A run folder, runs/translate, after three steps."""
    assert main(["train", "translate", *files, *WORDS, "--level", "word", "--steps", "3"]) == 0
    capsys.readouterr()
    return "runs/translate"


def task_on(files, **changes):
    return Translate(Options(files=files, **{**SMALL, "least": 1, **changes}))


# the network


@pytest.mark.parametrize("change", [{}, {"cell": "gru", "layers": 2, "decoder_layers": 2}, {"tied": True}])
def test_the_taught_figures_are_those_of_the_library(files, change):
    """Each row's sum is EncoderDecoder.log_prob, which is tested by itself."""
    task = task_on(files, level="word", **change)
    task.model.eval()
    examples = task.training[:6]
    y, lengths, source, source_lengths = task.batches_of(examples)
    taught = task.model(y, lengths, source, source_lengths)
    nats = F.nll_loss(taught.log_p, taught.target, reduction="none")
    assert len(nats) == int((lengths + 1).sum())
    task.model.decoder.longest = task.model.decoder.rule.longest = 99  # else the library gives no end to the longest
    torch.testing.assert_close(nats.sum(), -task.model.both.log_prob(y, lengths, source, source_lengths).sum())


def test_smoothing_spreads_a_part_of_the_target():
    torch.manual_seed(0)
    logits, target = torch.randn(7, 5), torch.randint(5, (7,))
    objective, shown = smoothed(Taught(logits.log_softmax(-1), target, None), 0.1)
    assert objective.item() == pytest.approx(F.cross_entropy(logits, target, label_smoothing=0.1).item())
    assert shown == pytest.approx(F.cross_entropy(logits, target).item())


def test_tied_tables_are_one_and_stand_in_checkpoints_once(files):
    tied = task_on(files, level="word", shared=True, tied=True)
    apart = task_on(files, level="word", shared=True)
    V, E = len(tied.source) + 1, 16
    count = [sum(p.numel() for p in task.model.parameters()) for task in (tied, apart)]
    assert count[1] - count[0] == V * E + (V - 1) * E
    pointers = [value.data_ptr() for value in tied.model.state_dict().values()]
    assert len(set(pointers)) == len(pointers)
    tied.loss(0, ()).objective.backward()
    assert tied.model.decoder.feedback.embedding.weight.grad.abs().sum(1).count_nonzero() == V


def test_attention_is_a_distribution_over_the_source(files):
    task = task_on(files, level="word")
    task.model.eval()
    y, lengths, source, source_lengths = task.batches_of(task.training[:5])
    attention = task.model(y, lengths, source, source_lengths, watch=True).attention
    beyond = torch.arange(attention.shape[2]) >= source_lengths[:, None]
    assert (attention[0] * beyond).sum() == 0
    torch.testing.assert_close(attention[0].sum(-1), torch.ones(5))


@pytest.mark.parametrize("level", ["word", "char", "subword"])
def test_a_few_steps_make_the_loss_fall(files, level):
    task = task_on(files, level=level, vocabulary=40, shared=level == "subword", smooth=0.1)
    optimizer = torch.optim.Adam(task.model.parameters(), 0.02)
    values = []
    for k in range(30):
        loss = task.loss(k, ())
        values.append(loss.value)
        optimizer.zero_grad()
        loss.objective.backward()
        optimizer.step()
    assert values[0] == pytest.approx(task.guess, rel=0.2)
    assert sum(values[-4:]) / 4 < 0.85 * values[0]
    assert task.guess == pytest.approx(math.log(len(task.target) + 1))


# figures


def test_bleu_is_100_for_the_right_text_and_takes_several():
    right = ["a man is sleeping on a couch .", "two dogs run ."]
    assert bleu(right, [[text] for text in right]) == pytest.approx(100)
    assert bleu([right[0]], [["no such thing", right[0]]]) == pytest.approx(100)
    assert bleu(["a man sleeps"], [[right[0]]]) < 20


def test_measured_counts_what_is_right(files, monkeypatch):
    task = task_on(files, level="word", validation="0.2")
    right = {e.source: e.target for e in task.held_back}
    first = task.held_back[0].source

    def perfect(texts, beam):
        made = [right[text] if text != first else "wrong" for text in texts]
        return [Translation(text, [], [], torch.zeros(0), 0.0) for text in made]

    monkeypatch.setattr(task, "translated", perfect)
    scores = task.score()
    assert list(scores) == ["BLEU", "exact", "loss"]
    assert scores["exact"].value == 7 / 8
    y, lengths, source, source_lengths = task.batches_of(task.held_back)
    taught = task.model.eval()(y, lengths, source, source_lengths)
    assert scores["loss"].value == pytest.approx(F.nll_loss(taught.log_p, taught.target).item())


def test_one_translation_does_not_depend_on_those_beside_it(files):
    task = task_on(files, level="word")
    texts = [e.source for e in task.training[:6]]
    for beam in (1, 3):
        together = task.translated(texts, beam)
        for text, found in zip(texts, together):
            (alone,) = task.translated([text], beam)
            assert (alone.text, alone.attended) == (found.text, found.attended)
            assert alone.log_p == pytest.approx(found.log_p, abs=1e-4)


def test_an_unknown_piece_becomes_what_it_looks_at(files):
    task = task_on(files, level="word")
    made = task.translation("7 foo 3", [0, task.target.lexicon.id("▁three")], torch.eye(3)[[1, 2]], -1.0)
    assert made.text == "foo three"
    assert made.attended == [1, 2]


def test_lower_case(files):
    for lower, want in {"none": "AB", "source": "aB", "both": "ab"}.items():
        source, target = task_on(files, level="char", lower=lower).sides([Pair("A", "B", "")])
        assert source + target == list(want)


# what is shown


def test_an_answer_has_its_alignment():
    attention = torch.tensor([[0.1, 0.9], [0.85, 0.15]])
    found = Translation("schläft Mann", ["▁man", "▁sleeps"], ["▁schläft", "▁Mann"], attention, -1.25)
    told = answer("man sleeps", found)
    assert told["alignment"] == "schläft<sleeps Mann<man"
    assert (told["text"], told["score"], told["attended"]) == ("schläft Mann", -1.25, [1, 0])
    assert drawn(found) == [
        "        ms", "        al", "        ne", "         e", "         p", "         s", "schläft  █", "   Mann █"
    ]  # fmt: skip
    assert answer("", Translation("x", [], ["x"], torch.zeros(1, 0), -1.0))["text"] == ""


# the command line


def test_train_score_and_predict_from_the_run_folder_alone(run, files, capsys):
    assert main(["score", run, *files, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["BLEU", "exact", "loss"]
    Path("new.num").write_text("1 2 3\n\n4 4\n9\n")
    assert main(["predict", run, "new.num"]) == 0
    plain = capsys.readouterr().out.split("\n")
    assert len(plain) == 5
    assert plain[1] == ""
    for name in files:
        Path(name).unlink()
    assert main(["predict", run, "new.num", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["text"] for answer in told] == plain[:4]
    assert told[0]["input"] == "1 2 3"
    assert len(told[0]["attended"]) == len(told[0]["target"])
    assert joined(told[0]["source"]) == "1 2 3"
    assert told[0]["score"] < 0


def test_predict_answers_each_line_as_it_comes(run, capsys, monkeypatch):
    out = []

    def lines():
        for number in range(3):
            out.append(capsys.readouterr().out)
            yield f"{number} {number}\n".encode()

    class Typed:
        buffer = lines()

    monkeypatch.setattr(sys, "stdin", Typed())
    assert main(["predict", run]) == 0
    assert out[0] == ""
    assert out[1].count("\n") == out[2].count("\n") == 1


def test_resume_ends_with_the_same_bits(files, capsys):
    words = [*WORDS, "--level", "subword", "--vocabulary", "60", "--shared", "--tied", "--average", "0.9", "--schedule"]
    words += ["constant", "--validate-every", "2"]
    assert main(["train", "translate", *files, *words, "--run", "whole", "--steps", "4"]) == 0
    assert main(["train", "translate", *files, *words, "--run", "part", "--steps", "2"]) == 0
    assert main(["train", "translate", "--run", "part", "--resume", "--steps", "4"]) == 0
    for name in ("model.safetensors", "training.safetensors"):
        one, two = load_file(f"whole/{name}"), load_file(f"part/{name}")
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert "fused: one kernel a sequence" in capsys.readouterr().out


def test_the_default_needs_no_file_and_no_package(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    monkeypatch.setattr("elman.task.translate.made_dates", lambda count, seed: made_dates(60, seed))
    assert main(["train", "translate", "--steps", "2", "--hidden", "16", "--embedding", "16"]) == 0
    said = capsys.readouterr().out
    assert "dates made here: 60 pairs" in said
    assert "by chars" in said
    assert said.endswith("next: elman predict runs/translate FILE\n")


def test_validation_files_of_two_languages(files, tmp_path):
    (tmp_path / "v.num").write_text("1\n2 2\n")
    (tmp_path / "v.name").write_text("one\ntwo two\n")
    task = task_on(files, level="word", validation="v.num", validation_target="v.name")
    assert [e.target for e in task.held_back] == ["one", "two two"]
    before = task.data["sha256"]
    (tmp_path / "v.name").write_text("one\ntwo two.\n")
    assert task_on(files, level="word", validation="v.num", validation_target="v.name").data["sha256"] != before


# what cannot be


def test_bad_files_and_options_are_one_line(files, capsys, tmp_path):
    (tmp_path / "short").write_text("one\n")
    train = ("train", "translate")
    assert f"{tmp_path}/a.num has 40 lines and {tmp_path}/short 1: " in refused(capsys, *train, "a.num", "short")
    assert "3 files: name two" in refused(capsys, *train, "a.num", "a.name", "short")
    assert "a.num, line 1: 1 columns" in refused(capsys, *train, "a.num")
    assert "--tied needs --hidden and --embedding alike; they are 128, 64" in refused(capsys, *train, "--tied")
    assert "--beam 0: must be at least 1" in refused(capsys, *train, "--beam", "0")
    assert "--dropout 1.0: must be below 1" in refused(capsys, *train, "--dropout", "1")
    assert "--validation-target goes with a file" in refused(capsys, *train, "--validation-target", "short")
    assert "--validation none.en: neither a share" in refused(capsys, *train, *files, "--validation", "none.en")


def test_without_sacrebleu_training_on_files_says_what_to_install(files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    assert "BLEU needs the package sacrebleu: pip install elman[score]" in refused(
        capsys, "train", "translate", *files, "--level", "word"
    )


@pytest.mark.parametrize("change", [{"longest": 0}, {"longest": "x"}, {"source": "x"}, {"target": ["a", "a"]}])
def test_a_vocabulary_that_cannot_be(run, capsys, change):
    path = Path(run, "translate.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert f"{run} does not fit this version of elman" in refused(capsys, "predict", run, "a.num")


def test_multi30k_recipe_reads_the_real_files(real_data):
    """Two batches of the real thing, its network narrower: the loss begins at a guess and falls."""
    pair = tuple(str(real_data("multi30k_en_de") / f"val.{side}.gz") for side in ("en", "de"))
    options = replace(RECIPES["multi30k"].options, files=pair, vocabulary=1000, hidden=32, embedding=32)
    task = Translate(options)
    assert len(task.source) == 1000
    assert task.source is task.target
    assert len(task.training) + len(task.held_back) == 1014
    found = Translate(options).files
    assert found == task.files
    assert task.loss(0, ()).value == pytest.approx(task.guess, rel=0.05)
