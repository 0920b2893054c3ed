"""Builds and loads the CUDA kernels at the first call that can use them.

Nothing happens at import. The compiled library is cached in a folder named by the digest of its
sources, the versions of torch and CUDA, and the architectures of the GPUs at hand; one process
builds it and the others on the machine wait. If the toolchain is missing or fails, the references
run instead: the reason is logged once and `status` returns it. The environment variable
CLCAE_KERNELS=reference disables the kernels.
"""

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

CHOICE = "CLCAE_KERNELS"  # environment variable; "reference" disables the kernels
SOURCES = Path(__file__).parent / "csrc"
COMPILED = ("library.cpp", "bias_act.cu", "upfirdn2d.cu")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_status: "Status | None" = None


@dataclass(frozen=True)
class Status:
    """Whether the kernels run on GPU tensors, and why."""

    usable: bool
    reason: str  # folder of the library, or why there is none


class BuildError(Exception):
    """The toolchain is missing or failed; the message is one line."""


def usable(x: Tensor) -> bool:
    """Returns whether the kernels support this tensor; builds them at the first one."""
    return x.is_cuda and x.dtype in DTYPES and ready()


def ready() -> bool:
    """Returns whether the kernels run in this process; builds them at the first call."""
    return status().usable


# As torch.compiler.assume_constant_result does: the compiler calls `ready` instead of tracing it.
# Calling that function here would import the compiler, which takes seconds.
ready._dynamo_marked_constant = True  # type: ignore[attr-defined]


def status() -> Status:
    """Returns whether kernels run, and why; decides (and builds) at the first call."""
    global _status
    with _lock:
        if _status is None:
            _status = _decide()
        return _status


@contextmanager
def disabled() -> Iterator[None]:
    """Runs the references in place of kernels while the block runs, in the whole process."""
    global _status
    before, _status = _status, Status(usable=False, reason="disabled for a while")
    try:
        yield
    finally:
        _status = before


def _decide() -> Status:
    reason = _hindrance()
    if reason is not None:
        return Status(usable=False, reason=reason)
    try:
        library = built(architectures())
        _load(library)
    except BuildError as error:
        _log.warning("the CUDA kernels were not built, torch's own operators run: %s", error)
        return Status(usable=False, reason=str(error))
    return Status(usable=True, reason=str(library.parent))


def _hindrance() -> str | None:
    """Returns why no build is tried; None if one is."""
    if os.environ.get(CHOICE) == "reference":
        return f"{CHOICE}=reference"
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if not torch.cuda.is_available():
        return "no CUDA device"
    return None


def architectures() -> list[str]:
    """Lists the compute capabilities of the GPUs at hand, "90" for 9.0."""
    devices = range(torch.cuda.device_count())
    return sorted({"{}{}".format(*torch.cuda.get_device_capability(index)) for index in devices})


def folder(architectures: Sequence[str]) -> Path:
    """Returns the cache folder of the library, by sources, torch version and architectures."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    root = os.environ.get("TORCH_EXTENSIONS_DIR")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clcae"
    name = f"torch{torch.__version__}-cuda{torch.version.cuda}-sm{'-'.join(architectures)}"
    return Path(root or cache) / "kernels" / f"{name}-{digest.hexdigest()[:16]}"


def built(architectures: Sequence[str]) -> Path:
    """Builds the library for these architectures, or finds it cached. Raises BuildError."""
    place = folder(architectures)
    library, note = place / "clcae_kernels.so", place / "failed.txt"
    if library.exists():
        return library
    asked = time.time()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with _alone(place):
            if not library.exists():
                if note.exists() and note.stat().st_mtime > asked:  # failed while this one waited
                    raise BuildError(note.read_text())
                try:
                    _compile(place, library, architectures)
                except BuildError as error:
                    note.write_text(str(error))
                    raise
    except OSError as error:
        raise BuildError(f"{place}: {error.strerror or error}") from error
    return library


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Locks a folder against other processes; the system releases the lock of a killed one."""
    import fcntl

    with (place / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(place: Path, library: Path, architectures: Sequence[str]) -> None:
    home, compiler = toolkit(), os.environ.get("CXX", "c++")
    beside = str(Path(sys.executable).parent)  # holds ninja if the environment is not activated
    path = os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])
    for tool in ("ninja", compiler):
        if shutil.which(tool, path=path) is None:
            advice = " (pip install -e '.[cuda]')" if tool == "ninja" else ""
            raise BuildError(f"there is no {tool}{advice}")
    shutil.rmtree(place / "build", ignore_errors=True)  # left by a killed process
    (place / "build").mkdir()
    try:
        _build_and_load(place / "build", home, path, architectures)
    except (RuntimeError, ValueError, ImportError, subprocess.SubprocessError) as error:
        raise BuildError(_told(str(error))) from error
    # Atomic; a loaded library may be moved.
    (place / "build" / library.name).replace(library)
    shutil.rmtree(place / "build", ignore_errors=True)


def _build_and_load(place: Path, home: Path, path: str, architectures: Sequence[str]) -> None:
    before = {name: os.environ.get(name) for name in ("PATH", "CUDA_HOME")}
    os.environ.update(PATH=path, CUDA_HOME=str(home))
    try:
        from torch.utils import cpp_extension

        cpp_extension.CUDA_HOME = str(home)  # set at import, which may have been earlier
        cpp_extension.load(
            "clcae_kernels",
            [str(SOURCES / name) for name in COMPILED],
            extra_cflags=["-O2"],
            extra_cuda_cflags=["-O3"]
            + [f"-gencode=arch=compute_{number},code=sm_{number}" for number in architectures],
            build_directory=str(place),
            with_cuda=True,
            is_python_module=False,
        )
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def toolkit() -> Path:
    """Finds CUDA: CUDA_HOME, CUDA_PATH, above nvcc, /usr/local/cuda. Raises BuildError if none."""
    named = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    candidates = [Path(name) for name in named if name]
    nvcc = shutil.which("nvcc")
    if nvcc:
        candidates += [Path(nvcc).resolve().parents[1], Path(nvcc).parents[1]]
    for home in [*candidates, Path("/usr/local/cuda")]:
        if (home / "bin" / "nvcc").exists() and (home / "include" / "cuda_runtime.h").exists():
            return home
    raise BuildError("there is no CUDA toolkit with nvcc (CUDA_HOME names its folder)")


def _told(output: str) -> str:
    """Extracts the first line of a compiler's output that names an error."""
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    errors = [line for line in lines[1:] if "error" in line.lower()]
    return (errors or lines or ["no reason given"])[0]


def _load(library: Path) -> None:
    """Registers the operators and their CUDA implementations, once in a process."""
    import clcae.ops.library  # noqa: F401

    try:
        torch.ops.load_library(library)
    except OSError as error:
        raise BuildError(f"{library}: {error}") from error
