"""Pictures with captions as files give them, features by name, and the pictures drawn here."""

import csv
import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from elman import DataError
from elman.data.captions import pictures_of, read_captions, with_pictures, words_of
from elman.data.features import Features
from elman.data.images import read_picture
from elman.data.shapes import EACH, KINDS, PAIRS, drawn_shapes, write_shapes


def picture(path, shade=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (shade, 0, 0)).save(path)


def test_csv_gathers_the_captions_of_a_picture(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text('caption,Image,by\n"a dog, running",a.png,x\na cat,b.png,y\n a dog ,a.png,z\n')
    first, second = read_captions(path)
    assert first[:3] == ("a.png", ("a dog, running", "a dog"), f"{path}, line 2")
    assert second[:3] == ("b.png", ("a cat",), f"{path}, line 3")
    (tmp_path / "x.tsv").write_text('image\tcaption\na.png\tsays "hi"\n')
    assert read_captions(tmp_path / "x.tsv")[0].captions == ('says "hi"',)


def test_the_layout_of_flickr8k(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / "Images" / name)
    (tmp_path / "Flickr8k.token.txt").write_text("a.jpg#0\tA dog .\na.jpg#1\tA big dog .\nb.jpg#0\tA cat #1\n")
    found = with_pictures(read_captions(tmp_path), tmp_path)
    assert [e.captions for e in found] == [("A dog .", "A big dog ."), ("A cat #1",)]
    assert [e.picture for e in found] == [tmp_path / "Images" / "a.jpg", tmp_path / "Images" / "b.jpg"]
    (tmp_path / "captions.txt").write_text("image,caption\nb.jpg,a kitten\n")
    assert [e.captions for e in read_captions(tmp_path)] == [("a kitten",)]


def test_the_layout_of_coco(tmp_path):
    picture(tmp_path / "train2017" / "0001.jpg")
    path = tmp_path / "annotations" / "captions_train2017.json"
    path.parent.mkdir()
    images = [{"id": 7, "file_name": "0001.jpg"}, {"id": 8, "file_name": "0002.jpg"}]
    told = [{"image_id": i, "id": n, "caption": c} for n, (i, c) in enumerate([(7, "a bus"), (8, "a sky"), (7, "bus")])]
    path.write_text(json.dumps({"images": images, "annotations": told}))
    found = with_pictures(read_captions(path), path)
    assert [(e.name, e.captions) for e in found] == [("0001.jpg", ("a bus", "bus")), ("0002.jpg", ("a sky",))]
    assert [e.picture for e in found] == [tmp_path / "train2017" / "0001.jpg", None]
    assert [e.name for e in read_captions(path.parent)] == ["0001.jpg", "0002.jpg"]


WRONG = {
    "x.csv, line 1: needs columns named image and caption in its first line; it has file, words": (
        "x.csv", "file,words\na.png,a dog\n",
    ),
    "x.csv, line 1: needs columns named image and caption in its first line; it has nothing": ("x.csv", ""),
    "x.csv, line 3: the caption of a.png is empty; write one": ("x.csv", "image,caption\na.png,a dog\na.png,  \n"),
    "x.csv, line 2: needs an image and a caption; it has ['a.png']": ("x.csv", "image,caption\na.png\n"),
    "x.csv, line 2: needs an image and a caption; it has ['', 'x']": ("x.csv", "image,caption\n,x\n"),
    "x.csv holds no captions": ("x.csv", "image,caption\n"),
    "x.txt, line 2: expected name.jpg#0, a tab and a caption; it has 'b.jpg a cat'": (
        "x.txt", "a.jpg#0\ta dog\nb.jpg a cat\n",
    ),
    "x.json is not JSON of COCO's kind (KeyError: 'images')": ("x.json", "{}"),
    "x.json is not JSON of COCO's kind (JSONDecodeError": ("x.json", "{"),
    "x.json, annotation 0: image_id 3 is not among its images": (
        "x.json", '{"images": [], "annotations": [{"image_id": 3, "caption": "x"}]}',
    ),
    "should hold one file of captions, as captions.csv; it has none": ("", ""),
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_files_of_captions_that_cannot_be_used(tmp_path, message):
    name, text = WRONG[message]
    path = tmp_path / name
    if name:
        path.write_text(text)
    with pytest.raises(DataError) as error:
        read_captions(path)
    assert message in str(error.value)


def test_two_files_of_captions_in_a_folder_are_not_guessed_between(tmp_path):
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text("image,caption\na.png,x\n")
    with pytest.raises(DataError, match=r"it has one.csv, two.csv: name the file"):
        read_captions(tmp_path)


def test_pictures_to_be_captioned(tmp_path):
    for name in ("b.png", "a.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    assert [e.picture.name for e in pictures_of([tmp_path, tmp_path / "b.png"])] == ["a.png", "b.png", "b.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no pictures"):
        list(pictures_of([tmp_path / "empty"]))


def test_words_are_in_lower_case_and_punctuation_apart():
    assert words_of("A man's well-known Dog, running.") == ["a", "man's", "well-known", "dog", ",", "running", "."]


def test_features_of_one_row_or_several(tmp_path):
    path = tmp_path / "f.safetensors"
    save_file({"a.png": torch.arange(6.0).view(2, 3), "b": torch.ones(3).half()}, path)
    features = Features(path)
    assert features.width == 3
    assert "b.jpg" in features
    assert "c.jpg" not in features
    assert features.rows("a.png", 3).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert features.rows("b.jpg", 3).tolist() == [[1, 1, 1]]
    with pytest.raises(DataError, match="has features of 3 numbers; training had 4"):
        features.rows("a.png", 4)


def test_features_that_cannot_be_used(tmp_path):
    path = tmp_path / "f.safetensors"
    with pytest.raises(DataError, match="no such file of features"):
        Features(path)
    path.write_bytes(b"not features")
    with pytest.raises(DataError, match="is not a whole safetensors file"):
        Features(path)
    save_file({"a": torch.ones(3), "b": torch.ones(2, 4)}, path)
    with pytest.raises(DataError, match=r"b is \(2, 4\); features are \(S, M\) or \(M,\) with one M, here 3"):
        Features(path)
    save_file({"a": torch.tensor([1.0, float("nan")])}, path)
    with pytest.raises(DataError, match="the features of a are not all finite"):
        Features(path).rows("a", 2)


def test_no_pair_of_objects_is_in_two_parts():
    def pairs(part):
        captions = [e.captions[0] for e in drawn_shapes(part, 0.1, 8)]
        return [tuple(kind for kind in KINDS if f"a {kind}" in caption) for caption in captions]

    parts = {part: pairs(part) for part in EACH}
    assert all(len(pair) == 2 for found in parts.values() for pair in found)
    assert sum(len(set(found)) for found in parts.values()) == len(PAIRS) == len(set().union(*parts.values()))
    assert {part: len(found) for part, found in parts.items()} == {"train": 16944, "validation": 468, "test": 516}
    assert not drawn_shapes("validation", 0.0, 8)


def test_drawn_objects_stand_as_their_caption_says():
    colours = {"red": (0, 1, 2), "blue": (2, 0, 1)}  # a channel that is bright, and two that are dark
    checked = 0
    for e in drawn_shapes("validation", 0.1, 32):
        words = e.captions[0].split()
        if {words[1], words[-2]} != {"red", "blue"}:
            continue
        place = {}
        for colour, (bright, *dark) in colours.items():
            pixels = e.picture.float()
            mask = (pixels[..., bright] > 150) & (pixels[..., dark].amax(-1) < 150)
            place[colour] = mask.nonzero().float().mean(0)
        row, column = (place[words[1]] - place[words[-2]]).tolist()
        assert {"above": row < -5, "below": row > 5, "left": column < -5, "right": column > 5}[words[3]], e.captions
        assert words[1] == "blue"  # named first: its colour comes first in the alphabet
        checked += 1
    assert checked > 20


def test_the_test_part_as_files(tmp_path):
    assert write_shapes(tmp_path) == 516
    found = with_pictures(read_captions(tmp_path), tmp_path)
    drawn = drawn_shapes("test", 0.1, 32)
    assert [e.captions for e in found] == [e.captions for e in drawn]
    assert torch.equal(read_picture(found[7].picture, None, grey=False), drawn[7].picture)
    with open(tmp_path / "captions.csv", newline="") as file:
        assert next(csv.reader(file)) == ["image", "caption"]
