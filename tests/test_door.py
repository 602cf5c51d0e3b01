"""The public names, and what importing them costs."""

import subprocess
import sys

import elman

DOOR = """
BackendWarning Bidirectional Cell CellError DataError DivergenceError Dropout ElmanError EncoderDecoder Grid
InputError Layer Located OptionError Recurrent RunError SequenceModel Stacked backend beam_search cell check explain
feeding fixed_points gradient_by_lag locate nn precision scan watch"""


def test_the_door_is_what_it_says():
    assert sorted(elman.__all__) == DOOR.split()
    assert all(hasattr(elman, name) for name in elman.__all__)


def test_public_names_are_explained():
    assert [name for name in elman.__all__ if not (getattr(elman, name).__doc__ or "").strip()] == []


def test_importing_elman_is_quick():
    heavy = "{'tyro', 'rich', 'matplotlib', 'tensorboard', 'torch._dynamo', 'llvmlite'}"
    code = f"import sys, elman, elman.nn; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_every_error_is_an_elman_error_and_one_of_pythons():
    for name in ("CellError", "InputError", "OptionError", "DataError", "RunError", "DivergenceError"):
        error = getattr(elman, name)
        assert issubclass(error, elman.ElmanError)
        assert error.__name__ in (elman.errors.__doc__ or "")
        assert len(error.__bases__) == 2
