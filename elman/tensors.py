"""Files of tensors: safetensors with text and a checksum beside them; what is wrong shows before memory is taken."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from elman.errors import RunError

CHECKSUM = "sha256"  # in the text beside tensors
TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip


def packed(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """A file of tensors by name, text beside them, and a checksum of both."""
    whole = {name: value.detach().contiguous() for name, value in tensors.items()}
    return save(whole, dict(about) | {CHECKSUM: checksum(whole, about)})


def unpacked(data: bytes) -> dict[str, Tensor]:
    """The tensors that `packed` made bytes of in this very training; a file is read by `read_tensors`."""
    return load(data)


def read_about(path: Path) -> dict[str, str]:
    """The text beside the tensors of a file; no tensor is read, so the checksum is not looked at yet."""
    with opened(path) as file:
        return {name: value for name, value in (file.metadata() or {}).items() if name != CHECKSUM}


def read_tensors(path: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, which must be those of `like` by name, shape and type, and finite numbers.

    Names, shapes, types and sizes are looked at in the file's header, before any tensor is read.
    Errors: RunError naming the file and the first thing that is wrong.
    """
    with opened(path) as file:
        match(like, {name: file.get_slice(name) for name in file.keys()}, path)
        # copies: safetensors maps the file, which would keep a checkpoint on the disk after another took its place
        tensors, about = {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}
        if about.pop(CHECKSUM, None) != checksum(tensors, about):
            raise ValueError("its checksum does not fit")
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise RunError(f"{path}: {name} holds values that are not finite; restore the file, or train again")
    return tensors


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file of tensors: its header is read, and found to fit the file's size. Errors: RunError, also in the block."""
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except RunError:
        raise
    except FileNotFoundError:
        raise missing(path) from None
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise RunError(f"{path} is cut short or damaged ({error}); restore it, or train again") from None


def missing(path: Path) -> RunError:
    """The error for a file that a run folder should hold."""
    return RunError(f"{path.parent} is not a whole run folder: {path.name} is missing; restore it, or train again")


def match(want: Mapping[str, Tensor], got: Mapping[str, Any], path: Path) -> None:
    """Errors: RunError naming the first tensor of a header that is missing, unknown, or of another shape or type."""
    for name, tensor in want.items():
        if name not in got:
            raise RunError(f"{path} lacks the tensor {name}: it is not of this model; restore it, or train again")
        shape, kind = tuple(got[name].get_shape()), got[name].get_dtype()
        if shape != tuple(tensor.shape) or TYPES.get(kind) != tensor.dtype:
            raise RunError(
                f"{path}: {name} is {shape} of {TYPES.get(kind, kind)}, the model has {tuple(tensor.shape)} of "
                f"{tensor.dtype}; restore the file that belongs to this run, or train again"
            )
    for name in got:
        if name not in want:
            raise RunError(f"{path} has the tensor {name!r:.80}, which the model has not; restore the file of this run")


def checksum(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes and values, and of the text beside them."""
    names = sorted(tensors)
    kinds = [(name, str(tensors[name].dtype), tuple(tensors[name].shape)) for name in names]
    found = hashlib.sha256(json.dumps([kinds, sorted(about.items())]).encode())
    for name in names:
        found.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def flatten(value: Any, name: str) -> dict[str, Tensor]:
    """A nest of tuples of tensors as a flat dictionary: name.0.1 is value[0][1]."""
    if isinstance(value, Tensor):
        return {name: value}
    return {key: tensor for i, part in enumerate(value) for key, tensor in flatten(part, f"{name}.{i}").items()}


def rebuild(like: Any, tensors: Mapping[str, Tensor], name: str) -> Any:
    """The nest that `flatten` took apart, in the form of `like`."""
    if isinstance(like, Tensor):
        return tensors[name]
    parts = [rebuild(part, tensors, f"{name}.{i}") for i, part in enumerate(like)]
    return like._make(parts) if hasattr(like, "_make") else tuple(parts)
