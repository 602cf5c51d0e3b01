"""elman beside torch.nn, a Python loop, torch.compile and jax.lax.scan, alternating in one process.

    python bench/against_torch.py                                        every cell and shape, both modes
    python bench/against_torch.py --cells LSTM --shapes 32,100,256,256   one row a mode; a shape is B,T,I,H
    python bench/against_torch.py --mode training --rivals nn,loop,compile,scan --markdown table.md
    python bench/against_torch.py --first-use                            what the first call costs, cache empty, full
    python bench/against_torch.py --checkpoint                           memory and time of checkpoint="sqrt"

A ratio is the rival's time over elman's of the same round, the median of all rounds: above 1, elman is faster.
GFLOP/s count the products only, 2 G H (I + H) a row and step; training counts three times the forward pass.
A training step is forward, backward to x and every parameter, and an update in place of every parameter.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import torch
from cells import CELLS, ScanRunner
from torch import Tensor, nn

import elman
from elman.compiler.emit.pool import waiting

SHAPES = """128,28,28,128 32,100,256,256 64,128,512,512 256,30,1024,1024 16,100,128,128 1,100,128,128 1,1000,512,512
4,100,256,256 20,35,650,650 7,50,33,65""".split()
LSTM = "elman's LSTM"
OWN_SHAPES = [(32, 100, 256, 256), (64, 128, 512, 512)]  # where one's own cell is set against elman's LSTM
MODES, RIVALS = ("inference", "training"), ("nn", "loop", "compile", "scan")
SAMPLE, RATE, TOLERANCE = 0.005, 1e-6, 1e-4  # least seconds a sample; of the update; of values, relative
LONGEST_COMPILE = 100  # torch.compile unrolls every step: 50 take it about a minute a row


def say(*words: Any) -> None:
    print(*words, flush=True)


class Runner:
    """One contender on one input: a call x -> y, and its parameters by the cell's names."""

    def __init__(self, call: Callable[[Tensor], Tensor], parameters: dict[str, Tensor], x: Tensor, cotangent: Tensor):
        self.call, self.parameters = call, parameters
        self.x, self.cotangent = x.clone().requires_grad_(), cotangent  # (T, B, I), (T, B, H)

    @torch.no_grad()
    def inference(self) -> None:
        self.call(self.x)

    def backward(self) -> Tensor:
        y = self.call(self.x)
        y.backward(self.cotangent)
        return y

    def training(self) -> None:
        self.backward()
        self.x.grad = None
        with torch.no_grad():
            for p in self.parameters.values():
                p.add_(p.grad, alpha=-RATE)
                p.grad = None

    def values(self) -> dict[str, Tensor]:
        """y, and the gradient of everything."""
        leaves = {"x": self.x, **self.parameters}
        found = {"y": self.backward().detach()} | {f"gradient of {n}": p.grad for n, p in leaves.items()}
        for p in leaves.values():
            p.grad = None
        return found


def loop(cell: elman.Cell, x: Tensor) -> Tensor:
    """What a researcher writes: (T, B, I) -> (T, B, H)."""
    state, ys = cell.initial(x.shape[1]), []
    for row in x.unbind(0):
        y, state = cell.step(row, *state)
        ys.append(y)
    return torch.stack(ys)


def torch_layer(make: Callable[[int, int], Any], cell: elman.Cell) -> tuple[Any, dict[str, Tensor]]:
    """torch.nn's layer with the cell's weights, gates in the same order; its second bias is the cell's or zero."""
    layer = make(cell.input_size, cell.hidden_size)
    names = {"U.weight": layer.weight_ih_l0, "W.weight": layer.weight_hh_l0}
    names |= {"U.bias": layer.bias_ih_l0, "W.bias": layer.bias_hh_l0}
    own = dict(cell.named_parameters())
    with torch.no_grad():
        for name, p in names.items():
            p.copy_(own.get(name, torch.zeros_like(p)))
    return layer, names


