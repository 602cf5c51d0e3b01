"""Every operation that a step may use, in every way of running, against the plain loop: values and gradients."""

import re

import pytest
import torch
from tolerance import all_close, close
from torch import nn
from torch.nn import functional as F

import elman
from elman.errors import BackendWarning, CellError

T, B = 3, 2
FAST = ["reference", "fused"]


class Params(nn.Module):
    """What the steps below read beside x and h, all of width H."""

    def __init__(self, H, dtype):
        super().__init__()
        draw = torch.Generator().manual_seed(H)

        def parameter(*size):
            return nn.Parameter(torch.randn(size, generator=draw, dtype=dtype) / max(H, 1) ** 0.5)

        self.w, self.u, self.v, self.b = parameter(H, H), parameter(H, H), parameter(H), parameter(H)
        self.row, self.one, self.both = parameter(1, H), parameter(), parameter(H, 2 * H)
        self.lin, self.bare = nn.Linear(H, H).to(dtype), nn.Linear(H, H, bias=False).to(dtype)
        with torch.no_grad():
            for linear in (self.lin, self.bare):
                linear.weight.copy_(self.u)
            self.lin.bias.copy_(self.b) if self.lin.bias is not None else None
        self.norm = nn.LayerNorm(H, dtype=dtype)
        self.tied = self.w
        self.register_buffer("keep", (torch.rand(H, H, generator=draw) < 0.5).to(dtype))
        self.register_buffer("rows", torch.randperm(H, generator=draw))


def positive(x, h):
    return x.square() + h.square() + 0.1


def zeros(x):
    return torch.zeros(x.shape[0], x.shape[1], dtype=x.dtype)


def stopped(p, x, h):
    with torch.no_grad():
        a = h * p.v
    return a * x + h


def masked(x, h):
    kept = (x[:, -1:] > 0).to(x.dtype)
    return kept * h + (1 - kept) * x


