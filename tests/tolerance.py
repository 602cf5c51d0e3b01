"""The one table of tolerances: how far two ways of computing the same thing may differ."""

import torch
from torch import Tensor

ABSOLUTE = {torch.float32: 2e-5, torch.float64: 1e-11}
RELATIVE = {torch.float32: 2e-5, torch.float64: 1e-10}


def close(got: Tensor, want: Tensor, what: str = "") -> None:
    """Assert that got is want, within the table's entry for their type; NaN is never close."""
    assert got.dtype == want.dtype, f"{what}: {got.dtype} is not {want.dtype}"
    torch.testing.assert_close(
        got, want, rtol=RELATIVE[want.dtype], atol=ABSOLUTE[want.dtype], msg=lambda text: f"{what}: {text}"
    )


def all_close(got, want, what: str = "") -> None:
    """`close` for nests of tuples of tensors."""
    if isinstance(want, Tensor):
        close(got, want, what)
        return
    assert len(got) == len(want), what
    for i, (a, b) in enumerate(zip(got, want)):
        all_close(a, b, f"{what}[{i}]")