def contenders(name: str, shape: tuple[int, ...], rivals: list[str]) -> dict[str, Any]:
    """elman and its rivals on one input, each with its own copy of the same weights."""
    B, T, I, H = shape  # noqa: E741
    torch.manual_seed(0)
    cell = CELLS[name].make(I, H)
    x, cotangent = torch.randn(T, B, I), torch.randn(T, B, H)
    layer, looped, compiled = elman.Recurrent(copy.deepcopy(cell)), copy.deepcopy(cell), copy.deepcopy(cell)
    runs: dict[str, Any] = {
        "elman": Runner(lambda x: layer(x)[0], dict(layer.cell.named_parameters()), x, cotangent),
        "loop": Runner(lambda x: loop(looped, x), dict(looped.named_parameters()), x, cotangent),
    }
    make = CELLS[name].rival
    if "nn" in rivals and make is not None:
        theirs, names = torch_layer(make, cell)
        runs["nn"] = Runner(lambda x: theirs(x)[0], names, x, cotangent)
    if "compile" in rivals and T > LONGEST_COMPILE:
        say(f"{name} {shape}: torch.compile left out, it unrolls all {T} steps (limit {LONGEST_COMPILE})")
    elif "compile" in rivals:
        torch.compiler.reset()
        warnings.filterwarnings("ignore", module="torch._dynamo")
        unrolled = torch.compile(loop)
        runs["compile"] = Runner(lambda x: unrolled(compiled, x), dict(compiled.named_parameters()), x, cotangent)
    if "scan" in rivals:
        runs["scan"] = ScanRunner(name, cell, x, cotangent, RATE)
    return runs


def check(runs: dict[str, Any], where: str) -> None:
    """Stop unless every contender has elman's y and gradients. The loop is checked even where it is not timed."""
    mine = runs["elman"].values()
    for rival in runs.keys() - {"elman"}:
        theirs = runs[rival].values()
        for key in mine.keys() & theirs.keys():
            error = (mine[key] - theirs[key]).abs().max() / theirs[key].abs().max().clamp_min(1e-30)
            if not error <= TOLERANCE:
                raise SystemExit(f"{where}: elman and {rival} differ in {key} by {error:.1e} (limit {TOLERANCE:g})")


def seconds_of(call: Callable[[], None], number: int = 1) -> float:
    """Seconds of one call, the mean of `number`."""
    start = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - start) / number


def sgemm(matrices: tuple[Tensor, ...]) -> float:
    """GFLOP/s of one float32 product of torch's, 2048^3."""
    return 2 * 2048**3 / seconds_of(lambda: torch.mm(*matrices[:2], out=matrices[2])) / 1e9


def plan(calls: dict[str, Callable[[], None]], repeats: int, budget: float) -> tuple[dict[str, int], dict[str, int]]:
    """Calls a sample, and rounds, for each contender after warming up; slow ones get fewer rounds, at least 3."""
    number, rounds = {}, {}
    for name, call in calls.items():
        once = min([seconds_of(call), seconds_of(call)])
        once = min(seconds_of(call) for _ in range(max(1, min(5, int(SAMPLE / once)))))
        number[name] = math.ceil(SAMPLE / once)
        fit = int(budget / len(calls) / (once * number[name]))
        rounds[name] = min(repeats, max(3, fit))
    return number, {name: min(count, rounds["elman"]) for name, count in rounds.items()}


@dataclass
class Row:
    """The medians of one cell, shape and mode. Ratios: the rival's time over elman's of the same round."""

    cell: str
    shape: tuple[int, ...]
    mode: str
    flops: int
    seconds: dict[str, float]
    ratio: dict[str, float]
    sgemm: float

    def speed(self, name: str) -> float:
        """GFLOP/s."""
        return self.flops / self.seconds[name] / 1e9

    def cells(self, rivals: list[str]) -> list[str]:
        own = [f"{self.seconds['elman'] * 1e3:.3f}", f"{self.speed('elman'):.1f}", self.percent("elman")]
        for name in rivals:
            there = name in self.seconds
            own += [f"{self.speed(name):.1f}", self.percent(name), f"{self.ratio[name]:.2f}"] if there else ["-"] * 3
        return [self.cell, ",".join(map(str, self.shape)), self.mode, f"{self.sgemm:.0f}", *own]

    def over_lstm(self) -> float:
        """GFLOP/s over those of elman's LSTM."""
        products = [CELLS[name].flops(*self.shape[2:]) for name in (self.cell, "LSTM")]
        return self.ratio[LSTM] * products[0] / products[1]

    def percent(self, name: str) -> str:
        return f"{100 * self.speed(name) / self.sgemm:.0f}"


def titles(rivals: list[str]) -> list[str]:
    heads = [title for name in rivals for title in (name, f"{name} %", f"{name} ratio")]
    return ["cell", "B,T,I,H", "mode", "sgemm", "ms", "elman", "elman %", *heads]


