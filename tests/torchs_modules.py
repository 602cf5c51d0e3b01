"""What torch tests its own recurrent modules with: constructor arguments, inputs, reference functions, errors."""

import warnings
from functools import cache

import hypothesis
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

import elman

_profile = hypothesis.settings.get_current_profile_name()
from torch.testing._internal.common_modules import module_db  # noqa: E402

hypothesis.settings.load_profile(_profile)  # which torch's file has changed for every test of the session
INFOS = {info.name.removeprefix("nn."): info for info in module_db if info.module_cls in vars(nn).values()}
NAMES = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")


@cache
def samples(name):
    """torch's inputs for a module, all of which require gradients; packed sequences among them where torch has any."""
    torch.manual_seed(0)
    asked = dict(device="cpu", dtype=torch.float64, requires_grad=True, training=True)
    return INFOS[name].module_inputs_func(INFOS[name], **asked, with_packed_sequence=True)


def error_samples(name, dtype):
    """torch's wrong arguments and inputs for a module, each with the error that it must raise."""
    asked = dict(device="cpu", dtype=dtype, requires_grad=False, training=False)
    return INFOS[name].module_error_inputs_func(INFOS[name], **asked)


CASES = [(name, i) for name in NAMES for i in range(len(samples(name)))]


@cache
def made(name, i):
    """elman's module and torch's of one sample, in float64, with the same weights."""
    given = samples(name)[i].constructor_input
    found = []
    for room in (elman.nn, nn):
        torch.manual_seed(1)
        found.append(getattr(room, name)(*given.args, **given.kwargs, dtype=torch.float64))
    return found


def pair(name, i, dtype=torch.float64):
    """elman's module and torch's, moved to a dtype, and the arguments of their call in it."""
    args = samples(name)[i].forward_input.args
    if dtype != torch.float64:
        args = each(args, lambda t: t.detach().to(dtype).requires_grad_())
    return *(module.to(dtype) for module in made(name, i)), args


def each(value, function):
    """A nest of tuples and packed sequences with every tensor replaced."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, PackedSequence):
        return value._replace(data=function(value.data))
    return tuple(each(part, function) for part in value)


def leaves(value):
    """All tensors of a nest of tuples and packed sequences."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, PackedSequence):
        return [value.data]
    return [leaf for part in value if part is not None for leaf in leaves(part)]


def silently(function, *args):
    """Its result, without torch's remark that oneDNN has no projections."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LSTM with projections is not supported with oneDNN")
        return function(*args)
