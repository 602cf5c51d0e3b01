"""The picture in the README: python docs/first_run.py RUN docs/first-run.png (needs the extra "plot")."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from elman.checkpoint import RunFolder
from elman.look.show import samples

SHOWN = (0, 100, 400, 2000)  # steps whose samples stand beside the curve


def main(run: Path, picture: Path) -> None:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    figure, (curve, text) = plt.subplots(1, 2, figsize=(11, 5), width_ratios=(1, 1.15), layout="constrained")
    for name, label, style in (("smoothed", "training, smoothed", "-"), ("validation", "validation", "o")):
        points = [(r["step"], r[name]["stateful"] if name == "validation" else r[name]) for r in log if name in r]
        curve.plot(*zip(*points), style, label=label)
    curve.set(xlabel="step", ylabel="nats per character", title="The loss falls ...", ylim=(0.8, None))
    curve.grid(alpha=0.3)
    curve.legend()
    text.set_axis_off()
    text.set_title("... and what the network writes becomes Python")
    written = dict(samples(RunFolder(run)))
    for i, step in enumerate(SHOWN):
        lines = [line[:62] for line in written[step].split("\n") if line.strip()][:4]
        top = 0.97 - i * 0.25
        text.text(0, top, f"step {step:,}", weight="bold", va="top", size=10)
        text.text(0, top - 0.05, "\n".join(lines), family="monospace", va="top", size=8.5, parse_math=False)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
