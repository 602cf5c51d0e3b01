"""What a page shows of each task: tagged sentences, alignments, spikes over a spectrogram, and where captions look."""

import math
import re
import wave
from dataclasses import replace

import pytest
import torch
from commands import ran
from PIL import Image
from safetensors.torch import save_file

from elman.data.tagged import Tagged
from elman.data.tones import spoken_tones
from elman.look import alignments, gazes, spikes, tags
from elman.task.alignment import Alignments, Translation
from elman.task.caption import Caption
from elman.task.caption import Options as CaptionOptions
from elman.task.examples import spread, worst_first
from elman.task.gazes import Gaze, Gazes
from elman.task.sentences import Rate, Rates, Sentence, Sentences, span_rates, tag_rates, tagged_sentences
from elman.task.spikes import Heard, Spike, Spikes, chosen
from elman.task.tag import Options as TagOptions
from elman.task.tag import Tag
from elman.task.transcribe import Options as TranscribeOptions
from elman.task.transcribe import Transcribe
from elman.task.translate import Options as TranslateOptions
from elman.task.translate import Translate

BAD = "<b>$x^{</b>"  # markup, and what no formula is
ESCAPED = "&lt;b&gt;$x^{&lt;/b&gt;"


def labels(texts):
    return [text.get_text() for text in texts]


def test_which_examples_are_shown():
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread([5, 6], 3) == [5, 6]
    assert worst_first("abcd", "wxyz", 4) == ["a", "b", "w", "y"]
    assert worst_first("abcd", "w", 4) == ["a", "b", "c", "w"]
    assert worst_first("a", "wx", 4) == ["a", "w", "x"]


# tag

TAGS = "--hidden 8 --embedding 6 --letter-hidden 4 --letter-embedding 5 --batch 8 --steps 40 --rate 0.02".split()
SENTENCES = [("the/D dog/N sees/V it/P", 12), ("a/D <b>cat</b>/N sees/V", 12)]
BIO = "Ann B-PER\nLee I-PER\nis O\nin O\nRome B-LOC\n\n"


def columns(text):
    return "".join(word.rpartition("/")[0] + " " + word.rpartition("/")[2] + "\n" for word in text.split()) + "\n"


@pytest.fixture
def tagger(here, capsys):
    """runs/tag, beside train.txt."""
    (here / "train.txt").write_text("".join(columns(text) * count for text, count in SENTENCES))
    ran(capsys, "train", "tag", "train.txt", *TAGS)
    return here


def test_sentences_with_the_surest_mistakes_come_first():
    def example(p, right):
        return Tagged(("w",) * len(p), right, "f", (1,) * len(p)), torch.tensor([[1 - x, x] for x in p]).log()

    right, unsure, sure = example([0.9], "N"), example([0.6, 0.9], "DN"), example([0.7, 0.2], "DD")
    view = tagged_sentences(*zip(right, unsure, sure), "DN", 9)
    assert [round(s.surest_mistake, 4) for s in view.shown] == [0.7, 0.6, 0.0]
    assert view.shown[0].found == ("N", "D")
    assert view.shown[0].p == pytest.approx((0.7, 0.8))
    assert (view.tagged, view.of) == (3, 9)
    (long,) = tagged_sentences(*zip(example([0.9] * 100, None)), "DN", 1).shown
    assert (len(long.words), long.length, long.surest_mistake) == (80, 100, 0)


def test_how_well_tags_and_spans_are_found():
    assert tag_rates("ABC", torch.tensor([[3, 1, 0], [2, 5, 0], [0, 0, 0]])) == Rates(
        False, [Rate("B", 7, 6, 5), Rate("A", 4, 5, 3)]
    )
    right = [["B-X", "I-X", "O"], ["B-Y", "B-X"]]
    assert span_rates(right, [["B-X", "O", "B-Z"], ["B-Y", "B-X"]]) == Rates(
        True, [Rate("X", 2, 2, 1), Rate("Y", 1, 1, 1), Rate("Z", 0, 1, 0)]
    )
    body = tags.rates(Rates(True, [Rate(BAD, 4, 5, 3), Rate("Z", 0, 1, 0)])).body
    assert ESCAPED in body
    numbers = re.findall(r"<td class='number'>([^<]*)</td>", body)
    assert numbers == ["4", "5", "60.0%", "75.0%", "66.7%", "0", "1", "0.0%", "", "0.0%"]


