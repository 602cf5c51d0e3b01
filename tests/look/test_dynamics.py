"""Gates and their time constants, what one symbol leaves behind, where the state goes."""

import math
import re

import pytest
import torch
from commands import ran
from torch import nn

from elman.cell import GRU, LSTM, Elman, MinGRU
from elman.look.gates import kept, time_constants
from elman.look.space import components, visible
from elman.module import Recurrent
from elman.task.dynamics import FOLLOWED, SMALL, effect, space
from elman.task.inside import Reading, read
from elman.task.language import LanguageModel

N, V = 600, 7


def cells(model):
    """The cells of a language model, the first layer first."""
    return [part.cell for part in model.recurrent.modules() if isinstance(part, Recurrent)]


@pytest.fixture
def ids():
    return torch.randint(V, (N,), generator=torch.Generator().manual_seed(0))


def reading(gates, states=None):
    return Reading(torch.empty(0), torch.empty(0), torch.empty(0), states or {}, gates)


def test_a_forget_gate_of_so_much_keeps_for_so_long():
    shares = torch.tensor([0.5, 0.9, 0.999, 1.0]).expand(20, 4)
    found = time_constants(reading({"layer 2 forget_gate": shares, "layer 2 input_gate": shares}))
    assert [*found] == ["layer 2"]
    expected = [1 / math.log(2), 1 / -math.log(0.9), 1 / -math.log(0.999), 1e4]
    assert found["layer 2"].tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("cell", [GRU, MinGRU, LSTM, Elman])
def test_what_is_kept_is_found_whichever_way_the_gate_is_meant(cell, ids):
    torch.manual_seed(0)
    model = LanguageModel(V, cell, 6, 1, 4)
    found = read(model, ids)
    share = kept(found, "layer 1")
    z = found.gates.get("layer 1 update_gate")
    if cell is GRU:
        assert torch.equal(share, z[1:])
    elif cell is MinGRU:
        assert torch.equal(share, 1 - z[1:])
    elif cell is LSTM:
        assert torch.equal(share, found.gates["layer 1 forget_gate"])
    else:
        assert share is None


@pytest.mark.parametrize("radius", [0.5, 0.9])
def test_an_exchanged_symbol_fades_by_the_spectral_radius(ids, radius):
    """The inputs are so small that tanh is the identity, and W a rotation times the radius."""
    torch.manual_seed(0)
    model = LanguageModel(V, Elman, 5, 1, 4).double()
    cell = cells(model)[0]
    with torch.no_grad():
        nn.init.orthogonal_(cell.W.weight)
        cell.W.weight *= radius
        cell.U.weight *= 1e-4
        cell.U.bias.zero_()
    found = effect(model, ids).distances["layer 1 h"]
    assert len(found) == min(FOLLOWED, N // 2 - 64) + 1
    assert found[0] > 0
    # what is divided by, the distance of unrelated readings, is the same at all steps
    for k in (1, 2, 5, 10):
        assert float(found[k] / found[0]) == pytest.approx(radius**k, rel=1e-5)


def test_a_network_without_memory_keeps_nothing_of_a_symbol(ids):
    torch.manual_seed(0)
    model = LanguageModel(V, Elman, 5, 2, 4)
    for cell in cells(model):
        nn.init.zeros_(cell.W.weight)
    for found in effect(model, ids).distances.values():
        assert found[0] > 0.1
        assert not found[1:].any()


@pytest.mark.parametrize("cell", [GRU, LSTM])
def test_gates_are_kept_where_a_text_is_most_varied(cell):
    torch.manual_seed(0)
    ids = torch.zeros(8 * 512, dtype=torch.int64)
    ids[4 * 512 :] = torch.arange(4 * 512) % V
    model = LanguageModel(V, cell, 6, 1, 4)
    found = read(model, ids)
    assert found.start == 3 * 512
    gate, h = found.gates["layer 1 update_gate" if cell is GRU else "layer 1 output_gate"], found.states["layer 1 h"]
    assert len(gate) == 5 * 512
    if cell is LSTM:
        c = found.states["layer 1 c"][3 * 512 :]
        assert torch.allclose(gate * c.tanh(), h[3 * 512 :], atol=1e-6)
    else:
        assert torch.equal(kept(found, "layer 1"), gate[1:])


def test_too_short_a_text_has_no_effect_to_tell(ids):
    model = LanguageModel(V, Elman, 5, 1, 4)
    assert effect(model, ids[:130]) is None
    assert effect(model, torch.zeros(500, dtype=torch.int64)) is None
    assert effect(model, ids[:140]) is not None


def test_components_are_the_widest_directions():
    torch.manual_seed(0)
    states = torch.randn(500, 3) @ torch.tensor([[5.0, 0, 0], [0, 2.0, 0], [0, 0, 0.1]]) + 7
    mean, directions, share = components(states)
    assert mean.tolist() == pytest.approx(states.mean(0).tolist())
    assert directions.abs().argmax(0).tolist() == [0, 1]
    assert (directions.T @ directions).flatten().tolist() == pytest.approx([1, 0, 0, 1], abs=1e-5)
    variance = ((states - mean) @ directions).var(0) / states.var(0).sum()
    assert share.tolist() == pytest.approx(variance.tolist(), rel=1e-4)


@pytest.mark.parametrize(("cell", "hidden", "layers"), [(LSTM, 6, 1), (GRU, SMALL + 1, 1), (GRU, 6, 2)])
def test_fixed_points_are_looked_for_in_small_networks(ids, cell, hidden, layers):
    torch.manual_seed(0)
    model = LanguageModel(V, cell, hidden, layers, 4)
    pieces = [chr(97 + i) for i in ids.tolist()]
    found = space(model, read(model, ids).states, pieces, ids)
    assert found.name == f"layer {layers} h"
    assert found.states.shape == (N, hidden)
    if (layers, hidden) != (1, 6):
        assert found.fixed is None
        return
    assert found.input == max(set(pieces), key=pieces.count)
    assert found.fixed.points.shape[1] == 12
    h, c = found.fixed.points.float().split(6, -1)
    x = model.embedded(torch.tensor([ord(found.input) - 97]))
    _, after = cells(model)[0].step(x.expand(len(h), -1), h, c)
    assert torch.allclose(torch.cat(after, -1), torch.cat([h, c], -1), atol=1e-5)


def test_symbols_that_cannot_be_seen_have_signs():
    assert visible(" \n\tx") == "␣↵⇥x"


def test_the_page_tells_all_three(text_file, capsys):
    small = "--embedding 5 --batch 4 --window 8 --steps 5 --hidden 9".split()
    ran(capsys, "train", "text", text_file, *small)
    ran(capsys, "show", "runs/text", "--pictures", "drawn")
    text = (text_file.parent / "runs/text/show.html").read_text()
    assert re.search(r"shut \d+%, open \d+%", text)
    assert re.search(r"layer 1: half of the units below \d+\.\d steps", text)
    assert re.search(r"a tenth of the first difference after: layer 1 h: \d+ steps", text)
    assert re.search(r"comes again and again \d+ states were found that stand still, \d+ of them stable", text)
    names = {path.stem for path in (text_file.parent / "drawn").iterdir()}
    assert names >= {"training", "gates", "time-constants", "reach", "effect", "space"}


def test_a_network_without_gates_has_no_picture_of_them(text_file, capsys):
    ran(capsys, "train", "text", text_file, *"--cell elman --batch 4 --window 8 --steps 5 --hidden 9".split())
    ran(capsys, "show", "runs/text")
    assert "Its gates" not in (text_file.parent / "runs/text/show.html").read_text()
