"""A step in plain torch -> Loop, by running it once on a small batch and writing down what reaches torch's core.

Operations on parameters alone (a mask on weights, a norm of weights) are not part of the loop: they are
kept as a short program that is run once a call, and torch differentiates them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from elman.compiler.aten_ops import RULES, UntraceableError, Value
from elman.compiler.graph import Loop, Node, Op, const

ROWS = 3  # the batch that a step is traced with
TORCH = str(Path(torch.__file__).parent)
OWN = str(Path(__file__).parent)


@dataclass(frozen=True)
class Recipe:
    """How one shared tensor is made from others: the output `index` of func(*args), tensors named by `Ref`."""

    func: Any  # one of torch.ops.aten
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    index: int | None = None


@dataclass(frozen=True)
class Ref:
    """A shared tensor by its name."""

    name: str


@dataclass(frozen=True)
class Traced:
    """What tracing found: the loop, the program for its shared values, and the shapes of outputs beyond (T, B, width).

    `reads` names the tensors, of those offered as shared, that the step reads.
    """

    loop: Loop
    recipes: Mapping[str, Recipe]
    shapes: Mapping[str, tuple[int, ...]]
    reads: tuple[str, ...]

    def shared(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loop's shared values, from the parameters as they are now; differentiable."""
        made = dict(given)
        for name, recipe in self.recipes.items():
            made[name] = run_recipe(recipe, made)
        return {name: made[name] for name in self.needed}

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """Names of the loop's shared values."""
        return tuple(self.loop.leaves(Op.SHARED))


def run_recipe(recipe: Recipe, made: Mapping[str, Tensor]) -> Tensor:
    """One line of the program for shared values."""
    out = recipe.func(*fill(recipe.args, made), **{k: fill(v, made) for k, v in recipe.kwargs.items()})
    result: Tensor = out if recipe.index is None else out[recipe.index]
    return result


def fill(value: Any, made: Mapping[str, Tensor]) -> Any:
    """Arguments with every Ref replaced by its tensor."""
    if isinstance(value, Ref):
        return made[value.name]
    return type(value)(fill(v, made) for v in value) if isinstance(value, (tuple, list)) else value


