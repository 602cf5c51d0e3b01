"""Which torch call first gave a number that is not finite: a record of such calls, each with its place in the model."""

from __future__ import annotations

import linecache
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from elman.cell.base import watch, watched
from elman.compiler.frames import frame_of_user
from elman.module.backends import Recurrence, visiting
from elman.module.owner import describe_owner

HERE = str(Path(__file__).parent)


@dataclass(frozen=True)
class Place:
    """Where in a model something is computed."""

    path: str = ""  # of the innermost module, as in named_modules
    step: int | None = None  # of the recurrent layer it lies in
    steps: int | None = None  # that this layer runs
    reverse: bool = False
    op: str = ""
    where: str = ""  # file:line of whoever asked for it
    line: str = ""  # what stands there

    @property
    def lag(self) -> int | None:
        """Steps that the layer runs after this one."""
        if self.step is None or self.steps is None:
            return None
        return self.step if self.reverse else self.steps - 1 - self.step


@dataclass(frozen=True, eq=False)
class Bad:
    """A tensor that is not finite, what it was made of that was not either, and where."""

    value: Tensor
    sources: tuple[Bad, ...]
    place: Place
    meant: bool  # infinite on purpose, as a mask is
    leaf: bool = False  # no call made it


class Tracker(TorchFunctionMode):
    """Follows torch calls while its `running` block lasts.

    In the block every layer runs plainly, so that each call of a step is seen.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {id(module): name for name, module in model.named_modules()}
        self.bad: dict[int, Bad] = {}  # by the id of a tensor, which it holds
        self.nodes: dict[Node, Place] = {}  # of autograd, by the call that made them
        self.gates: dict[Place, list[str]] = {}  # watched values that are not finite, by step
        self.beside: dict[str, Tensor] = {}  # what meets the model's outputs: targets, masks
        self.inside = [Place()]

    @contextmanager
    def running(self) -> Iterator[None]:
        """The block whose calls are followed."""
        hooks = nn.modules.module
        with ExitStack() as stack:
            stack.callback(hooks.register_module_forward_pre_hook(self.enter).remove)
            stack.callback(hooks.register_module_forward_hook(self.leave).remove)
            stack.enter_context(visiting(self.visit))
            stack.enter_context(self)
            yield

    # where we are

    def enter(self, module: nn.Module, args: Any) -> None:
        now = self.inside[-1]
        self.inside.append(replace(now, path=self.names.get(id(module), now.path)))

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.inside.pop()

    @contextmanager
    def visit(self, what: Recurrence, t: int, T: int) -> Iterator[None]:
        """One step of a layer."""
        outer = self.inside[-1].path
        path = self.names.get(id(what.owner)) or ".".join(filter(None, (outer, describe_owner(what.owner))))
        self.inside.append(Place(path, t, T, what.reverse))
        with watched() as seen:
            yield
        here = self.inside.pop()
        for name, value in seen.items():
            watch(name, value)  # for those who look on from outside
            if not finite(value):
                self.gates.setdefault(here, []).append(name)

    def gates_at(self, place: Place) -> tuple[str, ...]:
        """Watched values of a place's own step that are not finite."""
        same = [(p, names) for p, names in self.gates.items() if (p.step, p.steps) == (place.step, place.steps)]
        return tuple(name for p, names in same if within(place.path, p.path) for name in names)

    # what is computed

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = named(func)
        written = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
        made = tensors(args[0] if written and args else out)
        given = [*args, *kwargs.values()]
        if made:
            self.note(made, given, name)
        if len(self.inside) == 1 and any(t.requires_grad for t in tensors(given)):
            for i, tensor in enumerate(tensors(given)):
                if not tensor.requires_grad:
                    self.beside.setdefault(f"{name}.{i}", tensor)
        return out

    def note(self, made: list[Tensor], given: list[Any], name: str) -> None:
        """Keep what a call made that is not finite, and the nodes by which its gradient will go back."""
        place: Place | None = None
        for out in made:
            if (out.grad_fn is not None and out.grad_fn not in self.nodes) or not finite(out):
                place = place or self.place(name)
                self.claim(out.grad_fn, place)
        broken = [out for out in made if not finite(out)]
        if not broken or place is None:
            return
        for out in broken:
            others = [t for t in tensors(given) if (t is not out or id(t) in self.bad) and not finite(t)]
            sources = tuple(self.known(t, place) for t in others)
            self.bad[id(out)] = Bad(out, sources, place, on_purpose(out, sources, given))

    def known(self, tensor: Tensor, place: Place) -> Bad:
        """What is known of a tensor that is not finite; no call seen here made one that was not known."""
        if id(tensor) not in self.bad:
            maker = tensor.grad_fn
            where = Place() if maker is None else replace(place, op=maker.name())
            self.bad[id(tensor)] = Bad(tensor, (), where, False, leaf=maker is None)
        return self.bad[id(tensor)]

    def claim(self, node: Node | None, place: Place) -> None:
        """Note the place of a call's nodes: those behind its output that no earlier call has made."""
        left = [node]
        while left:
            node = left.pop()
            if node is not None and node not in self.nodes and not hasattr(node, "variable"):
                self.nodes[node] = place
                left.extend(before for before, _ in node.next_functions)

    def place(self, name: str) -> Place:
        frame = frame_of_user(HERE)
        if frame is None:
            return replace(self.inside[-1], op=name)
        file, number = frame.f_code.co_filename, frame.f_lineno
        where = f"{Path(file).name}:{number}"
        return replace(self.inside[-1], op=name, where=where, line=linecache.getline(file, number).strip())

    def made_by(self, nodes: Iterable[Node]) -> Bad | None:
        """What first made a result of one of these nodes' calls not finite, other than on purpose."""
        calls = {id(self.nodes[node]) for node in nodes}
        found = (self.first(entry.value) for entry in self.bad.values() if id(entry.place) in calls and not entry.meant)
        return next((entry for entry in found if entry is not None), None)

    def first(self, tensor: Tensor) -> Bad | None:
        """Of all that made a tensor not finite, the call that came first; None where the tensor is finite.

        NaN is followed to NaN where there is some, since a number beside it may be infinite without harm.
        """
        if finite(tensor):
            return None
        order = {id(entry): i for i, entry in enumerate(self.bad.values())}
        last = self.known(tensor, self.inside[-1])
        left, seen, born = [last], {id(last)}, []
        while left:
            entry = left.pop()
            sources = [s for s in entry.sources if last.meant or not s.meant]
            if entry.value.isnan().any():
                sources = [s for s in sources if s.value.isnan().any()] or sources
            if not sources:
                born.append(entry)
            left += [s for s in sources if id(s) not in seen]
            seen |= {id(s) for s in sources}
        return min(born, key=lambda entry: order.get(id(entry), len(order)))


