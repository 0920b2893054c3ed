"""The command-line options that align.py, invert.py and edit.py share."""

import argparse
from pathlib import Path

from clcae.command import positive
from clcae.faces import Which
from clcae.methods.interface import OUTPUTS
from clcae.methods.inversion_file import Maker
from clcae.precision import CHOICES


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of all three commands: which files, which faces, where the results go."""
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGES", help="files, folders with all below them, patterns")
    add("--out", type=Path, required=True, help="folder of the results")
    add(
        "--faces",
        type=_faces,
        default="largest",
        metavar="largest|all|N",
        help="which faces of a photograph are cropped; N counts from 0 at the left",
    )
    add("--overwrite", action="store_true", help="redo what an earlier run has finished")
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, mps")


def add_method_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the commands that run an inversion method over files."""
    add_file_arguments(parser)
    add = parser.add_argument
    add(
        "--method",
        required=True,
        help="native or official file, or a name: portraits/clcae; optimization/NAME searches and "
        "pivotal_tuning/NAME tunes the generator without training, NAME a file of these folders in "
        "configs/method; in_domain_search_portraits and base_code_search_portraits begin at what "
        "a trained encoder gives",
    )
    untrained = "of methods that search or tune"
    generator_help = f"{untrained} (default: the portraits')"
    add("--generator", metavar="FILE", help=generator_help)
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"{untrained}: a value of its file in configs/method, or another argument of its "
        "class, as steps=100, lr=0.05, noise=free, encoder.source=FILE; may be given several times",
    )
    add("--output", choices=OUTPUTS, help="output of the method (default: its best)")
    add(
        "--align",
        action="store_true",
        help="find the faces of photographs and crop them as FFHQ does; without it the middle of "
        "the picture is taken",
    )
    add(
        "--batch-size",
        type=positive,
        metavar="N",
        help="pictures at once, of which none is written before all are finished (default: 16, "
        "fewer where they are large or take long)",
    )
    add(
        "--precision",
        choices=CHOICES,
        default="float32",
        help="in which the method computes: bfloat16 takes half the time where the processor has "
        "it; auto is bfloat16 there",
    )
    add(
        "--compile",
        action="store_true",
        help="run the generator through torch.compile; pays for many pictures of 512 pixels or "
        "more",
    )


def _faces(text: str) -> Which:
    if text == "largest":
        return "largest"
    if text == "all":
        return "all"
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}, expected largest, all, or a number from 0")
    return int(text)


def faces_to_align(options: argparse.Namespace) -> Which | None:
    """Returns the faces to crop, or None without --align.

    Raises:
        ValueError: if faces are chosen without --align.
    """
    if not options.align and options.faces != "largest":
        raise ValueError("--faces is for --align")
    faces: Which = options.faces
    return faces if options.align else None


def settings_of_precision(maker: Maker) -> dict[str, str]:
    """Returns what the settings of a folder of results say of the precision.

    Nothing of float32, so that folders of earlier versions go on.
    """
    return {} if maker.precision == "float32" else {"precision": maker.precision}
