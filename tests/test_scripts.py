"""What scripts/setup says on a machine that lacks something: one line, exit code 2, no .venv left behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the scripts are for bash")

OLD = '#!/bin/sh\ncase "$1" in --version) echo "Python 3.9.1";; *) exit 1;; esac\n'
NO_VENV = '#!/bin/sh\ncase "$2" in *venv*) exit 1;; *) exit 0;; esac\n'
FULL = "#!/bin/sh\necho header\necho '/dev/x 1000000 999000 204800 99% /'\n"


@pytest.fixture
def checkout(tmp_path):
    """A copy of the scripts and of what they read, and a folder for commands that stand in for the machine's."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    return tmp_path


def setup(checkout, script="demo", **commands):
    for name, text in commands.items():
        path = checkout / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    python = str(checkout / "bin" / "python3") if "python3" in commands else sys.executable
    environment = os.environ | {"PATH": f"{checkout / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHON": python}
    done = subprocess.run([checkout / "scripts" / script], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert not (checkout / ".venv").exists()
    return done.stderr


@pytest.mark.parametrize("script", ["demo", "test"])
def test_a_python_too_old(checkout, script):
    assert setup(checkout, script, python3=OLD).startswith(
        "elman: needs Python 3.10 or later, found: Python 3.9.1; install one"
    )


def test_no_venv_module(checkout):
    assert setup(checkout, python3=NO_VENV).startswith("elman: this Python has no venv module; install it")


def test_no_disk_space(checkout):
    said = setup(checkout, df=FULL)
    assert said.startswith("elman: needs 2500 MB of free disk space for .venv, found 200 MB; free some")


def test_who_has_an_extra_has_the_rest(checkout):
    python = checkout / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)

    def said(*extra):
        environment = os.environ | {"PYTHON": sys.executable}
        return subprocess.run(
            [checkout / "scripts/setup", *extra], env=environment, capture_output=True, text=True, check=True
        ).stderr

    assert said("dev").startswith("elman: installing into .venv")
    assert said("dev") == said() == ""
    assert said("plot") != ""
