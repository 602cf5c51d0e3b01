"""Classification from files to labels, at the command line."""

import io
import json
import math

import pytest
import torch
from cells import irregular
from commands import ran, refused

from elman.data.lexicon import Lexicon
from elman.task.classify import Classify, macro_f1
from elman.task.classify_options import Options
from elman.task.networks import pooled

SMALL = "--hidden 16 --embedding 8 --batch 8 --steps 40 --rate 0.02 --report-every 20".split()
GOOD, BAD = "a good and lovely film", "a bad and boring film"


@pytest.fixture
def texts(here):
    (here / "train.tsv").write_text(f"label\ttext\npos\t{GOOD}\nneg\t{BAD}\n" + f"pos\t{GOOD} !\nneg\t{BAD} ?\n" * 30)
    return here


def scores(capsys, *words):
    return json.loads(ran(capsys, "score", *words, "--json"))


def test_texts_from_training_to_prediction(texts, capsys, monkeypatch):
    said = ran(capsys, "train", "classify", "train.tsv", *SMALL)
    assert "fused: one kernel a sequence" in said
    assert "accuracy  100.00%" in said
    assert scores(capsys, "runs/classify", "train.tsv")["accuracy"] == 1.0
    (texts / "new.txt").write_text("good film\nboring film\n")
    assert [line.split("\t")[0] for line in ran(capsys, "predict", "runs/classify", "new.txt").splitlines()] == [
        "pos",
        "neg",
    ]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a lovely film\n\n")))
    assert ran(capsys, "predict", "runs/classify").split("\t")[::2] == ["pos", "line 1\n"]
    first = json.loads(ran(capsys, "predict", "runs/classify", "new.txt", "--json").splitlines()[0])
    assert first["label"] == "pos"
    assert sum(first["p"].values()) == pytest.approx(1, abs=1e-5)


def test_letters_tell_of_words_never_seen(here, capsys):
    ends = {"noun": "ness", "adverb": "ly"}
    stems = ("quiet", "dark", "soft", "kind", "bold", "sweet", "loud", "rude")
    (here / "train.tsv").write_text("".join(f"{label}\t{s}{ends[label]} it is\n" for s in stems for label in ends))
    ran(capsys, "train", "classify", "train.tsv", *SMALL, "--grams", "500", "--validation", "0", "--steps", "60")
    (here / "new.txt").write_text("wildness it is\nwildly it is\n")
    said = ran(capsys, "predict", "runs/classify", "new.txt").splitlines()
    assert [line.split("\t")[0] for line in said] == ["noun", "adverb"]


def test_grams_are_of_words(texts, capsys):
    for flags, what in ((["--level", "char"], "texts by --level char"), (["--kind", "series"], "these are series")):
        assert what in refused(capsys, "train", "classify", "train.tsv", "--grams", "100", *flags)
    assert "--grams" in refused(capsys, "train", "classify", "train.tsv", "--grams", "-1")


def test_a_run_that_was_stopped_ends_as_one_that_was_not(texts, capsys):
    train = ["train", "classify", "train.tsv", *SMALL, "--dropout", "0.3", "--average", "0.9", "--schedule", "constant"]
    ran(capsys, *train, "--run", "whole")
    ran(capsys, *train, "--run", "half", "--steps", "17")
    ran(capsys, "train", "classify", "--run", "half", "--resume", "--steps", "40")
    files = [(texts / run / "training.safetensors").read_bytes() for run in ("whole", "half")]
    heads = [data[: 8 + int.from_bytes(data[:8], "little")] for data in files]
    assert files[0][len(heads[0]) :] == files[1][len(heads[1]) :]
    assert (texts / "whole/model.safetensors").read_bytes() == (texts / "half/model.safetensors").read_bytes()


def test_digits_drawn_here_in_every_reading(here, capsys):
    small = "--hidden 8 --steps 3 --batch 16 --augment 0.5".split()
    for how in (["--by", "columns"], ["--by", "pixels", "--both"], ["--grid", "--block", "5"]):
        said = ran(capsys, "train", "classify", *small, *how)
        assert "digits drawn here: 1,800 pictures of 10 labels" in said


