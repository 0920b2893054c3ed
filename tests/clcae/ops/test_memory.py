"""Freed memory kept by a process, told by its page faults: a property of a whole process."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from clcae.ops.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(int(sys.argv[2]) << 18).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(2)
print(faults(4))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of the GNU C library")
@pytest.mark.parametrize("mebibytes", [64, 2560])  # 2 GiB at the heap's end went back once
def test_an_array_is_not_paged_in_every_time(mebibytes: int) -> None:
    faults = {}
    for choice in ("kept", "given back"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, choice, str(mebibytes)],
            capture_output=True,
            text=True,
            check=True,
        )
        faults[choice] = int(done.stdout)
    # Twice at most while the heap finds its size, against four times.
    assert faults["kept"] <= faults["given back"] / 2