def frame_of_user(*others: str) -> FrameType | None:
    """Innermost frame that is neither torch's nor the compiler's, nor of a file whose path begins as `others` say."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((TORCH, OWN, "<", *others)):
        frame = frame.f_back
    return frame


def line_of_user() -> str:
    """file:line of that frame."""
    frame = frame_of_user()
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def line_of_error(error: BaseException, *others: str) -> str:
    """The same of the frame in which an error came up, with a colon; empty where there is none."""
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    found = [f"{Path(file).name}:{line}: " for file, line in frames if not file.startswith((TORCH, OWN, "<", *others))]
    return found[-1] if found else ""


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in a nest of arguments."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from tensors(v)


class Recorder(TorchDispatchMode):
    """Writes down what each core operation does to traced values while it runs."""

    def __init__(self, shared: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.values: dict[int, Value] = {}
        self.tensors = dict(shared)
        self.names = {id(t): name for name, t in shared.items()}
        self.recipes: dict[str, Recipe] = {}
        self.matrices: dict[str, Node] = {}
        self.alive: list[Any] = []  # ids stay unique only while their tensors live

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Leave torch._dynamo out of it: importing it takes two seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [*tensors(args), *tensors(list(kwargs.values()))]
        if func._schema.is_mutable and any(id(t) in self.names for t in given):
            raise UntraceableError(f"{line_of_user()}: the step changes a parameter or buffer in place")
        out = func(*args, **kwargs)
        self.alive.append((given, out))
        if any(id(t) in self.values for t in given):
            self.record(func, args, kwargs, out)
        else:
            self.prepare(func, args, kwargs, given, out)
        return out

    def record(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        where, packet = line_of_user(), func.overloadpacket
        name = str(packet).removeprefix("aten.")
        rule = RULES.get(packet)
        if rule is None or func._schema.is_mutable:
            how, hint = "uses", ""
            if func._schema.is_mutable:
                how, hint = "writes in place with", "; make a new value, as h = h + x does in place of h += x"
            raise UntraceableError(f"{where}: the step {how} {name}, which has no place in elman's graph{hint}")
        known = {k: v for k, v in kwargs.items() if k not in ("device", "layout", "pin_memory", "memory_format")}
        try:
            result = rule(Place(self, where), *self.known(args), **{k: self.known(v) for k, v in known.items()})
        except UntraceableError as error:
            placed = str(error).startswith(where)
            raise UntraceableError(str(error) if placed else f"{where}: {name}: {error}") from None
        if torch.is_grad_enabled():
            self.bind(out, result)
        else:
            self.bind(out, detached(result, where))

    def bind(self, out: Any, result: Any) -> None:
        if isinstance(out, Tensor):
            if out.is_floating_point() and out.dtype != self.dtype:
                raise UntraceableError(f"{line_of_user()}: the step turns values of {self.dtype} into {out.dtype}")
            if isinstance(result, Value):
                self.values[id(out)] = result
        elif isinstance(out, (tuple, list)):
            for o, r in zip(out, result):
                self.bind(o, r)
        else:
            raise UntraceableError(
                f"{line_of_user()}: the step turns a traced value into a Python number, which differs from run to run"
            )

    def known(self, value: Any) -> Any:
        """Arguments with tensors replaced by what is known of them."""
        if isinstance(value, Tensor):
            return self.values.get(id(value)) or self.shared(value)
        return type(value)(map(self.known, value)) if isinstance(value, (tuple, list)) else value

    def shared(self, tensor: Tensor) -> Value:
        name = self.names.get(id(tensor))
        if name is None:
            raise UntraceableError(
                f"{line_of_user()}: the step reads a tensor of shape {tuple(tensor.shape)} that elman cannot find; "
                "make it a parameter, a buffer, an attribute of the cell or a context argument"
            )
        rows = tensor.shape[0] if tensor.dim() == 2 else 0
        if tensor.dim() > 2:
            raise UntraceableError(
                f"a shared tensor of shape {tuple(tensor.shape)} meets the state; use two dimensions"
            )
        if name not in self.matrices:
            width = tensor.shape[-1] if tensor.dim() else 1
            self.matrices[name] = Node(Op.SHARED, (), name, width, rows, line_of_user())
        return Value(self.matrices[name], tuple(tensor.shape))

    def prepare(self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor], out: Any) -> None:
        """An operation on shared tensors alone: it is written down, to be run again at each call."""
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise UntraceableError(f"{line_of_user()}: the step draws random numbers ({func.overloadpacket})")
        if given and not isinstance(out, (Tensor, tuple, list)):
            raise UntraceableError(
                f"{line_of_user()}: the step turns a parameter into a Python number, which a graph would keep for ever"
            )
        outs = [out] if isinstance(out, Tensor) else list(out) if isinstance(out, (tuple, list)) else []
        fresh = not given or str(func.overloadpacket) == "aten.lift_fresh"
        if fresh and outs and uniform(out):
            self.values[id(out)] = Value(const(float(out.flatten()[0])), tuple(out.shape[1:]))
            return
        if func._schema.is_mutable or not (fresh or all(id(t) in self.names for t in given)):
            return  # unknown tensors are named when, and only when, they meet a traced value
        for i, tensor in enumerate(outs):
            index = None if isinstance(out, Tensor) else i
            self.note(tensor, Recipe(func, self.refs(args), {k: self.refs(v) for k, v in kwargs.items()}, index))
            if not torch.is_grad_enabled():
                self.note(tensor, Recipe(torch.ops.aten.detach.default, (Ref(self.names[id(tensor)]),), {}))

    def note(self, tensor: Tensor, recipe: Recipe) -> None:
        source = next((r.name for r in recipe.args if isinstance(r, Ref)), "made")
        name = f"{source}.{recipe.func.overloadpacket.__name__}"
        while name in self.recipes:
            name += "'"
        self.recipes[name] = recipe
        self.names[id(tensor)] = name
        self.tensors[name] = tensor

    def refs(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return Ref(self.names[id(value)]) if id(value) in self.names else value
        return type(value)(map(self.refs, value)) if isinstance(value, (tuple, list)) else value


@dataclass(frozen=True)
class Place:
    """Where a rule is applied: the recorder, and the user's line."""

    recorder: Recorder
    where: str

    def shared(self, value: Value, func: Any, *args: Any) -> Value:
        """A shared value made of another by one core operation."""
        source = self.recorder.tensors[value.node.arg]
        out = func(source, *args)
        self.recorder.note(out, Recipe(func, (Ref(value.node.arg), *args), {}))
        return self.recorder.shared(out)

    def untransposed(self, value: Value) -> Value:
        """The matrix of which a shared one is the transpose, as a Linear's weight is; else the same."""
        recipe = self.recorder.recipes.get(value.node.arg)
        if recipe is None or recipe.func is not torch.ops.aten.t.default:
            return value
        return self.recorder.shared(self.recorder.tensors[recipe.args[0].name])


TO_PYTHON = (Tensor.tolist, Tensor.numpy, Tensor.__array__)
HOOKS = (Tensor.register_hook, Tensor.register_post_accumulate_grad_hook, Tensor.retain_grad)