def test_pictures_of_a_folder(here, capsys):
    from PIL import Image

    for label, shade in (("dark", 30), ("light", 220)):
        (here / "all" / label).mkdir(parents=True)
        for i in range(12):
            Image.new("L", (6, 5), shade + i).save(here / "all" / label / f"{i}.png")
    ran(capsys, "train", "classify", "all", *SMALL)
    Image.new("RGB", (12, 10), (210, 210, 210)).save(here / "new.png")  # of another size and in colour
    assert ran(capsys, "predict", "runs/classify", "new.png").startswith("light\t")
    assert "is no folder" in refused(capsys, "score", "runs/classify", "new.png")
    assert "name the files of pictures to classify" in refused(capsys, "predict", "runs/classify")
    for label in ("dark", "light"):
        (here / "more" / label).mkdir(parents=True)
        Image.new("L", (9, 4)).save(here / "more" / label / "1.png")
    assert scores(capsys, "runs/classify", "more")["accuracy"] == 0.5
    ran(capsys, "train", "classify", "all", *SMALL, "--validation", "more", "--steps", "2")  # resized, too
    (here / "all/dark/0.png").write_bytes(b"no picture")
    assert "or train with --skip-unreadable to leave out all such" in refused(
        capsys, "train", "classify", "all", *SMALL
    )
    said = ran(capsys, "train", "classify", "all", *SMALL, "--skip-unreadable", "--run", "skip")
    assert "21 pictures of 2 labels, 1 left out as unreadable" in " ".join(said.split())
    assert scores(capsys, "skip", "all")["left out"] == 1
    told = ran(capsys, "predict", "skip", "new.png", "all/dark/0.png").splitlines()
    assert told[0].startswith("light\t")
    assert told[1].startswith("left out: all/dark/0.png is not a readable picture")


def test_series_of_unequal_lengths(here, capsys):
    lines = [f"{','.join(str(s * t) for t in range(4 + i % 3))}:{s}" for i in range(24) for s in (1, -1)]
    (here / "x.ts").write_text("@classLabel true 1 -1\n@data\n" + "\n".join(lines) + "\n")
    ran(capsys, "train", "classify", "x.ts", *SMALL, "--pool", "mean", "--augment", "0.5", "--validation", "x.ts")
    assert scores(capsys, "runs/classify")["accuracy"] == 1.0
    (here / "wide.ts").write_text("@classLabel true 1 -1\n@data\n1,2:3,4:1\n")
    assert "wide.ts, line 3 has 2 variables; training had 1" in refused(capsys, "score", "runs/classify", "wide.ts")
    said = refused(capsys, "train", "classify", "x.ts", "wide.ts", *SMALL)
    assert "wide.ts, line 3 has 2 variables; training had 1" in said
    (here / "x.csv").write_text("1,2,3\n?,1,2\n")
    assert len(ran(capsys, "predict", "runs/classify", "x.csv").splitlines()) == 2
    (here / "x.csv").write_text("0.5,1,2\n")
    assert "the label '0.5' was never seen in training; where it is not known, write ?" in refused(
        capsys, "predict", "runs/classify", "x.csv"
    )


WRONG = {
    "no such file": ["none.tsv"],
    "--validation 2: neither a share": ["train.tsv", "--validation", "2"],
    "--grid reads pictures; these are texts": ["train.tsv", "--grid"],
    "--kind texts needs a file": ["--kind", "texts"],
    "--dropout 1.0: must be below 1": ["train.tsv", "--dropout", "1"],
    "--augment distorts pictures and series; these are texts by --level word": ["train.tsv", "--augment", "1"],
    "--block is of series, or of pictures with --grid; these are pictures": ["--block", "2"],
    "--grid reads by one 2-D LSTM from each corner: leave out --cell": ["--grid", "--both"],
    "other.tsv, line 2: the label 'new' was never seen in training": ["train.tsv", "--validation", "other.tsv"],
    "a model of --hidden 1000000000 --layers 1 --embedding 8 does not fit": ["train.tsv", "--hidden", "1000000000"],
    "all 2 examples have the label 'pos'": ["one.tsv", "--validation", "0"],
    "2 examples are too few to hold 0.9 of them back": ["one.tsv", "--validation", "0.9"],
}


@pytest.mark.parametrize("message", WRONG)
def test_bad_input_leaves_nothing_behind(texts, capsys, message):
    (texts / "one.tsv").write_text("pos\tgood\npos\tfine\n")
    (texts / "other.tsv").write_text("pos\tgood\nnew\tfine\n")
    assert message in refused(capsys, "train", "classify", *SMALL[2:], *WRONG[message])
    assert not (texts / "runs").exists()


def test_a_run_needs_its_validation_file_no_more_once_it_is_trained(texts, capsys):
    (texts / "dev.tsv").write_text(f"pos\t{GOOD}\nneg\t{BAD}\n")
    ran(capsys, "train", "classify", "train.tsv", *SMALL, "--steps", "2", "--validation", "dev.tsv")
    assert list(scores(capsys, "runs/classify")) == ["accuracy", "F1", "loss"]
    (texts / "dev.tsv").unlink()
    assert list(scores(capsys, "runs/classify", "train.tsv")) == ["accuracy", "F1", "loss"]
    assert "dev.tsv: no such file" in refused(capsys, "score", "runs/classify")


