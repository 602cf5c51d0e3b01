"""What a step may read besides its arguments: the tensors of its module or closure, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from types import FunctionType
from typing import Any

from torch import Tensor, nn

PLAIN = (int, float, complex, str, bytes, bool, type(None))
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
INSIDE = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_is_full_backward_hook", *HOOKS}


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
        parts.append((path, type(module), module.training))
        for group in (module._parameters, module._buffers, module.__dict__):
            for name, value in group.items():
                if name not in INSIDE:
                    parts.append((name, plain(value, seen)))
    if not isinstance(owner, nn.Module):
        parts.extend((k, plain(v, seen)) for k, v in surroundings(owner).items())
    return tuple(parts)


def plain(value: Any, seen: dict[int, int]) -> Any:
    """A value's part in a fingerprint: hashable, equal only where a trace would be the same."""
    if isinstance(value, PLAIN):
        return (type(value).__name__, value)
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.dtype, value.device.type, seen.setdefault(id(value), len(seen)))
    if isinstance(value, (tuple, list)):
        return tuple(plain(v, seen) for v in value)
    if isinstance(value, dict):
        return tuple((str(k), plain(v, seen)) for k, v in value.items())
    return id(value)


def hooked(owner: Any) -> str:
    """Why a module inside the step must be called each time; empty if none must."""
    for path, module in modules(owner):
        if module is not owner and any(getattr(module, hooks) for hooks in HOOKS):
            return f"{path} has hooks, which must run at every step"
    return ""


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
