"""Operations with no place in a graph for which there is another way: what to write in their stead."""

from __future__ import annotations

from typing import Any

from elman.compiler.aten_ops.value import Rule, UntraceableError, rule

DRAWN = "it draws random numbers; draw outside the step, and give them inside x or as context"
HINTS = {
    "native_dropout": DRAWN,
    "bernoulli": DRAWN,
    "rand_like": DRAWN,
    "randn_like": DRAWN,
    "randint_like": DRAWN,
    "empty_like": "it leaves memory to be written in place, as dropout in training does for its mask; "
    "draw a mask outside the step, and give it as context",
    "t": "the batch comes first, (B, width); a product takes its parameter on the right",
    "transpose": "the batch and its columns stay where they are, (B, width)",
    "permute": "the batch and its columns stay where they are, (B, width)",
}


def refusal(hint: str) -> Rule:
    """A rule that only says why not."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise UntraceableError(hint)

    return refuse


def extreme(name: str) -> Rule:
    """A rule for max or min, which says why not."""

    def refuse(place: Any, value: Any, *dim: Any, **kwargs: Any) -> None:
        if not dim:
            raise UntraceableError(f"over the whole batch, while a row depends on nothing but itself; use a{name}(-1)")
        raise UntraceableError(f"{name}(dim) gives its gradient to one of several equal numbers; use a{name}")

    return refuse


for _name, _hint in HINTS.items():
    rule(_name)(refusal(_hint))
for _name in ("max", "min"):
    rule(_name)(extreme(_name))
