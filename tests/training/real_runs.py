"""The real command with tiny settings, as a child process."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["trainer=debug", "trainer.debug=false", "trainer.progress=false", "trainer.threads=1"]


def run_training(folder: Path, *arguments: str, processes: int = 1) -> None:
    """Runs train.py to its end, with its runs and its cache in `folder`."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc-per-node", str(processes)]
    paths = [f"paths.runs={folder}", f"paths.cache={folder / 'cache'}"]
    done = subprocess.run(
        [*launcher, "train.py", *SMALL, *paths, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
