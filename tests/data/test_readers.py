"""Pictures, labelled texts and series as they lie in files, and files that are wrong."""

import gzip
import struct

import numpy as np
import pytest
import torch

from elman.data.files import read_lines, read_table
from elman.data.images import distort, drawn_digits, mean_and_deviation, read_idx, read_idx_folder, read_picture_folder
from elman.data.labelled import read_labelled, read_unlabelled
from elman.data.series import read_series
from elman.errors import DataError


def idx(values):
    values = np.asarray(values, np.uint8)
    return struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def test_idx_files_packed_or_not(tmp_path):
    images, labels = np.arange(24).reshape(2, 3, 4), [7, 1]
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(labels))
    assert read_idx(tmp_path / "t10k-images-idx3-ubyte.gz").tolist() == images.tolist()
    first, second = read_idx_folder(tmp_path, training=False)
    assert (first.label, second.label, second.name) == ("7", "1", "t10k 1")
    assert second.pixels[..., 0].tolist() == images[1].tolist()
    with pytest.raises(DataError, match="has no train-images-idx3-ubyte"):
        read_idx_folder(tmp_path, training=True)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx([7, 1, 2]))
    with pytest.raises(DataError, match="2 images of t10k and 3 labels"):
        read_idx_folder(tmp_path, training=False)


@pytest.mark.parametrize("data", [b"", b"\0\0\x08\x01", b"PNG....", idx([1, 2, 3])[:-1], idx([1, 2])[:6]])
def test_damaged_idx_files(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DataError, match="is not a whole idx file"):
        read_idx(tmp_path / "x")


