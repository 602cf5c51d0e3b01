"""A run folder: safetensors and JSON, each file written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from elman.errors import RunError
from elman.tensors import missing, packed, read_tensors

NEWEST = "training.safetensors"


class RunFolder:
    """One training run on disk.

    config.json (task, options, data), vocabulary.json and other files of the task, model.safetensors (weights),
    training.safetensors (all that an exact resume needs), training-STEP.safetensors (the same at earlier steps),
    log.jsonl, samples.txt, snapshots.jsonl (of tasks that give any); tensorboard/ where it was asked for; of a step
    that diverged, diverged-STEP.safetensors (all that running it again needs) and diverged-STEP.json (where it began).
    Errors: RunError naming the file, what is wrong with it and what to do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, name: str | None, task: str, left: Iterable[str] = ()) -> RunFolder:
        """A new folder: the named one, which must not hold a run yet, or runs/TASK, runs/TASK-2, ...

        left: files to remove, whole or in part, that a run may have left which was killed before its first step.
        """
        path = Path(name) if name else cls._free(task)
        if (path / "config.json").exists():
            raise RunError(f"{path} already holds a run: go on with it by --resume, or name another folder with --run")
        try:
            new = [folder for folder in (path, *path.parents) if not folder.exists()]
            path.mkdir(parents=True, exist_ok=name is not None)
            for folder in new:
                settle(folder.parent)
            for file in left:
                (path / file).unlink(missing_ok=True)
                (path / f"{file}.part").unlink(missing_ok=True)
        except FileExistsError:
            if name is None:  # another process was faster
                return cls.create(name, task)
            raise RunError(f"{path} is no folder: name another with --run") from None
        except OSError as error:
            raise RunError(f"cannot make the run folder {path}: {error.strerror}; name another with --run") from None
        if any(path.iterdir()):
            raise RunError(
                f"{path} is not empty and holds no run: name a new folder with --run, or remove this one, which a run "
                "leaves that is killed before its first step"
            )
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
        return cls(max(found, key=lambda path: last_written(path).stat().st_mtime))

    @classmethod
    def open(cls, name: str) -> RunFolder:
        """A run folder that is there. Errors: RunError where it is not."""
        folder = cls(Path(name))
        if not folder.path.is_dir():
            raise RunError(f"{name}: no such run folder; elman train makes one, as runs/text")
        return folder

    # JSON and lines of text

    def write_json(self, name: str, value: Any) -> None:
        self._replace(name, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())

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

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Train in this folder while the block runs. Errors: RunError where another process is known to."""
        if os.name != "posix":
            yield
            return
        number = os.open(self.path, os.O_RDONLY)
        try:
            if not locked(number):
                raise RunError(
                    f"another process is training in {self.path}: wait for it, stop it, or name another folder by --run"
                )
            yield
        finally:
            os.close(number)

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
        """Add to a file that grows: log.jsonl, samples.txt, snapshots.jsonl."""
        try:
            with open(self.path / name, "a", encoding="utf-8", errors="replace", newline="\n") as file:
                file.write(text)
        except OSError as error:
            raise self._unwritable(name, error) from None

    def size(self, name: str) -> int:
        path = self.path / name
        return path.stat().st_size if path.exists() else 0

    def settled(self, name: str) -> int:
        """The size of a file that grows, once all of it is on the disk."""
        if not self.size(name):
            return 0
        try:
            with open(self.path / name, "ab") as file:
                os.fsync(file.fileno())
                return file.tell()
        except OSError as error:
            raise self._unwritable(name, error) from None

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
        self._replace(name, packed(tensors, about or {}))

    def load_into(self, model: nn.Module, name: str) -> None:
        """Copy weights into the model once every name, shape and type has been found right."""
        model.load_state_dict(read_tensors(self.path / name, model.state_dict()))

    # checkpoints

    def older(self) -> dict[int, Path]:
        """The checkpoints that are kept beside the newest, by step."""
        found = {path.stem.removeprefix("training-"): path for path in self.path.glob("training-*.safetensors")}
        return {int(step): found[step] for step in sorted(filter(str.isdecimal, found), key=int)}

    def checkpoint(self, step: int | None) -> Path:
        """The newest, or the older one of a step. Errors: RunError where there is none of that step."""
        older = self.older()
        if step is not None and step not in older:
            steps = ", ".join(map(str, older)) or "none"
            raise RunError(f"{self.path} keeps no older checkpoint of step {step}: it keeps {steps}, by --checkpoints")
        return self.path / NEWEST if step is None else older[step]

    def retain(self, step: int) -> None:
        """Let the newest checkpoint, which is of this step, stay as an older one when another takes its place."""
        path = self.path / f"training-{step}.safetensors"
        try:
            if not path.exists():
                os.link(self.path / NEWEST, path)
        except OSError as error:
            raise self._unwritable(path.name, error) from None

    def go_back(self, step: int) -> None:
        """Make an older checkpoint the newest, too."""
        self._replace(NEWEST, self._read(self.checkpoint(step).name))

    def forget(self, steps: Iterable[int]) -> None:
        """Remove the older checkpoints of these steps."""
        older = self.older()
        for step in steps:
            try:
                older[step].unlink()
            except OSError as error:
                raise self._unwritable(older[step].name, error) from None

    # files

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            if name == "config.json":
                raise RunError(
                    f"{self.path} holds no run: it has no config.json, which is written when one begins"
                ) from None
            raise missing(self.path / name) from None
        except OSError as error:
            raise RunError(f"{self.path / name} cannot be read: {error.strerror}") from None

    def _replace(self, name: str, data: bytes) -> None:
        try:
            write_whole(self.path / name, data)
        except OSError as error:
            raise self._unwritable(name, error) from None

    def _unwritable(self, name: str, error: OSError) -> RunError:
        what = f"cannot write {self.path / name}: {error.strerror}"
        if not (self.path / "config.json").exists():
            return RunError(f"{what}; nothing was saved: free some space, or name another folder with --run")
        return RunError(
            f"{what}; the last good checkpoint stays: free some space or mend the folder, then go on with "
            f"--run {self.path} --resume"
        )


def write_whole(path: Path, data: bytes) -> None:
    """The old file stays until the new one is whole and on the disk. Errors: OSError; nothing stays half written."""
    part = path.parent / f"{path.name}.part"
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        settle(path.parent)
    except OSError:
        with suppress(OSError):  # in a folder that can be read only there is nothing to take away
            part.unlink()
        raise


def last_written(folder: Path) -> Path:
    """The file of a run whose time is that of the run."""
    newest = folder / NEWEST
    return newest if newest.exists() else folder / "config.json"


def locked(number: int) -> bool:
    """Lock an open folder until it is closed, where the file system has locks; False where another process has."""
    import fcntl

    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def settle(folder: Path) -> None:
    """Put the names in a folder on the disk, if the system can: what was renamed outlasts a power cut."""
    if os.name != "posix":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems know this for files alone
            raise
    finally:
        os.close(number)
