"""The command line as tests call it."""

from elman.cli import main


def ran(capsys, *words):
    """What a command printed; checks that it succeeded."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 0
    return capsys.readouterr().out


def refused(capsys, *words):
    """The one line that a refused command prints; checks that it exits with 2 and prints nothing else."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("elman: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said
    return said