# number by number, and across the width: these run at width 1 as well
NUMBERS = {
    "linear": lambda p, x, h: p.lin(x) + p.bare(h),
    "F.linear": lambda p, x, h: F.linear(h, p.w, p.b) + F.linear(x, p.u),
    "matmul": lambda p, x, h: x @ p.w + torch.matmul(h, p.u),
    "mm": lambda p, x, h: torch.mm(h, p.w) + x,
    "mv": lambda p, x, h: (h @ p.v).unsqueeze(1) * x,
    "addmm": lambda p, x, h: torch.addmm(p.b, h, p.w) + torch.addmm(x, h, p.u, beta=0.5, alpha=2.0),
    "einsum bi,oi->bo": lambda p, x, h: torch.einsum("bi,oi->bo", h, p.w) + x,
    "einsum bi,io->bo": lambda p, x, h: torch.einsum("bi,io->bo", h, p.w) + x,
    "einsum b i, i o -> b o": lambda p, x, h: torch.einsum("b i, i o -> b o", x, p.w) + h,
    "transposed": lambda p, x, h: h @ p.w.t() + x @ p.u.T,
    "sigmoid": lambda p, x, h: torch.sigmoid(x + h),
    "tanh": lambda p, x, h: torch.tanh(x + h),
    "relu": lambda p, x, h: F.relu(x + h),
    "relu6": lambda p, x, h: F.relu6(4 * x + h),
    "leaky_relu": lambda p, x, h: F.leaky_relu(x + h, 0.2),
    "prelu": lambda p, x, h: F.prelu(x + h, p.v[:1]),
    "threshold": lambda p, x, h: F.threshold(x + h, 0.3, -1.0),
    "gelu": lambda p, x, h: F.gelu(x + h),
    "gelu tanh": lambda p, x, h: F.gelu(x + h, approximate="tanh"),
    "silu": lambda p, x, h: F.silu(x + h),
    "softplus": lambda p, x, h: F.softplus(30 * x, 2, 20) + F.softplus(h),
    "elu": lambda p, x, h: F.elu(x + h, 0.7),
    "celu": lambda p, x, h: F.celu(x + h, 0.5),
    "selu": lambda p, x, h: F.selu(x + h),
    "softsign": lambda p, x, h: F.softsign(x + h),
    "tanhshrink": lambda p, x, h: F.tanhshrink(x + h),
    "hardtanh": lambda p, x, h: F.hardtanh(x + h),
    "hardsigmoid": lambda p, x, h: F.hardsigmoid(4 * x + h),
    "hardswish": lambda p, x, h: F.hardswish(4 * x + h),
    "mish": lambda p, x, h: F.mish(x + h),
    "logsigmoid": lambda p, x, h: F.logsigmoid(x + h),
    "exp": lambda p, x, h: torch.exp(x - h),
    "exp2": lambda p, x, h: torch.exp2(x - h) + 3.0 ** (x - h),
    "expm1": lambda p, x, h: torch.expm1(x) + h,
    "log": lambda p, x, h: torch.log(positive(x, h)),
    "log2 log10": lambda p, x, h: torch.log2(positive(x, h)) + torch.log10(positive(x, h)),
    "log1p": lambda p, x, h: torch.log1p(positive(x, h)),
    "sqrt": lambda p, x, h: torch.sqrt(positive(x, h)),
    "rsqrt": lambda p, x, h: torch.rsqrt(positive(x, h)),
    "reciprocal": lambda p, x, h: torch.reciprocal(positive(x, h)) + 1 / positive(x, h),
    "sin cos": lambda p, x, h: torch.sin(x) * torch.cos(h),
    "erf": lambda p, x, h: torch.erf(x + h),
    "abs": lambda p, x, h: (x - h).abs() + torch.zeros_like(h).mul(h).abs(),
    "sign": lambda p, x, h: torch.sign(x) * h,
    "square": lambda p, x, h: x.square() - (-h) ** 2,
    "powers": lambda p, x, h: x**3 * 0.1 + positive(x, h) ** 0.5 + positive(x, h) ** -1 + positive(x, h).pow(-2),
    "clamp": lambda p, x, h: x.clamp(-0.5, 0.5) + h.clamp(min=0.2) + x.clamp(max=0.1) + x.clamp_min(-0.3),
    "clamp by tensors": lambda p, x, h: torch.clamp(x, min=p.v, max=p.v + 1) + h,
    "maximum": lambda p, x, h: torch.maximum(x, h) * torch.minimum(x, p.v),
    "maximum at a tie": lambda p, x, h: torch.maximum(h, h * 1.0) + torch.minimum(x, x * 1.0),
    "where": lambda p, x, h: torch.where(x > 0, h, x * p.v) + torch.where(h > x, 0.5, h),
    "comparisons": lambda p, x, h: (x < h) * h + (x <= 0) * x + (h >= x) * p.v + (h == h) * x + (x != h) * h,
    "logic": lambda p, x, h: torch.where(((x > 0) & (h > 0)) | ~(x < 0.5), h, x) + ((x > 0) ^ (h > 0.5)) * h,
    "logic of numbers": lambda p, x, h: torch.where(torch.logical_and(F.relu(x), h), h, x) + x.bool() * h,
    "logical_not": lambda p, x, h: torch.logical_not(F.relu(x)) * h + torch.logical_or(x > 9, h > 0) * x,
    "isfinite": lambda p, x, h: torch.where(torch.isfinite(x) & ~x.isnan() & ~x.isinf(), h, 0.0) + x,
    "masked_fill": lambda p, x, h: h.masked_fill(x > 0, 0.25) + x,
    "nan_to_num": lambda p, x, h: (x / 1.0).nan_to_num(0.0, 1.0, -1.0) + h,
    "scaled": lambda p, x, h: p.v * h + p.one * x + p.row * h - 0.5 * x / (2 + p.one.square()) + (1 - h),
    "lerp": lambda p, x, h: torch.lerp(h, x, 0.3) + torch.lerp(x, h, p.v),
    "addcmul": lambda p, x, h: torch.addcmul(p.b, x, h, value=0.5),
    "addcdiv": lambda p, x, h: torch.addcdiv(h, x, positive(x, h), value=0.5),
    "mask of columns": lambda p, x, h: p.keep[0] * h + x,
    "mask in x": lambda p, x, h: masked(x, h),
    "zeros": lambda p, x, h: (zeros(x) + p.v) * h + torch.zeros_like(h).exp() * x + h.new_zeros(h.shape) + h,
    "ones": lambda p, x, h: torch.ones_like(h) * x + h.new_ones(h.shape) - torch.full_like(h, 0.3) * h,
    "numbers alone": lambda p, x, h: torch.where(x[:, :1] > 0, zeros(x), torch.ones_like(h)).sum(1, True) * h,
    "sum of a number": lambda p, x, h: (torch.ones_like(h).sum(1, True) + torch.ones_like(h) * 2) * h + x,
    "detach": lambda p, x, h: h.detach() * x + h * p.v.detach(),
    "no_grad": stopped,
    "layer_norm": lambda p, x, h: F.layer_norm(x + 2 * h, h.shape[1:]) + p.norm(h - x),
    "softmax": lambda p, x, h: F.softmax(x + h, -1) * 3 + torch.softmax(h, 1),
    "log_softmax": lambda p, x, h: F.log_softmax(x + h, -1),
    "logsumexp": lambda p, x, h: torch.logsumexp(x + h, 1, keepdim=True) + h * x.logsumexp(-1).unsqueeze(1),
    "sum": lambda p, x, h: x.sum(-1, keepdim=True) * h + h.sum(1).unsqueeze(1),
    "mean": lambda p, x, h: x.mean(-1, keepdim=True) * h + h.mean(1).unsqueeze(-1),
    "amax": lambda p, x, h: x.amax(-1, keepdim=True) * h + (h + 1 - h).amax(1)[:, None],
    "amin": lambda p, x, h: x.amin(-1, keepdim=True) * h + h.amin(1).unsqueeze(1),
    "norm": lambda p, x, h: h / (1 + x.norm(dim=-1, keepdim=True)) + h.norm(dim=1).unsqueeze(1) + F.normalize(h),
    "other norms": lambda p, x, h: h.norm(1, -1, True) * x + x.norm(float("inf"), -1, True) * h,
    "norm of zeros": lambda p, x, h: (h * 0).norm(dim=1, keepdim=True) + (h - h).std(1, False, True) + x,
    "var of all": lambda p, x, h: x.var(1, correction=0, keepdim=True) * h + x.std(1, False, True) + h,
    "expand": lambda p, x, h: x[:, :1].expand(-1, h.shape[1]) * h + x.mean(1, keepdim=True).expand_as(h),
    "expand a number": lambda p, x, h: torch.zeros(len(x), 1, dtype=x.dtype).expand(-1, h.shape[1]) + h * x,
    "W * mask": lambda p, x, h: h @ (p.w * p.keep) + x,
    "W / norm": lambda p, x, h: h @ (p.w / p.w.norm()) + F.linear(x, p.u / p.u.norm(dim=1, keepdim=True)),
    "joined weights": lambda p, x, h: torch.cat([x, h], 1) @ torch.cat([p.w, p.u]),
    "rows of a weight": lambda p, x, h: F.linear(h, p.w[p.rows]) + x,
    "tied": lambda p, x, h: x @ p.w + h @ p.tied.t(),
    "cat into Linear": lambda p, x, h: torch.tanh(F.linear(torch.cat([h, x], -1), p.both, p.b)),
    "nothing of h": lambda p, x, h: torch.tanh(x * p.v),
    "alone and clone": lambda p, x, h: (+h).clone().contiguous() * x.to(x.dtype),
}
# columns: the width is a multiple of 5
COLUMNS = {
    "chunk": lambda p, x, h: torch.cat(x.chunk(2, 1)[::-1], 1) * h,
    "split": lambda p, x, h: (
        torch.cat(x.split(2, dim=-1)[::-1], -1) + torch.cat(h.split([1, len(p.v) - 1], 1)[::-1], 1)
    ),
    "slices": lambda p, x, h: torch.cat([x[:, 2:], h[:, :2]], 1) * h[:, 1:2] + h[..., -1:],
    "narrow": lambda p, x, h: x.narrow(1, 1, 3).sum(1, keepdim=True) * h,
    "select": lambda p, x, h: x[:, 0].unsqueeze(1) * h + h.select(1, -1)[:, None],
    "stack": lambda p, x, h: torch.stack([x, h], 1).flatten(1) @ p.both.t(),
    "unbind": lambda p, x, h: torch.stack([x, h, x], 1).unbind(1)[1] * x,
    "view": lambda p, x, h: (x.view(len(x), 5, -1) * h.reshape(len(h), 5, -1)[:, :1]).view(len(x), -1) + h,
    "unflatten": lambda p, x, h: (x.unflatten(1, (5, -1)) + h.unflatten(1, (5, -1))).tanh().flatten(1),
    "squeeze": lambda p, x, h: x.unsqueeze(1).squeeze(1) * h.unsqueeze(-1).squeeze(-1) + x[:, :1].squeeze(1)[:, None],
    "columns of numbers": lambda p, x, h: torch.cat([zeros(x)[:, :2], h[:, 2:]], 1) + torch.ones_like(x)[:, 1:2] * x,
    "columns of a choice": lambda p, x, h: (
        torch.where(x[:, :1] > 0, zeros(x), torch.ones_like(h))[:, 1:4].sum(1, True) * h
    ),
    "cat with a vector": lambda p, x, h: torch.cat([(zeros(x) + p.v)[:, :2], h[:, 2:]], 1) + x,
    "roll": lambda p, x, h: h.roll(1, 1) * x.roll(-2, -1),
    "glu": lambda p, x, h: F.glu(torch.cat([x, h], 1), 1),
    "var": lambda p, x, h: x.var(-1, keepdim=True) * h + h.var(1).unsqueeze(1),
    "std": lambda p, x, h: x.std(-1, keepdim=True) * h + h.std(1).unsqueeze(1),
    "std_mean": lambda p, x, h: (x - torch.std_mean(x, 1, keepdim=True)[1]) / torch.var_mean(h + x, 1, keepdim=True)[0],
    "groups of gates": lambda p, x, h: F.linear(x, torch.cat([p.w, p.u])).chunk(2, 1)[0] * h,
}
SIZES = {"f64": (3, 2, 5, torch.float64), "f32": (2, 1, 65, torch.float32)}


