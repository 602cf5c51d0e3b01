"""Data sets by name, from a server of our own: fetched once, checked, gone on with, and said clearly when not."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from elman.cli import main
from elman.data import download
from elman.data.download import SETS, DataSet, File, kept, located
from elman.errors import DataError

BODY = bytes(range(256)) * 5000


class Server(BaseHTTPRequestHandler):
    """Gives BODY, from where it is asked to, and may break off."""

    asked, cut, ranges = [], None, True

    def do_GET(self):
        begin = 0
        if self.ranges and (header := self.headers.get("Range")):
            begin = int(header.removeprefix("bytes=").rstrip("-"))
        Server.asked.append((self.path, begin))
        self.send_response(206 if begin else 200)
        self.end_headers()
        self.wfile.write(BODY[begin : self.cut])

    def log_message(self, *words):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A set called toy of one file, on a local server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Server.asked, Server.cut, Server.ranges = [], None, True
    url = f"http://127.0.0.1:{server.server_port}/toy.bin"
    file = File(url, "toy.bin", len(BODY), hashlib.sha256(BODY).hexdigest())
    monkeypatch.setitem(SETS, "toy", DataSet("a toy", "none", (file,)))
    monkeypatch.setenv("ELMAN_DOWNLOADS", str(tmp_path / "kept"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    server.shutdown()
    server.server_close()
    thread.join()


def test_fetched_once_and_said(served, capsys):
    path = located("toy")
    assert path == served / "kept" / "toy" / "toy.bin"
    assert path.read_bytes() == BODY
    said = capsys.readouterr().err
    assert "fetching toy (a toy): 1.3 MB from 127.0.0.1" in said
    assert "licence: none" in said
    assert located("toy") == path
    assert len(Server.asked) == 1


def test_what_broke_off_goes_on(served):
    Server.cut = 1000
    with pytest.raises(DataError, match=r"broke off at 1,000 of 1,280,000 bytes: run this again"):
        located("toy")
    Server.cut = None
    assert located("toy").read_bytes() == BODY
    assert [begin for _, begin in Server.asked] == [0, 1000]


def test_a_server_that_cannot_go_on_begins_again(served):
    Server.cut, Server.ranges = 1000, False
    with pytest.raises(DataError, match="broke off"):
        located("toy")
    Server.cut = None
    assert located("toy").read_bytes() == BODY


def test_one_killed_before_the_last_byte_had_its_name_is_kept(served):
    part = served / "kept/toy/toy.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(BODY)
    assert located("toy").read_bytes() == BODY
    assert Server.asked == []
    part.write_bytes(BODY + b"more")
    (served / "kept/toy/toy.bin").unlink()
    assert located("toy").read_bytes() == BODY
    assert [begin for _, begin in Server.asked] == [0]


def test_another_file_is_refused_and_not_kept(served, monkeypatch):
    wrong = SETS["toy"].files[0]._replace(sha256="0" * 64)
    monkeypatch.setitem(SETS, "toy", DataSet("a toy", "none", (wrong,)))
    with pytest.raises(DataError, match="is not the file it was"):
        located("toy")
    assert list((served / "kept" / "toy").iterdir()) == []


def test_offline(served, monkeypatch, capsys):
    nowhere = SETS["toy"].files[0]._replace(url="http://127.0.0.1:9/toy.bin")
    monkeypatch.setitem(SETS, "toy", DataSet("a toy", "none", (nowhere,)))
    assert main(["train", "text", "toy"]) == 2
    said = capsys.readouterr().err
    assert "cannot fetch http://127.0.0.1:9/toy.bin" in said
    assert f"put it at {served / 'kept' / 'toy' / 'toy.bin'}" in said
    assert not (served / "runs").exists()


def test_a_file_of_that_name_comes_first(served):
    assert kept("toy") == "toy"
    (served / "toy").write_text("mine")
    assert str(located("toy")) == "toy"
    assert kept("toy") == str(served / "toy")
    assert kept("other") == str(served / "other")
    assert Server.asked == []


def test_a_run_names_the_set_and_reads_what_was_fetched(served):
    assert main("train text toy --level byte --steps 2 --hidden 4 --embedding 4 --batch 2 --window 8".split()) == 0
    assert '"toy"' in (served / "runs/text/config.json").read_text()
    assert main(["score", "runs/text"]) == 0
    assert len(Server.asked) == 1


def test_the_real_sets_are_what_is_listed(real_data):
    for name, folder in (("mnist", "mnist"), ("names", "names"), ("tinyshakespeare", "tinyshakespeare")):
        for file in SETS[name].files:
            path = real_data(f"{folder}/{file.name}")
            assert download.whole(path, file)
            assert download.digest_of(path) == file.sha256
