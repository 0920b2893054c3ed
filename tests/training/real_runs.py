"""The real command with tiny settings, as a child process."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["trainer=debug", "trainer.debug=false", "trainer.progress=false", "trainer.threads=1"]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(folder: Path, *arguments: str, processes: int = 1) -> list[str]:
    """The command, with its runs and its cache in `folder`."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc-per-node", str(processes)]
    paths = [f"paths.runs={folder}", f"paths.cache={folder / 'cache'}"]
    return [*launcher, "train.py", *SMALL, *paths, *arguments]


def run_training(folder: Path, *arguments: str, processes: int = 1, timeout: float = 300.0) -> str:
    """Runs train.py to its end; returns what it said."""
    done = subprocess.run(
        command(folder, *arguments, processes=processes),
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
