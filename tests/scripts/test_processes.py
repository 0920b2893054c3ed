"""Commands as processes: interrupted while they import, read by `head`, on terminals of old."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


@pytest.mark.parametrize("name", ["doctor.py", "edit.py", "tables.py"])
def test_help_into_a_pipe_that_closes(name: str) -> None:
    done = subprocess.run(
        f"{sys.executable} {ROOT / 'scripts' / name} --help | head -c 1",
        shell=True,
        env=environment(PYTHONUNBUFFERED="1"),
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("u", "")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at what is imported")
@pytest.mark.parametrize("library", ["_hashlib", "libtorch_cpu", "_imaging."])
@pytest.mark.parametrize("name", ["edit.py", "directions.py"])  # of photographs, and the others
def test_interrupted_while_it_imports(name: str, library: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / name), "nothing", "--out", "out"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background of a shell ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    maps = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and library not in maps.read_text():
        time.sleep(0.001)
    if library == "_hashlib":
        time.sleep(0.1)  # the command's own module is imported now
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert "Traceback" not in error and process.returncode != 0


def test_terminals_that_know_few_characters(tmp_path: Path) -> None:
    encoding = "ascii"
    (tmp_path / "\u2192 \u00b1.png").write_bytes(b"no picture")
    for name, more in (("directions.py", ["show", "portraits"]), ("tables.py", ["clcae"])):
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / name), *more],
            cwd=tmp_path,
            env=environment(PYTHONIOENCODING=encoding),
            capture_output=True,
        )
        assert done.returncode == 0 and done.stderr == b"", (name, done.stderr)
    command = [sys.executable, str(ROOT / "scripts" / "align.py"), ".", "--out", "out"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(PYTHONIOENCODING=encoding), capture_output=True
    )
    assert done.returncode == 1 and b"1 skipped" in done.stderr and b"Error" not in done.stderr
