"""The four letters of "hell" in, "ello" out, with three hidden units: the first lesson on recurrent networks."""

import pytest
import torch
import torch.nn.functional as F

import elman

LETTERS = "helo"
X = torch.eye(4)[[LETTERS.index(c) for c in "hell"]][:, None]  # (4, 1, 4), one-hot
Y = torch.tensor([LETTERS.index(c) for c in "ello"])


def learn(layer, head):
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.1)
    for _ in range(200):
        loss = F.cross_entropy(head(layer(X)[0][:, 0]), Y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("seed", range(5))
def test_three_units_learn_hello(seed):
    torch.manual_seed(seed)
    layer, head = elman.Recurrent(elman.cell.Elman(4, 3)), torch.nn.Linear(3, 4)
    assert learn(layer, head) < 0.05
    hs, _ = layer(X)
    said = head(hs[:, 0]).argmax(-1)
    assert "".join(LETTERS[i] for i in said) == "ello"
    first, second = hs[2, 0], hs[3, 0]  # after the first l and after the second: same input, another state
    assert torch.equal(X[2], X[3])
    assert (first - second).abs().max() > 0.5
    p = head(torch.stack([first, second])).softmax(-1)
    assert p[0, LETTERS.index("l")] > 0.8
    assert p[1, LETTERS.index("o")] > 0.8


def test_without_a_state_the_two_l_cannot_be_told_apart():
    torch.manual_seed(0)

    def forgetful(x, h):
        return torch.tanh(hidden(x)), (h,)

    hidden, head = torch.nn.Linear(4, 3), torch.nn.Linear(3, 4)
    optimizer = torch.optim.Adam([*hidden.parameters(), *head.parameters()], lr=0.1)
    for _ in range(300):
        y, _ = elman.scan(forgetful, X, torch.zeros(1, 3))
        loss = F.cross_entropy(head(y[:, 0]), Y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() > 0.34  # two of four steps are a coin toss: 2 ln 2 / 4 = 0.3466