def test_bad_input_to_a_trained_run(texts, capsys):
    ran(capsys, "train", "classify", "train.tsv", *SMALL, "--steps", "2", "--validation", "0")
    (texts / "new.tsv").write_text("pos\tgood\nmixed\tso so\n")
    message = "new.tsv, line 2: the label 'mixed' was never seen in training, which had neg, pos"
    assert message in refused(capsys, "score", "runs/classify", "new.tsv")
    assert "held nothing back" in refused(capsys, "score", "runs/classify")
    assert "classify does not write" in refused(capsys, "sample", "runs/classify")
    (texts / "runs/classify/classify.json").write_text('{"labels": 3}')
    assert "does not fit this version" in refused(capsys, "predict", "runs/classify", "new.tsv")
    (texts / "runs/classify/classify.json").write_text("[3]")
    assert "does not fit this version" in refused(capsys, "predict", "runs/classify", "new.tsv")
    (texts / "train.tsv").write_text(f"pos\t{GOOD}\nneg\t{BAD}\n")
    (texts / "runs/classify/classify.json").unlink()
    assert "classify.json is missing" in refused(capsys, "train", "classify", "--resume", "--steps", "9")


def test_pooling_looks_at_what_is_there():
    lengths, _ = irregular(5, 4)
    lengths = lengths.clamp(min=1)
    y = torch.randn(5, 4, 6)
    y[torch.arange(5)[:, None] >= lengths] = 0
    for b, n in enumerate(lengths.tolist()):
        row = y[:n, b]
        torch.testing.assert_close(pooled(y, lengths, "mean", False)[b], row.mean(0))
        torch.testing.assert_close(pooled(y, lengths, "max", True)[b], row.max(0).values)
        torch.testing.assert_close(pooled(y, lengths, "last", False)[b], row[-1])
        torch.testing.assert_close(pooled(y, lengths, "last", True)[b], torch.cat([row[-1, :3], row[0, 3:]]))


def test_f1_by_hand():
    found, there = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
    assert macro_f1(found, there, 3) == pytest.approx((2 * 1 / (2 + 1) + 2 * 2 / (2 + 3)) / 2)


def test_pictures_in_blocks_are_the_pictures():
    task = Classify(Options(grid=True, block=4, hidden=2, steps=1))
    x, _ = task.reading.batch(task.training[:2], training=False)
    assert x.shape == (2, 5, 5, 16)
    whole = (task.training[1].pixels[..., 0].float() / 255 - task.reading.mean) / task.reading.deviation
    torch.testing.assert_close(x[1, 2, 3].view(4, 4), whole[8:12, 12:16])


def test_words_seldom_seen_are_one(texts):
    task = Classify(Options(files=("train.tsv",), least=3))
    assert set(task.reading.lexicon.words) == {"<unk>", "!", "?", *GOOD.split(), *BAD.split()}
    assert isinstance(task.labels, Lexicon)
    assert Classify(Options(files=("train.tsv",), least=100)).reading.symbols == 1


def test_the_rows_recipe_learns_mnist_a_little(real_data):
    options = Classify.recipes["mnist-rows"].options
    task = Classify(type(options)(**{**vars(options), "files": (str(real_data("mnist")),)}))
    assert (len(task.training), task.batches, len(task.held_back)) == (60_000, 469, 0)
    optimizer = torch.optim.Adam(task.model.parameters(), 3e-3)
    for k in range(40):
        loss = task.loss(k, ())
        optimizer.zero_grad()
        loss.objective.backward()
        optimizer.step()
    assert loss.value < 0.6 * task.guess


def test_a_label_that_only_the_held_back_part_has_is_known(here, capsys):
    rows = [f"common\tword {i}" for i in range(11)] + ["rare\tanother", "other\tone more"]
    (here / "x.tsv").write_text("\n".join(rows))
    for seed in range(4):
        ran(capsys, "train", "classify", "x.tsv", *SMALL, "--steps", "1", "--seed", seed, "--validation", "0.6")


def test_a_set_by_its_name_is_what_it_holds(here, monkeypatch, capsys):
    from elman.data import download

    (here / "kept/toy").mkdir(parents=True)
    files = []
    for name, sizes in (("train-images-idx3-ubyte", (20, 4, 4)), ("train-labels-idx1-ubyte", (20,))):
        data = torch.randint(2, (math.prod(sizes),), dtype=torch.uint8).numpy().tobytes()
        head = b"\0\0\x08" + bytes([len(sizes)]) + b"".join(n.to_bytes(4, "big") for n in sizes)
        (here / "kept/toy" / name).write_bytes(head + data)
        files.append(download.File(f"http://nowhere/{name}", name, len(head + data), ""))
    monkeypatch.setitem(download.SETS, "toy", download.DataSet("a toy", "none", tuple(files)))
    monkeypatch.setenv("ELMAN_DOWNLOADS", str(here / "kept"))
    said = ran(capsys, "train", "classify", "toy", "--hidden", "4", "--batch", "4", "--steps", "1")
    assert "toy: 18 pictures of 2 labels" in said
