"""Converts an official file to a native one and accounts for its keys; see --help."""

from clcae.command import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from clcae.command import make_parser, run_command
from clcae.pretrained.layouts import LAYOUTS
from clcae.pretrained.loading import import_checkpoint
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
      e4e or pSp; --which psp where the file does not say which, --image-size 192x256 where it
      does not say that it is about cars
  python scripts/import_checkpoint.py clcae_ffhq.pt --generator ffhq.pt --out clcae.safetensors
      CLCAE; the mean latent is in the generator's file only (without it, it is computed)
  python scripts/import_checkpoint.py best_model_image.pt --companion best_model_latent.pt \\
      --generator ffhq.pt --out aligner.safetensors
      CLCAE's aligner, whose two towers lie in two files
  python scripts/import_checkpoint.py runs/portraits/clcae.safetensors --half \\
      --beside generator=generator.safetensors --out clcae/portraits/assets/clcae.safetensors
      a smaller native file: half precision, the generator in a file of its own

layouts, told by the keys of a file and never by its name:
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, or 1 with a line on stderr for what failed. SystemExit 2: usage."""
    options = _parser().parse_args(arguments)
    return run_command(NAME, lambda: _convert(options))


def _convert(options: argparse.Namespace) -> None:
    name = options.file.name
    if is_native(options.file):
        if not options.half and not options.beside:
            raise ValueError(
                f"{options.file} is a native file already: use it as it is, or make it small "
                "by --half or --beside"
            )
        metadata = read_metadata(options.file)
        module, provenance = load(options.file), metadata.provenance
        lines = [f"{name}: native {metadata.class_name}"]
    else:
        imported = import_checkpoint(
            options.file,
            which=options.which,
            companion=options.companion,
            generator=options.generator,
            image_size=options.image_size,
        )
        module, provenance = imported.module, imported.provenance
        lines = [f"{name}: {imported.layout}", *imported.report.lines()]
    if options.export is None:
        beside = dict(options.beside)
        save(module, options.out, provenance=provenance, half=options.half, beside=beside)
    elif isinstance(module, Generator):
        export_rosinality(module, options.out)
    else:
        kind = type(module).__name__
        raise ValueError(f"{options.file} holds a {kind}, and only a generator is exported")
    print("\n".join([*lines, f"written: {options.out}"]))


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        NAME,
        description="Turns an official checkpoint into a native file, strictly: every key is used "
        "or ignored by name, or nothing is written. Nothing in the checkpoint is executed.",
        examples=EXAMPLES + "\n".join(f"  {layout.name}" for layout in LAYOUTS),
    )
    parser.add_argument(
        "file", type=Path, help="official file (.pt, .pth, .tar or .pkl), or a native one to shrink"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="file to write, customarily .safetensors"
    )
    parser.add_argument(
        "--companion", type=Path, help="second file of a module that needs two (aligner)"
    )
    parser.add_argument(
        "--generator", type=Path, help="generator's file, from which CLCAE takes the mean latent"
    )
    parser.add_argument(
        "--which",
        help="network of a file that holds several: G_ema, G, D; g_ema, g, d; or the method where "
        "the file does not say it: e4e, psp (default: the first, or as the file says)",
    )
    parser.add_argument(
        "--image-size",
        type=_size,
        metavar="HxW",
        help="input size of an e4e, pSp, CLCAE or StyleRes encoder (default: 256x256, or 192x256 "
        "where the file's options say cars)",
    )
    parser.add_argument(
        "--export",
        choices=["rosinality"],
        help="write a generator for other code instead of a native file",
    )
    parser.add_argument(
        "--half", action="store_true", help="write weights in half precision, half the size"
    )
    parser.add_argument(
        "--beside",
        type=_part,
        action="append",
        default=[],
        metavar="PART=FILE",
        help="leave out a part that FILE, a native file in the folder of --out, holds already",
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
