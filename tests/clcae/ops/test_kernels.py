"""Building the kernels and choosing them: real compilers, real processes, no GPU."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clcae.ops import bias_act, kernels, low_pass, upsample2d

NO_GPU = not torch.cuda.is_available()


def ran(code: str, **environment: str) -> str:
    """Runs code in a subprocess; returns its output."""
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_importing_builds_and_touches_nothing(tmp_path: Path) -> None:
    code = """
import json, sys, torch
import clcae.ops
from clcae.ops import kernels
names = ("torch.utils.cpp_extension", "clcae.ops.library", "ninja")
loaded = [name for name in names if name in sys.modules]
print(json.dumps([loaded, kernels._status is None, torch.cuda.is_initialized()]))
"""
    assert json.loads(ran(code, XDG_CACHE_HOME=str(tmp_path))) == [[], True, False]
    assert list(tmp_path.iterdir()) == []


def test_the_cpu_never_asks_for_kernels() -> None:
    code = """
import torch
from clcae.ops import bias_act, kernels, low_pass, upsample2d
upsample2d(bias_act(torch.zeros(1, 2, 4, 4), torch.zeros(2)), low_pass())
print(kernels._status)
"""
    assert ran(code).strip() == "None"


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_the_reason_is_told(caplog: pytest.LogCaptureFixture) -> None:
    reason = kernels.status().reason
    assert reason in ("no CUDA device", "this torch is built without CUDA")
    assert not kernels.ready() and kernels.status() is kernels.status()
    assert not caplog.records  # where there is no GPU nothing is missing


def test_references_can_be_asked_for() -> None:
    code = "from clcae.ops import kernels; print(kernels.status())"
    expected = "Status(usable=False, reason='CLCAE_KERNELS=reference')"
    assert ran(code, CLCAE_KERNELS="reference").strip() == expected


def test_kernels_are_disabled_for_a_while() -> None:
    before = kernels.status()
    with kernels.disabled():
        assert not kernels.ready() and kernels.status().reason == "disabled for a while"
    assert kernels.status() is before


def test_the_compiler_takes_the_choice_as_a_constant() -> None:
    # Otherwise it would trace, or break at, locks, processes and files.
    def function(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if kernels.ready() else x + 2

    compiled = torch.compile(function, backend="eager", fullgraph=True)
    expected = 1.0 if kernels.ready() else 2.0
    assert float(compiled(torch.zeros(()))) == expected


def test_a_folder_belongs_to_sources_and_architectures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    here = kernels.folder(["90"])
    assert here.is_relative_to(tmp_path) and here == kernels.folder(["90"])
    assert torch.__version__ in here.name and "sm90" in here.name
    sources = tmp_path / "csrc"
    shutil.copytree(kernels.SOURCES, sources)
    monkeypatch.setattr(kernels, "SOURCES", sources)
    assert kernels.folder(["90"]) == here != kernels.folder(["80", "90"])
    with (sources / "portable.h").open("a") as file:
        file.write("// another\n")
    assert kernels.folder(["90"]) != here


def without_tools(tmp_path: Path, *names: str) -> str:
    """Makes a PATH with these tools only."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(shutil.which(name) or "/missing")
    return str(folder)


def toolkit(tmp_path: Path, nvcc: str = "exit 1") -> Path:
    """Makes a folder that looks like a CUDA toolkit."""
    for name in ("bin", "include"):
        (tmp_path / "cuda" / name).mkdir(parents=True)
    (tmp_path / "cuda" / "include" / "cuda_runtime.h").touch()
    program = tmp_path / "cuda" / "bin" / "nvcc"
    program.write_text(f"#!/bin/sh\n{nvcc}\n")
    program.chmod(0o755)
    return tmp_path / "cuda"


def test_missing_tools_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_HOME", str(toolkit(tmp_path)))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(kernels.BuildError, match="there is no no-such-compiler"):
        kernels.built(["90"])
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", without_tools(tmp_path, "c++"))
    with pytest.raises(kernels.BuildError, match="there is no ninja"):
        kernels.built(["90"])
    assert os.environ["CUDA_HOME"] == str(tmp_path / "cuda")


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "file"))
    with pytest.raises(kernels.BuildError, match="Not a directory"):
        kernels.built(["90"])


@pytest.mark.skipif(torch.version.cuda is None, reason="torch is built without CUDA")
def test_a_failed_build_is_remembered_and_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for tool in ("c++", "ninja"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
    version = torch.version.cuda
    nvcc = f'case "$*" in *version*) echo "release {version}, V{version}.0";; *) exit 1;; esac'
    broken = tmp_path / "csrc"
    broken.mkdir()
    for name in kernels.COMPILED:
        (broken / name).write_text("#error this is no source\n")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_HOME", str(toolkit(tmp_path, nvcc)))
    monkeypatch.setattr(kernels, "SOURCES", broken)
    monkeypatch.setattr(kernels, "_status", None)
    monkeypatch.setattr(kernels, "_hindrance", lambda: None)  # as if there were a GPU
    monkeypatch.setattr(kernels, "architectures", lambda: ["90"])
    with caplog.at_level(logging.WARNING, logger="clcae"):
        assert not kernels.ready() and not kernels.ready()
    messages = [record.message for record in caplog.records if record.name.startswith("clcae")]
    assert len(messages) == 1 and "torch's own operators run" in messages[0]
    assert "error" in kernels.status().reason.lower()
    assert "\n" not in kernels.status().reason
    assert (kernels.folder(["90"]) / "failed.txt").read_text() == kernels.status().reason
    # The operators still work.
    assert bias_act(torch.ones(1, 2), torch.ones(2)).tolist() == [[2.0, 2.0]]
    assert upsample2d(torch.ones(1, 1, 4, 4), low_pass()).shape == (1, 1, 8, 8)
