"""Peak resident memory of training on a 1 GB text and on a table of 2 million rows.

python bench/memory.py                              # makes both files in a temporary folder, trains, takes them away
python bench/memory.py --text input.txt --only text # the text is this one, repeated
"""

import argparse
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

from elman.data.stdlib import standard_library

COLUMNS = 8


def make_text(path: Path, source: Path | None, size: int) -> None:
    """`size` bytes of a text again and again."""
    files = [source] if source else standard_library()
    text = b"\n".join(file.read_bytes() for file in files)
    with open(path, "wb") as file:
        for _ in range(-(-size // len(text))):
            file.write(text)


def make_table(path: Path, rows: int) -> None:
    """A minute a row: waves of eight lengths with noise."""
    draw, begin = random.Random(0), datetime(2020, 1, 1)
    with open(path, "w") as file:
        file.write(",".join(["time", *(f"c{i}" for i in range(COLUMNS))]) + "\n")
        for row in range(rows):
            cells = (f"{math.sin(row / 20 / (i + 1)) + draw.random():.6f}" for i in range(COLUMNS))
            file.write(f"{begin + timedelta(minutes=row)},{','.join(cells)}\n")


def train(*words: str | Path) -> None:
    """Train in a process of its own; print its time and its peak resident memory."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "elman", "train", *map(str, words)]
        child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
    spent = used.ru_utime + used.ru_stime
    gigabytes = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    shown = " ".join(Path(word).name if isinstance(word, Path) else word for word in words)
    said = (
        f"{time.perf_counter() - began:6.0f} s ({spent:.0f} of CPU)  {gigabytes:.2f} GB"
        if status == 0
        else f"ended with {status}"
    )
    print(f"{said}  elman train {shown}", flush=True)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--text", type=Path, help="the text to repeat; none: Python's standard library")
    asked.add_argument("--bytes", type=int, default=10**9, help="of the text")
    asked.add_argument("--rows", type=int, default=2_000_000, help="of the table")
    asked.add_argument("--steps", type=int, default=20)
    asked.add_argument("--validation", type=float, default=0.001, help="the share held back: measuring takes long")
    asked.add_argument("--only", choices=["text", "table"])
    o = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text, table = Path(folder) / "text.txt", Path(folder) / "table.csv"
        steps = ("--steps", str(o.steps), "--validation", str(o.validation))
        if o.only != "table":
            make_text(text, o.text, o.bytes)
            train("text", text, *steps)
            text.unlink()
        if o.only != "text":
            make_table(table, o.rows)
            train("regress", table, *steps)
            inputs = ("--inputs", ",".join(f"c{i}" for i in range(1, COLUMNS)), "--targets", "c0")
            train("regress", table, *steps, "--horizon", "0", *inputs, "--carry")


if __name__ == "__main__":
    main()
