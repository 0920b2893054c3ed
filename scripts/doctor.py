"""Reports what this installation has, and which form of each operator runs; see --help."""

from clcae.command import begin, make_parser

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import contextlib
import importlib.metadata
import json
import os
import platform
import re
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
On a GPU the first run compiles the kernels, for a minute; CLCAE_KERNELS=reference does without.
"""
LIBRARIES = ("torchvision", "numpy", "pillow", "hydra-core", "safetensors")
EXTRAS = {  # of pyproject.toml
    "cuda": "compiling the GPU kernels",
    "eval": "LPIPS, FID",
    "face": "finding faces in photographs",
    "edit": "finding directions, curves",
}
OFFICIAL = {  # in the folder of weights
    "stylegan2-ffhq-config-f.pt": "generator of faces, 1024 px",
    "stylegan2-car-config-f.pt": "generator of cars, 512 px",
    "stylegan2-ffhq-256x256.pkl": "generator and discriminator of faces, 256 px",
    "model_ir_se50.pth": "ArcFace IR-SE50: identity, in training",
    "CurricularFace_Backbone.pth": "CurricularFace IR-101: identity, in tables",
    "moco_v2_800ep_pretrain.pth": "MoCo v2: similarity of what has no face",
    "e4e_ffhq_encode.pt": "e4e, faces",
    "e4e_cars_encode.pt": "e4e, cars",
    "psp_ffhq_encode.pt": "pSp, faces",
    "vgg16.pth": "perceptual loss of in-domain inversion",
    "base_code_encoder.pth": "start and anchor of F in F/Z+ and BDInvert",
}
DOWNLOADS = {  # in torch.hub's folder
    "alexnet-owt-7be5be79.pth": "LPIPS's trunk, AlexNet",
    "vgg16-397923af.pth": "LPIPS's trunk, VGG16",
    "weights-inception-2015-12-05-6726825d.pth": "FID's Inception",
    "inception_v3_google-0cc3c7bd.pth": "torchvision's Inception",
    "20180402-114759-vggface2.pt": "facenet: identity, where it is downloaded",
}
Section = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0 whatever is missing."""
    parser = make_parser(
        NAME,
        description="Says what this installation has: versions, devices, which form of each "
        "operator runs and why, optional packages, official weight files, shipped files.",
        examples=EXAMPLES,
    )
    parser.add_argument("--weights", type=Path, help="official files (default: of configs/paths)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    options = parser.parse_args(arguments)
    sections: dict[str, Callable[[], Section]] = {
        "versions": versions,
        "devices": devices,
        "operators": operators,
        "packages": packages,
        "weights": lambda: weights(options.weights),
        "assets": assets,
    }
    report = {name: _checked(section) for name, section in sections.items()}
    print(json.dumps(report, indent=2) if options.json else _text(report))
    return 0


def _checked(section: Callable[[], Section]) -> Section:
    """Runs a section; its failure is a finding too."""
    try:
        return section()
    except Exception as error:  # a broken installation may raise anything
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def versions() -> Section:
    """Lists the versions of what takes part in running or compiling; None if it is missing."""
    import torch

    from clcae.evaluation.rows import source_commit
    from clcae.ops import kernels

    nvcc = "nvcc"
    with contextlib.suppress(kernels.BuildError):
        nvcc = str(kernels.toolkit() / "bin" / "nvcc")
    ninja = Path(sys.executable).with_name("ninja")  # of this environment, activated or not
    return {
        "clcae": _version("clcae"),
        "commit": source_commit(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "torch": torch.__version__,
        **{name: _version(name) for name in LIBRARIES},
        "CUDA of torch": torch.version.cuda,
        "nvcc": _output([nvcc, "--version"], r"release \S+, (\S+)"),
        "ninja": _output([str(ninja) if ninja.exists() else "ninja", "--version"]),
        "C++ compiler": _output([os.environ.get("CXX", "c++"), "--version"]),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(command: list[str], pattern: str = r"\A(.*)") -> str | None:
    """Runs a tool and returns its first line, or what a pattern finds; None if it is missing."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(pattern, ran.stdout)
    return match[1] if match else None


def devices() -> Section:
    """Describes processor and GPUs: cores, threads, memory, bfloat16, fate of freed memory."""
    import torch

    from clcae.openmp import sharing
    from clcae.ops.memory import can_keep
    from clcae.precision import bfloat16_lacking

    def described(device: torch.device, name: str) -> str:
        return f"{name}; {bfloat16_lacking(device) or 'bfloat16'}"

    cores = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    kept = "kept by the commands" if can_keep() else "returned, which is slower (no glibc)"
    found = {"cpu": f"{described(torch.device('cpu'), cores)}; freed memory is {kept}; {sharing()}"}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device, properties = torch.device("cuda", index), torch.cuda.get_device_properties(index)
        kind = f"{properties.total_memory / 2**30:.0f} GiB, sm_{properties.major}{properties.minor}"
        found[str(device)] = described(device, f"{properties.name}, {kind}")
    return found


def operators() -> Section:
    """Says which form of each operator runs on a GPU, and why."""
    from clcae.ops import kernels

    status = kernels.status()
    own = {"backend": "kernel" if status.usable else "torch", "why": status.reason}
    why = "torch's convolutions, and the two above"
    plain = {"backend": "torch", "why": why}
    wide = {"backend": "torch", "why": f"{why}; Winograd's on a CPU, where a frozen one is wide"}
    return {"bias_act": own, "upfirdn2d": own, "conv2d_resample": plain, "modulated_conv2d": wide}


def packages() -> Section:
    """Lists optional packages by the extra that installs them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: Section = {}
    for extra, use in EXTRAS.items():
        for requirement in project["optional-dependencies"][extra]:
            name = re.split(r"[^\w.-]", requirement)[0]
            entry = {"version": _version(name), "required": requirement, "for": use}
            found[f"{extra}: {name}"] = entry
    return found


def weights(folder: Path | None) -> Section:
    """Looks for the official files that configs and commands name."""
    import torch
    from omegaconf import OmegaConf

    paths = OmegaConf.load(ROOT / "configs" / "paths" / "default.yaml")
    folder = Path(paths.weights) if folder is None else folder
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    known = dict.fromkeys(configured(), "named by a config") | OFFICIAL
    places = {folder / name: use for name, use in known.items()}
    places |= {hub / name: use for name, use in DOWNLOADS.items()}
    found: Section = {}
    for path, use in places.items():
        size = round(path.stat().st_size / 2**20, 1) if path.is_file() else None
        found[path.name] = {"found": size is not None, "path": str(path), "for": use, "MiB": size}
    return found


def configured() -> list[str]:
    """Lists the files that configs look for in the folder of weights."""
    texts = [path.read_text() for path in sorted((ROOT / "configs").rglob("*.yaml"))]
    return sorted({name for text in texts for name in re.findall(r"paths\.weights}/(\S+)", text)})


def assets() -> Section:
    """Loads the shipped files, or says why they do not load."""
    import editing  # noqa: F401  # registers what files may hold, as clcae does
    from clcae.pretrained import loading  # noqa: F401
    from clcae.pretrained.assets import FOLDER
    from clcae.serialization import load

    found: Section = {}
    for path in sorted(FOLDER.glob("*.safetensors")):
        try:
            module = load(path)
            count = sum(tensor.numel() for tensor in module.state_dict().values())
            entry = {"loads": True, "holds": f"{type(module).__name__}, {count:,} numbers"}
        except (ValueError, OSError) as error:
            entry = {"loads": False, "holds": " ".join(str(error).split())}
        found[path.stem] = entry
    return found or {"error": f"{FOLDER} holds no file"}


def _text(report: dict[str, Section]) -> str:
    parts = []
    for section, entries in report.items():
        rows = [_row(name, entry) for name, entry in entries.items()]
        wide, broad = (max(len(row[column]) for row in rows) for column in range(2))
        lines = (f"  {name:{wide}}  {state:{broad}}  {why}".rstrip() for name, state, why in rows)
        parts.append("\n".join([section, *lines]))
    return "\n\n".join(parts)


def _row(name: str, entry: Any) -> tuple[str, str, str]:
    """Formats an entry as name, state and remark."""
    if not isinstance(entry, dict):
        return name, "missing" if entry is None else str(entry), ""
    if "backend" in entry:
        return name, entry["backend"], entry["why"]
    if "loads" in entry:
        return name, "loads" if entry["loads"] else "does not load", entry["holds"]
    if "required" in entry:
        return name, entry["version"] or "missing", entry["for"]
    state = f"{entry['MiB']:.1f} MiB" if entry["found"] else "not found"
    return name, state, f"{entry['for']} ({Path(entry['path']).parent})"


if __name__ == "__main__":
    sys.exit(main())
