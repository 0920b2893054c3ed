"""The compilers on the kernels' sources, where there is no GPU to run them on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

from clcae.ops import kernels

pytestmark = [
    pytest.mark.nvcc,
    pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc"),
]
WITH_CUDA = pytest.mark.skipif(torch.version.cuda is None, reason="torch is built without CUDA")
GENERATIONS = ("80", "90", "100")  # Ampere, Hopper, Blackwell


@pytest.mark.parametrize(
    "generations", [("90",), pytest.param(GENERATIONS, id="all", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("source", [name for name in kernels.COMPILED if name.endswith(".cu")])
def test_nvcc_compiles_for_every_generation(
    source: str, generations: tuple[str, ...], tmp_path: Path
) -> None:
    flags = [f"-gencode=arch=compute_{sm},code=sm_{sm}" for sm in generations]
    out = tmp_path / "kernels.o"
    strict = ["-std=c++17", "-Werror", "all-warnings", "-Xptxas", "-v"]
    command = ["nvcc", "-c", str(kernels.SOURCES / source), "-o", str(out)]
    process = subprocess.run([*command, *strict, *flags], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert out.stat().st_size > 0
    for sm in generations:
        assert f"for 'sm_{sm}'" in process.stderr
    spills = [line for line in process.stderr.splitlines() if "spill" in line]
    assert spills and all(" 0 bytes spill stores, 0 bytes spill loads" in line for line in spills)


@WITH_CUDA
def test_the_binding_fits_the_headers_of_torch(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    folders = [*cpp_extension.include_paths(), str(kernels.toolkit() / "include")]
    includes = [argument for folder in folders for argument in ("-isystem", folder)]
    command = ["g++", "-std=c++20", "-Wall", "-Werror", "-fsyntax-only", *includes]
    source = str(kernels.SOURCES / "library.cpp")
    process = subprocess.run([*command, source], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    # Small headers compile fast, and nvcc needs none of torch's.
    assert "torch/extension.h" not in Path(source).read_text().replace("(no torch/extension.h)", "")
    for path in kernels.SOURCES.iterdir():
        if path.name != "library.cpp":
            assert "torch/" not in path.read_text() and "ATen/" not in path.read_text(), path


@pytest.mark.slow
@WITH_CUDA
def test_the_library_builds_loads_and_is_kept(tmp_path: Path) -> None:
    """Builds and loads without a GPU; two processes at once build once."""
    code = """
import time, torch
from clcae.ops import kernels
start = time.perf_counter()
library = kernels.built(["90"])
seconds = time.perf_counter() - start
kernels._load(library)
for name in ("bias_act", "bias_act_backward", "upfirdn2d"):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"clcae::{name}", "CUDA"), name
print(library.parent, library.stat().st_mtime_ns, seconds)
"""
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=600)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs[0][:2] == outputs[1][:2]
    place = Path(outputs[0][0])
    assert {path.name for path in place.iterdir()} == {"clcae_kernels.so", "lock"}
    again = subprocess.run(command, env=environment, capture_output=True, text=True).stdout.split()
    assert again[:2] == outputs[0][:2] and float(again[2]) < 1.0
