"""A step in plain torch -> Loop, by running it once on a small batch and writing down what reaches torch's core.

Operations on parameters alone (a mask on weights, a norm of weights) are not part of the loop: they are
kept as a short program that is run once a call, and torch differentiates them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from elman.compiler.aten_ops import RULES, UntraceableError, Value
from elman.compiler.frames import line_of_user
from elman.compiler.graph import Loop, Node, Op, const
from elman.compiler.modes import Plainly
from elman.compiler.written import anew, made, memory, tensors, written

ROWS = 3  # the batch that a step is traced with


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


class Recorder(TorchDispatchMode):
    """Writes down what each core operation does to traced values while it runs."""

    def __init__(self, shared: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.values: dict[int, Value] = {}
        self.numbers: dict[int, Value] = {}  # tensors that the step has made and that hold one number throughout
        self.tensors = dict(shared)
        self.names = {id(t): name for name, t in shared.items()}
        self.recipes: dict[str, Recipe] = {}
        self.matrices: dict[str, Node] = {}
        self.alive: list[Any] = []  # ids stay unique only while their tensors live
        self.own: set[int] = set()  # memories that the step has made
        self.rewritten: set[int] = set()  # those of them that it wrote to later
        self.apart: set[int] = set()  # parts of a value that is, as torch's own cells promise, not looked at any more

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Leave torch._dynamo out of it: importing it takes two seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [*tensors(args), *tensors(list(kwargs.values()))]
        writes = written(func, args, kwargs) if func._schema.is_mutable else []
        for tensor in writes:
            self.check_written(tensor)
        out = func(*args, **kwargs)
        self.alive.append((given, out))
        self.own |= made(func, out)
        if any(id(t) in self.values for t in given):
            if func._schema.is_mutable:
                self.replace(func, args, kwargs, writes)
            else:
                self.record(func, args, kwargs, out)
        elif torch.Tag.nondeterministic_seeded in func.tags:
            raise UntraceableError(f"{line_of_user()}: the step draws random numbers ({func.overloadpacket})")
        elif func._schema.is_mutable:
            self.forget(writes)
        else:
            self.prepare(func, args, kwargs, given, out)
        return out

    def check_written(self, tensor: Tensor) -> None:
        own = memory(tensor) in self.own
        if id(tensor) in self.names and not own:
            raise UntraceableError(f"{line_of_user()}: the step changes a parameter or buffer in place")
        if id(tensor) not in self.values and not own:
            raise UntraceableError(
                f"{line_of_user()}: the step writes to a tensor that it has not made; let it be a state"
            )

    def record(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        where = line_of_user()
        result = self.ruled(func.overloadpacket, where, args, kwargs)
        if isinstance(result, Value) and self.of_numbers(args) and uniform(out):
            result = Value(const(float(out.flatten()[0])), result.shape)
        if "unsafe" in func.overloadpacket.__name__:
            self.apart |= {id(t) for t in tensors(out)}
        if torch.is_grad_enabled():
            self.bind(out, result)
        else:
            self.bind(out, detached(result, where))

    def replace(self, func: Any, args: Any, kwargs: Any, writes: list[Tensor]) -> None:
        """An operation in place on a value that the step has made, and of which it has no view: a new value instead."""
        target, other, where = args[0], anew(func), line_of_user()
        alone = len(writes) == 1 and writes[0] is target and memory(target) in self.own and torch.is_grad_enabled()
        viewed = any(t is not target and memory(t) == memory(target) for t in tensors(self.alive))
        if not alone or (viewed and id(target) not in self.apart) or other not in RULES:
            name = str(func.overloadpacket).removeprefix("aten.")
            raise UntraceableError(
                f"{where}: the step writes in place with {name}, which has no place in elman's graph; make a new "
                "value, as h = h + x does in place of h += x"
            )
        self.bind(target, self.ruled(other, where, args, kwargs))

    def ruled(self, packet: Any, where: str, args: Any, kwargs: Any) -> Any:
        """What a core operation makes of what is known of its arguments."""
        name, rule = str(packet).removeprefix("aten."), RULES.get(packet)
        if rule is None:
            raise UntraceableError(f"{where}: the step uses {name}, which has no place in elman's graph")
        known = {k: v for k, v in kwargs.items() if k not in ("device", "layout", "pin_memory", "memory_format")}
        try:
            return rule(Place(self, where), *self.known(args), **{k: self.known(v) for k, v in known.items()})
        except UntraceableError as error:
            placed = str(error).startswith(where)
            raise UntraceableError(str(error) if placed else f"{where}: {name}: {error}") from None

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

    def of_numbers(self, args: Any) -> bool:
        """All tensors among the arguments are known to be numbers."""
        values = (self.values.get(id(t)) or self.numbers.get(id(t)) for t in tensors(args))
        return all(value is not None and value.node.op is Op.CONST for value in values)

    def known(self, value: Any) -> Any:
        """Arguments with tensors replaced by what is known of them."""
        if isinstance(value, Tensor):
            return self.values.get(id(value)) or self.numbers.get(id(value)) or self.shared(value)
        return type(value)(map(self.known, value)) if isinstance(value, (tuple, list)) else value

    def shared(self, tensor: Tensor) -> Value:
        name = self.names.get(id(tensor))
        if name is None:
            what = (
                "that elman cannot find; make it a parameter, a buffer, an attribute of the cell or a context argument"
            )
            if memory(tensor) in self.rewritten:
                what = "after writing to it in place; make it whole, as torch.cat and torch.where do"
            raise UntraceableError(f"{line_of_user()}: the step reads a tensor of shape {tuple(tensor.shape)} {what}")
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
        if given and not isinstance(out, (Tensor, tuple, list)):
            raise UntraceableError(
                f"{line_of_user()}: the step turns a parameter into a Python number, which a graph would keep for ever"
            )
        outs = [out] if isinstance(out, Tensor) else list(out) if isinstance(out, (tuple, list)) else []
        fresh = not given or str(func.overloadpacket) == "aten.lift_fresh"
        if isinstance(out, Tensor) and (fresh or all(id(t) in self.numbers for t in given)) and uniform(out):
            if out.dim() and out.shape[0] == ROWS:  # as many rows as the batch has
                self.values[id(out)] = number_of(out)
                return
            self.numbers[id(out)] = number_of(out)
        if not (fresh or all(id(t) in self.names for t in given)):
            return  # unknown tensors are named when, and only when, they meet a traced value
        for i, tensor in enumerate(outs):
            index = None if isinstance(out, Tensor) else i
            self.note(tensor, Recipe(func, self.refs(args), {k: self.refs(v) for k, v in kwargs.items()}, index))
            if not torch.is_grad_enabled():
                self.note(tensor, Recipe(torch.ops.aten.detach.default, (Ref(self.names[id(tensor)]),), {}))

    def forget(self, writes: list[Tensor]) -> None:
        """Tensors of the step's own making are no longer what they were."""
        self.rewritten |= set(map(memory, writes))
        for tensor in tensors(self.alive):
            if memory(tensor) in self.rewritten:
                self.numbers.pop(id(tensor), None)
                self.names.pop(id(tensor), None)

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


def uniform(out: Any) -> bool:
    """A tensor that holds one number throughout, such as torch.zeros makes."""
    return (
        isinstance(out, Tensor)
        and out.numel() > 0
        and out.is_floating_point()
        and bool((out == out.flatten()[0]).all())
    )


def number_of(tensor: Tensor) -> Value:
    """The one number of a tensor, in the shape that it has for a row of the batch."""
    shape = tuple(tensor.shape)
    by_rows = shape[:1] == (ROWS,) or (len(shape) > 1 and shape[0] == 1) or shape == (1,)
    return Value(const(float(tensor.flatten()[0])), shape[1:] if by_rows else shape)


def detached(result: Any, where: str) -> Any:
    """What an operation gave while gradients were off."""
    if isinstance(result, (tuple, list)):
        return [detached(r, where) for r in result]
    if not result or result.node.op is Op.CONST:
        return result
    return Value(Node(Op.DETACH, (result.node,), None, result.node.width, 0, where), result.shape)


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
