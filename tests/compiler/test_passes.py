"""What each pass makes of known steps, as text and by its rules. ELMAN_UPDATE_GOLDEN=1 pytest writes the text anew."""

import ast
import os
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

import elman
from elman.compiler import graph, trace
from elman.compiler.derive import RULES, derive
from elman.compiler.emit.reference import MEANING
from elman.compiler.emit.vectorops import VECTOR
from elman.compiler.graph import ACROSS, COLUMNS, LEAVES, POINTWISE, PRODUCTS, TOTALS, Op, show
from elman.compiler.replay import replay
from elman.compiler.simplify import simplify
from elman.compiler.unfold import unfold
from elman.module.owner import offered

GOLDEN = Path(__file__).parent / "golden"
COMPILER = Path(elman.__file__).parent / "compiler"
I, H = 3, 4  # noqa: E741


class Normed(elman.Cell):
    """An LSTM with layer norms."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.state_sizes = {"h": hidden_size, "c": hidden_size}
        self.U, self.W = nn.Linear(input_size, 4 * hidden_size), nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.gates, self.cell = nn.LayerNorm(4 * hidden_size), nn.LayerNorm(hidden_size)

    def step(self, x, h, c):
        i, f, g, o = self.gates(self.U(x) + self.W(h)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(self.cell(c))
        return h, (h, c)


class Joined(elman.Cell):
    """Two states of different widths, with x in one product."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.state_sizes = {"h": hidden_size, "c": hidden_size + 1}
        self.mix = nn.Linear(input_size + 2 * hidden_size + 1, 2 * hidden_size + 1)

    def step(self, x, h, c):
        new, keep = self.mix(torch.cat([x, h, c], -1)).split([h.shape[1], c.shape[1]], -1)
        c = torch.sigmoid(keep) * c
        return torch.tanh(new) * c.sum(-1, keepdim=True), (torch.tanh(new), c)


class Memory(elman.Cell):
    """A small memory as a state: written by an outer product, read by attention with additive scores."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.state_sizes = {"memory": 6 * hidden_size}
        self.U = nn.Linear(input_size, 2 * hidden_size + 6)
        self.v = nn.Parameter(torch.rand(hidden_size))

    def step(self, x, memory):
        q, value, where = self.U(x).split([self.hidden_size, self.hidden_size, 6], -1)
        rows = memory.view(-1, 6, self.hidden_size)
        rows = 0.9 * rows + torch.bmm(where.softmax(-1)[..., None], value[:, None])
        weights = (torch.tanh(rows + q[:, None]) * self.v).sum(-1).softmax(-1)
        return torch.bmm(weights[:, None], rows)[:, 0], (rows.flatten(1),)


CELLS = {
    "lstm": elman.cell.LSTM,
    "gru": elman.cell.GRU,
    "elman": elman.cell.Elman,
    "lstm with layer norm": Normed,
    "two states joined": Joined,
    "memory": Memory,
}
cells = pytest.mark.parametrize("name", CELLS)
SHOWN = ("simplified", "forward", "backward", "replay")


@cache
def stages(name):
    """The loop after each pass: traced, simplified, forward and backward as derived, and both simplified."""
    cell = CELLS[name](I, H)

    def step(per_step, state, fixed):
        y, new = cell.step(per_step["x"], *state.values())
        return {"y": y}, dict(zip(state, new))

    state = {key: torch.rand(3, width) for key, width in cell.state_sizes.items()}
    loop = trace(step, {"x": torch.rand(3, I)}, state, {}, offered(cell)).loop
    simple = simplify(loop)
    wanted = {"x", *state, *simple.leaves(Op.SHARED)}
    forward, back = derive(simple, ["y"], wanted)
    saved = [key for key in forward.per_step if key != "y"]
    return {
        "traced": loop,
        "simplified": simple,
        "derived forward": forward,
        "derived backward": back,
        "forward": simplify(forward),
        "backward": simplify(back),
        "replay": replay(simplify(forward), saved).loop,
    }


@cells
def test_the_text_of_every_stage_is_as_it_was(name):
    found = stages(name)
    parts = [f"# {key}\n{show(found[key], unfold(found[key]))}\n" for key in SHOWN]
    text = "\n".join(parts)
    path = GOLDEN / f"{name.replace(' ', '_')}.txt"
    if os.environ.get("ELMAN_UPDATE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"no {path}: ELMAN_UPDATE_GOLDEN=1 pytest writes it"
    hint = (
        f"{path.name} is not what the passes make of {name}; if that is meant: ELMAN_UPDATE_GOLDEN=1 pytest {__file__}"
    )
    assert text == path.read_text(), hint


@cells
def test_every_pass_keeps_the_rules_of_the_graph(name):
    for loop in stages(name).values():
        graph.check(loop)


@cells
@pytest.mark.parametrize("stage", SHOWN)
def test_what_is_simple_stays_as_it_is(name, stage):
    loop = stages(name)[stage]
    assert show(simplify(loop)) == show(loop)


@pytest.mark.parametrize("stage", ["simplified", "forward", "backward"])
def test_one_product_of_an_lstm_waits_for_the_step_before(stage):
    loop = stages("lstm")[stage]
    assert [part for node, part in unfold(loop).items() if node.op is Op.MATMUL].count("during") == 1


@pytest.mark.parametrize("name", ["lstm", "gru", "elman", "lstm with layer norm"])
def test_no_product_of_a_replay_waits_where_the_output_is_the_state(name):
    loop = stages(name)["replay"]
    assert "during" not in [part for node, part in unfold(loop).items() if node.op is Op.MATMUL]


def test_only_what_waits_is_inside():
    for name in CELLS:
        loop = stages(name)["backward"]
        assert all(part != "during" for node, part in unfold(loop).items() if node.op in TOTALS)


def test_every_table_covers_the_ops():
    assert set(MEANING) == set(Op) - LEAVES
    assert set(RULES) == set(Op) - LEAVES - TOTALS
    assert set(VECTOR) == POINTWISE
    groups = [LEAVES, TOTALS, ACROSS, COLUMNS, POINTWISE, PRODUCTS]
    assert sum(map(len, groups)) == len(Op)


def identifiers(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield f"{node.value.id}.{node.attr}" if isinstance(node.value, ast.Name) else node.attr
            yield node.attr if node.attr != "Module" else ""  # LLVM has modules, too
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)
            yield node.module or ""


@pytest.mark.parametrize("path", sorted(COMPILER.rglob("*.py")), ids=lambda path: str(path.relative_to(COMPILER)))
def test_the_compiler_knows_no_cell_and_no_module(path):
    kinds = {name for name in dir(elman.cell) if isinstance(getattr(elman.cell, name), type)} - {"Signature"}
    names = {*identifiers(ast.parse(path.read_text()))}
    assert not names & {*kinds, "Elman", "lstm", "gru", "nn", "nn.Module", "elman.cell", "elman.module"}
    assert not any(name.startswith(("elman.cell.", "elman.module.")) for name in names)
