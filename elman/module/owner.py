"""What a step may read besides its arguments, by name, and how to know that none of it has changed.

A trace holds as long as everything that the step's code can see is as it was: attributes of its module and of what they
refer to, closures, globals that the code names, class attributes, and the code itself.
"""

from __future__ import annotations

import inspect
import random
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import is_, methodcaller
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

PLAIN = {int, float, complex, str, bytes, bool, type(None)}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
INSIDE = set(nn.Module().__dict__) - {"training"}
LIBRARIES = ("torch", "numpy", "math", "elman", "builtins")
DEPTH = 6  # how far attributes of attributes are followed


@dataclass(frozen=True, eq=False)
class Same:
    """An object that equals only itself; holding it, so that no other takes its address."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def modules(owner: Any) -> Iterator[tuple[str, nn.Module]]:
    """The modules that belong to an owner, by the name under which the step reaches them."""
    if isinstance(owner, nn.Module):
        for name, module in owner.named_modules():
            yield f"self.{name}" if name else "self", module
    else:
        for name, value in surroundings(owner).items():
            if isinstance(value, nn.Module):
                yield from ((f"{name}.{path}" if path else name, m) for path, m in value.named_modules())


def surroundings(owner: Any) -> dict[str, Any]:
    """What a bare function sees: the globals that it names, and its closure."""
    function = owner.func if isinstance(owner, partial) else owner
    function = getattr(function, "__func__", function)
    if not isinstance(function, FunctionType):
        return {}
    return {path: space[name] for path, space, name in named_by(function)} | closure(function)


def named_by(function: FunctionType) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """The globals that a function names, functions within it too, and what it names of the user's own modules."""
    names = dict.fromkeys(names_in(function.__code__))
    for name in names:
        if name not in function.__globals__:
            continue
        yield name, function.__globals__, name
        value = function.__globals__[name]
        if isinstance(value, ModuleType) and not of_library(value):
            yield from ((f"{name}.{part}", vars(value), part) for part in names if part in vars(value))


def names_in(code: CodeType) -> Iterator[str]:
    """The names of globals and attributes in a function's code, and in that of functions within it."""
    yield from code.co_names
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from names_in(value)


