"""The drawn graph of a step is the traced one; elman graph, and its section on the page of a run."""

import re
from functools import cache
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
import torch
from cells import CELLS
from commands import ran, refused
from torch import nn

import elman
from elman import cell
from elman.cell import GRU, LSTM, Attend, Conditioned, Deep
from elman.compiler import unfold
from elman.compiler.derive import derive
from elman.compiler.graph import LEAVES, Op
from elman.compiler.simplify import simplify
from elman.look import drawing, graph
from elman.look.page import svg_of
from elman.look.scene import HEIGHT, Setting
from elman.look.steps import of_model
from elman.module.explain import calls_in
from elman.module.step_graph import step_graph

OWN = """
import torch
from torch import nn
import elman

class Leaky(elman.Cell):
    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.U = nn.Linear(input_size, hidden_size)
        self.W = nn.Parameter(torch.eye(hidden_size))

    def step(self, x, level):
        new = torch.tanh(self.U(x) + level @ self.W)
        self.watch("what's <b>$new_1$</b>", new)
        level = 0.9 * level + 0.1 * new
        return level, (level,)

class Fourier(elman.Cell):
    def step(self, x, h):
        h = torch.fft.fft(h).real + x.mean(-1, keepdim=True)  # here
        return h, (h,)

class Wide(elman.Cell):
    def __init__(self, input_size, hidden_size, depth):
        super().__init__(input_size, hidden_size)

class Empty(elman.Cell):
    pass

class Biased(elman.Cell):
    def step(self, x, h, *, bias):
        return x, (h + bias,)

class Broken(elman.Cell):
    def __init__(self, input_size, hidden_size):
        raise LookupError("no such\\nlayer")

class Misspelt(elman.Cell):
    def step(self, x, h):
        return x, (self.U(h),)

jordan = elman.cell.Jordan(4, 5, 3)
number = 3
"""


DRAWN = {
    **CELLS,
    "lstm2d": cell.LSTM2D,
    "drop-connect": lambda I, H: cell.DropConnect(LSTM(I, H), "W.weight", 0.5),  # noqa: E741
    "variational": lambda I, H: cell.Variational(cell.Zoneout(GRU(I, H), 0.1), 0.1, 0.2, 0.3),  # noqa: E741
}


@pytest.fixture
def own(here):
    (here / "own.py").write_text(OWN)
    return here


@cache
def graph_of(kind):
    torch.manual_seed(0)
    return step_graph(DRAWN[kind](3, 5))


def ids_in(svg, *prefixes):
    """The ids in an SVG as it is written, by prefix; each is there once."""
    found = [e.get("id") for e in ElementTree.fromstring(svg).iter() if (e.get("id") or "").startswith(prefixes)]
    assert len(found) == len(set(found))
    return set(found)


def names(loop):
    """What every node of a loop must be called."""
    computed = [n for n in loop.nodes() if n.op not in LEAVES]
    numbers = [n for n in loop.nodes() if n.op is Op.CONST]
    found = {n: f"v{i}" for i, n in enumerate(computed)} | {n: f"const{i}" for i, n in enumerate(numbers)}
    return found | {n: f"{n.op.name.lower()}:{n.arg}" for n in loop.nodes() if n not in found}


def expected(loop):
    """The ids of nodes and edges that the picture of a loop must have."""
    name = names(loop)
    nodes = {f"node-{name[n]}" for n in loop.nodes()}
    return nodes, {f"edge-{name[s]}-{name[n]}" for n in loop.nodes() for s in n.src}


def test_every_cell_of_elman_is_among_those_drawn():
    there = {type(part).__name__ for make in DRAWN.values() for part in make(3, 5).modules()}
    assert {name for name in cell.__all__ if name not in ("Cell", "Around", "watch")} <= there


@pytest.mark.parametrize("kind", DRAWN)
def test_the_drawn_graph_is_the_traced_one(kind):
    torch.manual_seed(0)
    made = DRAWN[kind](3, 5)
    x = torch.zeros(2, 2, made.input_size)
    with elman.backend("reference"):
        traced = calls_in(lambda: elman.Recurrent(made)(x, **made.example(x)))[0].plan.program.loop
    wanted = ["x", *traced.carried, *traced.leaves(Op.SHARED)]
    back = simplify(derive(traced, ["y"], wanted)[1])
    found = graph_of(kind)
    for loop, shown in ((traced, found.forward), (back, found.backward)):
        svg = svg_of(graph.drawn(Setting(drawing.folded(found, shown)).scene()))
        nodes, edges = expected(loop)
        assert ids_in(svg, "node-") == nodes
        assert ids_in(svg, "edge-") == edges
        outputs = {f"output-out:{k}" for k in loop.per_step} | {f"output-carried:{k}" for k in loop.carried}
        assert ids_in(svg, "output-") == outputs | {f"output-summed:{k}" for k in loop.summed}
        read = loop.leaves(Op.STATE)
        assert ids_in(svg, "loop-") == {f"loop-carried:{k}-state:{k}" for k in loop.carried if k in read}