def test_a_tagged_sentence_as_it_stands_on_the_page():
    s = Sentence(("a", BAD), ("D", "<i>"), (0.99, 0.5), ("D", "<u>"), 7)
    body = tags.section(Sentences([s], 1, 1)).body
    assert "<small>D</small>" in body
    assert f"{ESCAPED} <small><s>&lt;i&gt;</s> <strong>&lt;u&gt;</strong> 0.50</small>" in body
    assert "0.40)'>&lt;b&gt;" in body  # 0.8 of 1 - p
    assert "... of 7 words" in body
    unknown = tags.section(Sentences([replace(s, right=None)], 1, 1)).body
    assert "<small>&lt;i&gt; 0.50</small>" in unknown
    assert "struck out" not in unknown
    assert "<s>" not in unknown


def test_the_page_of_a_tagger(tagger, capsys):
    (tagger / "test.txt").write_text(columns("a/D dog/N sees/V <b>cat</b>/N") + columns("the/N dog/N"))
    ran(capsys, "show", "runs/tag", "test.txt")
    text = (tagger / "runs/tag/show.html").read_text()
    assert text.count("<li>") == 2
    assert text.index("<strong>N</strong>") < text.index("&lt;b&gt;cat&lt;/b&gt;")
    cells = re.findall(r"<td class='number' style='[^']*'>(\d*)</td>", text)
    assert sum(int(cell or 0) for cell in cells) == 6
    assert "<b>" not in text
    assert "How well each is found" in text


def test_sentences_without_tags_and_a_single_one(tagger, capsys):
    (tagger / "plain.txt").write_text("the dog sees <b>cat</b>\n")
    cells = [f"{i}\t{w}" + "\t_" * 8 for i, w in enumerate(["the", "dog"], 1)]
    (tagger / "plain.conllu").write_text("\n".join(cells) + "\n\n")
    for name, words in (("plain.txt", 4), ("plain.conllu", 2)):
        ran(capsys, "show", "runs/tag", name, "--out", "page.html")
        text = (tagger / "page.html").read_text()
        assert text.count("<li>") == 1
        assert text.count("<span class='word'") == words
        assert "How well each is found" not in text
        assert "What it takes for what" not in text


def test_spans_are_counted_whole(here):
    (here / "bio.txt").write_text(BIO * 4)
    task = Tag(TagOptions(files=("bio.txt",), hidden=4, embedding=4, letter_hidden=3, letter_embedding=3, least=1))
    _, rates, _ = task.views(["bio.txt"])
    assert rates.spans
    assert {rate.name: rate.there for rate in rates.each if rate.there} == {"PER": 4, "LOC": 4}


# translate


def translation(source, target, weights):
    return Translation("".join(target), source, target, torch.tensor(weights), -1.0)


