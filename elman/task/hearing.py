"""How recordings become rows of frames: read, measured by a mean and a deviation, distorted, joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from elman.data.recordings import has_transcripts, read_entries, sounds_of
from elman.data.sound import log_mel, masked, read_cepstra, read_sound, resampled
from elman.data.tones import spoken_tones
from elman.errors import DataError
from elman.task.base import Score
from elman.task.readings import jitter


class Recording(NamedTuple):
    """Frames (T, D) of 10 ms, what is said in them, and where they came from."""

    frames: Tensor
    text: str
    name: str


class Hearing:
    """From files to batches. x (T, B, I) with I = D times the frames that are joined; lengths (B,)."""

    columns: int  # D

    def __init__(self, options: Any) -> None:
        self.options = options
        self.left_out: dict[str, str] = {}  # recordings that cannot be read and are skipped, and why

    def frames(self, path: Path) -> Tensor:
        """The frames (T, D) of a sound or feature file. Errors: DataError."""
        o = self.options
        if path.suffix.lower() == ".mfc":
            found = read_cepstra(path)
        else:
            sound = read_sound(path)
            found = log_mel(resampled(sound.samples, sound.hertz, o.hertz), o.hertz, o.mels)
        if hasattr(self, "columns") and found.shape[1] != self.columns:
            raise DataError(f"{path} has {found.shape[1]} values in a frame; training had {self.columns}")
        return found

    def read(self, paths: Sequence[str], training: bool) -> list[Recording]:
        """All recordings of tables and folders. Errors: DataError for one that cannot be read, unless it is skipped."""
        found: list[Recording] = []
        for entry in (entry for path in paths for entry in read_entries(Path(path), training)):
            try:
                found.append(Recording(self.frames(entry.path), entry.text or "", entry.name))
            except DataError as error:
                if not self.options.skip_unreadable:
                    raise DataError(f"{error}, or train with --skip-unreadable to leave out all such") from None
                self.left_out[entry.name] = str(error)
        if not found:
            raise DataError(f"{', '.join(paths)}: none of {len(self.left_out)} recordings can be read")
        return found

    def listen(self, paths: Sequence[str]) -> Iterator[tuple[str, Recording | str]]:
        """Recordings without transcripts, by name; where one is skipped, why. Errors: DataError."""
        for path in map(Path, paths):
            files = sounds_of(path) if path.is_dir() else [path]
            if not files:
                raise DataError(f"{path} holds no recordings; name a folder with wav files, or wav files")
            for file in files:
                try:
                    yield str(file), Recording(self.frames(file), "", str(file))
                except DataError as error:
                    if not self.options.skip_unreadable:
                        raise
                    yield str(file), str(error)

    def either(self, paths: Sequence[str]) -> list[tuple[Recording, bool]]:
        """Recordings, and whether it is known what is said in them. Errors: DataError."""
        found = []
        for path in paths:
            if has_transcripts(Path(path)):
                found += [(recording, True) for recording in self.read([path], training=False)]
                continue
            for name, recording in self.listen([path]):
                if isinstance(recording, str):
                    self.left_out[name] = recording
                else:
                    found.append((recording, False))
        return found

    def made(self) -> list[Recording]:
        """Words of tones made here."""
        o = self.options
        sounds = spoken_tones(600, o.hertz, seed=1)
        return [Recording(log_mel(x, o.hertz, o.mels), text, f"made {i}") for i, (x, text) in enumerate(sounds)]

    def fit(self, examples: Sequence[Recording]) -> Any:
        widths = {e.frames.shape[1]: e.name for e in examples}
        if len(widths) > 1:
            (a, first), (b, second) = list(widths.items())[:2]
            raise DataError(f"{first} has {a} values in a frame and {second} {b}; all must have the same")
        count = sum(len(e.frames) for e in examples)
        mean = torch.stack([e.frames.double().sum(0) for e in examples]).sum(0) / count
        squared = torch.stack([((e.frames - mean) ** 2).sum(0) for e in examples]).sum(0)
        deviation = (squared / max(count - 1, 1)).sqrt()
        return {"mean": mean.tolist(), "deviation": deviation.clamp(min=1e-3).tolist()}

    def prepare(self, saved: Any) -> None:
        """Errors: DataError where it is not what `fit` found."""
        try:
            self.mean, self.deviation = (torch.tensor([float(v) for v in saved[k]]) for k in ("mean", "deviation"))
        except (TypeError, KeyError, ValueError):
            raise DataError(f"no mean and deviation of frames: {saved!r:.60}") from None
        if len(self.mean) != len(self.deviation) or not bool((self.deviation > 0).all()):
            raise DataError(f"{len(self.mean)} means and {len(self.deviation)} deviations above 0 are to be as many")
        self.columns = len(self.mean)

    @property
    def width(self) -> int:
        return self.columns * self.options.stack

    @property
    def seconds(self) -> float:
        """Of a row of joined frames."""
        return 0.01 * self.options.stack

    @property
    def row(self) -> str:
        """What a value of a frame is."""
        return "mel band" if self.columns == self.options.mels else "cepstral coefficient"

    def length(self, example: Recording) -> int:
        """Rows of joined frames."""
        return -(-len(example.frames) // self.options.stack)

    def batch(self, examples: Sequence[Recording], training: bool) -> tuple[Tensor, Tensor]:
        """x (T, B, I) and lengths (B,)."""
        rows = [self.joined(self.distorted(self.normalised(e.frames), training)) for e in examples]
        return pad_sequence(rows), torch.tensor([len(row) for row in rows])

    def normalised(self, frames: Tensor) -> Tensor:
        if self.options.normalise == "recording":
            return (frames - frames.mean(0)) / frames.std(0, correction=0).clamp(min=1e-3)
        return (frames - self.mean) / self.deviation

    def distorted(self, frames: Tensor, training: bool) -> Tensor:
        strength = self.options.augment
        return masked(jitter(frames, strength), strength) if training and strength else frames

    def joined(self, frames: Tensor) -> Tensor:
        """(T, D) -> (T / N, N D), the last row filled up with zeros."""
        n = self.options.stack
        return F.pad(frames, (0, 0, 0, -len(frames) % n)).reshape(-1, n * frames.shape[1])

    def about(self) -> dict[str, str]:
        """A row that says what is left out, if anything is."""
        return {"left out": self.said()} if self.left_out else {}

    def left_out_score(self) -> dict[str, Score]:
        return {"left out": Score(float(len(self.left_out)), self.said())} if self.left_out else {}

    def said(self) -> str:
        some = "; ".join(list(self.left_out.values())[:3])
        return f"{len(self.left_out)} that cannot be read: {some}{'; ...' if len(self.left_out) > 3 else ''}"
