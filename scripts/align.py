"""Crops the faces of photographs as encoders read them; see --help."""

from clcae.command import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import argparse
import re
import sys
from collections.abc import Sequence

from clcae.command import make_parser, run_command
from clcae.data.pictures import find_items
from clcae.device import pick_device
from clcae.faces import CropFolder
from clcae.ops.memory import keep_freed_memory
from clcae.photographs.account import Account
from clcae.photographs.aligner import FaceAligner
from clcae.photographs.arguments import add_file_arguments
from clcae.photographs.frames import find_videos
from clcae.photographs.passes import check_disk
from clcae.photographs.results import shared

NAME = "align.py"
EXAMPLES = """
examples:
  python scripts/align.py photo.jpg --out crops
      crops/photo.png, the largest face, and crops/photo.json, with which it is pasted back
  python scripts/align.py holiday 'more/*.png' --out crops --size 1024 --faces all
      folders with all below them, patterns; several faces become anna-0.png, anna-1.png, ...
      from left to right
  python scripts/align.py photo.jpg --out crops --faces 1
      the second face from the left
  python scripts/align.py frames --out crops --video
      a folder of frames in the order of their names: one face is followed, and its landmarks are
      smoothed over time; crops/frames/0001.png, ... Video files need ffmpeg

The crop is that of FFHQ, by the eyes and the mouth. A square picture that is such a crop already
(within 10 %) is only resized. Faces in profile, and faces whose crop would take fewer than 48
pixels of the photograph, are skipped. A photograph may lie on its side or on its head; a face that
a second look does not confirm in any turn is skipped. The same command again goes on where it
stopped; a photograph that has changed is cropped anew. The exit status is 1 where anything was
skipped.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, or 1 where something was skipped or failed. SystemExit 2: usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.video and options.faces == "all":
        parser.error("--video follows one face: --faces largest or a number")
    return run_command(NAME, lambda: _align(options), resumable=True)


def _align(options: argparse.Namespace) -> int:
    folder = CropFolder(
        root=options.out, size=options.size, which=options.faces, overwrite=options.overwrite
    )
    account = Account()
    aligner = FaceAligner(folder, device=pick_device(options.device), account=account)
    items = [] if options.video else find_items(options.images, without=options.out)
    videos = find_videos(options.images) if options.video else {}
    with shared(options.out):
        aligner.align_photographs(items)
        for name, path in videos.items():
            try:
                aligner.align_video(name, path)
            except (ValueError, OSError) as error:
                check_disk(error)
                account.skip(path, error)
    return account.report()


def _size(text: str) -> int:
    if re.fullmatch(r"\d{1,4}", text, flags=re.ASCII) and 16 <= int(text) <= 4096:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}, expected pixels from 16 to 4096")


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        NAME,
        description="Finds faces in photographs and crops them as FFHQ does. Beside every crop a "
        "record tells where it was cut out.",
        examples=EXAMPLES,
    )
    add_file_arguments(parser)
    parser.add_argument(
        "--size", type=_size, default=256, help="pixels of a crop's side (default: 256)"
    )
    parser.add_argument(
        "--video", action="store_true", help="IMAGES are folders of frames, or video files"
    )
    return parser


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
