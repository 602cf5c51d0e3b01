"""What tests of kernels share: every element type and every vector width that this machine has."""

import numpy as np
import pytest

from elman.compiler.emit.target import WIDTHS, NoTarget, Target, host, narrowed

TYPES = {"f32": np.float32, "f64": np.float64}


def targets() -> list[Target]:
    try:
        return [narrowed(host(), bits) for bits in WIDTHS if bits <= host().bits]
    except NoTarget:
        return []


def both(function):
    """Run a test for each element type and width."""
    function = pytest.mark.parametrize("dtype", TYPES)(function)
    return pytest.mark.parametrize("target", targets(), ids=lambda target: str(target.bits))(function)