class Plainly(TorchFunctionMode):
    """What torch does in a roundabout way, in a plain one: einsum of matrices, rms_norm."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.einsum and len(args) == 3 and isinstance(args[0], str):
            product = as_product(*args)
            if product is not None:
                return product
        if func in TO_PYTHON:
            raise UntraceableError(f"{line_of_user()}: the step turns a tensor into Python numbers ({func.__name__})")
        if func is torch.rms_norm or func is F.rms_norm:
            return rms_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class Unhooked(TorchFunctionMode):
    """No step may look at its gradients, or change them: a graph has no place for that."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in HOOKS:
            raise UntraceableError(f"{line_of_user()}: the step asks for its gradients ({func.__name__})")
        return func(*args, **(kwargs or {}))


def as_product(equation: str, a: Tensor, b: Tensor) -> Tensor | None:
    """einsum over one index of two matrices, by matmul; None where it is something else."""
    left, arrow, out = equation.replace(" ", "").partition("->")
    one, comma, two = left.partition(",")
    summed = set(one) & set(two)
    if not (arrow and comma and len(one) == len(two) == len(out) == 2 and len(summed) == 1 and summed.isdisjoint(out)):
        return None
    if out[0] in two:
        return as_product(f"{two},{one}->{out}", b, a)
    k = summed.pop()
    a = a if one[1] == k else a.t()
    b = b if two[0] == k else b.t()
    return a @ b


def rms_norm(x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """torch's, without writing in place."""
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    scaled = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return scaled if weight is None else scaled * weight


def uniform(out: Any) -> bool:
    """A tensor that holds one number throughout, such as torch.zeros makes."""
    return (
        isinstance(out, Tensor)
        and out.numel() > 0
        and out.is_floating_point()
        and bool((out == out.flatten()[0]).all())
    )


def detached(result: Any, where: str) -> Any:
    """What an operation gave while gradients were off."""
    if isinstance(result, (tuple, list)):
        return [detached(r, where) for r in result]
    return Value(Node(Op.DETACH, (result.node,), None, result.node.width, 0, where), result.shape) if result else None


def trace(
    step: Callable[..., tuple[Mapping[str, Tensor], Mapping[str, Tensor]]],
    per_step: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    fixed: Mapping[str, Tensor],
    shared: Mapping[str, Tensor],
) -> Traced:
    """Run step(per_step, state, fixed) -> (outputs, new state) once and write it down.

    Shapes: a sample of each, (B, width). `shared` offers every tensor that the step may read, by name.
    Errors: UntraceableError, naming the operation and the user's file:line, for what the graph has no place for.
    """
    recorder = Recorder(shared, next(t.dtype for t in per_step.values() if t.is_floating_point()))
    for op, group in ((Op.STEP, per_step), (Op.STATE, state), (Op.FIXED, fixed)):
        for name, tensor in group.items():
            shape = tuple(tensor.shape[1:])
            recorder.values[id(tensor)] = Value(Node(op, (), name, math.prod(shape)), shape)
            recorder.alive.append(tensor)
    with torch.enable_grad(), Plainly(), recorder:
        outputs, new = step(per_step, state, fixed)

    def found(name: str, tensor: Tensor) -> Value:
        value = recorder.values.get(id(tensor))
        if value is None:
            raise UntraceableError(f"{name} does not depend on what enters the step")
        width = math.prod(tensor.shape[1:])
        if value.node.width != width or not value.batched:
            value = Value(Node(Op.ADD, (value.node, const(0.0, width)), None, width), tuple(tensor.shape[1:]))
        return value

    given = {k: found(k, v) for k, v in outputs.items()}
    carried = {k: found(k, v).node for k, v in new.items()}
    loop = Loop({k: v.node for k, v in given.items()}, carried)
    names = set(loop.leaves(Op.SHARED))
    recipes = needed(recorder.recipes, names)
    reads = [r for r in shared if r in names or any(r in mentioned(recipe) for recipe in recipes.values())]
    return Traced(loop, recipes, {k: v.shape for k, v in given.items()}, tuple(reads))


def mentioned(recipe: Recipe) -> set[str]:
    """The names that one recipe reads."""

    def names(value: Any) -> Iterator[str]:
        if isinstance(value, Ref):
            yield value.name
        elif isinstance(value, (tuple, list)):
            for v in value:
                yield from names(v)

    return set(names(recipe.args)) | set(names(list(recipe.kwargs.values())))


def needed(recipes: Mapping[str, Recipe], names: set[str]) -> dict[str, Recipe]:
    """The recipes that lead to these names, in the order in which they were found."""
    wanted = set(names)
    for name, recipe in reversed(list(recipes.items())):
        if name in wanted:
            wanted |= mentioned(recipe)
    return {name: recipe for name, recipe in recipes.items() if name in wanted}
