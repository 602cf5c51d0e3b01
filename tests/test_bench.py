"""Scripts of bench/ that go around the product's own parts, so that they do not rot."""

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[1] / "bench"


def test_text_on_torch_trains_and_samples(text_file):
    sizes = ["--hidden", 12, "--embedding", 5, "--batch", 4, "--window", 8, "--steps", 4, "--sample-length", 20]
    command = [sys.executable, BENCH / "text_on_torch.py", text_file, *sizes, "--validate-every", 2]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "step 4/4  validation stateful" in done.stdout + done.stderr
