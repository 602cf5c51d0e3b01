"""Files of tagged words against hand-written ones, and the made sentences."""

import gzip
import os
from pathlib import Path

import pytest

from elman import DataError
from elman.data.grammar import grammar_sentences
from elman.data.tagged import Tagged, read_tagged, read_words

CONLLU = """# sent_id = 1
# text = I don't sleep
1\tI\tI\tPRON\tPRP\tCase=Nom|Number=Sing\t4\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\tMood=Ind\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\tSpaceAfter=No
3.1\tghost\t_\tVERB\t_\t_\t_\t_\t_\t_
4\tsleep\tsleep\tVERB\tVB\tNumber=Plur\t0\troot\t_\t_

1\t10 000\t10 000\tNUM\tCD\t_\t0\troot\t_\t_
"""


@pytest.fixture
def conllu(tmp_path):
    path = tmp_path / "a.conllu"
    path.write_text(CONLLU)
    return path


def write(folder, text, name="tags.txt"):
    path = folder / name
    path.write_text(text)
    return path


COLUMNS = {
    "auto": "PRON AUX PART VERB NUM",
    "upos": "PRON AUX PART VERB NUM",
    "xpos": "PRP VBP RB VB CD",
    "5": "PRP VBP RB VB CD",
    "deprel": "nsubj aux advmod root root",
    "Number": "Sing _ _ Plur _",
}


@pytest.mark.parametrize("column", COLUMNS)
def test_conllu_without_ranges_and_empty_nodes(column, conllu):
    first, second = read_tagged(conllu, column)
    assert first.words == ("I", "do", "n't", "sleep")
    assert second.words == ("10 000",)
    assert " ".join([*first.tags, *second.tags]) == COLUMNS[column]
    assert first.lines == (3, 5, 6, 8)
    assert second.at(0) == f"{conllu}, line 10"


def test_conllu_is_known_by_its_columns_and_unpacked(tmp_path, conllu):
    path = tmp_path / "packed"
    path.write_bytes(gzip.compress(CONLLU.encode()))
    assert [s.words for s in read_tagged(path, "auto")] == [s.words for s in read_tagged(conllu, "auto")]


@pytest.mark.parametrize("between", [" ", "\t", "   "])
def test_columns(tmp_path, between):
    path = write(tmp_path, "\n\nthe DET\ncan NOUN\n\n \n# SYM\n\n".replace(" ", between))
    assert read_tagged(path, "auto") == [
        Tagged(("the", "can"), ("DET", "NOUN"), str(path), (3, 4)),
        Tagged(("#",), ("SYM",), str(path), (7,)),
    ]


def test_many_columns_and_words_with_spaces(tmp_path):
    path = write(
        tmp_path,
        "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n-DOCSTART- -X- O O\nPeter NNP B-NP B-PER\n",
    )
    assert [s.tags for s in read_tagged(path, "auto")] == [("B-ORG", "O"), ("B-PER",)]
    assert [s.tags for s in read_tagged(path, "2")] == [("NNP", "VBZ"), ("NNP",)]
    path = write(tmp_path, "New York\tB-LOC\nis\tO\n")
    assert read_tagged(path, "auto")[0].words == ("New York", "is")


def test_words_to_be_tagged(tmp_path, conllu):
    def words(path, column="auto", labels=("DET", "NOUN")):
        found = read_words(path, column, labels)
        assert all(s.tags is None for s in found)
        return [" ".join(s.words) for s in found]

    assert words(conllu) == ["I do n't sleep", "10 000"]
    assert words(write(tmp_path, "the dog\n\n  sees the can \n")) == ["the dog", "sees the can"]
    assert words(write(tmp_path, "the DET\ncan NOUN\n\na DET\n")) == ["the can", "a"]
    assert words(write(tmp_path, "the DET x\ncan NOUN x\n"), "2") == ["the can"]
    assert words(write(tmp_path, "the DET\ncan\n")) == ["the DET", "can"]
    assert words(write(tmp_path, "the\t?\ncan\t\n")) == ["the can"]
    ends = write(tmp_path, "We saw .\nShe left .\n")
    assert words(ends, "xpos", (".", "PRP")) == ["We saw .", "She left ."]
    assert words(write(tmp_path, "We saw X\nShe left it X\n"), labels=("X",)) == ["We saw X", "She left it X"]
    assert read_words(write(tmp_path, "a b\n\nc\n"), "auto", ())[1].at(0).endswith("tags.txt, line 3")


BAD = {
    "tags.txt, line 3: 1 column, 'can'; it needs a word and, in column 2, its tag": ("a DET\n\ncan\n", "auto"),
    "tags.txt, line 1: 2 columns, 'a DET'; it needs a word and, in column 4, its tag": ("a DET\n", "4"),
    "tags.txt: --column upos names a column of CoNLL-U; in this file give its number": ("a DET\n", "upos"),
    "tags.txt: --column 0 names": ("a DET\n", "0"),
    "tags.txt, line 4: 3 columns, 'New York LOC'; line 2 has 2: put tabs": ("\na O\n\nNew York LOC\n", "auto"),
    "tags.txt holds no words": ("\n \n", "auto"),
    "tags.txt, line 2: an empty tag": ("a\tDET\nb\t\n", "auto"),
    "tags.txt, line 2: an empty word": ("a\tDET\n\tDET\n", "auto"),
    "a.conllu, line 2: 3 columns, '2 b c'; CoNLL-U has ten between tabs": (
        CONLLU.splitlines()[2] + "\n2\tb\tc",
        "auto",
    ),
    "a.conllu: no word has anything for --column Nubmer; the file has columns id, form": (CONLLU, "Nubmer"),
    "features Case, Mood, Number": (CONLLU, "11"),
    "a.conllu: no word has anything for --column deps": (CONLLU, "deps"),
    "a.conllu holds no words": ("# nothing\n", "auto"),
}


@pytest.mark.parametrize("words", BAD)
def test_files_that_cannot_be(words, tmp_path):
    text, column = BAD[words]
    path = write(tmp_path, text, "a.conllu" if "conllu" in words or "features" in words else "tags.txt")
    with pytest.raises(DataError) as caught:
        read_tagged(path, column)
    assert words in str(caught.value)


def test_made_sentences_are_the_same_ones_and_ambiguous():
    one, two = grammar_sentences(300, seed=1), grammar_sentences(300, seed=1)
    assert one == two != grammar_sentences(300, seed=2)
    tags = {}
    for s in one:
        for word, tag in zip(s.words, s.tags):
            tags.setdefault(word, set()).add(tag)
    assert {"NOUN", "VERB"} <= tags["watch"]
    assert {"NOUN", "AUX"} <= tags["can"]
    assert {"DET", "PRON"} <= tags["her"]
    assert sum(len(found) > 1 for found in tags.values()) > 20


REAL = {"train": (12544, 204577), "dev": (2001, 25147), "test": (2077, 25094)}


@pytest.mark.parametrize("part", ["dev", "test"])
def test_the_english_web_treebank(part):
    folder = Path(os.environ.get("ELMAN_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = folder / "ud_english_ewt" / f"en_ewt-ud-{part}.conllu.gz"
    if not path.is_file():
        pytest.skip(f"no {path}: set ELMAN_DATA to a folder that holds ud_english_ewt")
    found = read_tagged(path, "auto")
    assert (len(found), sum(len(s.words) for s in found)) == REAL[part]
    assert len({tag for s in found for tag in s.tags}) == 17
