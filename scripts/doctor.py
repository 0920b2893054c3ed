"""What this installation has and what runs on what; see --help."""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

NAME = "doctor.py"
ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = """
examples:
  python scripts/doctor.py
      everything, readable; to be pasted into a bug report
  python scripts/doctor.py --weights /data/weights
      official files looked for elsewhere (a run says paths.weights=/data/weights)
  python scripts/doctor.py --json | jq .operators
      the same for programs

On a GPU the first run compiles the kernels, which takes a minute; CLCAE_KERNELS=reference does
without them. The exit status is 0 whatever is missing: only `make train` decides what is needed.
"""

EXTRAS = {
    "cuda": "compiling the GPU kernels",
    "eval": "LPIPS, FID",
    "face": "finding faces in photographs",
    "edit": "finding directions, curves",
    "demo": "the web page",
}
OFFICIAL = {  # in the folder of weights
    "stylegan2-ffhq-config-f.pt": "generator of faces, 1024 px",
    "stylegan2-car-config-f.pt": "generator of cars, 512 px",
    "model_ir_se50.pth": "ArcFace IR-SE50: identity, in training",
    "CurricularFace_Backbone.pth": "CurricularFace IR-101: identity, in tables",
    "moco_v2_800ep_pretrain.pth": "MoCo v2: similarity of what has no face",
    "e4e_ffhq_encode.pt": "e4e, faces",
    "e4e_cars_encode.pt": "e4e, cars",
    "psp_ffhq_encode.pt": "pSp, faces",
}
DOWNLOADS = {  # in torch.hub's folder
    "alexnet-owt-7be5be79.pth": "LPIPS's trunk, AlexNet",
    "vgg16-397923af.pth": "LPIPS's trunk, VGG16",
    "weights-inception-2015-12-05-6726825d.pth": "FID's Inception",
    "inception_v3_google-0cc3c7bd.pth": "torchvision's Inception",
    "20180402-114759-vggface2.pt": "facenet: identity, where it is downloaded",
}

Section = dict[str, Any]
Line = tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0. SystemExit 2: usage."""
    options = _parser().parse_args(arguments)
    sections: dict[str, Callable[[], Section]] = {
        "versions": versions,
        "devices": devices,
        "operators": operators,
        "packages": packages,
        "weights": lambda: weights(options.weights),
        "assets": assets,
    }
    report = {name: _told(section) for name, section in sections.items()}
    print(json.dumps(report, indent=2) if options.json else _text(report))
    return 0


def _told(section: Callable[[], Section]) -> Section:
    """A section, or what keeps it from being told: that is a finding too."""
    try:
        return section()
    except Exception as error:  # a broken installation may raise anything
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def versions() -> Section:
    """Of everything that takes part in running or compiling; None where there is none."""
    import torch

    from clcae.ops import kernels

    try:
        nvcc = str(kernels.toolkit() / "bin" / "nvcc")
    except kernels.BuildError:
        nvcc = "nvcc"
    names = ("torchvision", "numpy", "pillow", "hydra-core", "safetensors")
    return {
        "clcae": _version("clcae"),
        "commit": _output(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]),
        "python": platform.python_version(),
        "system": platform.platform(),
        "torch": torch.__version__,
        **{name: _version(name) for name in names},
        "CUDA of torch": torch.version.cuda,
        "nvcc": _output([nvcc, "--version"], r"release \S+, (\S+)"),
        "ninja": _output([_beside("ninja"), "--version"]),
        "C++ compiler": _output([os.environ.get("CXX", "c++"), "--version"]),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _beside(tool: str) -> str:
    """A tool of this environment, activated or not, or of the machine."""
    own = Path(sys.executable).parent / tool
    return str(own) if own.exists() else tool


def _output(command: list[str], pattern: str = r"\A(.*)") -> str | None:
    """What a tool says of itself, by default in its first line; None where there is none."""
    if shutil.which(command[0]) is None:
        return None
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(pattern, ran.stdout)
    return match[1] if match else None


def devices() -> Section:
    """Processor and GPUs, whether bfloat16 is of use on them, and what becomes of freed memory."""
    import torch

    from clcae.ops.memory import can_keep
    from training.iteration import bfloat16_lacking

    def described(device: torch.device, name: str) -> str:
        return f"{name}; {bfloat16_lacking(device) or 'bfloat16'}"

    cores = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    kept = "kept by the commands" if can_keep() else "returned, which is slower (no glibc)"
    found = {"cpu": f"{described(torch.device('cpu'), cores)}; freed memory is {kept}"}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        memory = f"{properties.total_memory / 2**30:.0f} GiB"
        name = f"{properties.name}, {memory}, sm_{properties.major}{properties.minor}"
        found[f"cuda:{index}"] = described(torch.device("cuda", index), name)
    return found


def operators() -> Section:
    """Which form of each operator runs where a tensor lies on a GPU, and why."""
    from clcae.ops import kernels

    status = kernels.status()
    backend = "kernel" if status.usable else "torch"
    own = {name: {"backend": backend, "why": status.reason} for name in ("bias_act", "upfirdn2d")}
    why = "torch's convolutions, and the two above"
    wide = f"{why}; Winograd's on a CPU, where a frozen one is wide"
    others = {"conv2d_resample": why, "modulated_conv2d": wide}
    return own | {name: {"backend": "torch", "why": others[name]} for name in others}


def packages() -> Section:
    """Optional packages by the extra that installs them."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = table["project"]["optional-dependencies"]
    found: Section = {}
    for extra, requirements in extras.items():
        if extra == "dev":
            continue
        for requirement in requirements:
            name = re.match(r"[\w.-]+", requirement)
            assert name is not None, requirement
            found[f"{extra}: {name[0]}"] = {
                "version": _version(name[0]),
                "required": requirement,
                "for": EXTRAS.get(extra, ""),
            }
    return found