@pytest.mark.parametrize("kind", DRAWN)
def test_unfolding_draws_the_loop_once_a_step_and_all_else_once(kind):
    found, steps = graph_of(kind), 4
    loop = found.forward
    inside = {n for n, part in unfold(loop).items() if n.op is Op.STATE or (part == "during" and n.op is not Op.CONST)}
    svg = svg_of(graph.drawn(Setting(drawing.folded(found, loop), steps).scene()))
    outside = len(loop.nodes()) - len(inside)
    assert len(ids_in(svg, "node-")) == outside + steps * len(inside)
    lines = {(s, n) for n in loop.nodes() for s in n.src}
    each = sum(bool(inside & {s, n}) for s, n in lines)
    assert len(ids_in(svg, "edge-")) == len(lines) - each + steps * each
    assert len(ids_in(svg, "loop-")) == (steps - 1) * len(loop.leaves(Op.STATE))
    shared = {f"node-shared:{name}" for name in loop.leaves(Op.SHARED)}
    assert ids_in(svg, "node-shared:") == shared


@pytest.mark.parametrize("kind", DRAWN)
def test_nothing_lies_on_anything_else(kind):
    found = graph_of(kind)
    for loop, steps in ((found.forward, 0), (found.forward, 3), (found.backward, 0)):
        scene = Setting(drawing.folded(found, loop), steps).scene()
        wide, high = scene.size
        boxes = {}
        for name, (x, y) in scene.at.items():
            half = scene.widths[name] / 2
            boxes[name] = (x - half, y - HEIGHT / 2, x + half, y + HEIGHT / 2)
        for a, b in combinations(boxes.values(), 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert all(min(a) >= 0 and a[2] <= wide and a[3] <= high for a in boxes.values())
        for line, points in scene.ends.items():
            way = [p for ends in pairwise(points) for p in graph.sampled(*ends, line in scene.smooth)]
            assert all(0 <= x <= wide and 0 <= y <= high for x, y in way)
            others = [box for name, box in boxes.items() if name not in (line.source, line.target)]
            assert not any(a[0] + 1 < x < a[2] - 1 and a[1] + 1 < y < a[3] - 1 for x, y in way for a in others)


def test_labels_say_what_is_computed():
    svg = svg_of(graph.folded(LSTM(8, 16)))
    for words in ("x(t)", "h(t-1)", "c(t-1)", "U x(t)", "W h(t-1)", "slice 0:16", "tanh", "y(t)", "h(t)", "64 x 8"):
        assert f">{words}</text>" in svg, words
    assert re.search(r">v\d+ · forget gate · 16</text>", svg)
    assert "before the loop: all steps at once" in svg
    assert "during the loop: step by step" in svg
    svg = svg_of(graph.unfolded(LSTM(8, 16), steps=2))
    for words in ("x(1..2)", "step 1", "step 2", "h(0)", "W h(1)", "c(2)"):
        assert f">{words}</text>" in svg, words
    assert "step 3" not in svg
    svg = svg_of(graph.backward(LSTM(8, 16)))
    for words in ("dL/dy(t)", "dL/dh(t)", "dL/dh(t-1)", "dL/dx(t)", "dL/dW", "dL/dU.bias", "forget gate(t)", "c(t-1)"):
        assert f">{words}</text>" in svg, words
    assert re.search(r">Σ v\d+ h\(t-1\)ᵀ</text>", svg)
    assert "after the loop: all steps at once" in svg


def test_a_picture_is_the_same_each_time():
    assert svg_of(graph.folded(GRU(3, 4))) == svg_of(graph.folded(GRU(3, 4)))


def test_sources_of_which_the_order_matters_are_named():
    svg = svg_of(graph.folded(CELLS["jumpy"](3, 4)))
    for words in ("level\\(t-1\\) \u2212 v\\d+", r"0 &lt; v\d+", r"v\d+ \? v\d+ : v\d+", r"1 / v\d+"):
        assert re.search(f">{words}</text>", svg), words


def test_graph_writes_a_page_of_a_built_in_cell(here, capsys):
    assert ran(capsys, "graph", "lstm").strip() == "graph.html"
    text = (here / "graph.html").read_text()
    assert text.count("<svg role=") == 3
    assert '<option value="1">unfolded over 3 steps</option>' in text
    assert "<dt>widths</dt><dd>x 8, h 16, c 16</dd>" in text
    assert "v2 = matmul(h(t-1), self.W.weight, transposed)" in text
    assert ", prev:h(t))" in text
    assert len(re.findall(r' id="\w{8}-node-v2"', text)) == 2  # folded, backward
    assert len(re.findall(r' id="\w{8}-node-v2@\d"', text)) == 3
    said = ran(capsys, "graph", "layer-norm-lstm", "--hidden", "4", "--steps", "1", "--pictures", "all").split()
    assert said == ["graph.html", *(f"all/{k}.{f}" for k in ("folded", "unfolded", "backward") for f in ("svg", "png"))]
    assert 'id="node-shared:self.normal_c.weight"' in (here / "all/folded.svg").read_text()
    assert ran(capsys, "graph", "ElmanReLU", "--out", "relu.html").strip() == "relu.html"


def test_graph_of_a_cell_in_a_file(own, capsys):
    ran(capsys, "graph", "own.py:Leaky", "--input", "3", "--hidden", "5")
    text = (own / "graph.html").read_text()
    assert "<h1>Leaky: the graph of its step</h1>" in text
    assert re.search(r"<dt>step</dt><dd>own.py:\d+</dd>", text)
    assert ">Wᵀ level(t-1)</text>" in text
    assert "what's &lt;b&gt;$new 1$&lt;/b&gt;" in text
    assert "<b>" not in text
    ran(capsys, "graph", "own.py:jordan")
    assert "x 4, " in (own / "graph.html").read_text()


def test_a_file_imports_what_lies_beside_it(own, capsys, monkeypatch):
    (own / "beside").mkdir()
    (own / "beside/cells_of_mine.py").write_text(OWN)
    (own / "beside/more.py").write_text("from cells_of_mine import Leaky\n")
    ran(capsys, "graph", "beside/more.py:Leaky")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("own.py:Fourier", r"Fourier has no graph: own.py:\d+: the step uses _fft_r2c, which has no place in elman's"),
        ("own.py:Wide", r"Wide\(input_size, hidden_size, depth\) is not made from input and hidden width alone"),
        ("own.py:Empty", "Empty has no step: define step"),
        ("own.py:Biased", r"Biased requires the context bias: let Biased.example\(x\) say what it could be"),
        ("own.py:Broken", r"own.py:Broken: LookupError: no such layer \(own.py:\d+\)"),
        ("own.py:Misspelt", r"own.py:Misspelt: AttributeError: 'Misspelt' object has no attribute 'U' \(own.py:\d+\)"),
        ("own.py:number", "own.py:number is no cell but a int"),
        ("own.py:Leeky", r"own.py has no 'Leeky'; cells in it: Leaky, Fourier"),
        ("own.py", "name the cell in it too, as own.py:MyCell"),
        ("none.py:Cell", "none.py: no such file"),
        ("own.txt:Cell", "own.txt is no Python file"),
        ("bad.py:Cell", r"bad.py:Cell: NameError: name 'lamp' is not defined \(bad.py:2\)"),
        ("wrong.py:Cell", "wrong.py:Cell: SyntaxError: "),
        ("stops.py:Cell", "stops.py:Cell: SystemExit: 3"),
        ("lsmt", r"unknown cell 'lsmt': it is one of Elman, .*ElmanReLU, GRU, .*LSTM.*, or FILE.py:NAME"),
        ("jordan", r"Jordan\(input_size, hidden_size, output_size\) is not made from input and hidden width alone"),
    ],
)
def test_what_has_no_graph_is_said_in_one_line(own, capsys, what, said):
    (own / "bad.py").write_text("\nlamp\n")
    (own / "wrong.py").write_text("class (:\n")
    (own / "stops.py").write_text("raise SystemExit(3)\n")
    assert re.search(said, refused(capsys, "graph", what))
    assert not (own / "graph.html").exists()


