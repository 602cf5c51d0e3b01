"""What a search says in words: its own flags, what is searched, and a trial's values as flags of elman train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from elman.errors import OptionError
from elman.task.options import flag_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

OWN = ("--over", "--trials", "--run", "--help", "-h")
Asked = Callable[[list[str]], tuple[Any, Any]]  # words of elman train -> the kind of task, its options


def parted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that are the search's own, and those of elman train. --over takes all up to the next flag."""
    own: dict[str, list[str]] = {}
    rest: list[str] = []
    into, many = rest, True
    for word in words:
        flag, _, value = word.partition("=")
        if flag in OWN:
            into, many = own.setdefault(flag, []), flag == "--over"
            into += [value] if value else []
        elif word.startswith("--") or (into and not many):
            into, many = rest, True
            rest.append(word)
        else:
            into.append(word)
    return [word for flag, values in own.items() for word in (flag, *values)], rest


def space_of(over: Sequence[str], words: list[str], asked_for: Asked) -> dict[str, BaseDistribution]:
    """What is searched, by names of options; `words` are those of every trial. Errors: OptionError."""
    task, options = asked_for(words)
    hints = get_type_hints(task.options_type)
    space: dict[str, BaseDistribution] = {}
    for word in over:
        name, _, values = word.partition("=")
        name = name.strip().replace("-", "_")
        try:
            if not values:
                raise OptionError("expected NAME=LOW..HIGH or NAME=A|B; files stand before --over")
            if name not in hints or name in ("run", "resume", "files"):
                raise OptionError(f"no flag to search; elman train {task.name} --help lists them")
            said = any(w.partition("=")[0].replace("-", "_") == f"__{name}" for w in words)
            if name in space or said or getattr(options, name) is True:
                raise OptionError("this flag is given already")
            space[name], ends = values_of(values, set(get_args(hints[name]) or [hints[name]]))
            for end in ends:
                asked_for([*words, *flags({name: end})])
        except OptionError as error:
            raise OptionError(f"--over {word!r}: {error}") from None
    return space


def values_of(text: str, kinds: set[Any]) -> tuple[BaseDistribution, Sequence[Any]]:
    """What Optuna draws from, and values to check it by: `A|B`, `LOW..HIGH` or `LOW..HIGH log`."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "|" in text:
        choices = [part.strip() for part in text.split("|")]
        if bool in kinds and set(choices) != {"True", "False"}:
            raise OptionError("a flag without a value is searched by True|False")
        return CategoricalDistribution(choices), choices
    ends, log = text.strip().removesuffix(" log"), text.strip().endswith(" log")
    low, between, high = ends.partition("..")
    if not between or not {int, float} & kinds:
        raise OptionError("expected " + "LOW..HIGH or " * bool({int, float} & kinds) + "choices, as A|B")
    kind: Any = float if float in kinds else int
    try:
        first, last = kind(low), kind(high)
    except ValueError:
        raise OptionError(f"{ends}: expected two {'' if kind is float else 'whole '}numbers, as LOW..HIGH") from None
    if not first < last or (log and first <= 0):
        raise OptionError(f"{ends}: the lower end must be below the upper one{' and above 0' * log}")
    distribution = FloatDistribution(first, last, log=log) if kind is float else IntDistribution(first, last, log=log)
    return distribution, (first, last)


def flags(values: Mapping[str, Any]) -> list[str]:
    """The words of elman train that say these values; numbers in full, so that the same bits come of them."""
    words: list[str] = []
    for name, value in values.items():
        word = [] if value == "True" else [str(value)]
        words += [flag_of(name), *word] if value != "False" else []
    return words


def told(values: Mapping[str, Any]) -> str:
    """The same for people."""
    return ", ".join(f"{name} {f'{v:.4g}' if isinstance(v, float) else v}" for name, v in values.items())
