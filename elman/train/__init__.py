"""The training loop, written once. It sees a task only through the Task protocol."""

from elman.train.board import summary_writer
from elman.train.loop import check_same_data, train
from elman.train.processes import Processes, joined

__all__ = ["Processes", "check_same_data", "joined", "summary_writer", "train"]
