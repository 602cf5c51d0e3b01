"""The losses of regress, and what its scores are counted from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from elman.task.base import Score, Scores

NOTHING = Score(None, "not measured: every value to compare with is missing")


def pinball(out: Tensor, y: Tensor, quantiles: Tensor) -> Tensor:
    """The loss whose minimum is each quantile, the mean over quantiles; out (..., Q), y (...) -> (...).

    Source: Koenker, Bassett, "Regression quantiles" (1978).
    """
    error = y[..., None] - out
    return torch.maximum(quantiles * error, (quantiles - 1) * error).mean(-1)


class Tally:
    """Errors summed over batches, for each of D targets, standardised."""

    def __init__(self, quantiles: Sequence[float], targets: int) -> None:
        self.quantiles = torch.tensor(quantiles)
        self.middle = middle(quantiles)
        self.count = torch.zeros(targets, dtype=torch.float64)
        self.sums: dict[str, Tensor] = {}

    def add(self, out: Tensor, y: Tensor, seen: Tensor, naive: Tensor, memoryless: Tensor | None = None) -> None:
        """Outputs (..., D, Q); what was right, where that is known, and what was said naively, (..., D) each."""
        best = out[..., self.middle]
        found = {"squared": (best - y) ** 2, "absolute": (best - y).abs()}
        found |= {"naive squared": (naive - y) ** 2, "naive absolute": (naive - y).abs()}
        if len(self.quantiles):
            found["pinball"] = pinball(out, y, self.quantiles)
            found["inside"] = ((y >= out.amin(-1)) & (y <= out.amax(-1))).double()
        if memoryless is not None:
            found["memoryless"] = (memoryless[..., self.middle] - y) ** 2
        for name, value in found.items():
            summed = (value.double() * seen).flatten(0, -2).sum(0)
            self.sums[name] = self.sums.get(name, 0.0) + summed
        self.count += seen.flatten(0, -2).sum(0)

    def mean(self, name: str) -> float:
        """Over all values of all targets."""
        return float(self.sums[name].sum() / self.count.sum())

    def scores(self, targets: Sequence[str], deviation: Tensor, naive: Tensor, season: int) -> Scores:
        """Figures; `deviation` of each target in its units, `naive` the naive error in training, standardised, (D,)."""
        scores: Scores = {}
        if not self.count.any():
            return dict.fromkeys(["pinball"] * bool(len(self.quantiles)) + ["MSE", "MAE"], NOTHING)
        if len(self.quantiles):
            scores["pinball"] = Score(self.mean("pinball"), f"{self.mean('pinball'):.4g}, mean over quantiles")
        mse, mae = self.mean("squared"), self.mean("absolute")
        scores |= {"MSE": Score(mse, f"{mse:.4g}, standardised"), "MAE": Score(mae, f"{mae:.4g}, standardised")}
        scores["MASE"] = self.scaled(naive, season)
        if len(self.quantiles) > 1:
            inside, low, high = self.mean("inside"), self.quantiles.min(), self.quantiles.max()
            scores["inside"] = Score(inside, f"{inside:.1%} lie between the quantiles {low:g} and {high:g}")
        worse = self.mean("naive squared")
        scores["naive MSE"] = Score(worse, f"{worse:.4g}, MAE {self.mean('naive absolute'):.4g}: {naively(season)}")
        if "memoryless" in self.sums:
            alone = self.mean("memoryless")
            scores["memoryless MSE"] = Score(alone, f"{alone:.4g}: the network that sees one step alone")
        per = self.sums["absolute"] / self.count.clamp(min=1) * deviation
        rows = [(name, float(per[i]), bool(self.count[i])) for i, name in enumerate(targets)]
        return scores | {
            f"MAE of {name}": Score(value, f"{value:.6g} in its units") if there else NOTHING
            for name, value, there in rows
        }

    def scaled(self, naive: Tensor, season: int) -> Score:
        """MAE over that of the naive forecast of one season in training, the mean over targets that ever change.

        Source: Hyndman, Koehler, "Another look at measures of forecast accuracy" (2006).
        """
        whole = (naive > 0) & (self.count > 0)
        if not whole.any():
            return Score(None, "not measured: the naive forecast had no error in training")
        value = float((self.sums["absolute"] / self.count)[whole].div(naive[whole]).mean())
        step = "step" if season == 1 else f"season of {season} steps"
        return Score(value, f"{value:.4g} (1: as large as the naive error over a {step} in training)")


def naively(season: int) -> str:
    """What the naive forecast is, in words."""
    return "the last value" if season == 1 else f"the value {season} steps before"


def middle(quantiles: Sequence[float]) -> int:
    """Which output is the forecast itself: the quantile next to the median, or the only output."""
    return min(range(len(quantiles)), key=lambda i: abs(quantiles[i] - 0.5)) if quantiles else 0
