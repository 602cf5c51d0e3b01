"""Speech recognition: from recordings to text, scores, times of symbols, and one clear line for bad input."""

import json
import math
import struct
import sys
import wave
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from commands import refused
from safetensors.torch import load_file

from elman import DataError, OptionError
from elman.cli import main
from elman.data.tones import spoken_tones
from elman.task.hearing import Hearing
from elman.task.recogniser import error_rates
from elman.task.transcribe import RECIPES, Options, Transcribe

SMALL = "--hertz 8000 --hidden 16 --layers 1 --batch 4 --steps 4 --validation 0.25 --mels 20 --beam 1".split()


def write_wav(path, samples, hertz=8000):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, hertz, 0, "NONE", ""))
        file.writeframes((samples * 32767).round().to(torch.int16).numpy().astype("<i2").tobytes())


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Twelve recordings and their table, in the working folder."""
    monkeypatch.chdir(tmp_path)
    lines = ["path,text"]
    for i, (samples, text) in enumerate(spoken_tones(12, 8000, seed=3)):
        write_wav(tmp_path / f"{i:02d}.wav", samples)
        lines.append(f"{i:02d}.wav,{text}")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "t.csv"


@pytest.fixture
def run(table, capsys):
    """A trained run folder, runs/transcribe."""
    assert main(["train", "transcribe", "t.csv", *SMALL]) == 0
    capsys.readouterr()
    return "runs/transcribe"


def edit(table, line, text):
    lines = table.read_text().splitlines()
    lines[line - 1] = text
    table.write_text("\n".join(lines) + "\n")


def test_the_loss_falls_and_what_is_heard_becomes_what_is_said(table):
    task = Transcribe(
        Options(files=("t.csv",), validation="0", hertz=8000, mels=20, hidden=24, layers=1, batch=4, beam=2)
    )
    optimizer = torch.optim.Adam(task.model.parameters(), 2e-2)
    values = []
    for k in range(75):
        loss = task.loss(k, ())
        optimizer.zero_grad()
        loss.objective.backward()
        optimizer.step()
        values.append(loss.value)
    assert values[-1] < values[0] / 5
    assert values[0] < task.guess
    scores = task.score(["t.csv"])
    assert scores["WER"].value < 0.7
    assert scores["CER"].value < 0.3
    assert "nats/char" in scores["loss"].text
    assert task.sample(3).count("heard  ") == 3


def test_the_default_trains_without_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "transcribe", "--steps", "2", "--beam", "1", "--validation", "0.05"]) == 0
    said = capsys.readouterr().out
    assert "fused: one kernel a sequence" in said
    assert "570 recordings to train, 30 to validate" in said


def test_resume_ends_as_the_whole_run_does(table, capsys):
    flags = [*SMALL, "--schedule", "constant", "--augment", "1", "--dropout", "0.2", "--average", "0.9"]
    assert main(["train", "transcribe", "t.csv", *flags, "--run", "whole"]) == 0
    assert main(["train", "transcribe", "t.csv", *flags, "--run", "part", "--steps", "2"]) == 0
    assert main(["train", "transcribe", "--run", "part", "--resume", "--steps", "4"]) == 0
    for name in ("model.safetensors", "training.safetensors"):
        whole, part = ((table.parent / folder / name) for folder in ("whole", "part"))
        one, two = load_file(whole), load_file(part)
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_score_from_the_run_folder_alone(run, table, capsys):
    assert main(["score", run, "t.csv", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert list(first) == ["WER", "CER", "loss"]
    (table.parent / run).rename(table.parent / "moved")
    (table.parent / "other.tsv").write_text(table.read_text().replace(",", "\t"))
    table.unlink()
    assert main(["score", "moved", "other.tsv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first


def test_predict_gives_text_and_the_time_of_each_symbol(run, table, capsys):
    assert main(["predict", run, "00.wav", ".", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(found) == 13
    assert found[0] == {**found[1], "input": "00.wav", "text": found[0]["text"]}
    for each in found:
        assert "".join(s["symbol"] for s in each["symbols"]).split() == each["transcript"].split()
        ends = [time for s in each["symbols"] for time in (s["start"], s["end"])]
        assert ends == sorted(ends)
    assert main(["predict", run, "00.wav"]) == 0
    assert capsys.readouterr().out.endswith("\t00.wav\n")
    assert "name recordings to transcribe" in refused(capsys, "predict", run)


def test_times_are_in_seconds_of_the_recording(run, table):
    """A recogniser that hears a symbol in one frame alone says when that frame is."""
    task = Transcribe(Options(files=("t.csv",), hertz=8000, mels=20, hidden=4, layers=1, beam=1, stack=3))
    frames = torch.full((30, task.blank + 1), -20.0)
    frames[:, task.blank] = 0.0
    frames[7, 0], frames[7, task.blank] = 0.0, -20.0
    task.log_p = lambda examples: [frames]
    (found,) = task.predict(["00.wav"])
    assert found["symbols"] == [{"symbol": task.symbols.words[0], "start": 0.21, "end": 0.24}]


def test_words_as_symbols_read_those_that_training_had_not_as_unknown(table):
    task = Transcribe(Options(files=("t.csv",), level="word", hertz=8000, hidden=8, layers=1))
    assert task.symbols.words[0] == "<unk>"
    assert set(task.symbols.words[1:]) <= {"ba", "be", "bi", "bo", "bu", "da", "de", "di", "do", "du"}
    edit(table, 2, "00.wav,never heard")
    assert math.isfinite(task.score(["t.csv"])["loss"].value)


BAD = {
    "t.csv, line 3: an empty transcript": (3, "01.wav,"),
    "t.csv, line 4: its recording nowhere.wav is not there": (4, "nowhere.wav,ba be"),
    "t.csv, line 5: 300 chars need": (5, f"03.wav,{'ab' * 150}"),
    "bad.wav is not a readable recording": (6, "bad.wav,ba be"),
}


@pytest.mark.parametrize("words", BAD)
def test_bad_recordings_before_training(words, table, capsys):
    (table.parent / "bad.wav").write_bytes(b"no sound")
    edit(table, *BAD[words])
    assert words in refused(capsys, "train", "transcribe", "t.csv", *SMALL).replace(f"{table.parent}/", "")
    assert not (table.parent / "runs").exists()


def test_unreadable_recordings_are_skipped_where_that_is_asked_for(table, capsys):
    (table.parent / "bad.wav").write_bytes(b"no sound")
    edit(table, 6, "bad.wav,ba be")
    assert "or train with --skip-unreadable to leave out all such" in refused(
        capsys, "train", "transcribe", "t.csv", *SMALL
    )
    assert main(["train", "transcribe", "t.csv", *SMALL, "--skip-unreadable"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "8 recordings to train, 3 to validate" in said
    assert "left out 1 that cannot be read" in said
    assert "bad.wav is not a readable recording" in said
    assert main(["score", "runs/transcribe", "t.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left out"] == 1
    assert main(["predict", "runs/transcribe", "bad.wav", "00.wav", "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert "bad.wav is not a readable recording" in first["error"]
    assert "transcript" in second


def test_unreadable_recordings_are_refused_in_predict(run, table, capsys):
    (table.parent / "bad.wav").write_bytes(b"no sound")
    assert "bad.wav is not a readable recording" in refused(capsys, "predict", run, "bad.wav")


def test_characters_never_seen_in_training_name_file_and_line(run, table, capsys):
    edit(table, 5, "03.wav,ba zu")
    assert "t.csv, line 5: 'z' was never seen in training" in refused(capsys, "score", run, "t.csv")


def test_features_of_another_width_are_refused(run, table, capsys):
    (table.parent / "a.mfc").write_bytes(struct.pack(">i26f", 26, *range(26)))
    assert "a.mfc has 13 values in a frame; training had 20" in refused(capsys, "predict", run, "a.mfc")


def test_recordings_of_any_rate_are_brought_to_one(table):
    hearing = Hearing(Options(hertz=8000))
    samples = spoken_tones(1, 44100, seed=3)[0][0]
    write_wav(table.parent / "high.wav", samples, 44100)
    assert abs(len(hearing.frames(table.parent / "high.wav")) - len(samples) / 441) < 4


def test_frames_are_joined_and_measured(table):
    task = Transcribe(Options(files=("t.csv",), validation="0", hertz=8000, mels=20, stack=3, hidden=4, layers=1))
    whole = torch.cat([task.hearing.normalised(e.frames) for e in task.training])
    assert torch.allclose(whole.mean(0), torch.zeros(20), atol=1e-4)
    assert torch.allclose(whole.std(0), torch.ones(20), atol=1e-4)
    x, lengths = task.hearing.batch(task.training[:2], training=False)
    assert x.shape == (int(lengths.max()), 2, 60)
    first = task.hearing.normalised(task.training[0].frames)
    assert torch.equal(x[1, 0], first[3:6].flatten())
    own = Hearing(replace(task.options, normalise="recording")).normalised(first * 3 + 1)
    assert torch.allclose(own.mean(0), torch.zeros(20), atol=1e-4)


def test_a_streaming_network_hears_nothing_of_what_is_to_come(table):
    options = replace(RECIPES["streaming"].options, files=("t.csv",), hidden=8, hertz=8000)
    task = Transcribe(options)
    task.model.eval()
    (x, lengths) = task.hearing.batch(task.training[:1], training=False)
    later = x.clone()
    later[10:] += 1.0
    before, after = task.model(x, lengths), task.model(later, lengths)
    assert torch.equal(before[:10], after[:10])
    assert not torch.allclose(before[10:], after[10:])


def test_the_loss_is_torchs_ctc_per_symbol(table):
    task = Transcribe(Options(files=("t.csv",), validation="0", hertz=8000, hidden=8, layers=1, dropout=0.0))
    some = task.training[:3]
    task.model.eval()
    total = 0.0
    for e in some:
        log_p = task.model(*task.hearing.batch([e], training=False))
        ids = task.symbols.ids(e.text)
        total += F.ctc_loss(log_p[:, 0], ids, [len(log_p)], [len(ids)], task.blank, "sum").item()
    loss, value, *_ = task.objective(some)
    assert value == loss.item() == pytest.approx(total / sum(len(e.text) for e in some), rel=1e-4)


def test_error_rates_and_their_absence(monkeypatch, table):
    pytest.importorskip("jiwer", reason="needs jiwer: pip install elman[score]")
    found = error_rates(["one two three", "four"], ["one too three four", "four"])
    assert found["WER"].text == "50.00% (2 of 4)"
    assert found["CER"].value == pytest.approx(6 / 17)
    task = Transcribe(Options(files=("t.csv",), hertz=8000, hidden=4, layers=1))
    monkeypatch.setitem(sys.modules, "jiwer", None)
    scores = task.score(["t.csv"])
    assert list(scores) == ["loss", "WER, CER"]
    assert scores["WER, CER"].text == "not measured: pip install elman[score]"


@pytest.fixture
def text_run(table):
    """A text model trained on the transcripts."""
    lines = [line.split(",")[1] for line in table.read_text().splitlines()[1:]]
    (table.parent / "lines.txt").write_text("\n".join(lines * 20) + "\n")
    small = "--hidden 8 --embedding 4 --batch 4 --window 8 --steps 2 --sample-length 5".split()
    assert main(["train", "text", "lines.txt", *small]) == 0
    return table.parent / "runs" / "text"


def test_a_text_model_goes_along_into_the_run_folder(text_run, table, capsys):
    assert main(["train", "transcribe", "t.csv", *SMALL, "--lm", "runs/text", "--beam", "2"]) == 0
    text_run.rename(table.parent / "gone")
    capsys.readouterr()
    assert main(["score", "runs/transcribe", "t.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["WER"] is not None
    assert main(["train", "transcribe", "--resume", "--steps", "6"]) == 0
    assert main(["predict", "runs/transcribe", "00.wav"]) == 0


def test_text_models_that_do_not_fit(text_run, table, capsys):
    words = ("train", "transcribe", "t.csv", *SMALL, "--run", "new", "--lm", "runs/text")
    assert "needs --level char and a --beam of 2 or more" in refused(capsys, *words)
    words = (*words[:-2], "--beam", "2", *words[-2:])
    for line in (2, 3, 4, 5, 6):  # one of them at least is not held back
        edit(table, line, f"{line - 2:02d}.wav,Z")
    assert "the text model of --lm does not have 'Z'" in refused(capsys, *words)
    (text_run / "model.safetensors").write_bytes(b"damaged")
    assert "model.safetensors is cut short or damaged" in refused(capsys, *words)
    (text_run / "config.json").write_text("{}")
    assert "is no run of elman train text" in refused(capsys, *words)
    assert "no such file" in refused(capsys, *words[:-1], "nowhere")


@pytest.mark.parametrize("bad", [None, {}, {"symbols": ["a"], "frames": {}, "text": None}])
def test_what_fit_found_is_checked(bad, run):
    with pytest.raises(DataError):
        Transcribe(Options(), {"transcribe.json": bad})


def test_options_that_cannot_be():
    for bad in ({"stack": 0}, {"dropout": 1.0}, {"hertz": 10}, {"augment": -1.0}, {"beam": 0}):
        with pytest.raises(OptionError, match=f"--{next(iter(bad))}"):
            Options(**bad)