def test_the_heat_of_a_translation():
    made = translation(["▁a", BAD, "日"], ["▁x", "$"], [[0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    (axes, _) = alignments.heat(made).axes
    assert axes.images[0].get_array().tolist() == made.attention.tolist()
    assert labels(axes.get_xticklabels()) == ["a", BAD, "日"]
    assert labels(axes.get_yticklabels()) == ["x", "$"]
    section = alignments.section(Alignments(["a<i>"], [made], ["<u>"], 5))
    assert f">{ESCAPED.replace('&gt;', '>')}</text>" in section.body or f">{ESCAPED}</text>" in section.body
    assert "<dd>&lt;u&gt;</dd>" in section.body
    assert "1 of 5, evenly spread" in section.body
    assert not re.search("<[ui]>", section.body)
    assert list(section.figures) == ["alignment-1"]


def test_a_long_translation_is_cut_and_an_empty_one_has_no_picture():
    long = translation(["a"] * 70, ["b"] * 65, [[1 / 70] * 70] * 65)
    empty = translation(["a"], [], [])._replace(attention=torch.zeros(0, 1))
    section = alignments.section(Alignments(["a" * 70, "a"], [long, empty], [None, None], 2))
    assert section.figures["alignment-1"].axes[0].images[0].get_array().shape == (60, 60)
    assert "Drawn: the first 60 pieces of 70 by 65" in section.body
    assert list(section.figures) == ["alignment-1"]
    assert "reference" not in section.body


def test_the_page_of_a_translator(here, capsys):
    pairs = [("one two <b>", "eins zwei <b>"), ("two", "zwei"), ("one", "eins")] * 8
    for side, name in enumerate(("a.en", "a.de")):
        (here / name).write_text("".join(pair[side] + "\n" for pair in pairs))
    small = "--level word --least 1 --hidden 8 --embedding 8 --batch 8 --beam 2 --steps 3 --sample-every 2".split()
    ran(capsys, "train", "translate", "a.en", "a.de", *small, "--run", "run")
    for name in ("a.en", "a.de"):
        (here / f"three.{name[-2:]}").write_text("".join((here / name).read_text().splitlines(keepends=True)[:3]))
    (here / "one.txt").write_text("\ntwo one <b>\n")
    (here / "one.tsv").write_text("two\tzwei\n")
    for files, reference in ((["three.en", "three.de"], True), (["one.txt"], False), (["one.tsv"], True)):
        ran(capsys, "show", "run", *files, "--out", "page.html")
        text = (here / "page.html").read_text()
        assert ("<dt>reference</dt>" in text) == reference
        assert text.count("<dt>source</dt>") == (3 if len(files) == 2 else 1)
        assert "<b>" not in text
    task = Translate(TranslateOptions(files=("a.en", "a.de"), level="word", least=1, hidden=8, embedding=8, beam=1))
    (view,) = task.views(["one.txt"])
    assert view.sources == ["two one <b>"]
    assert len(task.views(["a.en", "a.de"])[0].sources) == 12
    assert view.made[0].attention.sum(1).tolist() == pytest.approx([1.0] * len(view.made[0].target))


# transcribe


def write_wav(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes((samples * 32767).round().to(torch.int16).numpy().astype("<i2").tobytes())


def heard(said, text, seconds=1.0):
    T = round(100 * seconds)
    p = torch.tensor([[0.25, 0.75]]).repeat(T // 2, 1)
    return Heard(f"{BAD}.wav", torch.randn(T, 6), said, text, ["$"], p, 0.02, "mel band", [Spike("$", 0.1, 0.14)])


def test_a_spectrogram_and_spikes_share_their_time():
    view = heard("a", "$")
    above, below = spikes.spectrogram(view).axes
    assert above.images[0].get_array().tolist() == view.frames.T.tolist()
    assert above.get_xlim() == below.get_xlim() == (0, 1)
    (line,) = below.lines
    assert line.get_xdata()[:2].tolist() == pytest.approx([0.01, 0.03])
    assert set(line.get_ydata()) == {0.25}
    assert [(text.get_text(), text.get_position()[0]) for text in below.texts] == [("$", pytest.approx(0.12))]


def test_a_long_recording_is_cut():
    view = heard("a", "$", 9.0)
    above, below = spikes.spectrogram(view).axes
    assert above.get_xlim() == (0, 6)
    assert len(below.lines[0].get_xdata()) == 300
    assert "Drawn: the first 6 seconds of 9.0" in spikes.said(view)


def test_names_of_neighbours_stand_at_different_heights():
    low, middle, high = spikes.LEVELS
    assert spikes.heights([0.0, 0.01, 0.02, 0.5, 0.51], 0.1) == [low, middle, high, low, middle]


def test_the_worst_heard_come_first():
    pytest.importorskip("jiwer")
    view = chosen([heard("a b", "a b"), heard("a b", "a c"), heard("a b", "x y"), heard(None, "z")], 4, "<i>")
    assert [h.heard for h in view.shown] == ["x y", "a c", "a b", "z"]
    assert view.shown[1].rates == (0.5, pytest.approx(1 / 3))
    section = spikes.section(view)
    assert "2 were heard wrong, the worst come first" in section.body
    assert "100% of words" in section.body
    assert section.body.count(f"<dd>{ESCAPED}.wav</dd>") == 4
    assert "Left out: &lt;i&gt;" in section.body
    assert list(section.figures) == ["spikes-1", "spikes-2", "spikes-3", "spikes-4"]
    assert "heard wrong" not in spikes.section(Spikes([heard(None, "z")], 1, 1, None, "")).body


def test_the_page_of_a_recogniser(here, capsys):
    rows = ["path,text"]
    for i, (samples, text) in enumerate(spoken_tones(4, 8000, seed=3)):
        write_wav(here / f"{i:02d}.wav", samples)
        rows.append(f"{i:02d}.wav,{text}")
    (here / "t.csv").write_text("\n".join(rows) + "\n")
    small = dict(hertz=8000, hidden=8, layers=1, batch=4, mels=20, beam=2)
    flags = [word for name, value in small.items() for word in (f"--{name}", value)]
    ran(capsys, "train", "transcribe", "t.csv", *flags, "--steps", 2, "--validation", "0.25", "--run", "run")
    (here / "sounds").mkdir()
    write_wav(here / "sounds" / "<b>$.wav", spoken_tones(1, 8000, seed=4)[0][0])
    for files, said in (([], 1), (["sounds"], 0), (["sounds/<b>$.wav"], 0)):
        ran(capsys, "show", "run", *files, "--out", "page.html")
        text = (here / "page.html").read_text()
        assert text.count("<dt>said</dt>") == said
        assert ("&lt;b&gt;$.wav" in text) == (said == 0)
        assert "<b>" not in text
    task = Transcribe(TranscribeOptions(files=("t.csv",), **small))
    (view,) = task.views(["t.csv", "sounds"])
    assert (view.listened, view.of, len(view.shown), view.left_out) == (5, 5, 5, "")
    assert [each.said is None for each in view.shown].count(True) == 1
    for each in view.shown:
        assert each.p.shape == (math.ceil(len(each.frames) / 2), len(each.symbols) + 1)
        assert (each.p.sum(1) <= 1 + 1e-5).all()
        assert {spike.symbol for spike in each.spikes} <= set(each.symbols)


# caption

SIDES = "--side 8 --width 16 --hidden 16 --embedding 8 --batch 8 --steps 4".split()


@pytest.fixture
def pictures(here):
    """Two pictures in a folder, and captions.csv beside it."""
    (here / "Images").mkdir()
    rows = ["image,caption"]
    for word, shade in (("dark", 20), ("light", 230)):
        Image.new("RGB", (9, 7), (shade, 50, shade)).save(here / "Images" / f"{word}<b>.png")
        rows += [f"{word}<b>.png,a {word} <b> picture"] * 2
    (here / "captions.csv").write_text("\n".join(rows) + "\n")
    return here


def test_where_a_caption_looks():
    looked = torch.rand(3, 16).softmax(1).view(3, 4, 4)
    pixels = torch.randint(256, (8, 8, 3), dtype=torch.uint8)
    view = Gaze("a.png", ["a", BAD, "$"], -1.0, [], pixels, looked)
    first, *others = gazes.looks(view).axes
    assert first.images[0].get_array().tolist() == pixels.tolist()
    assert [axes.get_title() for axes in others] == view.words
    for axes, weights in zip(others, looked):
        assert axes.images[1].get_array().tolist() == weights.tolist()
        assert axes.images[1].get_extent() == [-0.5, 7.5, 7.5, -0.5]
    (alone,) = (axes for axes in gazes.looks(replace(view, looked=None)).axes if axes.images)
    assert len(alone.images) == 1
    nothing = replace(view, words=[], looked=looked[:0])
    assert len(gazes.looks(nothing).axes[0].images) == 1
    with pytest.raises(ValueError, match="features in place of pixels"):
        gazes.looks(replace(view, pixels=None))


def test_captions_and_their_references_as_text():
    view = Gaze(BAD, ["a", "<i>"], -1.0, ["<u>"], None, None)
    body = gazes.section(Gazes([view], 1, 3, 1, 2)).body
    assert "<dd>a &lt;i&gt;</dd><dt>reference</dt><dd>&lt;u&gt;</dd>" in body
    assert "1 of 1 pictures that were captioned, of 3, evenly spread; not word for word as a reference: 1" in body
    assert "2 could not be read" in body
    assert "Features stand for pictures" in body
    assert not re.search("<[uib]>", body)


@pytest.mark.parametrize("attention", [True, False])
def test_the_page_of_a_captioner(pictures, capsys, attention):
    ran(capsys, "train", "caption", "captions.csv", *SIDES, *([] if attention else ["--no-attention"]), "--run", "run")
    given = (("captions.csv", 2, 4), ("Images", 2, 0), ("Images/dark<b>.png", 1, 0))
    for file, count, references in given if attention else given[:1]:  # a page takes seconds
        ran(capsys, "show", "run", file, "--out", "page.html")
        text = (pictures / "page.html").read_text()
        assert text.count("<dt>picture</dt>") == count
        assert text.count("<dt>reference</dt>") == references
        assert "dark&lt;b&gt;.png" in text
        assert "<b>" not in text
        assert text.count("<image ") >= count
        assert ("looks at the places" in text) == attention


def test_weights_of_places_sum_to_one(pictures):
    task = Caption(CaptionOptions(files=("captions.csv",), side=8, width=16, hidden=16, embedding=8, beam=1))
    (view,) = task.views(["Images"])
    for each in view.shown:
        assert each.looked.shape == (len(each.words), 4, 4)
        assert each.looked.sum((1, 2)).tolist() == pytest.approx([1.0] * len(each.words))


def test_captions_of_features_have_no_picture(pictures, capsys):
    save_file({f"{word}<b>.png": torch.randn(4, 6) for word in ("dark", "light")}, "features.safetensors")
    ran(capsys, "train", "caption", "captions.csv", "--features", "features.safetensors", *SIDES, "--validation", 0)
    for file in ("captions.csv", "features.safetensors"):
        ran(capsys, "show", "runs/caption", file, "--out", "page.html")
        text = (pictures / "page.html").read_text()
        assert "Features stand for pictures" in text
        assert text.count("<dt>caption</dt>") == 2


# nothing held back


def test_without_data_held_back_there_is_nothing_to_show(pictures):
    (pictures / "tags.txt").write_text(columns("the/D dog/N"))
    (pictures / "pairs.tsv").write_text("one\teins\n")
    write_wav(pictures / "a.wav", spoken_tones(1, 8000, seed=3)[0][0])
    (pictures / "t.csv").write_text("path,text\na.wav,ba\n")
    tasks = [
        Tag(TagOptions(files=("tags.txt",), validation="0", least=1)),
        Translate(TranslateOptions(files=("pairs.tsv",), validation="0", level="char", least=1)),
        Transcribe(TranscribeOptions(files=("t.csv",), validation="0", hertz=8000)),
        Caption(CaptionOptions(files=("captions.csv",), validation="0", side=8)),
    ]
    assert [task.views() for task in tasks] == [[], [], [], []]
