"""Complete tasks, by name."""

from typing import Any

from elman.task.classify import Classify
from elman.task.text import Text

TASKS: dict[str, Any] = {task.name: task for task in (Text, Classify)}

__all__ = ["TASKS", "Classify", "Text"]