def measure(name: str, shape: tuple[int, ...], mode: str, runs: dict[str, Any], options: Any) -> Row:
    """Round robin, beginning one further each round; a short call is made once untimed, to find its caches again."""
    calls = {rival: getattr(run, mode) for rival, run in runs.items()}
    number, rounds = plan(calls, options.repeats, options.seconds)
    matrices = (torch.randn(2048, 2048), torch.randn(2048, 2048), torch.empty(2048, 2048))
    sgemm(matrices)
    taken: dict[str, dict[int, float]] = {rival: {} for rival in calls}
    peaks = []
    for i in range(rounds["elman"]):
        turn = i % len(calls)
        for rival in [*calls, *calls][turn : turn + len(calls)]:
            if i * rounds[rival] % rounds["elman"] < rounds[rival]:  # fewer rounds, spread evenly
                if number[rival] > 1:
                    calls[rival]()
                taken[rival][i] = seconds_of(calls[rival], number[rival])
        peaks.append(sgemm(matrices))
    ratio = {rival: median(t / taken["elman"][i] for i, t in taken[rival].items()) for rival in calls}
    B, T, I, H = shape  # noqa: E741
    flops = B * T * CELLS[name].flops(I, H) * (3 if mode == "training" else 1)
    return Row(name, shape, mode, flops, {r: median(t.values()) for r, t in taken.items()}, ratio, median(peaks))


def summary(rows: list[Row], rivals: list[str]) -> list[str]:
    """Geometric mean and minimum of the ratios by cell, mode and rival; own cells against elman's LSTM."""
    lines = ["", "ratios, geometric mean and minimum over shapes (above 1: elman is faster)"]
    for rival in rivals:
        for mode in MODES:
            there = [row for row in rows if row.mode == mode and rival in row.ratio]
            for cell in [*dict.fromkeys(row.cell for row in there), "all cells"] if there else []:
                found = [row.ratio[rival] for row in there if cell in (row.cell, "all cells")]
                lines.append(f"  {rival:8} {mode:10} {cell:14} {geometric_mean(found):8.2f} {min(found):8.2f}")
    own = [row for row in rows if LSTM in row.ratio]
    lines += ["", "own cells, GFLOP/s over that of elman's LSTM of the same rounds"] if own else []
    return lines + [f"  {row.cell:14} {row.shape!s:22} {row.mode:10} {row.over_lstm():8.2f}" for row in own]


def compare(options: argparse.Namespace) -> None:
    rows, rivals = [], options.rivals
    widths = [max(14, len(title)) if i < 3 else max(8, len(title)) for i, title in enumerate(titles(rivals))]
    line = lambda words: "  ".join(word.rjust(width) for word, width in zip(words, widths))  # noqa: E731
    say(line(titles(rivals)))
    for name in options.cells:
        for shape in options.shapes:
            runs = contenders(name, shape, rivals)
            check(runs, f"{name} {shape}")
            runs = {rival: run for rival, run in runs.items() if rival in ("elman", *rivals)}
            if CELLS[name].rival is None and shape in OWN_SHAPES:  # in turns, since a machine's speed changes
                runs[LSTM] = contenders("LSTM", shape, [])["elman"]
            for mode in options.modes:
                rows.append(measure(name, shape, mode, runs, options))
                say(line(rows[-1].cells(rivals)))
    found = summary(rows, rivals)
    say("\n".join(found))
    if options.markdown:
        table = [titles(rivals), ["---"] * len(widths), *(row.cells(rivals) for row in rows)]
        text = ["| " + " | ".join(words) + " |" for words in table]
        options.markdown.write_text("\n".join([header(), "", *text, "", "```", *found[1:], "```", ""]))


