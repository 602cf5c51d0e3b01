"""Which way a recurrence runs: fused, reference or plain -- the first that can, and never in silence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from elman.cell.base import Signature, State
from elman.compiler import Program, Traced, emitter, segment_length
from elman.errors import CellError, OptionError
from elman.module.outside import warn
from elman.module.owner import Snapshot, describe_owner, plain
from elman.module.plain import Inputs, unroll
from elman.module.precision import operands
from elman.module.traced import FAILED, tensors, traced

MANY = 64  # traces of one owner that are kept
BACKENDS = ("fused", "reference", "plain")
_recorded: ContextVar[list[Call] | None] = ContextVar("recorded", default=None)
_forced: ContextVar[str | None] = ContextVar("backend", default=None)
_visitor: ContextVar[Visitor | None] = ContextVar("visitor", default=None)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Run every layer inside the block in one way: "fused", "reference" or "plain".

        with elman.backend("plain"):     # a Python loop: print and step through the cell's own code
            y, state = layer(x)

    Errors: OptionError for another name; CellError inside the block where a layer cannot run that way.
    """
    if name not in BACKENDS:
        raise OptionError(f"backend must be one of {', '.join(BACKENDS)}; got {name!r}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


@dataclass
class Recurrence:
    """What a layer unfolds: a step, whose tensors belong to `owner`, and how it wants it run."""

    owner: Any
    step: Callable[..., Any]
    signature: Signature
    reverse: bool = False
    strict: bool = False
    checkpoint: int | str | None = None
    whole: Collection[str] = ()  # names of context tensors that every step gets as they are

    def by_row(self, name: str, value: Any, B: int) -> bool:
        """The context is a tensor with a row for each row of the batch."""
        return isinstance(value, Tensor) and name not in self.whole and value.dim() >= 2 and value.shape[0] == B


@dataclass
class Plan:
    """How one call is run, and why not faster."""

    backend: str
    reason: str
    program: Program | None = None
    traced: Traced | None = None
    snapshot: Snapshot | None = None


@dataclass
class Call:
    """One call of a recurrent layer, for those who ask how it ran."""

    what: Recurrence
    plan: Plan
    x: Tensor


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """Note every recurrent layer that runs inside the block."""
    calls: list[Call] = []
    token = _recorded.set(calls)
    try:
        yield calls
    finally:
        _recorded.reset(token)


@dataclass
class Known:
    """What has been found about one owner: traced steps, or why there is none; programs by backend."""

    traced: dict[Any, Traced | str] = field(default_factory=dict)
    programs: dict[Any, Program] = field(default_factory=dict)
    snapshot: Snapshot | None = None
    changed: Sequence[str] = ()  # what the last snapshot was no longer true for


_known: WeakIdKeyDictionary = WeakIdKeyDictionary()  # owner -> {method or None: Known}; owners may compare as equal
Visitor = Callable[[Recurrence, int, int], AbstractContextManager[None]]  # of step t of T


@contextmanager
def visiting(visitor: Visitor) -> Iterator[None]:
    """Run every layer inside the block plainly, and each of its steps inside visitor(what, t, T)."""
    with backend("plain"):
        token = _visitor.set(visitor)
        try:
            yield
        finally:
            _visitor.reset(token)


def visited(what: Recurrence, T: int) -> Callable[..., Any]:
    """The step, which tells a visitor, where there is one, at which time it runs."""
    visitor = _visitor.get()
    if visitor is None:
        return what.step
    times = iter(reversed(range(T)) if what.reverse else range(T))

    @wraps(what.step)
    def step(*args: Any, **context: Any) -> Any:
        with visitor(what, next(times), T):
            return what.step(*args, **context)

    return step


def unfold(what: Recurrence, inputs: Inputs) -> tuple[Tensor, State, dict[str, Tensor]]:
    """y (T, B, K), the last state, watched values; the fastest way that can."""
    plan, T = choose_plan(what, inputs), inputs.x.shape[0]
    if plan.program is None or plan.traced is None or plan.snapshot is None:
        ran = unroll(visited(what, T), what.signature, inputs, what.reverse)
        say(what, plan, T)  # only now: a step that is wrong has raised its own error
        return ran
    say(what, plan, T)
    given = tensors(what, inputs, plan.traced, plan.snapshot)
    outputs, last = plan.program(given, segment_length(what.checkpoint, T))
    shaped = {name: reshaped(value, plan.traced.shapes[name]) for name, value in outputs.items()}
    pairs = zip(last.values(), inputs.state)
    new = (value.unflatten(-1, old.shape[1:]) if old.dim() > 2 else value for value, old in pairs)
    return shaped["y"], what.signature.State(*new), {name: shaped[f"watch:{name}"] for name in inputs.watch}


def reshaped(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(T, B, width) with its columns in the shape that the step gave them."""
    if len(shape) == 1:
        return value
    return value.unflatten(-1, shape) if shape else value.squeeze(-1)


def choose_plan(what: Recurrence, inputs: Inputs) -> Plan:
    """The way this call runs; a CellError where `strict` or a forced backend ask for another."""
    forced = _forced.get()
    plan = Plan("plain", "asked for") if forced == "plain" else best_plan(what, inputs, forced)
    calls = _recorded.get()
    if calls is not None:
        calls.append(Call(what, plan, inputs.x))
    if plan.backend != forced if forced else what.strict and plan.backend != "fused":
        if plan.reason.startswith(FAILED):  # a step that is wrong raises its own error
            unroll(what.step, what.signature, inputs, what.reverse)
        raise CellError(f"{slower(what, plan)} (asked for: {forced or 'fused, by strict=True'})")
    return plan


def slower(what: Recurrence, plan: Plan) -> str:
    """Which way it runs and why, in a line."""
    unrounded = ", its products in float32" if plan.backend == "plain" and operands(torch.float32) else ""
    return f"{describe_owner(what.owner)} runs on the {plan.backend} backend{unrounded}: {plan.reason}"


def say(what: Recurrence, plan: Plan, steps: int) -> None:
    """Say once that a call runs in a slower way than it could, unless it was asked for."""
    if plan.backend == "fused" or _forced.get() is not None or steps == 1:
        return
    warn(slower(what, plan))


def best_plan(what: Recurrence, inputs: Inputs, forced: str | None) -> Plan:
    """The fastest way that can run this call."""
    x = inputs.x
    rounded = operands(x.dtype)
    if x.shape[0] == 1 and forced is None and not what.strict and rounded is None:
        return Plan("plain", "a single step has nothing to unfold")
    if reason := unsuited(what, inputs):
        return Plan("plain", reason)
    known = known_of(what.owner)
    if known.snapshot is None or not known.snapshot.holds():
        known.changed = () if known.snapshot is None else known.snapshot.changed()
        known.snapshot = Snapshot(what.owner)
    if any(known.snapshot.hooks):
        return Plan("plain", "a module inside the step has hooks, which must run at every step")
    which = None if what.owner is what.step else getattr(what.step, "__func__", what.step)  # of a module's methods
    quick = (kind_of_call(what, inputs), what.reverse, which, forced, rounded)
    if quick in known.snapshot.plans:
        return known.snapshot.plans[quick]
    key = (known.snapshot.fingerprint, *quick[:3])
    if len(known.traced) > MANY:  # a step that changes at every call
        warn(changing(what, known.changed))
        known.traced.clear()
        known.programs.clear()
        known.snapshot.plans.clear()
    if key not in known.traced:
        known.traced[key] = traced(what, inputs)
    found = known.traced[key]
    if isinstance(found, str):
        plan = Plan("plain", found)
    else:
        name, emit, reason = emitter(found.loop, x, forced)
        program = known.programs.setdefault((key, name, rounded), Program(found.loop, emit, rounded))
        plan = Plan(name, reason, program, found, known.snapshot)
    known.snapshot.plans[quick] = plan
    return plan


def changing(what: Recurrence, names: Sequence[str]) -> str:
    """What costs those their time who change a number between calls, and what to do."""
    which = f", as {', '.join(names)} did last" if names else ""
    return (
        f"{describe_owner(what.owner)} was traced and compiled {MANY} times, since what its step reads besides tensors "
        f"changes between calls{which}: put such a number into a buffer and fill that in place, or give it as context "
        "in a tensor; then once is enough"
    )


def known_of(owner: Any) -> Known:
    """What is known of an owner; of a method beside its object, as every look-up makes a new one."""
    home, method = (owner.__self__, owner.__func__) if isinstance(owner, MethodType) else (owner, None)
    try:
        found = _known.get(home)
        if found is None:
            found = _known.setdefault(home, {})
    except TypeError:  # nobody could tell when it is gone
        return Known()
    return found.get(method) or found.setdefault(method, Known())


def kind_of_call(what: Recurrence, inputs: Inputs) -> Any:
    """What a trace depends on besides the owner: types, widths, masks, names, and context that is no tensor."""
    x, state, _, rows, watch, context, each = inputs
    return (
        (x.shape[-1], x.dtype, x.device, torch.get_default_dtype()),
        (rows.reset is not None, rows.active is not None),
        tuple([s.shape[1:] for s in state]),
        tuple([(k, describe_context(what, k, v, x.shape[1])) for k, v in sorted(context.items())]) if context else (),
        tuple([(k, v.shape[2:], v.dtype) for k, v in sorted(each.items())]) if each else (),
        tuple(watch),
    )


def unsuited(what: Recurrence, inputs: Inputs) -> str:
    """Why this call cannot be compiled at all; empty if it can."""
    x = inputs.x
    if x.is_meta:
        return "tensors on the meta device hold no numbers"
    if x.dtype not in (torch.float32, torch.float64):
        return f"its input is {x.dtype}; compiled steps take float32 and float64"
    for name, value in zip(what.signature.state, inputs.state):
        if value.dtype != x.dtype:
            return f"its state '{name}' is {value.dtype} while its input is {x.dtype}"
    for name, value in [*inputs.context.items(), *inputs.each.items()]:
        if isinstance(value, Tensor) and value.dtype not in (x.dtype, torch.bool):
            return f"its context '{name}' is {value.dtype} while its input is {x.dtype}"
        if isinstance(value, Tensor) and value.device != x.device:
            return f"its context '{name}' is on {value.device} while its input is on {x.device}"
    if torch._C._get_tracing_state() is not None or torch._C._len_torch_dispatch_stack():
        return "torch looks at each operation: it traces, exports, or counts"
    if torch._C._is_any_autocast_enabled() and torch.is_autocast_enabled(x.device.type):
        return "autocast changes the types inside a step"
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "torch.func transforms (vmap, grad) go through the step"
    if torch.autograd.forward_ad._current_level >= 0:
        return "forward-mode derivatives go through the step"
    return ""


def describe_context(what: Recurrence, name: str, value: Any, B: int) -> Any:
    """What of a context argument a trace depends on: a tensor's kind, or the value itself."""
    if isinstance(value, Tensor):
        rows = what.by_row(name, value, B)
        return ("rows" if rows else "shared", tuple(value.shape[1 if rows else 0 :]), value.dtype)
    return plain(value, {})


def owner_of(step: Callable[..., Any]) -> Any:
    """Whose tensors a bare step reads: its module's if it is a module's method, else the function itself."""
    owner = getattr(step, "__self__", None)
    return owner if isinstance(owner, nn.Module) else step