def bare(body, p):
    """A step whose state takes part of what the operation gives."""

    def step(x, h):
        z = body(p, x, h)
        return z, (0.5 * h + 0.25 * z,)

    return step


def pulled(y, last, leaves):
    """Gradients of one number that y and every last state enter, with weights of their own."""
    draw = torch.Generator().manual_seed(1)
    total = sum((v * torch.randn(v.shape, generator=draw, dtype=v.dtype)).sum() for v in (y, *last))
    return torch.autograd.grad(total, leaves, materialize_grads=True)


def ways_agree(step, x, state, params=(), ways=FAST, **context):
    """Reference and fused give the values and the gradients of the plain loop."""
    leaves = [x, *state, *params, *(v for v in context.values() if v.requires_grad)]
    with elman.backend("plain"):
        y, last = elman.scan(step, x, state, **context)
    assert y.isfinite().all()
    want = pulled(y, last, leaves)
    for name in ways:
        with elman.backend(name):
            got, got_last = elman.scan(step, x, state, **context)
        close(got, y, f"{name}: y")
        all_close(got_last, last, f"{name}: last state")
        all_close(pulled(got, got_last, leaves), want, f"{name}: gradient")


def sample(T, B, *widths, dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(T, B, widths[0], generator=draw, dtype=dtype, requires_grad=True)
    return x, tuple(torch.rand(B, w, generator=draw, dtype=dtype, requires_grad=True) for w in widths[1:])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*NUMBERS, *COLUMNS])
