"""The text that every user has: source files of Python's own standard library, a fixed list."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from elman.errors import DataError

# Pure Python and pure ASCII, present as single files in every release from 3.10 on, chosen for ordinary code;
# 1.3 to 1.5 million characters. The order matters: the last tenth is the validation part.
FILES = """
abc.py argparse.py ast.py bdb.py bisect.py calendar.py cmd.py code.py codecs.py collections/__init__.py
concurrent/futures/_base.py concurrent/futures/thread.py configparser.py contextlib.py copy.py csv.py dataclasses.py
dis.py enum.py filecmp.py fileinput.py fnmatch.py getpass.py glob.py gzip.py hashlib.py hmac.py http/server.py
json/decoder.py json/encoder.py linecache.py logging/__init__.py logging/config.py numbers.py pkgutil.py poplib.py
posixpath.py pprint.py queue.py reprlib.py sched.py selectors.py shelve.py shutil.py socketserver.py string.py
tempfile.py textwrap.py threading.py timeit.py tokenize.py trace.py traceback.py
"""


def standard_library() -> list[Path]:
    """The listed files on this machine. Errors: DataError naming the first that is missing."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = [folder / name for name in FILES.split()]
    for path in paths:
        if not path.is_file():
            raise DataError(
                f"no text was named, and this Python does not have its standard library as files ({path} is missing): "
                "name a text file, as in: elman train text FILE"
            )
    return paths
