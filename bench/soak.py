"""Training, saving, resuming, sampling, scoring and predicting again and again in one process: does anything leak?

python bench/soak.py --minutes 120

Every minute: resident memory, threads, open files, objects that Python keeps track of. At the end first and last.
"""

import argparse
import contextlib
import gc
import io
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from elman.cli import main
from elman.data.stdlib import standard_library

TEXT = """text text.py --hidden 128 --steps 40 --report-every 20 --validate-every 20 --sample-every 20
--sample-length 50 --vary --document \\n\\n --cell layer-norm-lstm --dropout 0.2 --average 0.9""".split()
TABLE = "regress --hidden 32 --steps 40 --report-every 20 --validate-every 20 --quantiles 0.1,0.5,0.9".split()
SERIES = "series.csv"
WARM = 2  # rounds before the first figures: what is compiled and imported once is no leak


class Figures(NamedTuple):
    """What a process holds."""

    megabytes: float
    threads: int
    files: int
    objects: int

    @classmethod
    def now(cls) -> "Figures":
        gc.collect()
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        tasks, files = (len(os.listdir(f"/proc/self/{name}")) for name in ("task", "fd"))
        return cls(megabytes, tasks, files, len(gc.get_objects()))

    def __str__(self) -> str:
        python = threading.active_count()
        return (
            f"{self.megabytes:8.1f} MB  {self.threads} threads ({python} of Python)  {self.files} open files  "
            f"{self.objects:,} objects"
        )


def made_files() -> None:
    """A text and a table in the working folder."""
    Path("text.py").write_text("\n\n".join(path.read_text(encoding="utf-8") for path in standard_library()[:3]))
    rows = (f"2024-01-{1 + t // 24:02d} {t % 24:02d}:00,{t % 24},{t % 7}" for t in range(600))
    Path(SERIES).write_text("time,a,b\n" + "\n".join(rows) + "\n")


def ran(*words: str) -> None:
    """One command, what it prints swallowed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(words)
    if code:
        raise SystemExit(f"elman {' '.join(words)} ended with {code}:\n{said.getvalue()}")


def round_of(number: int) -> None:
    """New runs, which save, resume, sample, score and predict; then their folders go."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        seed = ("--seed", str(number))
        ran("train", *TEXT, *seed, "--run", f"{folder}/text")
        ran("train", "text", "--run", f"{folder}/text", "--resume", "--steps", "60")
        ran("sample", f"{folder}/text", "--length", "200")
        ran("train", *TABLE[:1], SERIES, *TABLE[1:], *seed, "--run", f"{folder}/table")
        ran("score", f"{folder}/table")
        ran("predict", f"{folder}/table", SERIES)


def soak(minutes: float) -> None:
    for number in range(WARM):
        round_of(number)
    first = last = Figures.now()
    print(f"     0 min  {first}", flush=True)
    began, number, told = time.monotonic(), WARM, 0
    while (passed := (time.monotonic() - began) / 60) < minutes:
        round_of(number)
        number += 1
        if passed >= told + 1:
            told, last = int(passed), Figures.now()
            print(f"{passed:6.0f} min  {last}  {number} rounds", flush=True)
    last = Figures.now()
    grown = " ".join(f"{name} {b - a:+,.4g}" for name, a, b in zip(Figures._fields, first, last))
    print(f"after {passed:.0f} minutes, {number - WARM} rounds: {grown}")


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--minutes", type=float, default=120)
    minutes = asked.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        made_files()
        soak(minutes)
