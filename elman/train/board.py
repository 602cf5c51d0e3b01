"""What TensorBoard shows of a training: figures, samples, the graph of each recurrent layer's step, histograms."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elman.errors import OptionError
from elman.module.backends import Call
from elman.module.explain import calls_in, described, parts_of
from elman.module.locate import buffers_kept
from elman.task.base import Task

NAMES = {"train": "loss", "norm": "gradient norm"}  # other figures are called as in log.jsonl


class Board:
    """Watches a training and keeps nothing: what a run without --tensorboard has."""

    def begin(self, task: Task, step: int, seconds: float) -> None:
        """Before the first step of this process, which goes on from so many."""

    def log(self, step: int, seconds: float, record: Mapping[str, Any]) -> None:
        """A line of log.jsonl."""

    def measured(self, step: int) -> None:
        """The data held back has been measured, and a checkpoint follows."""

    def sample(self, step: int, text: str) -> None:
        """What the model does now."""

    def close(self) -> None:
        """The training has ended, or was stopped."""


class TensorBoard(Board):
    """Writes events to tensorboard/ in the run folder, at the steps of log.jsonl and with the same numbers.

    A resumed run first takes back what came after its checkpoint, so every step is there once.
    Errors: OptionError where the package is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.writer_type, self.folder = summary_writer(), folder / "tensorboard"

    def begin(self, task: Task, step: int, seconds: float) -> None:
        self.model, self.mark, drawn = task.model, (step, seconds), step > 0 and self.folder.exists()
        wait_for_a_later_name(self.folder)
        self.writer = self.writer_type(str(self.folder), purge_step=step + 1 if step else 0)
        if not drawn:
            self.graph(task, step)

    def log(self, step: int, seconds: float, record: Mapping[str, Any]) -> None:
        """Figures under train/, scores under validation/, and steps a second since the last line."""
        for name, value in record.get("validation", {}).items():
            if value is not None:
                self.writer.add_scalar(f"validation/{name}", value, step)
        for name, value in record.items():
            if isinstance(value, (int, float)):
                self.writer.add_scalar(f"train/{NAMES.get(name, name)}", value, step)
        before, then = self.mark
        if "train" in record and step > before and seconds > then:
            self.writer.add_scalar("train/steps per second", (step - before) / (seconds - then), step)
        self.mark = (step, seconds)

    def measured(self, step: int) -> None:
        """Histograms of each parameter and of its gradient in the last step, of their finite entries."""
        for name, parameter in self.model.named_parameters():
            for kind, tensor in (("parameters", parameter.detach()), ("gradients", parameter.grad)):
                values = None if tensor is None else tensor[tensor.isfinite()]
                if values is not None and len(values):
                    self.writer.add_histogram(f"{kind}/{name}", values, step)
        self.writer.flush()  # a resumed run never writes again what came before its checkpoint

    def sample(self, step: int, text: str) -> None:
        self.writer.add_text("sample", verbatim(text), step)

    def close(self) -> None:
        self.writer.close()

    def graph(self, task: Task, step: int) -> None:
        """What elman.explain says of each recurrent layer, as text, and its step's graph for the tab of graphs."""
        from tensorboard.compat.proto.attr_value_pb2 import AttrValue
        from tensorboard.compat.proto.graph_pb2 import GraphDef
        from tensorboard.compat.proto.node_def_pb2 import NodeDef

        names = {id(module): name for name, module in task.model.named_modules()}
        calls: dict[str, Call] = {}
        with buffers_kept(task.model):
            found = calls_in(lambda: task.loss(0, task.initial()))
        for call in found:
            name = names.get(id(call.what.owner), type(call.what.owner).__name__)
            calls.setdefault(name + " backwards" * call.what.reverse, call)
        nodes = []
        for layer, call in calls.items():
            self.writer.add_text(f"graph/{layer}", verbatim(described(call)), step)
            for part in parts_of(call):
                about = {"size": part.size, "where": part.where}
                nodes.append(
                    NodeDef(
                        name=allowed(f"{layer}/{part.name}"),
                        op=part.op,
                        input=[allowed(f"{layer}/{name}") for name in part.sources],
                        attr={key: AttrValue(s=text.encode()) for key, text in about.items() if text},
                    )
                )
        self.writer.file_writer.add_onnx_graph(GraphDef(node=nodes))  # adds any graph as it is
        self.writer.flush()


def wait_for_a_later_name(folder: Path) -> None:
    """Event files are read in the order of their names, which hold the second of their beginning: let it be another."""
    while any(folder.glob(f"events.out.tfevents.{int(time.time()):010}.*")):
        time.sleep(0.05)


def summary_writer() -> Any:
    """SummaryWriter of torch.utils.tensorboard. Errors: OptionError where the package tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise OptionError('--tensorboard needs the package tensorboard: pip install "elman[tensorboard]"') from None
    return SummaryWriter


def verbatim(text: str) -> str:
    """Text that markdown leaves as it is."""
    return "".join(f"    {line}\n" for line in text.splitlines())


def allowed(name: str) -> str:
    """A name with the characters that a node of a graph may have."""
    return re.sub(r"[^\w./-]", "_", name, flags=re.ASCII)
