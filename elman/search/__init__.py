"""elman search: Optuna names values of flags, and each trial is a training run in a folder of its own."""

from elman.search.study import search
from elman.search.words import parted

__all__ = ["parted", "search"]
