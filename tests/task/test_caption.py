"""Captioning from pictures to sentences, at the command line."""

import json
import math
import sys

import pytest
import torch
from commands import ran, refused
from PIL import Image
from safetensors.torch import save_file

from elman import DataError
from elman.data.captions import read_captions
from elman.task.bleu import bleu
from elman.task.caption import Caption, Options
from elman.task.captioner import Told
from elman.task.sights import Pixels

SIZES = "--side 8 --width 16 --hidden 16 --embedding 8 --batch 8".split()
SMALL = [*SIZES, *"--rate 0.02 --warmup 0 --dropout 0 --report-every 20".split()]
SHADES = {"dark": 20, "light": 230}


@pytest.fixture
def pictures(here):
    """Dark and light pictures, beside a.csv with a caption each and b.csv with two."""
    (here / "Images").mkdir()
    lines = []
    for i in range(12):
        for word, shade in SHADES.items():
            Image.new("RGB", (9, 7), (shade + i, shade, shade)).save(here / "Images" / f"{word}{i}.png")
            lines.append((f"{word}{i}.png", f"A {word} picture"))
    (here / "a.csv").write_text("image,caption\n" + "".join(f"{name},{text}\n" for name, text in lines))
    (here / "b.csv").write_text(
        "image,caption\n" + "".join(f"{name},{text}\n{name},something {text.split()[1]}\n" for name, text in lines)
    )
    return here


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_captions_from_training_to_prediction(pictures, capsys):
    said = ran(capsys, "train", "caption", "a.csv", *SMALL, "--steps", "40", "--validate-every", "20")
    assert "24 pictures, 24 captions" not in said
    assert "22 pictures, 22 captions, 5 words" in said
    assert "fused: one kernel a sequence" in said
    assert "exact  100.00% (2 of 2)" in said
    found = json.loads(ran(capsys, "score", "runs/caption", "a.csv", "--json"))
    assert list(found) == ["exact", "BLEU", "loss"]
    assert found["exact"] == 1.0
    Image.new("L", (20, 30), 240).save("new.jpg")  # of another size, kind and without colour
    dark, light = lines_of(ran(capsys, "predict", "runs/caption", "Images/dark3.png", "new.jpg", "--json"))
    assert (dark["input"], dark["caption"]) == ("Images/dark3.png", "a dark picture")
    assert (light["input"], light["caption"]) == ("new.jpg", "a light picture")
    assert -1 < light["log_prob"] < 0
    assert len(ran(capsys, "predict", "runs/caption", "Images").splitlines()) == 24


def test_a_run_that_was_stopped_ends_as_one_that_was_not(pictures, capsys):
    train = ["train", "caption", "b.csv", *SMALL, "--dropout", "0.2", "--schedule", "constant"]
    ran(capsys, *train, "--run", "whole", "--steps", "8")
    ran(capsys, *train, "--run", "half", "--steps", "5")
    ran(capsys, "train", "caption", "--run", "half", "--resume", "--steps", "8")
    assert (pictures / "whole/model.safetensors").read_bytes() == (pictures / "half/model.safetensors").read_bytes()


def test_several_captions_a_picture_are_measured_by_bleu_first(pictures, capsys):
    ran(capsys, "train", "caption", "b.csv", *SMALL, "--steps", "40", "--beam", "1")
    found = json.loads(ran(capsys, "score", "runs/caption", "b.csv", "--json"))
    assert list(found) == ["BLEU", "exact", "loss"]
    assert found["exact"] == 1.0
    assert found["BLEU"] > 99 or found["BLEU"] == 0  # of four words in a row there may be none


