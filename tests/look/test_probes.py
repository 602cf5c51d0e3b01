"""What a reader could know of a text, and the units that track it."""

import pytest
import torch
from torch import nn

import elman
from elman.look.probes import Probe, association, probes, ranks, tracked
from elman.task.inside import read
from elman.task.language import LanguageModel


def marks(text, name):
    """A probe's values as a string of digits."""
    return "".join(f"{int(v)}" for v in next(p for p in probes(text) if p.name == name).values)


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ('a "b" c', "inside double quotes", "0011000"),
        ("don't 'x y' z", "inside single quotes", "0000001111000"),
        ("'a\\'b' c", "inside single quotes", "11111000"),
        ("'a\nb", "inside single quotes", "1100"),
        ('"""a\n"b""" c', "inside a docstring", "111111100000"),
        ("x # 'a'\ny", "inside a comment", "001111100"),
        ("a /* ( */ b", "inside a comment", "00111110000"),
        ("f(a[b](c))d", "depth of brackets", "01122122100"),
        ("f(a[b])d", "inside square brackets", "00011000"),
        ("(a\n\nb)(c", "inside round brackets", "11000011"),
        ('("(")(', "inside round brackets", "111101"),
        ("a http://b.c d", "inside a URL", "00111111111000"),
        ("a [b](c) d [[e]]", "inside a link", "0011111000011110"),
        ("a\n  bc\n d", "indentation", "001222011"),
        ("ab\nc", "characters so far in the line", "1201"),
        ("ab c", "start of a word", "1001"),
        ("aB1", "upper case", "010"),
        ("aB1", "digit", "001"),
    ],
)
def test_each_probe_by_hand(text, name, values):
    assert marks(text, name) == values


def test_what_never_changes_is_no_probe():
    assert {p.name for p in probes("abc")} == {"start of a word", "characters so far in the line"}


def test_ranks_share_their_mean():
    values = torch.tensor([[3.0, 1.0], [1.0, 1.0], [3.0, 0.0], [7.0, 1.0]])
    assert ranks(values).tolist() == [[2.5, 1.0, 2.5, 4.0], [3.0, 3.0, 1.0, 3.0]]


def test_association_is_the_area_under_the_curve_and_the_correlation_of_ranks():
    torch.manual_seed(0)
    values, there = torch.randn(50, 3).round(decimals=1), torch.arange(50) % 3 == 0
    for unit, found in enumerate(association(Probe("p", there.float(), True), there.float(), ranks(values))):
        pairs = [(a > b) + 0.5 * (a == b) for a in values[there, unit] for b in values[~there, unit]]
        assert found.item() == pytest.approx(2 * float(sum(pairs)) / len(pairs) - 1, abs=1e-5)
    number = torch.randn(50)
    for unit, found in enumerate(association(Probe("p", number, False), number, ranks(values))):
        both = torch.stack([ranks(number[:, None])[0], ranks(values[:, [unit]])[0]])
        assert found.item() == pytest.approx(torch.corrcoef(both)[0, 1].item(), abs=1e-5)


class Counting(elman.Cell):
    """A state of noise, in which unit 5 counts brackets: +1 for the first symbol, -1 for the second."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.noise = nn.Linear(input_size, hidden_size)

    def step(self, x, h):
        brackets = x[:, :1] - x[:, 1:2]
        mixed = torch.tanh(self.noise(x) + 0.3 * h)
        h = torch.cat([mixed[:, :5], h[:, 5:6] + brackets, mixed[:, 6:]], 1)
        return h, (h,)


def test_a_planted_unit_is_found_first():
    torch.manual_seed(1)
    text = "(ab(c)d)e(a)bce" * 40
    symbols = ["(", ")", "a", "b", "c", "d", "e"]
    model = LanguageModel(len(symbols), Counting, 12, 1, 0)
    found = tracked(probes(text), read(model, torch.tensor([symbols.index(c) for c in text])).states)
    depth = next(t for t in found if t.probe == "depth of brackets")
    assert (depth.values, depth.unit, depth.sign) == ("layer 1 h", 5, 1)
    assert depth.score == pytest.approx(1.0)
    assert found[0].strength == pytest.approx(1.0)
    inside = next(t for t in found if t.probe == "inside round brackets")
    assert (inside.unit, inside.score) == (5, pytest.approx(1.0))


def test_chance_does_not_pass_for_evidence():
    """The best of 400 random units looks well on its own half; the score is that of the other."""
    torch.manual_seed(0)
    there = (torch.rand(120) < 0.3).float()
    (found,) = tracked([Probe("p", there, True)], {"layer 1 h": torch.randn(120, 400)})
    own = association(Probe("p", there, True), there[:60], ranks(torch.randn(60, 400))).abs().max().item()
    assert own > 0.4
    assert abs(found.strength) < own


def test_too_little_of_either_kind_gives_no_figure():
    few = torch.zeros(100)
    few[5:9] = 1
    assert tracked([Probe("p", few, True)], {"layer 1 h": torch.randn(100, 3)}) == []
