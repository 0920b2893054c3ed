"""evaluate.py killed (kill -9) at any moment, those of writing included, ends as one that was not.

Every kill has a folder of its own, in which the same command then runs to its end.
"""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from evaluations import command_in_child

from clcae.evaluation.rows import read_rows

SETTINGS = ["data.num_people=24", "batch_size=4", "save_every=4", "num_parts=3", "outputs=[W]"]
SETTINGS += ["protocol.edits=null", "protocol.time=null", "device=cpu", "save=pictures"]
COUNTS = [pytest.param(3, id="few"), pytest.param(20, id="many", marks=pytest.mark.slow)]


def run(children: Any, folder: Path, moment: int | None = None) -> Any:
    """Starts the command in a folder."""
    folder.mkdir(exist_ok=True)
    process = children.Process(target=command_in_child, args=(folder, SETTINGS, moment))
    process.start()
    return process


@pytest.fixture(scope="module")
def whole(children: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, float]:
    """Folder of the command that nothing stopped, the calls that it wrote by, its seconds."""
    first = children.Process(target=os.getpid)
    first.start()
    first.join(timeout=120)  # until the server has imported everything
    folder, begin = tmp_path_factory.mktemp("kills") / "whole", time.monotonic()
    process = run(children, folder)
    process.join(timeout=120)
    assert process.exitcode == 0
    return folder, int(folder.with_suffix(".calls").read_text()), time.monotonic() - begin


def files(folder: Path) -> dict[str, bytes]:
    """All files and folders below a folder but the rows, hidden ones too."""
    below = [path for path in folder.rglob("*") if path.name != "results.jsonl"]
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in below}


def assert_ends_as(children: Any, whole: Path, folder: Path) -> None:
    process = run(children, folder)
    process.join(timeout=120)
    assert process.exitcode == 0
    [row], [expected] = read_rows(folder / "results.jsonl"), read_rows(whole / "results.jsonl")
    assert row.metrics == expected.metrics and row.skipped == expected.skipped
    assert row.extra["digest"] == expected.extra["digest"] and row.num_images == 24
    assert files(folder) == files(whole)


@pytest.mark.parametrize("count", COUNTS)
def test_killed_at_moments_of_writing(
    count: int, whole: tuple[Path, int, float], children: Any, tmp_path: Path
) -> None:
    folder, calls, _ = whole
    assert calls >= 60  # 24 pictures, 6 states of parts, the cache, the rows, what is removed
    end = 2 * calls - 18  # after it the rows are written and all that is unfinished is removed
    last = random.Random(count).sample(range(end, 2 * calls + 2), count // 3)
    others = random.Random(count).sample(range(2, end), count - count // 3)
    for moment in [*last, *others]:
        process = run(children, killed := tmp_path / f"{moment}", moment)
        process.join(timeout=120)
        assert process.exitcode == -signal.SIGKILL, moment
        assert_ends_as(children, folder, killed)


@pytest.mark.parametrize("count", COUNTS)
def test_killed_at_random_moments(
    count: int, whole: tuple[Path, int, float], children: Any, tmp_path: Path
) -> None:
    folder, _, seconds = whole
    moments, killed = random.Random(count), 0
    for number in range(10 * count):
        begin = time.monotonic()
        process = run(children, stopped := tmp_path / f"{number}")
        process.join(timeout=moments.uniform(0.0, seconds))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
        else:  # it was faster than the one before
            seconds = time.monotonic() - begin
        process.join()
        if process.exitcode == -signal.SIGKILL:
            assert_ends_as(children, folder, stopped)
            killed += 1
        if killed == count:
            break
    assert killed == count