def test_operation(name, size):
    steps, rows, H, dtype = SIZES[size]
    p = Params(H, dtype)
    ways_agree(bare((NUMBERS | COLUMNS)[name], p), *sample(steps, rows, H, H, dtype=dtype), tuple(p.parameters()))


@pytest.mark.parametrize("name", NUMBERS)
def test_operation_of_width_one(name):
    p = Params(1, torch.float64)
    ways_agree(bare(NUMBERS[name], p), *sample(2, 2, 1, 1), tuple(p.parameters()), ways=["fused"])


def test_tensors_of_the_closure_and_of_the_context():
    w, v = (torch.randn(5, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    scale = torch.randn(5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(B, 5, dtype=torch.float64, requires_grad=True)
    dropped = (torch.rand(B, 5) < 0.5).double() * 2

    def step(x, h, *, scale, bias, mask, kept):
        h = torch.tanh(x @ w + (h * mask) @ v * scale + bias)
        return torch.where(kept, h, 0.0), (h,)

    ways_agree(step, *sample(T, B, 5, 5), (w, v), scale=scale, bias=bias, mask=dropped, kept=dropped[:, :1] > 0)


def test_states_of_different_widths_in_one_linear():
    mix, out = nn.Linear(4 + 3 + 7, 3 + 7).double(), nn.Linear(7, 2).double()

    def step(x, h, c):
        new, keep = mix(torch.cat([x, h, c], 1)).split([3, 7], 1)
        return out(c), (torch.tanh(new), torch.sigmoid(keep) * c + torch.cat([h, x], -1))

    ways_agree(step, *sample(T, B, 4, 3, 7), (*mix.parameters(), *out.parameters()))


# (B, S, N) of each row, and vectors (B, S) and (B, N)
OWN = {
    "m v": lambda p, m, w, v: torch.bmm(m, v[..., None])[..., 0],
    "m v by matmul": lambda p, m, w, v: torch.matmul(m, v.unsqueeze(-1)).squeeze(-1),
    "w m": lambda p, m, w, v: torch.bmm(w[:, None], m)[:, 0],
    "w v": lambda p, m, w, v: (torch.bmm(w[..., None], v[:, None]) * m).sum(-1),
    "repeated along rows": lambda p, m, w, v: torch.tanh(m + v[:, None]).sum(1),
    "repeated along columns": lambda p, m, w, v: torch.tanh(m * w[..., None]).sum(2),
    "summed products": lambda p, m, w, v: (m * v.unsqueeze(1)).sum(-1, keepdim=True)[..., 0],
    "summed products of rows": lambda p, m, w, v: (m * w.unsqueeze(2)).sum(1),
    "a shared vector": lambda p, m, w, v: (torch.sigmoid(m) * p).sum(-1),
    "scores": lambda p, m, w, v: (torch.tanh(m + v[:, None]) * p).sum(-1).softmax(-1),
}


OWN_SIZES = {1: [(5, 3), (1, 4), (4, 1)], 9: [(5, 3), (7, 33), (2, 2), (65, 2)]}  # by rows: narrow and wide plans


@pytest.mark.parametrize(("rows", "size"), [(rows, size) for rows in OWN_SIZES for size in OWN_SIZES[rows]], ids=str)
@pytest.mark.parametrize("name", OWN)
def test_products_of_each_rows_own(name, rows, size):
    S, N = size
    p = torch.randn(N, dtype=torch.float64, requires_grad=True)
    m = torch.randn(rows, S, N, dtype=torch.float64, requires_grad=True)

    def step(x, h, k, *, m):
        out = OWN[name](p, k.view(-1, S, N) + 0.5 * m, x[:, :S] + h[:, :S], x[:, S:] * h[:, S:])
        new = torch.cat([out, h], -1)[:, : h.shape[1]]
        return out, (0.5 * h + 0.25 * new, 0.9 * k + torch.bmm(h[:, :S][..., None], x[:, S:][:, None]).flatten(1))

    ways_agree(step, *sample(T, rows, S + N, S + N, S * N), (p,), m=m)


def test_rms_norm():
    norm = nn.RMSNorm(5, dtype=torch.float64)
    ways_agree(bare(lambda p, x, h: norm(h + x), norm), *sample(T, B, 5, 5), tuple(norm.parameters()))


def test_einsum_with_the_parameter_first():
    p = Params(5, torch.float64)
    ways_agree(bare(lambda p, x, h: torch.einsum("oi,bi->bo", p.w, h) + x, p), *sample(T, B, 5, 5), (p.w,))


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32])
def test_a_shared_tensor_of_another_type(kind):
    other = torch.tensor([1, 0, 1, 1, 0]).to(kind)
    ways_agree(lambda x, h: (h * other + x, (h * other,)), *sample(T, B, 5, 5))


def test_a_number_taken_from_a_parameter_is_not_kept():
    p = Params(5, torch.float64)
    x, (h,) = sample(T, B, 5, 5)
    step = bare(lambda p, x, h: h * p.one.item() + x, p)
    with pytest.warns(BackendWarning, match="turns a parameter into a Python number"):
        elman.scan(step, x, h)
    with torch.no_grad():
        p.one.fill_(7.0)
    y, _ = elman.scan(step, x, h)
    with elman.backend("plain"):
        close(y, elman.scan(step, x, h)[0])


# ---- ties, NaN and infinities

EDGES = torch.tensor([-6, -3, -1, -0.5, 0.0, 0.5, 1, 3, 6, 20])
KINKS = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "threshold": lambda a: F.threshold(a, 0.5, 1.0),
    "elu": F.elu,
    "celu": F.celu,
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "softplus": F.softplus,
    "abs": torch.abs,
    "sign": torch.sign,
    "clamp": lambda a: a.clamp(-1, 1),
    "clamp to nothing": lambda a: a.clamp(3, 1),
    "maximum": lambda a: torch.maximum(a, a.detach()),
    "minimum": lambda a: torch.minimum(a, torch.ones_like(a)),
    "amax": lambda a: torch.cat([a, a], 1).amax(1, keepdim=True) * a,
    "inf norm": lambda a: torch.cat([a, -a], 1).norm(float("inf"), 1, keepdim=True) * a,
    "norm at 0": lambda a: (a * 0).norm(dim=1, keepdim=True) * a,
    "1 - norm": lambda a: a.norm(1, 1, keepdim=True) * a,
    "power": lambda a: a**2 + a**3,
}


