"""The parsers of strangers' bytes, guided by coverage. VOLT_FUZZ says how many inputs they get."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = int(os.environ.get("VOLT_FUZZ", "60000"))


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed (x86-64 only)")
@pytest.mark.timeout(0 if COUNT > 100_000 else 120)
def test_nothing_but_the_promised_errors(tmp_path):
    sys.path.insert(0, str(Path(__file__).parent))
    from fuzz_parsers import SEEDS

    for number, seed in enumerate(SEEDS):
        (tmp_path / str(number)).write_bytes(seed)
    words = [sys.executable, str(Path(__file__).parent / "fuzz_parsers.py"), f"-atheris_runs={COUNT}", "-max_len=4096"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*words, "-seed=1", str(tmp_path)], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
