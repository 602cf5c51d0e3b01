"""Garbage collection is paused while a step is compiled, and afterwards as it was."""

import gc
import os
import threading

import pytest
import torch

import elman
from elman.compiler.collection import collection_paused


@pytest.fixture(autouse=True)
def collecting():
    yield
    gc.enable()


@pytest.mark.parametrize("enabled", [True, False])
def test_compiling_leaves_garbage_collection_as_it_was(enabled):
    (gc.enable if enabled else gc.disable)()
    elman.Recurrent(elman.cell.GRU(3, 5 + enabled))(torch.randn(2, 3, 3))
    assert gc.isenabled() == enabled


def test_blocks_in_threads_that_overlap():
    """The one that ends last sets it going again, whichever began first."""
    first, second = collection_paused(), collection_paused()
    first.__enter__()
    thread = threading.Thread(target=second.__enter__)
    thread.start()
    thread.join()
    first.__exit__(None, None, None)
    assert not gc.isenabled()
    second.__exit__(None, None, None)
    assert gc.isenabled()


def test_an_error_in_a_block():
    with pytest.raises(ValueError, match="inside"), collection_paused():
        raise ValueError("inside")
    assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_forked_inside_a_block():
    with collection_paused():
        child = os.fork()
        if child == 0:
            started = gc.isenabled()  # the block may be another thread's, which is not there
            with collection_paused():
                paused = not gc.isenabled()
            os._exit(0 if started and paused and gc.isenabled() else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert not gc.isenabled()
    assert gc.isenabled()
