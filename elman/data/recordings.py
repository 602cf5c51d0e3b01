"""Recordings and what is said in them: tables, LibriSpeech, the spoken digits of FSDD, AN4."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from elman.data.files import read_lines, read_table
from elman.data.sound import SOUNDS
from elman.errors import DataError

HEADS = {
    "path": ("path", "file", "filename", "file_name", "audio", "wav", "recording"),
    "text": ("text", "transcript", "transcription", "sentence"),
}
TABLES = (".csv", ".tsv")
DIGIT = re.compile(r"[0-9]_\w+_[0-9]+")  # FSDD: digit, speaker, index
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FIRST_TRAINED = 5  # of FSDD's 50 recordings of each digit by each speaker, the first five are the test
LAYOUTS = (
    "a table (.csv, .tsv) of path and text, LibriSpeech's *.trans.txt, FSDD's digit_speaker_index.wav, or AN4's lists"
)


class Entry(NamedTuple):
    """A recording's file, what is said in it, where that is known, and where both were found."""

    path: Path
    text: str | None
    name: str


def read_entries(path: Path, training: bool) -> list[Entry]:
    """The recordings that a table or a folder names, with their transcripts; training: the part to train on.

    Errors: DataError for an empty transcript, a recording that is not there, or a folder of no known layout.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; name an existing one")
    found = list(entries_of(path, training))
    if not found:
        raise DataError(f"{path} names no recordings; it needs {LAYOUTS}")
    for entry in found:
        if not entry.text:
            raise DataError(f"{entry.name}: an empty transcript; write what is said, or leave the recording out")
        if not entry.path.is_file():
            raise DataError(f"{entry.name}: its recording {entry.path} is not there; bring it or leave the line out")
    return found


def has_transcripts(path: Path) -> bool:
    """Whether `read_entries` reads a path: it is no recording, and no folder with nothing but recordings."""
    if not path.is_dir():
        return path.suffix.lower() not in (*SOUNDS, ".mfc")
    try:
        entries_of(path, training=False)
    except DataError:
        return not sounds_of(path)
    return True


def entries_of(path: Path, training: bool) -> Iterator[Entry]:
    if not path.is_dir():
        if not set(TABLES) & set(path.suffixes):
            raise DataError(f"{path}: no table of recordings; name {LAYOUTS}")
        return read_transcript_table(path)
    if sorted(path.glob("*.fileids")):
        return read_an4(path, "train" if training else "test")
    if transcripts := sorted(path.rglob("*.trans.txt")):
        return read_librispeech(transcripts)
    if tables := sorted(p for p in path.iterdir() if set(TABLES) & set(p.suffixes)):
        if len(tables) > 1:
            raise DataError(f"{path} holds {len(tables)} tables, {tables[0].name}, {tables[1].name}, ...; name one")
        return read_transcript_table(tables[0])
    sounds = sounds_of(path)
    if sounds and all(DIGIT.fullmatch(p.stem) for p in sounds):
        return read_fsdd(sounds, training)
    what = f"{len(sounds)} recordings without transcripts" if sounds else "no recordings"
    raise DataError(f"{path} holds {what}; {unpacking(path) or f'it needs {LAYOUTS}'}")


def sounds_of(folder: Path) -> list[Path]:
    """The sound and feature files of a folder and those below it, by name."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in (*SOUNDS, ".mfc"))


def unpacking(folder: Path) -> str:
    """How to unpack what lies packed in a folder; empty where nothing does."""
    packed = sorted(folder.glob("*.tar.gz"))
    return f"unpack it: tar xzf {packed[0]} -C {folder}" if packed else ""


def cleaned(text: str) -> str:
    """Words with one space between them."""
    return " ".join(text.split())


def read_transcript_table(path: Path) -> Iterator[Entry]:
    """Columns named path and text in the first line, else the first two; paths are from the table's folder."""
    rows = list(read_table(path))
    named = columns(rows[0][1]) if rows else None
    at, where = named or (0, 1)
    for number, row in rows[1:] if named else rows:
        name = f"{path}, line {number}"
        if len(row) <= max(at, where):
            raise DataError(f"{name}: {len(row)} columns; it needs a path and a text")
        yield Entry(path.parent / row[at].strip(), cleaned(row[where]), name)


def columns(head: Sequence[str]) -> tuple[int, int] | None:
    """Where path and text stand, if the first line says so."""
    names = [cell.strip().lower() for cell in head]
    found = [[i for i, name in enumerate(names) if name in HEADS[kind]] for kind in ("path", "text")]
    return (found[0][0], found[1][0]) if found[0] and found[1] else None


def read_librispeech(transcripts: Sequence[Path]) -> Iterator[Entry]:
    """Lines of an id and what is said; the sound of the same id lies beside the file."""
    for path in transcripts:
        for number, line in enumerate(read_lines(path), 1):
            if line.strip():
                own, _, text = line.strip().partition(" ")
                beside = [path.parent / f"{own}{end}" for end in (".flac", ".wav")]
                there = next((p for p in beside if p.is_file()), beside[0])
                yield Entry(there, cleaned(text), f"{path}, line {number}")


def read_fsdd(sounds: Sequence[Path], training: bool) -> Iterator[Entry]:
    """Spoken digits, {digit}_{speaker}_{index}.wav; the transcript is the digit's word.

    Index 0 to 4 is the test, 5 and above to train. Source: github.com/Jakobovski/free-spoken-digit-dataset.
    """
    for path in sounds:
        digit, index = path.stem.split("_", 1)[0], path.stem.rsplit("_", 1)[1]
        if (int(index) >= FIRST_TRAINED) == training:
            yield Entry(path, DIGITS[int(digit)], str(path))


def read_an4(folder: Path, part: str) -> Iterator[Entry]:
    """*_train or *_test of .fileids and .transcription, line by line; features in feat/*.mfc, or sounds in wav/*.wav.

    A transcript ends with the recording's id in brackets. Source: CMU's AN4, the census database.
    """
    lists = [sorted(folder.glob(f"*_{part}.{kind}")) for kind in ("fileids", "transcription")]
    for kind, files in zip(("fileids", "transcription"), lists):
        if len(files) != 1:
            raise DataError(f"{folder} has {len(files)} files *_{part}.{kind}; it needs one")
    (ids_file,), (text_file,) = lists
    ids, texts = ([line.strip() for line in read_lines(file) if line.strip()] for file in (ids_file, text_file))
    if len(ids) != len(texts):
        raise DataError(f"{ids_file} has {len(ids)} lines and {text_file} {len(texts)}; each id needs its transcript")
    if not any((folder / where).is_dir() for where in ("feat", "wav")):
        raise DataError(f"{folder} has lists and no folder feat of .mfc files; {unpacking(folder) or 'bring it'}")
    for number, (own, line) in enumerate(zip(ids, texts), 1):
        said = re.fullmatch(r"(?:<s>)?(.*?)(?:</s>)?\s*\((.*)\)", line)
        if said is None or said[2] != own.rsplit("/", 1)[-1]:
            raise DataError(f"{text_file}, line {number}: {line!r:.60} does not end with ({own.rsplit('/', 1)[-1]})")
        sound = folder / "wav" / f"{own}.wav"
        path = sound if sound.is_file() else folder / "feat" / f"{own}.mfc"
        yield Entry(path, cleaned(said[1]), f"{text_file}, line {number}")
