"""Tables and folders of recordings with transcripts."""

import os
import tarfile
from pathlib import Path

import pytest

from elman import DataError
from elman.data.recordings import DIGITS, read_entries
from elman.data.sound import read_cepstra
from elman.data.tones import TONES, WORDS, spoken_tones


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(path, training=True):
    return [(entry.path.name, entry.text) for entry in read_entries(path, training)]


def test_tables_with_and_without_a_head(tmp_path):
    touch(tmp_path, "a.wav", "deep/b.flac")
    (tmp_path / "t.csv").write_text('id,Transcript,file\n1,"one,  two",a.wav\n2,three,deep/b.flac\n')
    assert found(tmp_path / "t.csv") == found(tmp_path) == [("a.wav", "one, two"), ("b.flac", "three")]
    (tmp_path / "u.tsv").write_text("a.wav\tone two\n")
    assert found(tmp_path / "u.tsv") == [("a.wav", "one two")]
    with pytest.raises(DataError, match=r"holds 2 tables, t\.csv, u\.tsv"):
        read_entries(tmp_path, True)


def test_librispeech_folders(tmp_path):
    touch(tmp_path, "1/2/1-2-0000.flac", "1/2/1-2-0001.wav")
    (tmp_path / "1/2/1-2.trans.txt").write_text("1-2-0000 HE SAID\n1-2-0001 NO\n")
    assert found(tmp_path) == [("1-2-0000.flac", "HE SAID"), ("1-2-0001.wav", "NO")]


def test_fsdd_names(tmp_path):
    touch(tmp_path, *(f"recordings/{d}_jane_doe_{i}.wav" for d in (0, 7) for i in (0, 4, 5, 49)))
    assert found(tmp_path) == [
        ("0_jane_doe_49.wav", "zero"), ("0_jane_doe_5.wav", "zero"),
        ("7_jane_doe_49.wav", "seven"), ("7_jane_doe_5.wav", "seven"),
    ]  # fmt: skip
    assert [name for name, _ in found(tmp_path, training=False)] == [
        "0_jane_doe_0.wav", "0_jane_doe_4.wav", "7_jane_doe_0.wav", "7_jane_doe_4.wav"
    ]  # fmt: skip


def an4(folder):
    touch(folder, "feat/x/a-b.mfc", "feat/x/c-d.mfc", "feat/y/e-f.mfc")
    (folder / "an4_train.fileids").write_text("x/a-b\nx/c-d\n")
    (folder / "an4_train.transcription").write_text("G M  NINE (a-b)\n<s> YES </s> (c-d)\n")
    (folder / "an4_test.fileids").write_text("y/e-f\n")
    (folder / "an4_test.transcription").write_text("NO (e-f)\n")
    return folder


def test_an4_lists(tmp_path):
    assert found(an4(tmp_path)) == [("a-b.mfc", "G M NINE"), ("c-d.mfc", "YES")]
    assert found(tmp_path, training=False) == [("e-f.mfc", "NO")]
    touch(tmp_path, "wav/y/e-f.wav")
    assert found(tmp_path, training=False) == [("e-f.wav", "NO")]


def test_an4_whose_lists_do_not_pair_up(tmp_path):
    (an4(tmp_path) / "an4_train.transcription").write_text("G M NINE (a-b)\nYES (c-e)\n")
    with pytest.raises(DataError, match=r"an4_train\.transcription, line 2: 'YES \(c-e\)' does not end with \(c-d\)"):
        read_entries(tmp_path, True)
    (tmp_path / "an4_train.transcription").write_text("G M NINE (a-b)\n")
    with pytest.raises(DataError, match=r"an4_train\.fileids has 2 lines and .*an4_train\.transcription 1"):
        read_entries(tmp_path, True)
    (tmp_path / "an4_train.transcription").unlink()
    with pytest.raises(DataError, match=r"has 0 files \*_train\.transcription; it needs one"):
        read_entries(tmp_path, True)


