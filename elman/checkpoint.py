"""A run folder: safetensors and JSON, each file written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from elman.errors import RunError

CHECKSUM = "sha256"  # in the text beside tensors


class RunFolder:
    """One training run on disk.

    config.json (task, options, data), vocabulary.json and other files of the task, model.safetensors (weights),
    training.safetensors (all that an exact resume needs), log.jsonl, samples.txt.
    Errors: RunError naming the file, what is wrong with it and what to do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, name: str | None, task: str) -> RunFolder:
        """A new folder: the named one, which must not hold a run yet, or runs/TASK, runs/TASK-2, ..."""
        path = Path(name) if name else cls._free(task)
        if (path / "config.json").exists():
            raise RunError(f"{path} already holds a run: go on with it by --resume, or name another folder with --run")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the run folder {path}: {error.strerror}; name another with --run") from None
        if any(path.iterdir()):
            raise RunError(f"{path} is not empty and holds no run: name a new folder with --run")
        return cls(path)

    @staticmethod
    def _free(task: str) -> Path:
        path, k = Path("runs") / task, 1
        while path.exists():
            k += 1
            path = Path("runs") / f"{task}-{k}"
        return path

    @classmethod
    def newest(cls, task: str) -> RunFolder:
        """The run of runs/TASK* that was written to last."""
        found = [path.parent for path in Path("runs").glob(f"{task}*/config.json")]
        if not found:
            raise RunError(f"no run to go on with: there is no runs/{task}*/config.json here; name one with --run")
        return cls(max(found, key=lambda path: (path / "config.json").stat().st_mtime))

    @classmethod
    def open(cls, name: str) -> RunFolder:
        """A run folder that is there. Errors: RunError where it is not."""
        folder = cls(Path(name))
        if not folder.path.is_dir():
            raise RunError(f"{name}: no such run folder; elman train makes one, as runs/text")
        return folder

    # JSON and lines of text

    def write_text(self, name: str, text: str) -> None:
        self._replace(name, text.encode("utf-8", "replace"))

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=1, ensure_ascii=False) + "\n")

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A new folder, filled while the block runs: with all that it writes, or with nothing, and no folder."""
        try:
            yield
        except BaseException:
            for path in self.path.iterdir():  # it was empty when it was made
                path.unlink()
            self.path.rmdir()
            raise

    def read_json(self, name: str) -> Any:
        try:
            return json.loads(self._read(name))
        except (ValueError, RecursionError) as error:
            raise RunError(f"{self.path / name} is damaged: {error}; restore it, or train again") from None

    def lines(self, name: str) -> list[str]:
        """The whole lines of a file that grows; none where it has not begun."""
        if not self.size(name):
            return []
        return self._read(name).decode(errors="replace").split("\n")[:-1]

    def append(self, name: str, text: str) -> None:
        """Add to a file that grows: log.jsonl, samples.txt."""
        try:
            with open(self.path / name, "a", encoding="utf-8", errors="replace", newline="\n") as file:
                file.write(text)
        except OSError as error:
            raise self._unwritable(name, error) from None

    def size(self, name: str) -> int:
        path = self.path / name
        return path.stat().st_size if path.exists() else 0

    def cut(self, name: str, size: int) -> None:
        """Take back what was added to a growing file after it had this size."""
        if self.size(name) > size:
            try:
                os.truncate(self.path / name, size)
            except OSError as error:
                raise self._unwritable(name, error) from None

    # tensors

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
        """Tensors by name, text beside them, and a checksum of both."""
        whole = {key: value.detach().contiguous() for key, value in tensors.items()}
        about = dict(about or {})
        self._replace(name, save(whole, about | {CHECKSUM: checksum(whole, about)}))

    def read_tensors(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors by name, and the text that was saved beside them."""
        self._exists(name)
        try:
            with safe_open(str(self.path / name), framework="pt") as file:
                tensors, about = {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
            if about.pop(CHECKSUM, None) != checksum(tensors, about):
                raise ValueError("its checksum does not fit")
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise RunError(
                f"{self.path / name} is cut short or damaged ({error}); restore it, or train again"
            ) from None
        return tensors, about

    def load_into(self, model: nn.Module, name: str) -> None:
        """Copy weights into the model once every name, shape and type has been found right."""
        tensors, _ = self.read_tensors(name)
        match(model.state_dict(), tensors, str(self.path / name))
        model.load_state_dict(tensors)

    # files

    def _exists(self, name: str) -> None:
        if not (self.path / name).is_file():
            raise RunError(f"{self.path} is not a whole run folder: {name} is missing; restore it, or train again")

    def _read(self, name: str) -> bytes:
        self._exists(name)
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise RunError(f"{self.path / name} cannot be read: {error.strerror}") from None

    def _replace(self, name: str, data: bytes) -> None:
        """The old file stays until the new one is whole and on the disk."""
        part = self.path / f"{name}.part"
        try:
            with open(part, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path / name)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise self._unwritable(name, error) from None

    def _unwritable(self, name: str, error: OSError) -> RunError:
        what = f"cannot write {self.path / name}: {error.strerror}"
        if not (self.path / "config.json").exists():
            return RunError(f"{what}; nothing was saved: free some space, or name another folder with --run")
        return RunError(
            f"{what}; the last good checkpoint stays: free some space or mend the folder, then go on with "
            f"--run {self.path} --resume"
        )


def checksum(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes and values, and of the text beside them."""
    names = sorted(tensors)
    kinds = [(name, str(tensors[name].dtype), tuple(tensors[name].shape)) for name in names]
    found = hashlib.sha256(json.dumps([kinds, sorted(about.items())]).encode())
    for name in names:
        found.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def match(want: Mapping[str, Tensor], got: Mapping[str, Tensor], where: str) -> None:
    """Errors: RunError naming the first tensor that is missing, unknown, or of another shape or type."""
    for name, tensor in want.items():
        if name not in got:
            raise RunError(f"{where} lacks the tensor {name}: it is not of this model; restore it, or train again")
        given = got[name]
        if given.shape != tensor.shape or given.dtype != tensor.dtype:
            raise RunError(
                f"{where}: {name} is {tuple(given.shape)} of {given.dtype}, the model has {tuple(tensor.shape)} of "
                f"{tensor.dtype}; restore the file that belongs to this run, or train again"
            )
        if given.is_floating_point() and not given.isfinite().all():
            raise RunError(f"{where}: {name} holds values that are not finite; restore the file, or train again")
    for name in got:
        if name not in want:
            raise RunError(f"{where} has the tensor {name}, which the model has not; restore the file of this run")


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