def weights(folder: Path | None) -> Section:
    """Official files that configs and commands name, and where they were found."""
    import torch
    from omegaconf import OmegaConf

    paths = OmegaConf.load(ROOT / "configs" / "paths" / "default.yaml")
    folder = Path(paths.weights) if folder is None else folder
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    known = {**dict.fromkeys(configured(), "named by a config"), **OFFICIAL}
    places = [(folder / name, use) for name, use in known.items()]
    places += [(hub / name, use) for name, use in DOWNLOADS.items()]
    return {
        path.name: {
            "found": path.is_file(),
            "path": str(path),
            "for": use,
            "MiB": round(path.stat().st_size / 2**20, 1) if path.is_file() else None,
        }
        for path, use in places
    }


def configured() -> list[str]:
    """The files that configs look for in the folder of weights."""
    texts = [path.read_text() for path in sorted((ROOT / "configs").rglob("*.yaml"))]
    return sorted({name for text in texts for name in re.findall(r"paths\.weights}/(\S+)", text)})


def assets() -> Section:
    """The shipped files: what they hold, or why they do not load."""
    import editing  # noqa: F401  # registers what files may hold, as doors does
    from clcae.pretrained import doors  # noqa: F401
    from clcae.pretrained.assets import FOLDER
    from clcae.serialization import load

    found: Section = {}
    for path in sorted(FOLDER.glob("*.safetensors")):
        try:
            module = load(path)
        except (ValueError, OSError) as error:
            found[path.stem] = {"loads": False, "holds": " ".join(str(error).split())}
            continue
        count = sum(tensor.numel() for tensor in module.state_dict().values())
        holds = f"{type(module).__name__}, {count:,} numbers"
        found[path.stem] = {"loads": True, "holds": holds}
    return found or {"error": f"{FOLDER} holds no file"}


def _text(report: dict[str, Section]) -> str:
    lines = []
    for section, entries in report.items():
        rows = [_row(name, entry) for name, entry in entries.items()]
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        lines += ["", section]
        for name, state, *rest in rows:
            line = f"  {name:{widths[0]}}  {state:{widths[1]}}  {'  '.join(rest)}"
            lines.append(line.rstrip())
    return "\n".join(lines[1:])


def _row(name: str, entry: Any) -> Line:
    """Name, state, remark."""
    if not isinstance(entry, dict):
        return name, "missing" if entry is None else str(entry), ""
    if "backend" in entry:
        return name, entry["backend"], entry["why"]
    if "loads" in entry:
        return name, "loads" if entry["loads"] else "does not load", entry["holds"]
    if "version" in entry:
        return name, entry["version"] or "missing", entry["for"]
    state = f"{entry['MiB']:.1f} MiB" if entry["found"] else "not found"
    return name, state, f"{entry['for']} ({Path(entry['path']).parent})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Says what this installation has: versions, devices, which form of each "
        "operator runs and why, optional packages, official weight files, shipped files.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--weights", type=Path, help="folder of official files (default: what configs/paths says)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    return parser


if __name__ == "__main__":
    sys.exit(main())
