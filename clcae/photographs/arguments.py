"""The options of every command that passes a method over picture files."""

import argparse
from pathlib import Path

from clcae.faces import Which
from clcae.methods.interface import OUTPUTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every command that passes over files."""
    parser.add_argument(
        "images", nargs="+", metavar="IMAGES", help="files, folders with all below them, patterns"
    )
    parser.add_argument(
        "--method", required=True, help="a native or official file, or a name: portraits/clcae"
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder of the results")
    parser.add_argument(
        "--output",
        choices=OUTPUTS,
        help="what the method is asked for, where it has several (default: its best)",
    )
    parser.add_argument(
        "--batch-size",
        type=_positive,
        metavar="N",
        help="at once (default: 16, fewer where the method's pictures are large)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:1, mps (default: a GPU where there is one)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile for the generator: pays for many pictures of 512 pixels and more",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="make again what an earlier run has finished"
    )
    parser.add_argument(
        "--align",
        action="store_true",
        help="the pictures are photographs of people: find the face and crop it as FFHQ's are; "
        "without it the middle of the picture is taken",
    )
    parser.add_argument(
        "--faces",
        type=which_faces,
        default="largest",
        metavar="largest|all|N",
        help="with --align: which of several, N from 0 at the left (default: largest)",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a positive number")
    return int(text)


def which_faces(text: str) -> Which:
    """Which of several faces is meant: "largest", "all", or a number from 0 at the left."""
    if text == "largest":
        return "largest"
    if text == "all":
        return "all"
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}, expected largest, all, or a number from 0")
    return int(text)
