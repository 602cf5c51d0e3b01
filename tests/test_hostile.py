"""Checkpoints damaged at random or made to do harm: each is one clear error, and costs no more than its own size."""

import json
import os
import random
import resource
import struct

import pytest
import torch
from safetensors.torch import save
from torch import nn

from elman import RunError
from elman.checkpoint import RunFolder
from elman.tensors import CHECKSUM, checksum

COUNT = 200  # of each kind: 2,000 in all


def tensors():
    return {"weight": torch.randn(6, 5), "bias": torch.randn(6)}


def header_and_data(data):
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def packed(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def truncated(data, draw):
    return data[: draw.randrange(len(data))]


def lengthened(data, draw):
    return data + draw.randbytes(draw.randrange(1, 100))


def flipped(data, draw):
    """One to three bits; in the header's spaces that is no damage, so elsewhere."""
    changed = bytearray(data)
    for at in draw.sample([i for i, byte in enumerate(data) if byte != 0x20], draw.randrange(1, 4)):
        changed[at] ^= 1 << draw.randrange(8)
    return bytes(changed)


def overwritten(data, draw):
    at = draw.randrange(len(data) - 8)
    return data[:at] + draw.randbytes(8) + data[at + 8 :]


def huge_header(data, draw):
    return struct.pack("<Q", draw.choice([2**63 - 1, 2**40, 2**31, 2**64 - 1, len(data) + 1])) + data[8:]


def huge_tensor(data, draw):
    header, values = header_and_data(data)
    rows = draw.choice([2**62, 2**40, 2**31, 10**12])
    header["weight"] |= {"shape": [rows, 5], "data_offsets": [0, rows * 20]}
    return packed(header, values)


def another_type(data, draw):
    header, values = header_and_data(data)
    header[draw.choice(["weight", "bias"])]["dtype"] = draw.choice(["F64", "I32", "BF16", "U8", "BOOL", "F8", "object"])
    return packed(header, values)


def another_name(data, draw):
    """Names that a careless loader would take for a path, an attribute or code; the checksum fits."""
    name = draw.choice(["../../x", "/etc/passwd", "__class__", "a" * 10_000, "", "weight\0", "a;import os", "é" * 99])
    found = tensors()
    found[name] = found.pop(draw.choice(["weight", "bias"]))
    return save(found, {CHECKSUM: checksum(found, {})})


def deep_json(data, draw):
    depth = draw.choice([1_000, 100_000, 1_000_000])
    return packed(draw.choice([b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth]), b"")


def not_finite(data, draw):
    found = tensors()
    found["weight"][draw.randrange(6), draw.randrange(5)] = draw.choice([float("nan"), float("inf"), -float("inf")])
    return save(found, {CHECKSUM: checksum(found, {})})


KINDS = [
    truncated, lengthened, flipped, overwritten, huge_header, huge_tensor, another_type, another_name, deep_json,
    not_finite,
]  # fmt: skip


@pytest.mark.parametrize("damage", KINDS, ids=lambda kind: kind.__name__)
def test_each_is_one_clear_error_and_the_model_stays_as_it_is(tmp_path, damage):
    draw, folder, model = random.Random(1), RunFolder(tmp_path), nn.Linear(5, 6)
    before = [p.clone() for p in model.parameters()]
    folder.write_tensors("t", tensors())
    data = (tmp_path / "t").read_bytes()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(COUNT):
        (tmp_path / "t").write_bytes(damage(data, draw))
        with pytest.raises(RunError) as error:
            folder.load_into(model, "t")
        assert str(tmp_path / "t") in str(error.value)
        assert "\n" not in str(error.value)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 50_000  # kilobytes; damage itself builds some
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_an_undamaged_one_is_read(tmp_path):
    folder, model = RunFolder(tmp_path), nn.Linear(5, 6)
    whole = tensors()
    folder.write_tensors("t", whole)
    folder.load_into(model, "t")
    assert torch.equal(model.weight, whole["weight"])


@pytest.mark.parametrize("name", ["weight", "more"])
def test_a_huge_tensor_that_the_model_has_not_is_never_read(tmp_path, name):
    """Half a gigabyte that takes no room on the disk: all in it fits but what the model wants."""
    size, bias = 2**29, {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}
    huge = {"dtype": "F32", "shape": [size // 4], "data_offsets": [24, 24 + size]}
    header = packed({"bias": bias, name: huge}, b"")
    (tmp_path / "t").write_bytes(header)
    os.truncate(tmp_path / "t", len(header) + 24 + size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RunError, match="lacks the tensor weight|weight is .134217728,. of"):
        RunFolder(tmp_path).load_into(nn.Linear(5, 6), "t")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 50_000
