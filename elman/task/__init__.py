"""Complete tasks, by name."""

from typing import Any

from elman.task.classify import Classify
from elman.task.tag import Tag
from elman.task.text import Text

TASKS: dict[str, Any] = {task.name: task for task in (Text, Classify, Tag)}

__all__ = ["TASKS", "Classify", "Tag", "Text"]
