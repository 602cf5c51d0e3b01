"""Where the first number that is not finite comes from: a parameter, an input, a step of a layer, or the way back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from elman.errors import InputError
from elman.module.plain import describe
from elman.module.tracker import Bad, Place, Tracker, finite

Kind = Literal["parameter", "input", "forward", "backward", "norm", "nothing"]


@dataclass(frozen=True)
class Located:
    """The first number that is not finite, as `elman.locate` found it; `print` says it in a line.

    kind: it is in a *parameter* or an *input*, was made on the way *forward* or *backward*; every gradient is finite
    but their *norm* is not; or *nothing* was found. Where it was made: the module's `path`; the `step` of `steps` of
    its layer and the `lag`, steps from there to the layer's last; the `op`; `where` it was asked for, file:line, and
    the `line` there; the `row` of the batch, for values of a step; `gates`: values that the step watches and that are
    not finite. `parameters`: those whose gradient it reached. `batch`: what the model was given, by the names of its
    arguments, and what met its outputs, by call and position.
    """

    kind: Kind
    value: str = ""  # nan, inf or -inf
    name: str = ""  # of the parameter or input
    index: tuple[int, ...] = ()  # of the first one in its tensor
    path: str = ""
    step: int | None = None
    steps: int | None = None
    lag: int | None = None
    row: int | None = None
    op: str = ""
    where: str = ""
    line: str = ""
    gates: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    batch: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __str__(self) -> str:
        at = f" at {self.index}" if self.index else ""
        if self.kind == "parameter":
            return f"the parameter {self.name} holds {self.value}{at}"
        if self.kind == "input":
            made = f", made by {self.op}{self.place()}" if self.op else ""
            return f"the input {self.name or 'data'} holds {self.value}{at}{made}"
        if self.kind == "forward":
            return f"{self.value} first comes from {self.op}{self.place()}"
        if self.kind == "backward":
            reached = f"; it reaches the gradient of {', '.join(self.parameters)}"
            before = "" if self.lag is None else f", {self.lag} before the last"
            way = f"on the way back through {self.op}{self.place()}{before}"
            return f"the gradient first becomes {self.value} {way}{reached}"
        if self.kind == "norm":
            return f"every gradient is finite, their norm is not: the largest is {self.value}, in {self.name}"
        return "computed once more, plainly, all values and gradients are finite"

    def place(self) -> str:
        """Line, layer, step and row, as far as they are known."""
        text = f" at {self.where}" if self.where else ""
        text += f" `{self.line}`" if self.line else ""
        text += f", in {self.path}" if self.path else ""
        if self.step is not None:
            text += f", step {self.step} of {self.steps}"
        text += "" if self.row is None else f", row {self.row}"
        return text + (f", watched as {', '.join(self.gates)}" if self.gates else "")


def locate(run: Callable[[], Tensor], model: nn.Module, inputs: Mapping[str, Tensor] | None = None) -> Located:
    """Find the first number that is not finite in ``run()``, which gives a loss of `model`, or in its gradients.

        found = elman.locate(lambda: model(x).square().mean(), model)
        print(found)     # nan first comes from log at cells.py:31 `a = z.log()`, in parts.1.cell, step 17 of 64, row 3

    `inputs`: further tensors to look at, by name, as a state that is carried. Every layer runs plainly, which is slow.
    Parameters, buffers, gradients and torch's random state are left as they were.
    Shapes: run() gives one number. Errors: InputError where it gives something else.
    """
    tracker, given = Tracker(model), Given(model)
    with buffers_kept(model), torch.random.fork_rng(devices=[]), torch.enable_grad():
        with given.taken(), tracker.running():
            loss = run()
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise InputError(f"locate: run() must give the loss, a tensor of one number; got {describe(loss)}")
        found = before(model, inputs or {}) or ahead(tracker, given, loss) or back(tracker, given, loss)
        return replace(found, batch={k: v.detach().clone() for k, v in {**given.tensors, **tracker.beside}.items()})


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Leave the buffers of a model as they were before the block, as running means are."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])


class Given:
    """What the model is called with, by the names of its arguments; where only those of a list in it are, the first."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.first = next((part[0] for part in model.children() if isinstance(part, nn.ModuleList) and part), model)
        self.tensors: dict[str, Tensor] = {}
        self.whole = False  # whether the model itself was called

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Note the arguments while the block runs."""
        handles = [m.register_forward_pre_hook(self.note, with_kwargs=True) for m in {self.first, self.model}]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def note(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.whole = self.whole or model is self.model
        if self.whole and model is not self.model:
            return
        for name, value in inspect.signature(model.forward).bind(*args, **kwargs).arguments.items():
            self.tensors.update(spread(value, name))

    def name_of(self, tensor: Tensor) -> str:
        return next((name for name, value in self.tensors.items() if value is tensor), "")


def spread(value: Any, name: str) -> dict[str, Tensor]:
    """A nest as a flat dictionary of tensors, by the names of fields or by numbers."""
    if isinstance(value, Tensor):
        return {name: value}
    if not isinstance(value, (tuple, list)):
        return {}
    fields = getattr(value, "_fields", range(len(value)))
    return {key: t for field, part in zip(fields, value) for key, t in spread(part, f"{name}.{field}").items()}


def value_in(tensor: Tensor) -> dict[str, Any]:
    """The first number of a tensor that is not finite, and where in it."""
    index = tuple((~tensor.detach().isfinite()).nonzero()[0].tolist())
    return {"value": str(tensor.detach()[index].item()), "index": index}


def before(model: nn.Module, inputs: Mapping[str, Tensor]) -> Located | None:
    """A parameter, or else one of these inputs, that is not finite."""
    kinds: tuple[tuple[Kind, Mapping[str, Tensor]], ...] = (
        ("parameter", dict(model.named_parameters())), ("input", inputs),
    )  # fmt: skip
    for kind, named in kinds:
        for name, tensor in named.items():
            if not finite(tensor):
                return Located(kind, name=name, **value_in(tensor))
    return None


def told(place: Place) -> dict[str, Any]:
    """A place as fields of Located."""
    names = ("path", "step", "steps", "lag", "op", "where", "line")
    return {name: getattr(place, name) for name in names}


def ahead(tracker: Tracker, given: Given, value: Tensor) -> Located | None:
    """What made a value not finite on the way to it; None where it is finite."""
    bad = tracker.first(value)
    return None if bad is None else made(bad, tracker, given)


def made(bad: Bad, tracker: Tracker, given: Given) -> Located:
    """What is to be said of a value that was made not finite on the way forward."""
    value = value_in(bad.value)
    own = not bad.value.requires_grad and not bad.place.path and bad.place.step is None
    if bad.leaf or own:  # data, or something made of data alone before any module ran
        named = next((e for e in tracker.bad.values() if given.name_of(e.value)), None)
        if named is not None:
            value = value_in(named.value)
        name = "" if named is None else given.name_of(named.value)
        return Located("input", name=name, **value, **told(bad.place))
    row = value["index"][0] if bad.place.step is not None and value["index"] else None
    gates = tracker.gates_at(bad.place)
    return Located("forward", row=row, gates=gates, **value, **told(bad.place))


class Crossed:
    """What a node sent back to each node after it: whether it was finite, and the first that was not."""

    def __init__(self, node: Node, out: tuple[Any, ...]) -> None:
        self.node = node
        self.bad = [isinstance(g, Tensor) and not finite(g) for g in out]
        self.value = next((g for g, bad in zip(out, self.bad) if bad), None)


def back(tracker: Tracker, given: Given, loss: Tensor) -> Located:
    """Where gradients first stop to be finite on the way back from a finite loss."""
    crossed: list[Crossed] = []
    handles = []
    for node in tracker.nodes:
        handles.append(node.register_hook(lambda out, came, node=node: crossed.append(Crossed(node, out))))
    if not loss.requires_grad:  # that of a process whose share of the batch is empty
        return Located("nothing")
    own = {name: p for name, p in given.model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(own.values()), allow_unused=True) if own else ()
    for handle in handles:
        handle.remove()
    there = {name: g for name, g in zip(own, gradients) if g is not None}
    reached = {id(p): name for name, p in own.items() if name in there and not finite(there[name])}
    if not reached:
        return overflow(there)
    guilty = to_blame(crossed, set(reached))
    first = next(iter(guilty), None)  # given finite gradients, or ones that only their sum made infinite
    if first is not None and tracker.made_by([first.node]):  # 0 * inf, most likely: not a matter of the way back
        source = tracker.made_by(c.node for c in guilty)
        assert source is not None
        return replace(made(source, tracker, given), parameters=tuple(reached.values()))
    place = Place(op="the sum over its uses") if first is None else tracker.nodes[first.node]
    if first is not None and not first.node.name()[-1].isdigit():  # an autograd.Function of the user's
        place = replace(place, op=first.node.name())
    tensor = there[next(iter(reached.values()))] if first is None or first.value is None else first.value
    value = value_in(tensor)
    row = value["index"][0] if place.step is not None and value["index"] else None
    return Located("backward", row=row, parameters=tuple(reached.values()), **value, **told(place))


def to_blame(crossed: list[Crossed], reached: set[int]) -> list[Crossed]:
    """What sent a gradient that is not finite on to one of these parameters, in the order of the way back."""
    leads: set[Node] = set()
    for c in reversed(crossed):
        for (after, _), bad in zip(c.node.next_functions, c.bad):
            ends = id(getattr(after, "variable", None)) in reached
            if bad and after is not None and (ends or after in leads):
                leads.add(c.node)
    return [c for c in crossed if c.node in leads]


def overflow(gradients: Mapping[str, Tensor]) -> Located:
    """Gradients are finite, one by one; whether they are together."""
    if not gradients:
        return Located("nothing")
    norms = {name: torch.linalg.vector_norm(g) for name, g in gradients.items()}
    if finite(torch.linalg.vector_norm(torch.stack(list(norms.values())))):
        return Located("nothing")
    largest = {name: g.abs().max().item() for name, g in gradients.items()}
    name = max(largest, key=lambda n: largest[n])
    return Located("norm", name=name, value=f"{largest[name]:.3g}")
