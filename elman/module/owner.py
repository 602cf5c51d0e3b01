"""What a step may read besides its arguments: the tensors of its module or closure, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from operator import is_
from types import FunctionType
from typing import Any

from torch import Tensor, nn

PLAIN = {int, float, complex, str, bytes, bool, type(None)}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
INSIDE = set(nn.Module().__dict__) - {"training"}


class Snapshot:
    """What an owner holds at one moment, kept so that the same moment is recognised at little cost.

    It holds the very objects, and so compares by identity: what is still there has not changed, unless it can change
    within -- a list, say -- and then `stable` is false.
    """

    def __init__(self, owner: Any) -> None:
        found = list(modules(owner))
        self.stable = isinstance(owner, nn.Module)
        self.groups: list[tuple[dict[str, Any], tuple[Any, ...]]] = []
        self.tensors: dict[str, tuple[dict[str, Any], str]] = {}
        for path, module in found:
            for group in (module._parameters, module._buffers, module._modules, module.__dict__):
                self.groups.append((group, tuple(group.values())))
                for name, value in group.items():
                    if isinstance(value, Tensor):
                        self.tensors[f"{path}.{name}"] = (group, name)
                    elif name not in INSIDE and not isinstance(value, nn.Module) and type(value) not in PLAIN:
                        self.stable = (self.stable and isinstance(value, tuple)) or name == "state_sizes"
        self.shapes = [(value, value.shape) for group, name in self.tensors.values() for value in (group[name],)]
        self.hooks = [getattr(m, hooks) for _, m in found if m is not owner for hooks in HOOKS]
        self.fingerprint = fingerprint(owner)
        self.plans: dict[Any, Any] = {}  # of calls while the owner is as it is

    def holds(self) -> bool:
        """The owner is as it was."""
        return (
            self.stable
            and all(
                len(group) == len(values) and all(map(is_, group.values(), values)) for group, values in self.groups
            )
            and all(tensor.shape == shape for tensor, shape in self.shapes)
        )

    def read(self, names: Collection[str]) -> dict[str, Tensor]:
        """Tensors by name, as they are now."""
        return {name: self.tensors[name][0][self.tensors[name][1]] for name in names if name in self.tensors}


def modules(owner: Any) -> Iterator[tuple[str, nn.Module]]:
    """The modules that belong to an owner, by the name under which the step reaches them."""
    if isinstance(owner, nn.Module):
        for name, module in owner.named_modules():
            yield f"self.{name}" if name else "self", module
    else:
        for name, value in surroundings(owner).items():
            if isinstance(value, nn.Module):
                yield from ((f"{name}.{path}" if path else name, m) for path, m in value.named_modules())


def surroundings(owner: Any) -> Mapping[str, Any]:
    """What a bare function sees: its closure, the globals that it names, its defaults."""
    function = owner.func if hasattr(owner, "func") else owner
    function = getattr(function, "__func__", function)
    if not isinstance(function, FunctionType):
        return {}
    found = {k: function.__globals__[k] for k in function.__code__.co_names if k in function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
    return found


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
    """What a trace depends on: plain attributes by value, tensors by kind and by which of them are the same."""
    seen: dict[int, int] = {}
    parts: list[Any] = []
    for path, module in modules(owner):
        parts.append((path, type(module)))
        for group in (module._parameters, module._buffers, module.__dict__):
            for name, value in group.items():
                if type(value) in PLAIN:  # the common case first: this runs at every call
                    parts.append(value)
                elif name not in INSIDE:
                    parts.append(plain(value, seen))
    if not isinstance(owner, nn.Module):
        parts.extend((k, plain(v, seen)) for k, v in surroundings(owner).items())
    return tuple(parts)


def plain(value: Any, seen: dict[int, int]) -> Any:
    """A value's part in a fingerprint: hashable, equal only where a trace would be the same."""
    if isinstance(value, Tensor):
        return (value.shape, value.dtype, value.device.type, seen.setdefault(id(value), len(seen)))
    if type(value) in PLAIN:
        return (type(value), value)
    if isinstance(value, (tuple, list)):
        return tuple(plain(v, seen) for v in value)
    if isinstance(value, dict):
        return tuple((str(k), plain(v, seen)) for k, v in value.items())
    return id(value)


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