@pytest.mark.parametrize("name", KINKS)
def test_gradients_on_a_kink_are_torchs(name):
    _, state = sample(T, 1, 10, 10)
    x = EDGES.double().expand(T, 1, -1).clone().requires_grad_()
    kink = KINKS[name]
    ways_agree(lambda x, h: (kink(x) + h, (h * 0.5,)), x, state)


STRANGE = torch.tensor([[float("nan"), 1.0, -2.0], [float("inf"), 0.5, 1.0], [-float("inf"), 0.1, 2.0], [0.0, 1, -1.0]])
PASSING = {
    name: getattr(torch, name)
    for name in "sigmoid tanh relu exp expm1 log log1p sqrt rsqrt reciprocal abs erf sign square".split()
} | {
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "softplus": F.softplus,
    "logsigmoid": F.logsigmoid,
    "silu": F.silu,
    "hardsigmoid": F.hardsigmoid,
    "clamp": lambda a: a.clamp(-0.5, 0.5),
    "where": lambda a: torch.where(a > 0, a, 0.5 * a),
    "masked_fill": lambda a: a.masked_fill(a.isnan(), 0.0),
    "isfinite": lambda a: torch.where(a.isfinite(), a, 0.0),
    "nan_to_num": lambda a: a.nan_to_num(0.0, 9.0, -9.0),
    "sum": lambda a: a.sum(1, keepdim=True) + a,
    "amax": lambda a: a.amax(1, keepdim=True) + a,
    "softmax": lambda a: a.softmax(1),
    "logsumexp": lambda a: a.logsumexp(1, keepdim=True) + a,
    "norm": lambda a: a.norm(dim=1, keepdim=True) + a,
}