def test_numbers_that_are_none(here, capsys):
    assert "unfolded over 1 to 20 steps; got 0" in refused(capsys, "graph", "lstm", "--steps", "0")
    assert "hidden_size must be a whole number of at least 1" in refused(capsys, "graph", "lstm", "--hidden", "0")
    assert "there is no folder no/where" in refused(capsys, "graph", "lstm", "--out", "no/where/page.html")
    with pytest.raises(elman.OptionError, match="over 1 to 20 steps; got 21"):
        graph.unfolded(LSTM(2, 3), steps=21)


@pytest.mark.parametrize("words", [("graph", "lstm"), ("show", "runs/text")])
def test_a_page_is_not_written_under_a_pictures_name(here, capsys, words):
    said = refused(capsys, *words, "--out", "lstm.png")
    assert "got 'lstm.png': name it lstm.html" in said
    assert not list(here.glob("lstm.*"))


def test_a_cell_may_say_what_its_context_could_be():
    class Shifted(elman.Cell):
        def step(self, x, h, *, by):
            return h, (torch.tanh(h + by),)

        def example(self, x):
            return {"by": x.new_zeros(x.shape[1], self.hidden_size)}

    assert "node-fixed:by" in ids_in(svg_of(graph.folded(Shifted(2, 3))), "node-")