def closure(function: FunctionType) -> dict[str, Any]:
    """The free variables of a function that are bound."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
    return found


def own_classes(value: Any) -> list[type]:
    """The classes that the user wrote: those before torch's and elman's bases."""
    return [c for c in type(value).__mro__ if c.__module__.split(".")[0] not in LIBRARIES]


class Snapshot:
    """What an owner holds at one moment, kept so that the same moment is recognised at little cost.

    It holds the very objects, and so compares by identity: what is still there has not changed, unless it can change
    within -- a list, say -- and then `stable` is false, and the whole fingerprint is made anew each time.
    """

    def __init__(self, owner: Any) -> None:
        found = list(modules(owner))
        self.stable = isinstance(owner, nn.Module)
        self.groups: list[Mapping[str, Any]] = []
        self.held: list[Any] = []  # what these groups hold, so that no other object takes an address
        self.named: list[tuple[Mapping[str, Any], str, Any]] = []
        self.closures: list[tuple[FunctionType, dict[str, Any]]] = []
        self.tensors: dict[str, tuple[dict[str, Any], str]] = {}
        for path, module in found:
            for group in (module._parameters, module._buffers, module._modules, module.__dict__):
                self._hold(group)
                for name, value in group.items():
                    if isinstance(value, Tensor):
                        self.tensors[f"{path}.{name}"] = (group, name)
                    elif name not in INSIDE | {"state_sizes"} and not isinstance(value, nn.Module):
                        self.stable = self.stable and unchanging(value)
            for kind in own_classes(module):
                self._hold(vars(kind))
                for name, value in vars(kind).items():
                    if not (name.startswith("__") and name.endswith("__")) or isinstance(value, FunctionType):
                        self._watch(value)
        self.sizes = [*map(len, self.groups)]
        self.kinds = [(value, kind_of(value)) for group, name in self.tensors.values() for value in (group[name],)]
        self.hooks = [getattr(m, hooks) for _, m in found if m is not owner for hooks in HOOKS]
        self.fingerprint = fingerprint(owner)
        self.plans: dict[Any, Any] = {}  # of calls while the owner is as it is
        if not self.stable:  # nothing will be compared; and what changes within itself may lead back to the owner
            self.groups, self.held, self.named, self.closures, self.tensors, self.kinds = [], [], [], [], {}, []

    def _hold(self, group: Mapping[str, Any]) -> None:
        self.held += group.values()
        self.groups.append(group)

    def _watch(self, value: Any) -> None:
        """Globals that a method names: functions of libraries do not change, numbers are compared, else not stable."""
        if not isinstance(value, FunctionType):
            self.stable = self.stable and (unchanging(value) or of_library(value))
            return
        held = {name: inner for name, inner in closure(value).items() if name != "__class__"}  # that is for `super`
        if held:
            self.closures.append((value, closure(value)))
        for _, space, name in named_by(value):
            self.named.append((space, name, space[name]))
            held[name] = space[name]
        self.stable = self.stable and all(unchanging(v) or watched_in_parts(v) for v in held.values())

    def holds(self) -> bool:
        """The owner is as it was."""
        if not self.stable:
            return False
        if [*map(len, self.groups)] != self.sizes or not all(map(is_, values_of(self.groups), self.held)):
            return False
        if any(space.get(name) is not value for space, name, value in self.named):
            return False
        if any(not alike(closure(function), before) for function, before in self.closures):
            return False
        for tensor, (shape, dtype, device) in self.kinds:
            if tensor.dtype is not dtype or tensor.shape != shape or tensor.device != device:
                return False
        return True

    def changed(self) -> list[str]:
        """Names of what is another object now; none where something came, went, or changed within itself."""
        names = [name for group in self.groups for name in group]
        now = list(values_of(self.groups))
        pairs = zip(names, now, self.held) if len(now) == len(self.held) else ()
        named = [name for space, name, value in self.named if space.get(name) is not value]
        return [name for name, value, before in pairs if value is not before] + named

    def read(self, names: Collection[str]) -> dict[str, Tensor]:
        """Tensors by name, as they are now."""
        return {name: self.tensors[name][0][self.tensors[name][1]] for name in names if name in self.tensors}


def values_of(groups: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
    """All that these hold; every call of a layer asks."""
    return chain.from_iterable(map(methodcaller("values"), groups))


def kind_of(tensor: Tensor) -> Any:
    """What of a tensor a trace depends on."""
    return tensor.shape, tensor.dtype, tensor.device


def unchanging(value: Any) -> bool:
    """A plain value, or a tuple or frozen set of such: nothing within it can change."""
    return type(value) in PLAIN or (type(value) in (tuple, frozenset) and all(map(unchanging, value)))


def of_library(value: Any) -> bool:
    """Something that no user changes: a module, a function or a class of a library."""
    if isinstance(value, ModuleType):
        root, file = value.__name__.split(".")[0], getattr(value, "__file__", None)
        return file is None or root in LIBRARIES or root in sys.stdlib_module_names or "-packages" in file
    home = getattr(value, "__module__", None)
    known = isinstance(home, str) and home.split(".")[0] in LIBRARIES
    return known and (isinstance(value, type) or not hasattr(value, "__dict__"))


def watched_in_parts(value: Any) -> bool:
    """A library's, or a module of the user's: what is named of that is watched by itself."""
    return isinstance(value, ModuleType) or of_library(value)


def offered(owner: Any, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Every tensor that the step may read, by name; only those of `names` where it is given."""
    found: dict[str, Tensor] = {}
    for path, module in modules(owner):
        for group in (module._parameters, module._buffers, module.__dict__):
            for name, value in group.items():
                if isinstance(value, Tensor) and (names is None or f"{path}.{name}" in names):
                    found[f"{path}.{name}"] = value
    if not isinstance(owner, nn.Module):
        found.update({k: v for k, v in surroundings(owner).items() if isinstance(v, Tensor)})
    return found


def fingerprint(owner: Any) -> Any:
    """Everything that a trace of the owner depends on, as one value to compare."""
    return plain(owner, {}, DEPTH)


def plain(value: Any, seen: dict[int, int], depth: int = DEPTH) -> Any:
    """A value's part in a fingerprint: hashable, equal only where a trace would be the same."""
    if type(value) in PLAIN:
        return (type(value), value.hex() if isinstance(value, float) else value)
    if id(value) in seen:
        return ("again", seen[id(value)])
    seen[id(value)] = len(seen)
    if isinstance(value, Tensor):
        return ("tensor", seen[id(value)], *kind_of(value))
    if watched_in_parts(value):
        return Same(value)
    deeper = partial(plain, seen=seen, depth=depth - 1)
    if depth == 0:
        return Same(value)
    if isinstance(value, np.ndarray):
        return (value.shape, value.dtype.str, value.tobytes())
    if isinstance(value, (tuple, list, deque)):
        return (type(value), *map(deeper, value))
    if isinstance(value, (set, frozenset)):
        return (type(value), *sorted(map(repr, value)))
    if isinstance(value, dict):
        return (type(value), *((deeper(k), deeper(v)) for k, v in value.items()))
    return whole(value, deeper)


