"""An official file into a native one, with the account of its keys; see --help."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from clcae.command import make_parser, run_command
from clcae.pretrained.layouts import LAYOUTS
from clcae.pretrained.loading import Imported, import_checkpoint
from clcae.pretrained.rosinality import export_rosinality
from clcae.serialization import is_native, load, read_metadata, save
from clcae.stylegan2 import Generator

NAME = "import_checkpoint.py"
EXAMPLES = """
examples:
  python scripts/import_checkpoint.py stylegan2-ffhq-config-f.pt --out ffhq.safetensors
      a generator of rosinality/stylegan2-pytorch; --which d takes its discriminator
  python scripts/import_checkpoint.py ffhq.pkl --out ffhq.safetensors
      a StyleGAN2 of NVIDIA's (G_ema; --which D); nothing in the file is run
  python scripts/import_checkpoint.py ffhq.pkl --out ffhq.pt --export rosinality
      the same network for code that wants {g_ema, latent_avg}
  python scripts/import_checkpoint.py e4e_ffhq_encode.pt --out e4e.safetensors
      e4e or pSp; where the file does not say which, --which psp
  python scripts/import_checkpoint.py clcae_ffhq.pt --generator ffhq.pt --out clcae.safetensors
      CLCAE; the mean latent is in the generator's file only (without it, it is computed)
  python scripts/import_checkpoint.py best_model_image.pt --companion best_model_latent.pt \\
      --generator ffhq.pt --out aligner.safetensors
      CLCAE's aligner, whose two towers lie in two files
  python scripts/import_checkpoint.py runs/portraits/clcae.safetensors --half \\
      --beside generator=generator.safetensors --out clcae/portraits/assets/clcae.safetensors
      a native file made small: half precision, the generator in a file of its own

known layouts, told by the content of a file and never by its name:
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, or 1 where it failed with one line on stderr. SystemExit 2: usage."""
    options = _parser().parse_args(arguments)
    return run_command(NAME, lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    lines = _again(options) if is_native(options.file) else _import(options)
    print("\n".join([*lines, f"written: {options.out}"]))


def _import(options: argparse.Namespace) -> list[str]:
    """Writes what an official file holds; the account of its keys."""
    imported = import_checkpoint(
        options.file,
        which=options.which,
        companion=options.companion,
        generator=options.generator,
        image_size=options.image_size,
    )
    _write(imported, options)
    return [f"{Path(options.file).name}: {imported.layout}", *imported.report.lines()]


def _again(options: argparse.Namespace) -> list[str]:
    """Writes a native file anew, smaller; where its weights come from stays said."""
    if not options.half and not options.beside:
        raise ValueError(f"{options.file} is a native file already; --half, --beside make it small")
    metadata = read_metadata(options.file)
    save(
        load(options.file),
        options.out,
        provenance=metadata.provenance,
        half=options.half,
        beside=dict(options.beside),
    )
    return [f"{Path(options.file).name}: native {metadata.class_name}"]


def _write(imported: Imported, options: argparse.Namespace) -> None:
    out, export = options.out, options.export
    if export is None:
        save(
            imported.module,
            out,
            provenance=imported.provenance,
            half=options.half,
            beside=dict(options.beside),
        )
        return
    if not isinstance(imported.module, Generator):
        name = type(imported.module).__name__
        raise ValueError(f"the file holds a {name}, and only a generator is exported")
    export_rosinality(imported.module, out)


def _parser() -> argparse.ArgumentParser:
    layouts = "\n".join(f"  {layout.name}" for layout in LAYOUTS)
    parser = make_parser(
        NAME,
        description="Turns an official checkpoint into a native file, strictly: every key is used "
        "or ignored by name, or nothing is written. Nothing in the checkpoint is executed.",
        examples=EXAMPLES + layouts,
    )
    parser.add_argument("file", type=Path, help="the official file (.pt, .pth, .tar or .pkl)")
    parser.add_argument(
        "--out", type=Path, required=True, help="the file to write, customarily .safetensors"
    )
    parser.add_argument(
        "--companion", type=Path, help="the other file, where a module takes two (aligner)"
    )
    parser.add_argument(
        "--generator", type=Path, help="the generator's file, for the mean latent of CLCAE"
    )
    parser.add_argument(
        "--which", help="which network: G_ema, G, D; g_ema, g, d; e4e, psp (default: the first)"
    )
    parser.add_argument(
        "--image-size",
        type=_size,
        metavar="HxW",
        help="what a CLCAE encoder reads (default: 256x256, and 192x256 where it says cars)",
    )
    parser.add_argument(
        "--export",
        choices=["rosinality"],
        help="write a generator for other code instead of a native file",
    )
    parser.add_argument(
        "--half", action="store_true", help="weights in half precision, half the size"
    )
    parser.add_argument(
        "--beside",
        type=_part,
        action="append",
        default=[],
        metavar="PART=FILE",
        help="leave a part out that FILE, in the folder of --out, holds already",
    )
    return parser


def _part(text: str) -> tuple[str, str]:
    part, _, file = text.partition("=")
    if not part or not file:
        raise argparse.ArgumentTypeError(f"{text!r} is no PART=FILE as generator=ffhq.safetensors")
    return part, file


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no size, expected HxW as 192x256")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    sys.exit(main())