def header() -> str:
    """The machine, versions, commit and date, in one line."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    git = lambda *words: subprocess.run(  # noqa: E731
        ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True
    ).stdout.strip()
    commit = git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")
    return (
        f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; torch {torch.__version__}, "
        f"elman {elman.__version__} ({commit}), {date.today()}"
    )


def lstm_step(layer: nn.Module, T: int, B: int) -> Callable[[], None]:
    """Forward and backward to the parameters, of a layer of 128 inputs on T steps of B rows.

    Not to x: the plain loop's backward through x[t] fills T tensors of x's size, minutes where T is 10,000.
    """
    x = torch.randn(T, B, 128)
    return lambda: layer(x)[0].sum().backward()


def work(task: str, T: int, B: int, checkpoint: str) -> dict[str, Any]:
    """In a fresh process: seconds that the first call takes beyond later ones, or megabytes and seconds of a step."""
    cell = elman.cell.LSTM(128, 128)
    layer = elman.Recurrent(cell, checkpoint=checkpoint or None)
    if task in ("first", "torch"):
        call = lstm_step(layer if task == "first" else nn.LSTM(128, 128), T, B)
        first, again, anew = seconds_of(call), [], []
        for _ in range(3):
            again.append(seconds_of(call))
            waiting.clear()  # what elman keeps for its next call; torch.nn asks for new memory at every call
            anew.append(seconds_of(call))
        return {"again": first - median(again), "anew": first - median(anew)}
    lstm_step(layer, 10, B)()
    call, before = lstm_step(layer, T, B), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call()
    found = {"megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}  # Linux counts in KiB
    if checkpoint:
        whole = lstm_step(elman.Recurrent(cell), T, B)
        whole()
        found["times"] = [[seconds_of(whole), seconds_of(call)] for _ in range(9)]  # type: ignore[assignment]
    return found


def fresh(task: str, T: int, B: int, threads: int, cache: str | None = None, checkpoint: str = "") -> dict[str, Any]:
    """`work` in a new process. (A child's ru_maxrss starts at its parent's: so the parent must stay small.)"""
    command = [sys.executable, __file__, "--threads", str(threads), "--worker", json.dumps([task, T, B, checkpoint])]
    environment = os.environ | ({"ELMAN_CACHE": cache} if cache else {})
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, every process compiles elman's own Python anew
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def first_use(threads: int) -> None:
    say("first forward and backward of LSTM 128 -> 128 beyond the time of later calls, and beyond that of calls that")
    say("touch new memory as the first does (torch.nn's all do); median of 5 processes")
    for T, B in ((10, 16), (10_000, 1), (10_000, 16)):
        taken: dict[str, list[dict[str, float]]] = {"cache empty": [], "cache filled": [], "torch.nn": []}
        for _ in range(5):
            with tempfile.TemporaryDirectory() as cache:
                for what in taken:
                    taken[what].append(fresh("torch" if what == "torch.nn" else "first", T, B, threads, cache))
        for what, found in taken.items():
            again, anew = (median(one[key] for one in found) for key in ("again", "anew"))
            say(f"  T={T:<6}  B={B:<3}  {what:<13}  beyond later ones {again:7.3f} s,  on new memory {anew:7.3f} s")


def checkpointing(threads: int) -> None:
    say("training step of LSTM 128 -> 128, T=10,000, B=8: growth of peak memory in the first step, each in a process")
    say("of its own; then both by turns in one process, 9 times: median seconds and ratio")
    plain, sqrt = (fresh("memory", 10_000, 8, threads, checkpoint=kind) for kind in ("", "sqrt"))
    whole, parts = zip(*sqrt["times"])
    say(f"  plain   {plain['megabytes']:8.1f} MB  {median(whole):8.3f} s")
    say(f"  sqrt    {sqrt['megabytes']:8.1f} MB  {median(parts):8.3f} s")
    ratio = median(b / a for a, b in sqrt["times"])
    say(
        f"  plain over sqrt in memory {plain['megabytes'] / sqrt['megabytes']:.2f}, sqrt over plain in time {ratio:.2f}"
    )


def names(among: Any) -> Callable[[str], list[str]]:
    """An argument's type: names with commas between."""

    def parse(text: str) -> list[str]:
        unknown = [name for name in text.split(",") if name not in among]
        if unknown:
            raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(among)}")
        return text.split(",")

    return parse


def shape_of(text: str) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in text.split(","))
    if len(sizes) != 4 or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"a shape is B,T,I,H, four numbers of at least 1; got {text!r}")
    return sizes


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=names(CELLS), default=list(CELLS), help="with commas: " + ",".join(CELLS))
    parser.add_argument("--shapes", type=shape_of, nargs="+", default=[shape_of(s) for s in SHAPES], help="B,T,I,H ...")
    parser.add_argument("--mode", choices=[*MODES, "both"], default="both")
    parser.add_argument("--rivals", type=names(RIVALS), default=["nn", "loop"], help="with commas: " + ",".join(RIVALS))
    parser.add_argument("--repeats", type=int, default=9, help="rounds, at most (default 9)")
    parser.add_argument("--seconds", type=float, default=10.0, help="budget of a cell, shape and mode (default 10)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--first-use", action="store_true", help="time of the first call, in fresh processes")
    parser.add_argument("--checkpoint", action="store_true", help='memory and time with checkpoint="sqrt"')
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.modes = MODES if options.mode == "both" else (options.mode,)
    return options


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    if options.worker:
        return say(json.dumps(work(*options.worker)))
    say(header())
    if options.first_use or options.checkpoint:
        for wanted, task in ((options.first_use, first_use), (options.checkpoint, checkpointing)):
            _ = wanted and task(options.threads)
        return None
    if "scan" in options.rivals:
        try:
            import jax  # noqa: F401
        except ImportError:
            say("scan left out: jax is not installed here (pip install jax)")
            options.rivals.remove("scan")
    return compare(options)


if __name__ == "__main__":
    main()
