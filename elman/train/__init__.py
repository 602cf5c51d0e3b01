"""The training loop, written once. It sees a task only through the Task protocol."""

from elman.train.loop import check_same_data, train

__all__ = ["check_same_data", "train"]