def whole(value: Any, deeper: Callable[[Any], Any]) -> Any:
    """A function by its code and what it sees; any other object by its class and its attributes."""
    if isinstance(value, FunctionType):
        named = tuple((k, deeper(v)) for k, v in surroundings(value).items() if k != "__class__")
        return (Same(value.__code__), deeper(value.__defaults__), deeper(value.__kwdefaults__), *named)
    if isinstance(value, MethodType):
        return (deeper(value.__func__), deeper(value.__self__))
    if isinstance(value, partial):
        return (deeper(value.func), deeper(value.args), deeper(value.keywords))
    if isinstance(value, nn.Module):
        groups = (value._parameters, value._buffers, value._modules)
        inner = [(k, deeper(v)) for group in groups for k, v in group.items()]
        rest = [(k, deeper(v)) for k, v in value.__dict__.items() if k not in INSIDE]
        return (type(value), *inner, *rest, *map(deeper, class_attributes(value)))
    if isinstance(value, property):
        return (Same(value), deeper(value.fget))
    if isinstance(value, (staticmethod, classmethod)):
        return (Same(value), deeper(value.__func__))
    if isinstance(value, type):
        return (Same(value), *((k, deeper(v)) for k, v in vars(value).items() if not k.startswith("__")))
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()) if hasattr(value, name)]
    if hasattr(value, "__dict__") or slots:
        held = {**getattr(value, "__dict__", {}), **{name: getattr(value, name) for name in slots}}
        return (type(value), *((k, deeper(v)) for k, v in held.items()), *map(deeper, class_attributes(value)))
    return Same(value)


def class_attributes(value: Any) -> list[Any]:
    """Values and functions of the classes that the user wrote."""
    return [v for c in own_classes(value) for k, v in vars(c).items() if not (k.startswith("__") and k != "__call__")]


class Untouched:
    """Puts back what a step changes of its owner while it is traced; `changed` says what that was."""

    def __init__(self, owner: Any) -> None:
        spaces = [s for _, m in modules(owner) for s in (m.__dict__, m._parameters, m._buffers)]
        self.places = [(space, dict(space)) for space in spaces]
        function = getattr(owner, "__func__", owner)
        if not isinstance(owner, nn.Module) and hasattr(owner, "__dict__"):
            self.places.append((owner.__dict__, dict(owner.__dict__)))
        self.cells = []
        if isinstance(function, FunctionType):
            found = closure(function)
            free = zip(function.__code__.co_freevars, function.__closure__ or ())
            self.cells = [(name, cell, found[name]) for name, cell in free if name in found]
        held: list[Any] = [v for place, _ in self.places for v in place.values()] + [v for *_, v in self.cells]
        self.containers = [(v, v.copy()) for v in held if type(v) in (list, dict, set)]
        self.random = random.getstate(), np.random.get_state()

    def changed(self) -> list[str]:
        """The names of what changed since, put back."""
        names = []
        for place, before in self.places:
            for name in [*place, *(k for k in before if k not in place)]:
                if place.get(name) is not before.get(name) or (name in place) != (name in before):
                    names.append(name)
                    place.pop(name, None)
                    place.update({name: before[name]} if name in before else {})
        for name, cell, before in self.cells:
            if cell.cell_contents is not before:
                names.append(name)
                cell.cell_contents = before
        for container, before in self.containers:
            if not alike(container, before):
                names.append(f"a {type(container).__name__}")
                container.clear()
                container.extend(before) if isinstance(container, list) else container.update(before)
        python, numpy = self.random
        if random.getstate() != python:
            names.append("Python's random numbers")
            random.setstate(python)
        if not all(map(np.array_equal, np.random.get_state(), numpy)):
            names.append("numpy's random numbers")
            np.random.set_state(numpy)
        return names


def alike(container: Any, before: Any) -> bool:
    """Whether a list, a dictionary or a set holds the very objects that it held before."""
    if len(container) != len(before):
        return False
    if isinstance(container, dict):
        return all(map(is_, container, before)) and all(map(is_, container.values(), before.values()))
    return all(map(is_, container, before)) if isinstance(container, list) else container == before


def describe_owner(owner: Any) -> str:
    """The user's name for what is unfolded."""
    if isinstance(owner, nn.Module):
        return type(owner).__name__
    name: str = getattr(owner, "__qualname__", type(owner).__name__)
    return name


def where_defined(step: Callable[..., Any]) -> str:
    """file:line of a step's definition."""
    try:
        return f"{inspect.getsourcefile(step)}:{inspect.getsourcelines(step)[1]}"
    except (TypeError, OSError):
        return ""
