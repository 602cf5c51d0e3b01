"""elman.Dropout: how much it drops, the mean it keeps, gradients, rates at the ends, locked masks, bits that repeat."""

import pytest
import torch
from torch import nn

import elman
from elman.cell.drawn import drawn


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.02, 0.5, 0.9])
def test_entries_are_dropped_at_the_rate_and_the_others_made_up_for_it(rate, dtype):
    torch.manual_seed(0)
    x = torch.ones(61, 33, 101, dtype=dtype, requires_grad=True)
    y = elman.Dropout(rate)(x)
    assert y.dtype == dtype
    assert (y == 0).double().mean().item() == pytest.approx(rate, abs=0.004)
    assert y.double().mean().item() == pytest.approx(1, abs=0.03 if rate == 0.9 or dtype == torch.bfloat16 else 0.005)
    assert y.unique().numel() == 2
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_entries_are_dropped_independently():
    torch.manual_seed(1)
    kept = drawn((4, 250_000), 0.5, torch.ones(()))
    beside = torch.corrcoef(torch.stack([kept[:, shift : shift + 240_000].flatten() for shift in range(9)]))
    assert (beside - torch.eye(9)).abs().max() < 0.005  # 4 of one draw lie side by side


@pytest.mark.parametrize("rate", [0.0, 1.0, 1e-6])
def test_rates_at_the_ends(rate):
    x = torch.ones(5, 3, 7)
    y = elman.Dropout(rate)(x)
    torch.testing.assert_close(y, torch.zeros_like(x) if rate == 1 else x)
    assert torch.equal(elman.Dropout(rate).eval()(x), x)
    assert elman.Dropout(rate)(torch.ones(0, 3)).shape == (0, 3)


def test_the_same_seed_gives_the_same_bits_and_the_next_call_others():
    drop, x = elman.Dropout(0.5), torch.ones(7, 3, 5)
    torch.manual_seed(3)
    one, two = drop(x), drop(x)
    torch.manual_seed(3)
    assert torch.equal(drop(x), one)
    assert not torch.equal(one, two)


def test_locked_dropout_has_one_mask_for_all_steps():
    torch.manual_seed(0)
    drop, x = elman.Dropout(0.5, locked=True), torch.ones(6, 3, 40)
    y = drop(x)
    assert torch.equal(y, y[:1].expand_as(y))
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(y[0, 0], y[0, 1])  # each row has its own
    assert torch.equal(drop.eval()(x), x)


def test_it_stands_for_torchs():
    drop = elman.Dropout(0.25)
    assert isinstance(drop, nn.Dropout)
    assert repr(drop) == "Dropout(p=0.25, locked=False)"
    with pytest.raises(ValueError, match="between 0 and 1"):
        elman.Dropout(1.5)
