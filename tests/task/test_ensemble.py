"""Several language models as one: what they predict together, how they learn, and a whole run of two."""

import pytest
import torch

from elman.checkpoint import RunFolder
from elman.cli import main
from elman.task.ensemble import Ensemble
from elman.task.language import LanguageModel, stateful_loss, window_loss
from elman.task.networks import CELLS
from elman.task.text import Text
from elman.task.text_options import Options

V = 7
TEXT = """--hidden 12 --embedding 5 --batch 4 --window 8 --members 2 --layers 2 --dropout 0.2 --reset 0.1 --average 0.9
--schedule constant"""


@pytest.fixture
def members():
    torch.manual_seed(0)
    return [LanguageModel(V, CELLS["lstm"], 9, 2, 5, 0.3) for _ in range(3)]


def test_the_probability_is_the_mean_of_theirs_also_from_a_carried_state(members):
    model, ids = Ensemble(members).eval(), torch.randint(0, V, (20, 3))
    reset = torch.rand(20, 3) < 0.2
    ps = torch.stack([member(ids, None, reset)[0].softmax(-1) for member in members])
    whole, last = model(ids, None, reset)
    torch.testing.assert_close(whole.exp(), ps.mean(0))
    first, state = model(ids[:11], model.initial(3), reset[:11])
    second, end = model(ids[11:], state, reset[11:])
    torch.testing.assert_close(torch.cat([first, second]), whole)
    for one, other in zip(end, last, strict=True):
        torch.testing.assert_close(one, other)


def test_it_is_scored_by_that_probability(members):
    model, ids = Ensemble(members), torch.randint(0, V, (601,))
    log_p, _ = model.eval()(ids[:-1, None])
    want = -log_p[:, 0].gather(1, ids[1:, None]).mean().item()
    assert stateful_loss(model, ids) == pytest.approx(want, rel=1e-5)
    assert window_loss(model, ids) < max(window_loss(member, ids) for member in members)


def test_each_learns_as_if_it_were_alone(members):
    model, (x, y) = Ensemble(members).train(), torch.randint(0, V, (2, 20, 3))
    torch.manual_seed(5)
    model.losses(x, y, None)[0].mean().backward()
    torch.manual_seed(5)
    for member in members:
        together = [p.grad.clone() for p in member.parameters()]
        member.zero_grad()
        member.losses(x, y, None)[0].mean().backward()
        for one, p in zip(together, member.parameters(), strict=True):
            torch.testing.assert_close(3 * one, p.grad)


def test_a_run_of_two_stops_and_goes_on_to_the_same_bits(tmp_path, capsys, text_file):
    whole, halves = (tmp_path / name for name in ("whole", "halves"))
    args = ["train", "text", str(text_file), *TEXT.split(), "--validate-every", "4"]
    assert main([*args, "--steps", "8", "--run", str(whole)]) == 0
    assert "2 networks, each lstm 2 x 12" in capsys.readouterr().out
    assert main([*args, "--steps", "4", "--run", str(halves)]) == 0
    assert main(["train", "text", "--run", str(halves), "--resume", "--steps", "8"]) == 0
    one, other = ((run / "model.safetensors").read_bytes() for run in (whole, halves))
    assert one == other
    assert main(["score", str(whole)]) == 0
    assert main(["sample", str(whole), "--length", "20"]) == 0
    assert main(["show", str(whole)]) == 0
    assert RunFolder.open(str(whole)).read_json("config.json")["options"]["members"] == 2


def test_members_begin_apart_and_one_is_as_ever(text_file):
    options = dict(files=(str(text_file),), hidden=12, embedding=5, batch=4, window=8)
    two, one = Text(Options(**options, members=2)), Text(Options(**options))
    first, second = two.model.members
    assert not torch.equal(first.output.weight, second.output.weight)
    assert torch.equal(first.output.weight, one.model.output.weight)
    assert two.network is first
