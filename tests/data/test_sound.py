"""Sound files, resampling, log-mel features and masks."""

import math
import struct
import sys
import wave

import pytest
import torch

from elman import DataError
from elman.data.sound import log_mel, masked, mel_bank, read_cepstra, read_sound, resampled


def write_wav(path, samples, hertz=8000, channels=1):
    """Samples (N,) or (N, channels) from -1 to 1 as 16-bit integers."""
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, hertz, 0, "NONE", ""))
        file.writeframes((samples * 32767).round().to(torch.int16).numpy().astype("<i2").tobytes())
    return path


def sine(frequency, seconds, hertz):
    return 0.5 * (2 * math.pi * frequency * torch.arange(round(seconds * hertz)) / hertz).sin()


def test_wav_of_16_bits_needs_no_soundfile_and_channels_are_averaged(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    left = sine(440, 0.1, 8000)
    path = write_wav(tmp_path / "a.wav", torch.stack([left, -0.5 * left], 1), channels=2)
    sound = read_sound(path)
    assert sound.hertz == 8000
    assert torch.allclose(sound.samples, left / 4, atol=1e-4)


def test_other_kinds_are_read_by_soundfile(tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="needs soundfile: pip install elman[audio]")
    for name, subtype in (("a.flac", "PCM_16"), ("b.wav", "FLOAT"), ("c.wav", "PCM_24")):
        soundfile.write(tmp_path / name, sine(440, 0.1, 16000).numpy(), 16000, subtype=subtype)
        sound = read_sound(tmp_path / name)
        assert sound.hertz == 16000
        assert torch.allclose(sound.samples, sine(440, 0.1, 16000), atol=1e-4)


def test_what_needs_soundfile_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    with pytest.raises(DataError, match=r"a\.flac is not a wav file of 16-bit integers.*pip install elman\[audio\]"):
        read_sound(tmp_path / "a.flac")


def test_recordings_that_cannot_be_read(tmp_path):
    whole = write_wav(tmp_path / "whole.wav", sine(440, 0.1, 8000)).read_bytes()
    cases = {
        "is not a readable recording": b"this is no sound at all",
        "is cut short: its head says 800 samples, 400 are there": whole[: 44 + 800],
        "holds no samples": write_wav(tmp_path / "none.wav", torch.zeros(0)).read_bytes(),
        "says that it has 0 samples a second": whole[:24] + b"\0\0\0\0" + whole[28:],
        "it ends in its head": b"",
    }
    for words, data in cases.items():
        (tmp_path / "bad.wav").write_bytes(data)
        with pytest.raises(DataError, match=words):
            read_sound(tmp_path / "bad.wav")
    with pytest.raises(DataError, match="nowhere.wav: no such recording"):
        read_sound(tmp_path / "nowhere.wav")


def test_feature_files(tmp_path):
    frames = torch.arange(39.0).view(3, 13)
    data = struct.pack(">i39f", 39, *frames.flatten().tolist())
    (tmp_path / "a.mfc").write_bytes(data)
    assert torch.equal(read_cepstra(tmp_path / "a.mfc"), frames)
    for bad in (data[:-4], b"", struct.pack(">i12f", 12, *range(12))):
        (tmp_path / "a.mfc").write_bytes(bad)
        with pytest.raises(DataError, match=r"a\.mfc is not a whole feature file"):
            read_cepstra(tmp_path / "a.mfc")
    (tmp_path / "a.mfc").write_bytes(struct.pack(">i13f", 13, *[math.nan] * 13))
    with pytest.raises(DataError, match=r"a\.mfc holds values that are not finite"):
        read_cepstra(tmp_path / "a.mfc")


@pytest.mark.parametrize(("hertz", "wanted"), [(44100, 16000), (16000, 8000), (8000, 16000), (11025, 8000)])
def test_a_tone_is_the_same_tone_at_another_rate(hertz, wanted):
    found = resampled(sine(1000, 0.5, hertz), hertz, wanted)
    want = sine(1000, 0.5, wanted)
    assert abs(len(found) - len(want)) <= 1
    inner = slice(wanted // 100, -wanted // 100)  # not the ends, where it begins from silence
    assert torch.allclose(found[: len(want)][inner], want[inner], atol=5e-3)


def test_resampling_takes_out_what_a_lower_rate_cannot_hold():
    found = resampled(sine(6000, 0.5, 16000), 16000, 8000)
    assert found[100:-100].abs().max() < 0.01
    samples = sine(300, 0.1, 8000)
    assert resampled(samples, 8000, 8000) is samples


def test_frames_are_every_10_ms_and_each_hears_its_own_window():
    hertz = 8000
    assert log_mel(torch.zeros(hertz), hertz, 40).shape == (98, 40)  # 1 + (1000 - 25) // 10
    assert log_mel(torch.zeros(10), hertz, 40).shape == (1, 40)
    click = torch.zeros(hertz)
    click[4000] = 1.0  # at 500 ms: heard by frames that begin after 475 and up to 500 ms
    heard = (log_mel(click, hertz, 40).exp().sum(1) > 1e-3).nonzero().flatten().tolist()
    assert heard == [48, 49]  # from 480 and 490 ms; at the edge of 500 ms the window is zero


def test_a_tone_is_loudest_in_its_band_and_every_band_hears_something():
    frames = log_mel(sine(1000, 0.2, 16000), 16000, 40)
    middles = 700 * (10 ** (torch.linspace(0, 2595 * math.log10(1 + 8000 / 700), 42) / 2595) - 1)
    assert frames.mean(0).argmax() == (middles[1:-1] - 1000).abs().argmin()
    for hertz, mels in ((8000, 40), (16000, 40), (16000, 80)):
        size = 2 ** (math.ceil(math.log2(0.025 * hertz)) + 1)
        assert (mel_bank(hertz, size, mels).sum(1) > 0).all()


def test_masks_are_bands_and_spans_of_zeros():
    torch.manual_seed(0)
    frames = torch.ones(100, 40)
    shares = [1 - masked(frames, 1.0).mean().item() for _ in range(200)]
    assert 0.15 < sum(shares) / len(shares) < 0.45
    assert max(shares) < 0.7
    for _ in range(20):
        found = masked(frames, 1.0)
        spans, bands = found.amax(1) == 0, found.amax(0) == 0
        assert torch.equal(found, (~spans)[:, None] * (~bands) * frames)
    assert frames.min() == 1
    assert masked(torch.ones(1, 3), 1.0).shape == (1, 3)
