"""elman show: one page a run."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from commands import ran, refused

from elman.cell import LSTM, Elman
from elman.look.page import Section, as_data, page
from elman.task.inside import lags
from elman.task.language import LanguageModel

SMALL = (
    "--hidden 12 --embedding 5 --batch 4 --window 8 --steps 20 --report-every 5 --validate-every 10 --sample-every 10"
)

GRAPHS = ("graph-folded", "graph-unfolded", "graph-backward")


@pytest.fixture
def run(text_file, capsys):
    ran(capsys, "train", "text", text_file, *SMALL.split(), "--report-every", "5", "--sample-length", "30")
    return text_file.parent / "runs/text"


def data_of(text, name):
    return json.loads(re.search(f'<script type="application/json" id="{name}-data">(.*?)</script>', text)[1])


def test_a_page_of_a_text_run(run, capsys):
    assert ran(capsys, "show", "runs/text").strip() == "runs/text/show.html"
    text = (run / "show.html").read_text()
    assert "<svg role=" in text
    for protocol in ("stateful", "windows of 256"):
        assert f">validation: {protocol}</text>" in text
    assert not re.search(r'(src|href)="http', text)
    steps = [step for step, sample, x in data_of(text, "samples")]
    assert steps == [0, 10, 20]
    xs = [x for _, _, x in data_of(text, "samples")]
    assert xs == sorted(xs)
    found = data_of(text, "reading")
    assert (run.parent.parent / "fox.txt").read_text().endswith("".join(found["pieces"]))
    assert set(found["tracks"]) >= {"layer 1 h", "layer 1 c", "layer 1 forget_gate"}
    for units in found["tracks"].values():
        assert {len(base64.b64decode(track)) for track in units.values()} == {len(found["pieces"])}
    assert len(found["surprise"]) == len(found["expected"]) == len(found["pieces"])
    assert found["surprise"][0] is None
    assert all(0 <= p <= 1 for row in found["p"] for p in row)


def test_how_far_back_it_remembers(run, capsys):
    ran(capsys, "show", "runs/text")
    text = (run / "show.html").read_text()
    assert re.search(r"After 32 steps \S+ of what it is after 1 is left", text)
    assert "gradients flow through 8 steps" in text
    for name in ("this network", "the same, untrained", "a vanilla RNN, untrained"):
        assert f">{name}</text>" in text


def test_a_vanilla_network_forgets_faster_than_an_lstm():
    torch.manual_seed(0)
    x, y = torch.randint(0, 9, (2, 129, 4))
    norms = {cell: lags(LanguageModel(9, cell, 24, 1, 6), x, y) for cell in (Elman, LSTM)}
    assert norms[Elman].keys() == norms[LSTM].keys() == {2**k for k in range(8)}
    assert norms[Elman][64] / norms[Elman][1] < 1e-2 * norms[LSTM][64] / norms[LSTM][1]


def test_another_text_and_another_place(run, capsys):
    (run.parent.parent / "new.txt").write_text("the dog (and the fox) says hell")
    ran(capsys, "show", "runs/text", "new.txt", "--out", "new.html")
    assert "".join(data_of((run.parent.parent / "new.html").read_text(), "reading")["pieces"]).endswith("says hell")
    assert not (run / "show.html").exists()


def test_pictures_are_written_as_svg_and_png(run, capsys):
    said = ran(capsys, "show", "runs/text", "--pictures", "drawn/all")
    first, *names = said.split()
    assert first == "runs/text/show.html"
    assert {f"drawn/all/{name}.png" for name in ("training", "reach", *GRAPHS)} <= set(names)
    assert sorted(names) == sorted(str(path) for path in Path("drawn/all").iterdir())
    found = run.parent.parent / "drawn/all"
    assert "<svg" in (found / "training.svg").read_text()
    assert (found / "reach.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_shown_is_said_in_one_line(run, capsys):
    assert "no such run folder" in refused(capsys, "show", "runs/none")
    assert "no such file" in refused(capsys, "show", "runs/text", "none.txt")
    assert "there is no folder no/where" in refused(capsys, "show", "runs/text", "--out", "no/where/page.html")


def test_text_with_markup_in_it_stays_text(here, capsys):
    bad = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted\" 'text' <!-- \n"
    (here / "bad<b>.txt").write_text(bad * 60)
    ran(capsys, "train", "text", "bad<b>.txt", *SMALL.split(), "--run", "a<i>b")
    ran(capsys, "show", "a<i>b", "--out", "page.html")
    text = (here / "page.html").read_text()
    assert "alert(1)" not in re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.DOTALL)
    assert text.count("<script>") == 1
    assert "<img" not in text
    assert "<i>" not in text
    assert "</script><script>alert(1)" in "".join(data_of(text, "reading")["pieces"])


def test_only_the_pages_own_script_may_run():
    text = page("t", {}, [Section("s", "b", {"d": "</script>"})])
    script = re.search(r"<script>(.*)</script>", text, flags=re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text
    assert json.loads(as_data(["</script>", "<!--", "&"])) == ["</script>", "<!--", "&"]
    assert not set("<>&") & set(as_data("</script> & <!--"))


def test_a_run_that_ended_before_its_first_report_says_so(here, capsys):
    ran(capsys, "train", "regress", "--steps", "3")
    ran(capsys, "show", "runs/regress")
    text = (here / "runs/regress/show.html").read_text()
    assert ">ended before its first report</text>" in text
    assert "reading-data" not in text


def test_a_classifier_of_texts_shows_what_it_takes_for_what(here, capsys):
    lines = [f"{label}\t{word} <b>film</b>\n" for label, word in (("pos", "good"), ("neg", "bad"))]
    (here / "train.tsv").write_text("label\ttext\n" + "".join(lines) * 10)
    (here / "test.tsv").write_text("label\ttext\n" + "".join(lines) * 3 + "neg\tgood <b>film</b>\n")
    small = "--hidden 8 --embedding 8 --batch 4 --steps 60 --rate 0.02 --report-every 20".split()
    ran(capsys, "train", "classify", "train.tsv", *small)
    ran(capsys, "show", "runs/classify", "test.tsv")
    text = (here / "runs/classify/show.html").read_text()
    cells = re.findall(r"<td class='number' style='[^']*'>(\d*)</td>", text)
    assert cells == ["3", "1", "", "3"]  # neg and pos, by rows
    assert "1 of 7 are wrong" in text
    assert "<td>good &lt;b&gt;film&lt;/b&gt;</td><td>neg</td><td>pos</td>" in text


def test_pictures_that_were_taken_for_others_are_shown(here, capsys):
    ran(capsys, "train", "classify", "--hidden", "4", "--steps", "2")
    ran(capsys, "show", "runs/classify")
    text = (here / "runs/classify/show.html").read_text()
    assert text.count("<image ") >= 24
    assert len(re.findall(r">\d, not \d</text>", text)) == 24
