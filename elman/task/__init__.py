"""Complete tasks, by name."""

from elman.task.text import Text

TASKS = {task.name: task for task in (Text,)}

__all__ = ["TASKS", "Text"]