def test_a_folder_of_pictures(tmp_path):
    from PIL import Image

    for label, size in (("cat", (6, 4)), ("dog", (12, 8))):
        (tmp_path / label).mkdir()
        Image.new("RGB", size, (255, 0, 0)).save(tmp_path / label / "1.png")
    cat, dog = read_picture_folder(tmp_path, None, grey=False)
    assert (cat.label, dog.label) == ("cat", "dog")
    assert tuple(cat.pixels.shape) == tuple(dog.pixels.shape) == (4, 6, 3)  # all have the size of the first
    assert cat.pixels[0, 0].tolist() == [255, 0, 0]
    assert read_picture_folder(tmp_path, (2, 2), grey=True)[0].pixels.shape == (2, 2, 1)
    (tmp_path / "dog" / "2.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"dog/2.png is not a readable picture"):
        read_picture_folder(tmp_path, None, grey=True)


def test_a_folder_without_pictures(tmp_path):
    with pytest.raises(DataError, match="subfolders named by label"):
        read_picture_folder(tmp_path, None, grey=True)


def test_drawn_digits_are_the_same_each_time_and_of_all_ten_kinds():
    one, two = drawn_digits(200, seed=1), drawn_digits(200, seed=1)
    assert all(torch.equal(a.pixels, b.pixels) and a.label == b.label for a, b in zip(one, two))
    assert {p.label for p in one} == set("0123456789")
    assert one[0].pixels.shape == (20, 20, 1)


def test_distortion_of_no_strength_changes_nothing():
    images = torch.rand(3, 1, 9, 7)
    torch.testing.assert_close(distort(images, 0.0), images, atol=1e-5, rtol=0)
    assert (distort(images, 1.0) - images).abs().max() > 0.1


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_labelled_texts_of_every_form(tmp_path):
    plain = read_labelled(write(tmp_path / "a.txt", "1 a good film\n\n0 bad , bad\n"))
    assert [(e.label, e.text) for e in plain] == [("1", "a good film"), ("0", "bad , bad")]
    assert plain[1].name.endswith("a.txt, line 3")
    tsv = read_labelled(write(tmp_path / "a.tsv", 'pos\tsaid "so"\nneg\tno\n'))
    assert [(e.label, e.text) for e in tsv] == [("pos", 'said "so"'), ("neg", "no")]
    head = 'id,text,label\n1,"good, very",pos\n2,bad,neg\n'
    named = read_labelled(write(tmp_path / "a.csv", head))
    assert [(e.label, e.text) for e in named] == [("pos", "good, very"), ("neg", "bad")]
    assert [e.text for e in read_unlabelled(tmp_path / "a.txt")][1] == "0 bad , bad"
    assert [e.text for e in read_unlabelled(tmp_path / "a.csv")] == ["good, very", "bad"]
    assert [e.text for e in read_unlabelled(tmp_path / "a.tsv")] == ['said "so"', "no"]
    alone = read_unlabelled(write(tmp_path / "b.csv", 'review\n"good, very"\nbad\n'))
    assert [(e.text, e.name) for e in alone] == [
        ("good, very", f"{tmp_path}/b.csv, line 2"),
        ("bad", f"{tmp_path}/b.csv, line 3"),
    ]
    assert [e.text for e in read_unlabelled(write(tmp_path / "b.csv", "so so\nbad\n"))] == ["so so", "bad"]


TEXTS = {
    "a.txt": ("1 good\n0\n", "line 2: no text"),
    "a.csv": ("1,good\n0\n", "line 2: 1 columns"),
    "b.csv": ("1,good\n ,bad\n", "line 2: no label"),
    "d.csv": ("id,review,stars\n7,good,5\n", "line 1 names no column for the label: call one label or class or"),
    "e.csv": ("sentiment,body\npos,good\n", "line 1 names no column for the text: call one text or sentence"),
    "f.csv": ("pos,good, very\n", "line 1: 3 columns without names; quote a text with commas"),
    "c.txt": ("\n\n", "holds no texts"),
    "c.csv": ("", "holds no texts"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_labelled_texts_that_are_wrong(tmp_path, name):
    text, message = TEXTS[name]
    with pytest.raises(DataError, match=message):
        read_labelled(write(tmp_path / name, text))


def test_only_line_ends_end_a_line(tmp_path):
    (tmp_path / "a").write_bytes("\ufeffone\u2028still\x85one\r\ntwo\rthree\n\n".encode())
    assert read_lines(tmp_path / "a") == ["one\u2028still\x85one", "two", "three", ""]
    (tmp_path / "a").touch()
    (tmp_path / "empty").touch()
    assert read_lines(tmp_path / "empty") == []


def test_a_table_is_read_line_by_line_with_all_its_line_ends(tmp_path):
    data = '\ufeffa,b\r\n1\u2028,2\r3,4\n\n5,"x\r\ny"\r6,7'.encode()
    rows = [(1, ["a", "b"]), (2, ["1\u2028", "2"]), (3, ["3", "4"]), (6, ["5", "x\ny"]), (7, ["6", "7"])]
    (tmp_path / "a.csv").write_bytes(data)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(data))
    assert list(read_table(tmp_path / "a.csv")) == list(read_table(tmp_path / "a.csv.gz")) == rows
    for name, bad, message in (
        ("a.csv", data + b"\n\xff\n", "a.csv, line 6: byte 0xff is not UTF-8; convert the file"),
        ("a.csv.gz", gzip.compress(data)[:-9], "a.csv.gz cannot be read: Compressed file ended"),
        ("a.csv.gz", gzip.compress(data)[:10] + b"\xff" * 30, "a.csv.gz cannot be read: Error -3"),
    ):
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(DataError, match=message):
            list(read_table(tmp_path / name))


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"1 good\n0 caf\xe9\n")
    with pytest.raises(DataError, match=r"a.txt, line 2: byte 0xe9 is not UTF-8"):
        read_labelled(tmp_path / "a.txt")
    for name, message in (("none.txt", "no such file"), (".", "is a folder")):
        with pytest.raises(DataError, match=message):
            read_labelled(tmp_path / name)


TS = """# a comment
@problemName two
@classLabel true a b
@data
1,2,3:4,5,6:a
7,8:9,10:b
"""


def test_series_of_unequal_lengths_and_several_variables(tmp_path):
    first, second = read_series(write(tmp_path / "x.ts", TS))
    assert first.values.tolist() == [[1, 4], [2, 5], [3, 6]]
    assert (second.values.tolist(), second.label) == ([[7, 9], [8, 10]], "b")
    bare = read_series(write(tmp_path / "y.ts", "@classLabel false\n@data\n1,2:3,4\n"))
    assert (bare[0].values.tolist(), bare[0].label) == ([[1, 3], [2, 4]], None)
    rows = read_series(write(tmp_path / "z.csv", "label,a,b\nup,1,2\ndown,2,1\n"))
    assert [(e.label, e.values[:, 0].tolist()) for e in rows] == [("up", [1, 2]), ("down", [2, 1])]


SERIES = {
    "a.ts": ("1,2:a\n", "line 1: values before @data"),
    "b.ts": (TS.replace("4,5,6", "4,5"), r"line 5: its variables have \[3, 2\] values"),
    "c.ts": (TS.replace("8:9", "?:9"), r"line 6: value 2 is '\?', not a number"),
    "d.ts": (TS.replace("7,8:9,10:b", "7,8:b"), "line 5 has 2 variables and .*line 6 has 1"),
    "e.ts": ("@data\n", "holds no series"),
    "f.csv": ("up,1,2\ndown,nan,1\n", "line 2: value 1 is 'nan'"),
    "g.csv": ("up\n", "line 1: 1 columns"),
}


@pytest.mark.parametrize("name", SERIES)
def test_series_that_are_wrong(tmp_path, name):
    text, message = SERIES[name]
    with pytest.raises(DataError, match=message):
        read_series(write(tmp_path / name, text))


def test_the_real_sets(real_data):
    train = read_idx_folder(real_data("mnist"), training=True)
    assert (len(train), train[0].label, tuple(train[0].pixels.shape)) == (60_000, "5", (28, 28, 1))
    assert len(read_labelled(real_data("sst/stsa.binary.train.gz"))) == 6_920
    vowels = read_series(real_data("ucr/JapaneseVowels_TRAIN.ts.gz"))
    assert len(vowels) == 270
    assert {v.values.shape[1] for v in vowels} == {12}
    assert (min(len(v.values) for v in vowels), max(len(v.values) for v in vowels)) == (7, 26)


def test_a_long_text_in_a_cell(tmp_path):
    (found,) = read_labelled(write(tmp_path / "a.csv", f"pos,{'good ' * 40_000}\n"))
    assert len(found.text) == 199_999


def test_the_mean_of_pictures_is_of_all_labels():
    pixels = [torch.full((1, 1, 1), 255.0 * (i >= 2500)) for i in range(5000)]
    assert mean_and_deviation(pixels)[0] == pytest.approx(0.5, abs=0.01)
