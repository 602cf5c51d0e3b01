"""Complete tasks, by name."""

from typing import Any

from elman.task.text import Text

TASKS: dict[str, Any] = {task.name: task for task in (Text,)}

__all__ = ["TASKS", "Text"]
