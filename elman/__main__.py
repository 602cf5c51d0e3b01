"""python -m elman is the elman command."""

from elman.cli import run

run()
