"""What a recurrence means, written as plainly as can be: one row at a time, one step at a time, no masks.

It shares no code with elman's layers. Everything that elman runs is compared with it, values and gradients.
"""

import torch


def run_row(cell, x, state, reset, reverse, context, each):
    """One row without padding: x (n, I), state a tuple of (1, width), reset n bools -> ys, last state.

    `each` is context with a slice a step, (n, width).
    """
    n, ys = len(x), {}
    for t in range(n - 1, -1, -1) if reverse else range(n):
        begins = (t + 1 < n and reset[t + 1]) if reverse else reset[t]
        if begins:
            state = cell.begin(1, context)
        state = tuple(s.to(x.dtype) for s in state)
        now = {name: value[t : t + 1] for name, value in each.items()}
        y, state = cell.step(x[t : t + 1], *state, **context, **now)
        ys[t] = y[0]
    return [ys[t] for t in range(n)], state


def run(cell, x, state=None, lengths=None, reset=None, reverse=False, width=None, **context):
    """A batch: x (T, B, I) -> y (T, B, K), last state, a tuple of (B, width).

    Context tensors are (B, width), (T, B, width) for names in the cell's each_step, any shape for those in whole.
    """
    T, B, _ = x.shape
    lengths = [T] * B if lengths is None else [int(n) for n in lengths]
    state = cell.begin(B, context) if state is None else state
    columns, last = [], []
    for b, n in enumerate(lengths):
        marks = [False] * T if reset is None else [bool(r) for r in reset[:, b]]
        each = {name: context[name][:n, b] for name in cell.each_step if name in context}
        own = {name: v if name in cell.whole else v[b : b + 1] for name, v in context.items() if name not in each}
        ys, final = run_row(cell, x[:n, b], tuple(s[b : b + 1] for s in state), marks, reverse, own, each)
        zero = torch.zeros(width or cell.hidden_size, dtype=x.dtype)
        columns.append(torch.stack([*ys, *[zero] * (T - n)]))
        last.append(final)
    return torch.stack(columns, 1), tuple(torch.cat(parts) for parts in zip(*last))


def scalar(y, state):
    """One number that every output and every last state enters, each with its own weight."""
    torch.manual_seed(7)
    return sum((value * torch.randn_like(value)).sum() for value in (y, *state))


def gradients(cell, x, state, context, y, last, twice=False):
    """Gradients of `scalar` to x, state, context and the parameters; with `twice`, those of their squared norm."""
    leaves = [x, *state, *(value for value in context.values() if value.requires_grad), *cell.parameters()]
    first = torch.autograd.grad(scalar(y, last), leaves, create_graph=twice, materialize_grads=True)
    if not twice:
        return first
    norm = sum(g.square().sum() for g in first)
    return torch.autograd.grad(norm, leaves, materialize_grads=True) if norm.requires_grad else ()
