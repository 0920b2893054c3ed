"""Inverts pictures to reconstructions and inversion files; see --help."""

from clcae.command import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from clcae.command import make_parser, run_command
from clcae.data.pictures import Item, find_items
from clcae.device import pick_device
from clcae.images import write_png
from clcae.methods.interface import Inversion, InversionMethod
from clcae.methods.inversion_file import Maker, Origin, moved_to, save_inversion, split
from clcae.ops.memory import keep_freed_memory
from clcae.photographs.arguments import add_method_arguments, faces_to_align, settings_of_precision
from clcae.photographs.cutouts import Cutout
from clcae.photographs.passes import FAST, check_names, open_method, pass_over
from clcae.photographs.reader import Photograph, Reader
from clcae.photographs.results import Results, shared
from clcae.quoting import one_line
from clcae.serialization import settings_digest
from training.untrained import load_or_build

NAME = "invert.py"
FILE = ".safetensors"
EXAMPLES = """
examples:
  python scripts/invert.py photos --method clcae_ffhq.safetensors --align --out inverted
      a folder of photographs: the largest face of each is found, cropped and inverted
  python scripts/invert.py crops/*.png --method portraits/clcae --out inverted
      pictures that are such crops already; of other sizes the middle is taken and resized
  python scripts/invert.py crops --method clcae_ffhq.safetensors --output W+ --out inverted
      without the feature F
  python scripts/invert.py crops --method optimization/z_plus_f --generator ffhq.pkl --out inverted
      without an encoder: searches each picture's code and feature, minutes to hours on a CPU
  python scripts/invert.py crops --method optimization/w_plus --set steps=100 --out inverted
      fewer steps than its file says; --set lr=0.05 --set noise=free, ...: docs/searching.md
  python scripts/invert.py crops --method pivotal_tuning/w_paper --generator ffhq.pkl --out tuned
      a code of W, then a generator of its own for each picture; NAME.safetensors holds what changed
  python scripts/invert.py crops --method clcae_ffhq.safetensors --precision auto --out inverted
      in bfloat16 where the processor has it: half the time, pictures about 50 dB from float32

results, for every picture NAME:
  NAME.png          the reconstruction, as large as the generator's pictures
  NAME.safetensors  the inversion file: codes, feature and what the method needs to edit them
                    (scripts/edit.py takes it in place of the picture), with the method and the
                    picture they come from
With --faces all, several faces are NAME-0, NAME-1, ... from left to right. The same command again
goes on where it stopped: a picture is finished if both files are there and were made of this very
picture; another one of its name is inverted anew. Files that cannot be used are listed, and the
exit status is 1.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, or 1 with a line on stderr for what failed. SystemExit 2: usage."""
    options = _parser().parse_args(arguments)
    return run_command(NAME, lambda: _invert(options), resumable=True)


def _invert(options: argparse.Namespace) -> int:
    items = find_items(options.images, without=options.out)
    check_names(items, [r"\d+"] if options.faces == "all" else [])
    method, maker = open_method(
        options.method,
        output=options.output,
        device=pick_device(options.device),
        precision=options.precision,
        compile=options.compile,
        load=partial(load_or_build, generator=options.generator, settings=options.set),
    )
    faces = faces_to_align(options)
    reader = Reader(method, faces=faces)
    settings = {"method": maker.sha256, "output": maker.output, "faces": faces}
    settings |= settings_of_precision(maker)
    with shared(options.out):
        results = Results(
            options.out,
            command="invert",
            settings=settings,
            built=settings_digest(method),
            overwrite=options.overwrite,
        )
        return pass_over(
            items,
            method,
            results=results,
            read=reader.read,
            compute=partial(_compute, method),
            files=lambda names: [f"{name}{end}" for name in names for end in (".png", FILE)],
            write=partial(_write, maker),
            batch_size=options.batch_size,
        )


def _compute(method: InversionMethod, cutouts: list[Cutout]) -> list[tuple[Inversion, Tensor]]:
    images = torch.stack([cutout.image for cutout in cutouts])
    inversion = method.invert(images.to(method.device))
    pictures = method.synthesize(inversion).cpu()
    kept = moved_to(method.reduced(inversion), "cpu")
    return list(zip(split(kept), pictures, strict=True))


def _write(
    maker: Maker,
    item: Item,
    names: list[str],
    photograph: Photograph,
    inverted: list[tuple[Inversion, Tensor]],
    paths: list[Path],  # of the reconstruction and the inversion file of every name
) -> None:
    for index, (_, cutout) in enumerate(zip(names, photograph.parts, strict=True)):
        inversion, picture = inverted[index]
        origin = Origin(
            maker=maker,
            picture=one_line(item.path.name),
            picture_sha256=photograph.sha256,
            picture_size=photograph.size,
            crop=cutout.kind,
            quad=tuple((x, y) for x, y in cutout.quad.tolist()),
        )
        write_png(picture, paths[2 * index], compress_level=FAST)  # first, since it refuses NaN
        save_inversion(inversion, paths[2 * index + 1], origin=origin)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        NAME,
        description="Inverts pictures: writes each one's reconstruction, and an inversion file "
        "from which it can be edited later.",
        examples=EXAMPLES,
    )
    add_method_arguments(parser)
    return parser


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