def test_an4_whose_features_are_still_packed(tmp_path):
    (an4(tmp_path) / "feat").rename(tmp_path.parent / "elsewhere")
    touch(tmp_path, "feat.tar.gz")
    with pytest.raises(DataError, match=r"no folder feat of \.mfc files; unpack it: tar xzf .*feat\.tar\.gz -C"):
        read_entries(tmp_path, True)


BAD = {
    r"t\.csv, line 3: an empty transcript": "path,text\na.wav,one\na.wav, \n",
    r"t\.csv, line 2: its recording .*b\.wav is not there": "path,text\nb.wav,one\n",
    r"t\.csv, line 2: 1 columns; it needs a path and a text": "path,text\na.wav\n",
    r"t\.csv names no recordings": "path,text\n",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_tables(words, tmp_path):
    touch(tmp_path, "a.wav")
    (tmp_path / "t.csv").write_text(BAD[words])
    with pytest.raises(DataError, match=words):
        read_entries(tmp_path / "t.csv", True)


def test_folders_of_no_known_layout(tmp_path):
    with pytest.raises(DataError, match=r"holds no recordings; it needs a table"):
        read_entries(tmp_path, True)
    touch(tmp_path, "recordings.tar.gz")
    with pytest.raises(DataError, match=r"holds no recordings; unpack it: tar xzf .*recordings\.tar\.gz -C"):
        read_entries(tmp_path, True)
    (tmp_path / "recordings.tar.gz").unlink()
    touch(tmp_path, "a.wav")
    with pytest.raises(DataError, match=r"holds 1 recordings without transcripts; it needs a table"):
        read_entries(tmp_path, True)
    with pytest.raises(DataError, match="no such file or folder"):
        read_entries(tmp_path / "nowhere", True)
    with pytest.raises(DataError, match=r"a\.wav: no table of recordings"):
        read_entries(tmp_path / "a.wav", True)


def test_made_sounds_are_the_same_each_time_and_as_long_as_their_letters():
    sounds = spoken_tones(20, 8000, seed=1)
    again = spoken_tones(20, 8000, seed=1)
    assert all((a == c).all() and b == d for (a, b), (c, d) in zip(sounds, again))
    for samples, text in sounds:
        assert 2 <= len(text.split()) <= 5
        assert set(text.split()) <= set(WORDS)
        letters = sum(letter in TONES for letter in text)
        assert 0.06 < len(samples) / 8000 / letters < 0.15


def data_folder(name):
    """A folder of real data, or a skip that says where it was looked for."""
    path = Path(os.environ.get("ELMAN_DATA", Path(__file__).parents[3] / "shared" / "data")) / name
    if not path.is_dir():
        pytest.skip(f"no {path}: set ELMAN_DATA to a folder that holds {name}")
    return path


def test_the_real_fsdd_by_its_names(tmp_path):
    with tarfile.open(data_folder("fsdd") / "recordings.tar.gz") as packed:
        names = [name for name in packed.getnames() if name.endswith(".wav")]
    touch(tmp_path, *names)
    train, test = read_entries(tmp_path, True), read_entries(tmp_path, False)
    assert (len(train), len(test)) == (2700, 300)
    assert {entry.text for entry in test} == set(DIGITS)


def test_the_real_an4(tmp_path):
    folder = data_folder("an4_mfcc")
    for name in ("an4_train.fileids", "an4_train.transcription", "an4_test.fileids", "an4_test.transcription"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with tarfile.open(folder / "feat.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    train, test = read_entries(tmp_path, True), read_entries(tmp_path, False)
    assert (len(train), len(test)) == (948, 130)
    assert sum(len(entry.text.split()) for entry in train) == 5442
    assert sum(len(entry.text.split()) for entry in test) == 773
    assert sum(len(read_cepstra(entry.path)) for entry in test) // 6000 == 5  # minutes