def within(path: str, outer: str) -> bool:
    """A module's path lies in another's, or is it."""
    return path == outer or path.startswith(f"{outer}.") or not outer


def on_purpose(out: Tensor, sources: tuple[Bad, ...], given: list[Any]) -> bool:
    """A call was asked for infinite numbers, or hands on such as were."""
    if out.isnan().any() or not all(source.meant for source in sources):
        return False
    signs = {sign for number in numbers(given) if math.isinf(number) for sign in [number > 0]}
    for source in sources:
        signs |= signs_of(source.value)
    return signs_of(out) <= signs


def signs_of(tensor: Tensor) -> set[bool]:
    """Which infinities a tensor holds: true for that above zero."""
    return {sign > 0 for sign in (1, -1) if (tensor == sign * math.inf).any()}


def finite(tensor: Tensor) -> bool:
    """Every number is finite; whole numbers are."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    return bool(tensor.detach().isfinite().all())


def named(func: Callable[..., Any]) -> str:
    """A torch function's name; of an attribute its own."""
    name = getattr(func, "__name__", str(func))
    return getattr(getattr(func, "__self__", None), "__name__", name) if name == "__get__" else name.removeprefix("__r")


def tensors(value: Any) -> list[Tensor]:
    """Every tensor in a nest."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [t for part in value for t in tensors(part)] if isinstance(value, (tuple, list)) else []


def numbers(value: Any) -> list[float]:
    """Every float in a nest."""
    if isinstance(value, float):
        return [value]
    return [n for part in value for n in numbers(part)] if isinstance(value, (tuple, list)) else []