def passed(function, name, dtype):
    x = STRANGE.to(dtype).expand(2, -1, -1).clone().requires_grad_()
    h = torch.ones(4, 3, dtype=dtype, requires_grad=True)
    with elman.backend(name):
        y, (last,) = elman.scan(lambda x, h: (function(x) + h, (h * 0.5,)), x, h)
        return y, last, *torch.autograd.grad(y.sum(), [x, h], materialize_grads=True)


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_nan_and_infinities_pass_as_in_torch(name, dtype):
    want = passed(PASSING[name], "plain", dtype)
    for way in FAST:
        for got, value in zip(passed(PASSING[name], way, dtype), want):
            torch.testing.assert_close(got, value, equal_nan=True, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_nan_passes_the_larger_and_the_smaller(name):
    either = getattr(torch, name)
    want = passed(lambda a: either(a, a * 0.5), "plain", torch.float64)
    for way in FAST:
        got = passed(lambda a: either(a, a * 0.5), way, torch.float64)
        torch.testing.assert_close(got[0], want[0], equal_nan=True)


@pytest.mark.parametrize("function", [F.softplus, F.logsigmoid], ids=["softplus", "logsigmoid"])
@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 95.0), (torch.float64, 800.0)], ids=["f32", "f64"])
def test_second_derivatives_where_an_exponential_overflows(function, dtype, far):
    found = []
    for name in ("plain", *FAST):
        x = torch.tensor([-far, -1.0, 0.0, 1.0, far], dtype=dtype).expand(3, 2, 5).clone().requires_grad_()
        with elman.backend(name):
            y, _ = elman.scan(lambda x, h: (function(x) + h, (0.5 * h,)), x, torch.zeros(2, 5, dtype=dtype))
        first = torch.autograd.grad(y.sum(), x, create_graph=True)[0]
        found.append((first, torch.autograd.grad(first.sum(), x)[0]))
    for got in found[1:]:
        for one, other in zip(got, found[0]):
            torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-5)


