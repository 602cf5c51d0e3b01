"""Every example runs as it says, and shows what it promises."""

import importlib.util
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def main_of(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_each_is_tested_and_short():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {"autoencoder", "context", "cook", "grid", "hello", "own_cell", "reverse"}
    assert [n for n in names if len((EXAMPLES / f"{n}.py").read_text().splitlines()) > 60] == []


def test_the_cook_is_right_on_every_unseen_week_and_no_feed_forward_net_is():
    fed_back, feed_forward = main_of("cook")()
    assert fed_back
    assert not feed_forward


def test_hello():
    assert main_of("hello")() == "ello"


def test_a_context_in_three_ways():
    assert main_of("context")() == {"input": True, "state": True, "both": True}


def test_a_cell_of_ones_own_learns(capsys):
    assert main_of("own_cell")(steps=200) < 0.1
    said = capsys.readouterr().out
    assert "backend: fused" in said
    assert "FAILED" not in said


def test_an_autoencoder(capsys):
    assert main_of("autoencoder")(steps=200) > 0.3
    assert "come out as they went in" in capsys.readouterr().out


def test_a_grid_runs(capsys):
    assert set(main_of("grid")(steps=2)) == {"rows", "one corner", "four corners"}
    assert "of pixels" in capsys.readouterr().out


def test_reversing_runs(capsys):
    main_of("reverse")(1.0)
    assert "of 1,000 new strings" in capsys.readouterr().out
