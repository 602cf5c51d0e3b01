"""Shares of a batch, as processes that train together read them, add up to the batch: in every task."""

import pytest
import torch
from torch import nn

from elman.task import TASKS
from elman.task.base import Share

SMALL = {
    "text": dict(batch=6, hidden=8, embedding=5, window=8, dropout=0.0),
    "classify": dict(batch=6, hidden=8, dropout=0.0),
    "regress": dict(batch=6, hidden=8, quantiles="0.1,0.5"),
    "regress in step": dict(batch=6, hidden=8, horizon=0, context=10, carry=True, beside=True),
    "tag": dict(batch=6, hidden=8, dropout=0.0, word_dropout=0.0),
    "translate": dict(batch=6, hidden=8, embedding=6, dropout=0.0, smooth=0.1),
    "transcribe": dict(batch=6, hidden=8, dropout=0.0),
    "caption": dict(batch=6, hidden=8, side=8, width=8, dropout=0.0),
}


@pytest.fixture(params=SMALL)
def task(request):
    kind = TASKS[request.param.split()[0]]
    made = kind(kind.options_type(**SMALL[request.param]))
    for module in [*made.model.modules()]:
        for name, part in module.named_children():
            if isinstance(part, nn.BatchNorm2d):  # its mean is over what it sees
                setattr(module, name, nn.Identity())
    return made


def read(task, steps):
    """Loss, weight and gradient of the last of these steps, the state carried to it."""
    state = task.initial()
    for k in range(steps):
        task.model.zero_grad()
        loss = task.loss(k, state)
        state = loss.state
    if loss.objective.requires_grad:
        loss.objective.backward()
    flat = [torch.zeros_like(p) if p.grad is None else p.grad for p in task.model.parameters()]
    return loss, torch.cat([g.flatten() for g in flat])


def test_the_means_of_shares_by_their_weights_are_the_mean_of_the_batch(task):
    whole, gradient = read(task, 2)
    parts = []
    for number in range(3):
        task.share = Share(number, 3)
        parts.append(read(task, 2))
    total = sum(loss.weight for loss, _ in parts)
    assert sum(loss.weight * loss.value for loss, _ in parts) / total == pytest.approx(whole.value, rel=1e-5)
    summed = sum(loss.weight / total * flat for loss, flat in parts)
    assert (summed - gradient).norm() < 1e-4 * gradient.norm()
    assert all((flat - gradient).norm() > 1e-2 * gradient.norm() for _, flat in parts), "the shares are alike"


def test_a_share_of_a_batch_that_is_too_small_weighs_nothing():
    task = TASKS["tag"](TASKS["tag"].options_type(**SMALL["tag"]))
    task.share = Share(6, 7)
    assert task.loss(0, ())[1:] == (0.0, (), 0)


def test_shares_have_every_row_once():
    for rows, of in ((12, 3), (7, 3), (2, 5)):
        shares = [Share(number, of) for number in range(of)]
        assert sorted(row for share in shares for row in range(rows)[share.rows]) == [*range(rows)]
        assert [share.size(rows) for share in shares] == [len(range(rows)[share.rows]) for share in shares]
