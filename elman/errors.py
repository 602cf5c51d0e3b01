"""Every error elman raises on purpose.

ElmanError
├── CellError        a step or a cell that does not keep the Cell contract   (TypeError)
├── InputError       tensors or arguments that do not fit the layer          (ValueError)
├── OptionError      a task's options that contradict each other or the data (ValueError)
│   └── FinishedError    a run to go on with that has reached its end        (ValueError)
├── DataError        a file that cannot be used as it is                     (ValueError)
├── DivergenceError  a loss, gradient or weight that is no finite number     (ArithmeticError)
└── RunError         a run folder that cannot be read or written             (OSError)

The second base is Python's own, so that ``except ValueError`` works as expected. Each message names what was given,
what was expected and what to do. The command line prints it in one line and exits with code 2.
"""


class ElmanError(Exception):
    """The base of all errors that elman raises on purpose."""


class CellError(ElmanError, TypeError):
    """A step or a cell does not keep the contract of `elman.Cell`."""


class InputError(ElmanError, ValueError):
    """A tensor or an argument does not fit the layer it was given to."""


class OptionError(ElmanError, ValueError):
    """Options contradict each other, or do not suit the data."""


class FinishedError(OptionError):
    """A run that is to go on has reached its end."""


class DataError(ElmanError, ValueError):
    """A data file is missing, empty, too short, or not what it was said to be."""


class DivergenceError(ElmanError, ArithmeticError):
    """Training met a loss, a gradient or a weight that is not a finite number."""


class RunError(ElmanError, OSError):
    """A run folder is missing, damaged, or cannot be written; or processes that trained into it have ended."""


class BackendWarning(UserWarning):
    """A layer runs in a slower way than it could: on the reference or the plain backend. Said once a reason."""