# ---- what has no place in the graph

REFUSED = {
    "fft": lambda x, h: torch.fft.fft(h).real,
    "cumsum": lambda x, h: h.cumsum(1),
    "gather": lambda x, h: h.gather(1, torch.zeros(len(x), 5, dtype=torch.long)),
    "dropout": lambda x, h: F.dropout(h, 0.5),
    "sum: over the whole batch": lambda x, h: h * h.sum().item(),
    "select": lambda x, h: h * h[0, 0].item(),
    "copy_": lambda x, h: h.clone().copy_(x),
    "rand_like": lambda x, h: h * torch.rand_like(h),
    "aten.rand": lambda x, h: h * torch.rand(len(h), 1),
    "whole batch, while a row depends on nothing but itself; use amin": lambda x, h: h / (1 + h.min()),
    "use amax": lambda x, h: h.max(1, keepdim=True)[0] * h,
    "power 2.5": lambda x, h: h.square().pow(2.5),
    "norm of order 3": lambda x, h: h / h.norm(3, 1, True),
    "t: the batch comes first": lambda x, h: h.t().t(),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_has_no_place_is_named_with_its_line_and_still_runs(words):
    body = REFUSED[words]
    x, state = sample(T, B, 5, 5, dtype=torch.float32)

    def step(x, h):
        z = body(x, h)
        return z + x, (h,)

    step.__qualname__ = f"step with {words}"
    with pytest.warns(BackendWarning) as said:
        elman.scan(step, x, state)
    text = str(said[0].message)
    assert re.search(rf"test_ops\.py:{body.__code__.co_firstlineno}: .*{re.escape(words)}", text), text
    for name in FAST:
        with elman.backend(name), pytest.raises(CellError, match=re.escape(words)):
            elman.scan(step, x, state)
    torch.manual_seed(0)
    y, _ = elman.scan(step, x, state)
    torch.manual_seed(0)
    with elman.backend("plain"):
        want, _ = elman.scan(step, x, state)
    assert torch.equal(y, want)