@pytest.mark.parametrize("context", ["input", "state", "both"])
@pytest.mark.parametrize("attention", [[], ["--no-attention"]], ids=["attention", "plain"])
def test_shapes_drawn_here_with_every_context(here, capsys, monkeypatch, context, attention):
    draw = "elman.task.caption.drawn_shapes"
    from elman.data.shapes import drawn_shapes

    monkeypatch.setattr(draw, lambda part, share, side: drawn_shapes(part, share, side)[::20])
    words = [*SMALL, "--side", "16", "--context", context, *attention]
    said = ran(capsys, "train", "caption", *words, "--steps", "20", "--report-every", "10")
    assert "coloured shapes drawn here: 848 pictures" in said
    assert "fused: one kernel a sequence" in said
    losses = [json.loads(line)["train"] for line in (here / "runs/caption/log.jsonl").read_text().splitlines()[:2]]
    assert losses[1] < losses[0] < math.log(20)


def test_the_default_learns_in_its_first_steps(here, capsys):
    said = ran(capsys, "train", "caption", "--steps", "2", "--beam", "1", "--report-every", "1")
    assert "16,944 pictures to train, 468 to validate" in said
    first = next(line for line in said.splitlines() if "exact" in line)
    assert "of 468" in first


def test_predictions_say_where_the_model_looked(pictures, capsys):
    ran(capsys, "train", "caption", "a.csv", *SMALL, "--steps", "3")
    [found] = lines_of(ran(capsys, "predict", "runs/caption", "Images/dark0.png", "--json"))
    assert [place["word"] for place in found["looked"]] == found["caption"].split()
    for place in found["looked"]:
        assert place["row"] in (0.125, 0.375, 0.625, 0.875)
        assert place["column"] in (0.125, 0.375, 0.625, 0.875)
        assert 1 / 16 <= place["weight"] <= 1


def test_where_it_looked_is_the_attention_of_the_search(pictures):
    task = Caption(Options(files=("a.csv",), side=8, width=16, hidden=16, embedding=8, beam=1))
    task.model.eval()
    seen = task.see(task.training[:3])
    told = Told(torch.tensor([[1, 2, 3], [2, 1, 1]]), torch.tensor([2, 2, 1]), torch.zeros(3))
    weights = task.model.looked(seen, told)  # (T, B, S)
    alone = task.model.looked({name: value[1:2] for name, value in seen.items()}, Told(*(t[..., 1:2] for t in told)))
    assert weights.shape == (2, 3, 16)
    assert torch.allclose(weights[:, 1:2], alone, atol=1e-6)
    assert torch.allclose(weights[:, :2].sum(-1), torch.ones(2, 2))


def test_a_beam_finds_no_less_likely_captions_than_one_word_at_a_time(pictures):
    task = Caption(Options(files=("a.csv",), side=8, width=16, hidden=16, embedding=8))
    task.model.eval()
    seen = task.see(task.training)
    wide, narrow = task.model.tell(seen, 5), task.model.tell(seen, 1)
    assert bool((wide.log_prob >= narrow.log_prob - 1e-4).all())
    whose = torch.arange(len(task.training))
    own = task.model.log_prob(seen, whose, wide.symbols, wide.lengths)
    assert torch.allclose(own, wide.log_prob, atol=1e-4)


def test_pictures_that_find_no_room_in_memory_are_read_again(pictures, monkeypatch):
    kept, read = Pixels(Options(side=8)), Pixels(Options(side=8))
    examples = kept.attach(read_captions(pictures / "a.csv"), pictures / "a.csv")
    monkeypatch.setattr("elman.task.sights.ROOM", 0)
    assert torch.equal(kept.batch(examples)[0], read.batch(examples)[0])
    assert (len(kept.kept), len(read.kept)) == (24, 0)


# features


def features_of(folder, width=5):
    draw = torch.Generator().manual_seed(0)
    found = {}
    for word, shade in SHADES.items():
        for i in range(12):
            rows = torch.randn(1 + i % 3, width, generator=draw) + shade / 100
            found[f"{word}{i}.png"] = rows if i % 3 else rows[0]
    save_file(found, folder / "features.safetensors")


