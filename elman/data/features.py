"""Features of pictures from a safetensors file, read when they are asked for."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from elman.errors import DataError


class Features:
    """Tensors (S, M) or (M,) by the name of a picture, with its ending or without; M is the same for all.

    Errors: DataError for a file that is not such.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DataError(f"{path}: no such file of features; name an existing one")
        try:
            self.file = safe_open(path, framework="pt")
            self.names: list[str] = sorted(self.file.keys())
            shapes = {name: self.file.get_slice(name).get_shape() for name in self.names}
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path} is not a whole safetensors file ({error}); write it again") from None
        if not shapes:
            raise DataError(f"{path} holds no features; it needs a tensor (S, M) or (M,) for each picture")
        self.width: int = shapes[self.names[0]][-1] if shapes[self.names[0]] else 0
        for name, shape in shapes.items():
            if len(shape) not in (1, 2) or 0 in shape or shape[-1] != self.width:
                raise DataError(
                    f"{path}: {name} is {tuple(shape)}; features are (S, M) or (M,) with one M, here {self.width}"
                )
        self.known = set(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self.known or Path(name).stem in self.known

    def rows(self, name: str, width: int) -> Tensor:
        """Features (S, M) of a picture. Errors: DataError where they are not finite, or not of this width."""
        found = self.file.get_tensor(name if name in self.known else Path(name).stem)
        found = (found if found.dim() == 2 else found[None]).to(torch.float32)
        if self.width != width:
            raise DataError(f"{self.path} has features of {self.width} numbers; training had {width}")
        if not bool(torch.isfinite(found).all()):
            raise DataError(f"{self.path}: the features of {name} are not all finite numbers; compute them again")
        return found