class Memoryless(elman.Cell):
    def step(self, x):
        return 2 * x, ()


class Delay(elman.Cell):
    """A state that is nothing but the input before."""

    def step(self, x, h):
        return h, (x,)


class Forgetful(elman.Cell):
    """A state that no step reads."""

    def step(self, x, h):
        return x, (torch.zeros_like(h),)


@pytest.mark.parametrize("kind", [Memoryless, Delay, Forgetful])
def test_cells_with_hardly_a_loop_are_drawn_too(kind):
    found = step_graph(kind(4, 4))
    for loop, picture in ((found.forward, graph.folded), (found.backward, graph.backward)):
        svg = svg_of(picture(kind(4, 4)))
        assert (ids_in(svg, "node-"), ids_in(svg, "edge-")) == expected(loop)
    assert len(ids_in(svg_of(graph.unfolded(kind(4, 4), 2)), "node-step:x")) == 1


def test_a_model_shows_each_distinct_cell_once():
    (section,) = of_model(elman.Stacked(LSTM(3, 4), nn.Dropout(0.1), LSTM(4, 4), LSTM(4, 4)))
    assert section.title == "The graph of its step"
    assert [*section.figures] == ["graph-folded", "graph-unfolded", "graph-backward"]
    assert "LSTM (parts.0, parts.2, parts.3), folded" in section.body
    assert "Widths as in parts.0." in section.body
    both = elman.Stacked(elman.Bidirectional(LSTM(3, 4), LSTM(3, 4)), GRU(8, 4))
    (section,) = of_model(both)
    assert len(section.figures) == 6
    assert "LSTM (parts.0.parts.0, parts.0.parts.1), folded" in section.body
    assert "GRU (parts.1), backward" in section.body


def test_a_decoder_is_drawn_as_it_is_taught():
    decoder = Conditioned(Attend(Deep(LSTM(2 + 4, 4), GRU(4, 4)), memory_size=3), 5, into="state")
    (section,) = of_model(elman.SequenceModel(decoder, symbols=7, embedding_size=2, stop="end", longest=9))
    assert "Conditioned(Attend(Deep(LSTM, GRU))) (fed), folded" in section.body
    assert "Drawn with memory of 4 x 3, context of 5." in section.body
    assert ">memory</text>" in section.body
    assert ">attended(t-1)</text>" in section.body
    assert "coin" not in section.body


def test_a_model_with_a_cell_that_has_no_graph_says_why():
    class Sorted(elman.Cell):
        def step(self, x, h):
            h = (h + x.mean(-1, keepdim=True)).sort(-1).values
            return h, (h,)

    (section,) = of_model(elman.Stacked(LSTM(3, 4), Sorted(4, 4)))
    assert len(section.figures) == 3
    assert "Not drawn: Sorted has no graph: test_graph.py:" in section.body
    assert of_model(nn.Linear(2, 2)) == []


def test_the_page_of_a_run_has_the_graph_of_its_cells(here, capsys):
    ran(capsys, "train", "regress", "--steps", "3")
    ran(capsys, "show", "runs/regress", "--pictures", "all")
    text = (here / "runs/regress/show.html").read_text()
    assert "<h2>The graph of its step</h2>" in text
    assert (here / "all/graph-folded.svg").exists()