@pytest.mark.parametrize("attention", [[], ["--no-attention"]], ids=["attention", "plain"])
def test_features_in_place_of_pictures(pictures, capsys, attention):
    features_of(pictures)
    words = ["a.csv", "--features", "features.safetensors", *SMALL, "--steps", "40", *attention]
    said = ran(capsys, "train", "caption", *words)
    assert "features of 5 numbers" in said
    assert "fused: one kernel a sequence" in said
    assert json.loads(ran(capsys, "score", "runs/caption", "a.csv", "--json"))["exact"] > 0.9
    other = {"x": torch.full((2, 5), 2.3), "y": torch.full((5,), 0.2)}
    save_file(other, pictures / "other.safetensors")
    found = lines_of(ran(capsys, "predict", "runs/caption", "other.safetensors", "--json"))
    assert [(each["input"], each["caption"]) for each in found] == [("x", "a light picture"), ("y", "a dark picture")]
    if not attention:
        assert {place["place"] for place in found[1]["looked"]} == {0}
    [named] = lines_of(ran(capsys, "predict", "runs/caption", "dark4.png", "--json"))
    assert named["caption"] == "a dark picture"
    (pictures / "xy.csv").write_text("image,caption\nx,a light picture\ny,a dark picture\n")
    scored = ran(capsys, "score", "runs/caption", "xy.csv", "other.safetensors")
    assert "exact  100.00% (2 of 2)" in scored
    assert "line 2: no features of x" in refused(capsys, "score", "runs/caption", "xy.csv")
    save_file({"x": torch.ones(4)}, pictures / "narrow.safetensors")
    assert "features of 4 numbers; training had 5" in refused(capsys, "predict", "runs/caption", "narrow.safetensors")
    assert "name one file of features" in refused(capsys, "predict", "runs/caption", *["other.safetensors"] * 2)
    features_of(pictures, 6)
    assert "the data of runs/caption has changed" in refused(
        capsys, "train", "caption", "--resume", "--run", "runs/caption", "--steps", "50"
    )


def test_features_of_a_picture_do_not_depend_on_those_beside_it(pictures):
    features_of(pictures)
    small = dict(width=16, hidden=16, embedding=8, batch=8)
    task = Caption(Options(files=("a.csv",), features="features.safetensors", **small))
    task.model.eval()
    some = task.training[:6]  # of one row, two and three
    whose, y, lengths = task.captions(some)
    together = task.model.log_prob(task.see(some), whose, y, lengths)
    alone = [task.model(*task.sight.batch([e]), *task.captions([e])) for e in some]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    assert len(set(together.tolist())) == 6


# bad input


WRONG = {
    "no such file": ["none.csv"],
    "--dropout 1.0: must be below 1": ["a.csv", "--dropout", "1"],
    "--width 3: must be at least 4": ["a.csv", "--width", "3"],
    "--beam 0: must be at least 1": ["a.csv", "--beam", "0"],
    "--features needs a file of captions beside it": ["--features", "x.safetensors"],
    "x.safetensors: no such file of features": ["a.csv", "--features", "x.safetensors"],
    "a.safetensors: name features by --features": ["a.csv", "a.safetensors"],
    "missing.csv, line 3: no picture none.png in ": ["missing.csv"],
    "none.png in . or the folders in it; mend or remove it, or train with --skip-unreadable to leave out all such": [
        "missing.csv"
    ],
    "torn.csv, line 2: Images/torn.png is not a readable picture": ["torn.csv"],
    "columns.csv, line 1: needs columns named image and caption": ["columns.csv"],
    "empty.csv, line 2: the caption of dark1.png is empty": ["empty.csv"],
}


@pytest.mark.parametrize("message", WRONG)
def test_bad_input_leaves_nothing_behind(pictures, capsys, monkeypatch, message):
    monkeypatch.setattr("elman.task.supervised.Path.absolute", lambda self: self)  # so that names are short
    tear(pictures)
    (pictures / "missing.csv").write_text("image,caption\ndark1.png,a dark picture\nnone.png,nothing\n")
    (pictures / "columns.csv").write_text("file,words\ndark1.png,a dark picture\n")
    (pictures / "empty.csv").write_text("image,caption\ndark1.png, \n")
    assert message in refused(capsys, "train", "caption", *WRONG[message])
    assert not (pictures / "runs").exists()


