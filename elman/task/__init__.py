"""Complete tasks, by name."""

from typing import Any

from elman.task.caption import Caption
from elman.task.classify import Classify
from elman.task.regress import Regress
from elman.task.tag import Tag
from elman.task.text import Text
from elman.task.transcribe import Transcribe
from elman.task.translate import Translate

TASKS: dict[str, Any] = {task.name: task for task in (Text, Classify, Regress, Tag, Translate, Transcribe, Caption)}

__all__ = ["TASKS", "Caption", "Classify", "Regress", "Tag", "Text", "Transcribe", "Translate"]
