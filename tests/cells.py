"""The cells that the contracts are tested on: the built-in ones, and some that nobody foresaw."""

import torch
from torch import nn

import elman
from elman import cell
from elman.module.grid import Row


class Uneven(elman.Cell):
    """Two states of different widths, y of a third, and context that enters every step."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.state_sizes = {"fast": hidden_size, "slow": hidden_size + 2}
        self.mix = nn.Linear(input_size + 2 * hidden_size + 2, hidden_size)
        self.keep = nn.Linear(hidden_size, hidden_size + 2)
        self.read = nn.Linear(hidden_size + 2, hidden_size + 1)
        self.output_size = hidden_size + 1

    def step(self, x, fast, slow, *, bias=None):
        a = self.mix(torch.cat([x, fast, slow], -1))
        fast = torch.tanh(a if bias is None else a + bias)
        slow = 0.9 * slow + 0.1 * self.keep(fast)
        return self.read(slow), (fast, slow)


class Jumpy(elman.Cell):
    """No parameters, arithmetic that torch's modules do not have, a product of states."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)

    def step(self, x, level, count):
        drive = x.mean(-1, keepdim=True)
        level = torch.where(drive > 0, level * 0.5 + drive, level - drive.square())
        self.watch("drive", drive)
        return level * (1 + count).rsqrt(), (level, count + 1)


def learned(kind):
    """A cell whose first state is a parameter, away from zero."""

    def make(input_size, hidden_size):
        made = kind(input_size, hidden_size).learn_initial()
        with torch.no_grad():
            for name in made.state_sizes:
                getattr(made, f"initial_{name}").normal_()
        return made

    return make


def quiet(make):
    """A part with random numbers, in evaluation: nothing is drawn, and masks have their means."""
    return lambda input_size, hidden_size: make(input_size, hidden_size).eval()


def fed(inner):
    """A cell that reads its own symbol of three, embedded in two numbers."""
    return cell.Feedback(inner, nn.Embedding(4, 2), nn.Linear(inner.output_size, 3))


CELLS = {
    "elman": cell.Elman,
    "elman-relu": cell.ElmanReLU,
    "lstm": cell.LSTM,
    "gru": cell.GRU,
    "uneven": Uneven,
    "jumpy": Jumpy,
    "lstm-learned": learned(cell.LSTM),
    "jordan": lambda I, H: cell.Jordan(I, H, H + 1),  # noqa: E741
    "layer-norm-lstm": cell.LayerNormLSTM,
    "peephole-lstm": cell.PeepholeLSTM,
    "projected-lstm": lambda I, H: cell.ProjectedLSTM(I, H, H // 2 + 1),  # noqa: E741
    "original-gru": cell.OriginalGRU,
    "min-gru": cell.MinGRU,
    "indrnn": cell.IndRNN,
    "rate": cell.Rate,
    "rate-dale": lambda I, H: cell.Rate(I, H, excitatory=0.8),  # noqa: E741
    "deep": lambda I, H: cell.Deep(cell.LSTM(I, H), cell.GRU(H, H)),  # noqa: E741
    "residual": lambda I, H: cell.Residual(cell.ProjectedLSTM(I, H, I)),  # noqa: E741
    "zoneout": quiet(lambda I, H: cell.Zoneout(cell.LSTM(I, H), {"c": 0.5, "h": 0.05})),  # noqa: E741
    "nested": quiet(lambda I, H: cell.Variational(cell.Zoneout(learned(cell.GRU)(I, H), 0.2), 0.1, 0.2, 0.3)),  # noqa: E741
    "conditioned": lambda I, H: cell.Conditioned(cell.GRU(I + 2, H), 2, "both"),  # noqa: E741
    "attend-dot": lambda I, H: cell.Attend(cell.GRU(I, H), H, "dot", feeding=False),  # noqa: E741
    "attend-general": lambda I, H: cell.Attend(cell.LSTM(I + H, H), 3),  # noqa: E741
    "attend-additive": lambda I, H: cell.Attend(cell.GRU(I + H, H), 3, "additive"),  # noqa: E741
    "feedback": lambda I, H: fed(cell.GRU(I + 2, H)),  # noqa: E741
    "decoder": lambda I, H: fed(  # noqa: E741
        cell.Conditioned(cell.Attend(cell.Deep(cell.LSTM(I + 2 + H, H), cell.GRU(H, H)), 3), 2, "state")
    ),
    "row-of-a-grid": lambda I, H: Row(cell.LSTM2D(I, H)),  # noqa: E741
}
SIZES = [(1, 1, 1, 1), (1, 3, 2, 5), (6, 1, 3, 65), (7, 3, 4, 5)]  # T, B, I, H
THOROUGH = ("elman", "elman-relu", "lstm", "gru", "uneven", "jumpy", "lstm-learned")  # in every size
CASES = [(kind, size) for kind in CELLS for size in (SIZES if kind in THOROUGH else SIZES[2:])]  # the rest in two
CASES += [("attend-dot", (4, 3, 2, 1))]  # a later phase of its backward needs a sum again


def make(kind, size, dtype=torch.float64):
    """A cell, an input (T, B, I) that wants gradients, and a random state."""
    torch.manual_seed(0)
    T, B, I, H = size  # noqa: E741
    made = CELLS[kind](I, H).to(dtype)
    x = torch.randn(T, B, made.input_size, dtype=dtype, requires_grad=True)
    state = tuple(torch.rand(B, width, dtype=dtype, requires_grad=True) for width in made.state_sizes.values())
    return made, x, state


def context_of(made, x):
    """Random context for all that the step requires, which wants gradients where it is real."""
    T, B, dtype = *x.shape[:2], x.dtype
    draw = torch.Generator().manual_seed(1)
    S = 4
    shapes = {"context": (B, 2), "memory": (B, S, getattr(made, "memory_size", 3)), "noise": (T, B, 3)}
    if isinstance(made, Row):
        shapes["up"] = (T, B, made.cell.state_sizes["up"])
    takes, given = made.signature, {}
    for name, shape in shapes.items():
        if name in takes.context - set(made.private):
            given[name] = torch.randn(shape, generator=draw, dtype=dtype).requires_grad_()
    if "coin" in takes.context:
        given["coin"] = (torch.rand(T, B, 1, generator=draw) < 0.5).to(dtype)
    if "mask" in takes.context:
        given["mask"] = torch.rand(B, S, generator=draw) < 0.7
        given["mask"][:, 0] = True
    assert takes.required <= set(given)
    return given


def cut(made, context, steps=slice(None), rows=slice(None)):
    """The context of some steps and rows."""
    return {k: v[steps, rows] if k in made.each_step else v[rows] for k, v in context.items()}


def irregular(T, B):
    """Lengths and resets that differ from row to row, some rows of full length, some of none."""
    draw = torch.Generator().manual_seed(T * 100 + B)
    lengths = torch.randint(0, T + 1, (B,), generator=draw)
    lengths[0] = T
    return lengths, torch.rand(T, B, generator=draw) < 0.3