def tear(folder):
    """torn.csv: a.csv after a line with a picture whose file is cut short."""
    whole = (folder / "Images/dark1.png").read_bytes()
    (folder / "Images/torn.png").write_bytes(whole[: len(whole) // 2])
    (folder / "torn.csv").write_text((folder / "a.csv").read_text().replace("\n", "\ntorn.png,a torn picture\n", 1))


def test_unreadable_pictures_are_left_out_where_that_is_asked_for(pictures, capsys):
    tear(pictures)
    (pictures / "torn.csv").write_text((pictures / "torn.csv").read_text() + "none.png,nothing\n")
    said = ran(capsys, "train", "caption", "torn.csv", *SMALL, "--steps", "2", "--skip-unreadable")
    assert "22 pictures, 22 captions, 5 words, 2 left out as unreadable" in said
    assert "left out  2 unreadable" in ran(capsys, "score", "runs/caption", "torn.csv")
    told = ran(capsys, "predict", "runs/caption", "Images/torn.png", "Images/dark1.png").splitlines()
    assert told[0].endswith("\tImages/dark1.png")
    assert told[1].startswith("left out: Images/torn.png is not a readable picture")
    (pictures / "none.csv").write_text("image,caption\nnone.png,nothing\n")
    assert "none.csv: no picture with a caption that can be read" in refused(
        capsys, "score", "runs/caption", "none.csv"
    )


def test_bad_input_to_a_trained_run(pictures, capsys):
    ran(capsys, "train", "caption", "a.csv", *SMALL, "--steps", "2")
    tear(pictures)
    assert "name files or a folder" in refused(capsys, "predict", "runs/caption")
    assert "this run reads pictures, not features" in refused(capsys, "score", "runs/caption", "a.safetensors")
    assert "nothing.png: no such picture" in refused(capsys, "predict", "runs/caption", "nothing.png")
    assert "Images/torn.png is not a readable picture" in refused(capsys, "predict", "runs/caption", "Images/torn.png")
    (pictures / "long.csv").write_text(f"image,caption\ndark1.png,{'very ' * 50}dark and unheard of\n")
    assert "exact  0.00% (0 of 1)" in ran(capsys, "score", "runs/caption", "long.csv")


@pytest.mark.parametrize("saved", ["[]", '{"words": ["a"], "longest": 0, "size": 8}', '{"longest": 3, "size": 8}'])
def test_a_damaged_run_folder_is_refused(pictures, capsys, saved):
    ran(capsys, "train", "caption", "a.csv", *SMALL, "--steps", "1")
    (pictures / "runs/caption/caption.json").write_text(saved)
    assert "runs/caption does not fit this version of elman" in refused(capsys, "score", "runs/caption", "a.csv")


# BLEU


def test_bleu_takes_as_many_references_as_there_are():
    found = ["a dog runs on the grass", "two cats sit on a mat ."]
    assert bleu(
        found, [[found[0].title()], ["nothing of it", "Two cats sit on a mat."]], lowercase=True
    ) == pytest.approx(100)
    assert bleu(found, [["a dog runs on the road"], ["nothing of it"]]) < 60


def test_without_sacrebleu_only_several_captions_are_refused(pictures, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    assert "pip install elman[score]" in refused(capsys, "train", "caption", "b.csv", *SMALL)
    ran(capsys, "train", "caption", "a.csv", *SMALL, "--steps", "1")
    assert list(json.loads(ran(capsys, "score", "runs/caption", "--json"))) == ["exact", "loss"]
    with pytest.raises(DataError, match=r"pip install elman\[score\]"):
        bleu(["a"], [["a"]])
