"""A study in a folder: trials that are drawn, trained, ended early and taken up again."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elman.arguments import SearchArguments
from elman.checkpoint import RunFolder
from elman.console import Report
from elman.errors import DataError, DivergenceError, FinishedError, OptionError, RunError
from elman.runs import UNTOLD, Run
from elman.search.words import Asked, flags, space_of, told
from elman.task.base import Scores
from elman.train import train

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution

Prepared = Callable[[list[str]], tuple[Any, RunFolder, bool]]  # words -> a task, its folder, whether it goes on


def search(asked: SearchArguments, words: list[str], asked_for: Asked, prepared: Prepared) -> int:
    """Try flags, `words` of elman train being those that every trial has. The exit code. Errors: ElmanError."""
    if not words or not asked.over:
        raise OptionError('elman search takes a task and --over, as in: elman search text --over "rate=1e-3..1e-2 log"')
    library()
    task, options = asked_for(words)
    if options.resume:
        raise OptionError("elman search goes on by itself, with the same command: leave --resume out")
    if asked.trials < 1:
        raise OptionError(f"--trials {asked.trials}: must be at least 1")
    space = space_of(asked.over, words, asked_for)
    if not task(options).has_validation:
        raise OptionError("elman search compares scores on data that is held back: --validation 0 leaves none")
    folder = Path(asked.run or f"runs/{task.name}-search")
    kept = {name: value for name, value in asdict(options).items() if name not in UNTOLD or name == "files"}
    study = opened(folder, task.higher, {"task": task.name, "--over": sorted(asked.over), **kept})
    found, signal = Search(words, folder, study, space, prepared), 0
    try:
        for trial in found.trials(asked.trials, options.seed):
            print(f"\ntrial {trial.number + 1} of {asked.trials}: {told(trial.params)}")
            if signal := found.run(trial):
                break
    except KeyboardInterrupt:
        signal = 2
    if not signal:
        found.summary()
        return 0
    again = ["--over", *asked.over, "--trials", str(asked.trials), "--run", str(folder)]
    print(f"stopped and saved; go on with: {shlex.join(['elman', 'search', *words, *again])}")
    return 128 + signal


@dataclass
class Search:
    """What every trial has in common, and where they are."""

    words: list[str]
    folder: Path
    study: Study
    space: dict[str, BaseDistribution]
    prepared: Prepared

    def trials(self, count: int, seed: int) -> Iterator[Trial]:
        """First those that were begun and not ended, then new ones.

        Each is drawn by a sampler of its own seed, so that a search that was killed goes on as if it had not been.
        """
        import optuna

        for begun in self.study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            self.study.sampler = optuna.samplers.TPESampler(seed=seed + begun.number)
            yield self.drawn(optuna.Trial(self.study, begun._trial_id))
        while (number := len(self.study.trials)) < count:
            self.study.sampler = optuna.samplers.TPESampler(seed=seed + number)
            yield self.drawn(self.study.ask())

    def drawn(self, trial: Trial) -> Trial:
        """A trial with a value for each name: one that was killed while they were drawn has some of them."""
        for name, values in self.space.items():
            trial._suggest(name, values)
        return trial

    def run(self, trial: Trial) -> int:
        """Train, or go on training, with a trial's values; tell the study how it ended. The signal that stopped it."""
        from optuna.trial import TrialState

        folder = self.place(trial.number)
        begun = (folder / "config.json").exists()
        if folder.exists() and not begun:
            shutil.rmtree(folder)  # it was killed before there was a run
        words = [*self.words, *flags(trial.params), "--run", str(folder), *["--resume"] * begun]
        try:
            task, run, resumed = self.prepared(words)
            if signal := train(task, run, Watched(trial), resumed):
                return signal
        except FinishedError:
            pass  # it was killed after its last step
        except Pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
            print(f"trial {trial.number + 1} ends early: worse than the median of those before")
            return 0
        except (DataError, DivergenceError, OptionError) as error:
            self.study.tell(trial, state=TrialState.FAIL)
            print(f"trial {trial.number + 1} failed: {error}")
            return 0
        done = Run.read(folder)
        self.study.tell(trial, done.score(done.best))
        print(f"trial {trial.number + 1}: {done.shown(done.best)}")
        return 0

    def place(self, number: int) -> Path:
        return self.folder / f"trial-{number + 1:03}"

    def summary(self) -> None:
        """The best trial, and the command that repeats it. Errors: RunError where none came to its end."""
        from optuna.trial import TrialState

        finished, pruned, failed = (
            len(self.study.get_trials(states=(state,)))
            for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        )
        if not finished:
            raise RunError(
                f"{self.folder}: none of {failed} trials came to a score; search elsewhere, with another --run"
            )
        best = self.study.best_trial
        run = Run.read(self.place(best.number))
        print(f"\n    trials  {finished} finished, {pruned} ended early, {failed} failed")
        print(f"      best  trial {best.number + 1}: {run.shown(run.best)} with {told(best.params)}; {run.path}")
        print(f"repeats it  {shlex.join(['elman', 'train', *self.words, *flags(best.params)])}")
        print(f"next: elman runs {self.folder}")


class Pruned(Exception):  # noqa: N818
    """The trial is not worth going on with."""


class Watched(Report):
    """Tells the study each validation, and ends the trial once that one is saved; prints neither lines nor samples."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self.trial, self.pruned = trial, False
        self.known = trial.study.trials[trial.number].intermediate_values

    def line(self, step: int, seconds: float, measured: Mapping[str, float]) -> None:
        pass

    def sample(self, step: int, text: str) -> None:
        pass

    def validation(self, step: int, seconds: float, scores: Scores) -> None:
        super().validation(step, seconds, scores)
        value = next(iter(scores.values())).value
        if value is not None and step not in self.known:  # a trial that was killed may come to a step again
            self.trial.report(value, step)
        self.pruned = self.trial.should_prune()

    def tick(self, done: float) -> None:
        super().tick(done)
        if self.pruned:
            raise Pruned


def opened(folder: Path, higher: bool, about: dict[str, Any]) -> Study:
    """The study of a folder, or a new one. Errors: RunError, OptionError where it is another search."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    file = folder / "study.db"
    if folder.exists() and not file.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} is not empty and holds no search: name a new folder with --run")
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(
            storage=optuna.storages.RDBStorage(f"sqlite:///{file}"),
            pruner=optuna.pruners.MedianPruner(),
            study_name="search",
            direction="maximize" if higher else "minimize",
            load_if_exists=True,
        )
    except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        said = str(error).splitlines()[0]
        raise RunError(f"{file} cannot be used ({said}): restore it, or name another folder with --run") from None
    about = json.loads(json.dumps(about))
    before = study.user_attrs.get("about")
    if before is None:
        study.set_user_attr("about", before := about)
    for name in about:
        if before.get(name) != about[name]:
            raise OptionError(
                f"{folder} holds another search: {name} was {before.get(name)!r:.80}, now it is {about[name]!r:.80}; "
                "go on with the command that it was begun with, or name a new folder with --run"
            )
    return study


def library() -> None:
    """Errors: OptionError where optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise OptionError('elman search needs the package optuna: pip install "elman[search]"') from None
