"""What tests of torch.nn's stand-ins share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Many tiny calls: waiting for a second thread costs more than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
