"""Pictures to reconstructions and inversion files; see --help."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from clcae.data.pictures import Item, find_items
from clcae.data.threads import batched
from clcae.device import pick_device
from clcae.images import write_png
from clcae.methods.interface import Inversion, InversionMethod
from clcae.methods.inversion_file import Maker, Origin, moved_to, save_inversion, split
from clcae.ops.memory import keep_freed_memory
from clcae.photographs.account import Account
from clcae.photographs.arguments import add_arguments
from clcae.photographs.cutouts import Photograph, face_names, forgotten
from clcae.photographs.passes import (
    FAST,
    check_names,
    claim,
    open_method,
    pass_over,
    reading,
    regrouped,
    reported,
)

NAME = "invert.py"
EXAMPLES = """
examples:
  python scripts/invert.py photos --method clcae_ffhq.safetensors --align --out inverted
      a folder of photographs: the largest face of each is found, cropped and inverted
  python scripts/invert.py crops/*.png --method portraits/clcae --out inverted
      pictures that are such crops already; of other sizes the middle is taken and resized
  python scripts/invert.py crops --method clcae_ffhq.safetensors --output W+ --out inverted
      without the feature F

results, for every picture NAME:
  NAME.png          the reconstruction, as large as the generator's pictures
  NAME.safetensors  the inversion file: codes, feature and what the method needs to edit them
                    (scripts/edit.py takes it in place of the picture), with the method and the
                    picture they come from
With --faces all, several faces are NAME-0, NAME-1, ... from left to right. The same command again
goes on where it stopped: what has both files is finished. What cannot be used is listed, and the
exit status is 1.
"""

Inverted = list[tuple[Inversion, Tensor]]  # of every cutout, with its picture [3, H, W]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, or 1 with a line on stderr for what failed. SystemExit 2: usage."""
    options = _parser().parse_args(arguments)
    return reported(NAME, lambda: _invert(options))


def _invert(options: argparse.Namespace) -> Account:
    items = find_items(options.images, without=options.out)
    check_names(items, [r"\d+"] if options.faces == "all" else [])
    device = pick_device(options.device)
    method, maker = open_method(
        options.method, output=options.output, device=device, compile=options.compile
    )
    read = reading(method, align=options.align, faces=options.faces, device=device)
    settings = {
        "method": maker.sha256,
        "output": maker.output,
        "faces": options.faces if options.align else None,
    }
    claim(options.out / ".invert.json", settings, again=options.overwrite)
    at_once = options.batch_size or min(16, method.generator.at_once)
    account, todo = Account(), []
    for item in items:
        if not options.overwrite and _finished(options.out, item):
            account.kept.append(item.name)
        else:
            todo.append(item)
    pass_over(
        todo,
        read=lambda path: forgotten(read(path)),
        compute=partial(_compute, method=method, device=device, at_once=at_once),
        write=partial(_write, out=options.out, maker=maker),
        account=account,
        batch_size=at_once,
        device=device,
    )
    return account


def _compute(
    photographs: list[Photograph],
    *,
    method: InversionMethod,
    device: torch.device,
    at_once: int,
) -> list[Inverted]:
    cutouts = [cutout for photograph in photographs for cutout in photograph.cutouts]
    results: Inverted = []
    for some in batched(cutouts, at_once):
        images = torch.stack([cutout.image for cutout in some]).to(device)
        inversion = method.invert(images)
        pictures = method.synthesize(inversion).cpu()
        kept = moved_to(method.reduced(inversion), "cpu")
        results += zip(split(kept), pictures, strict=True)
    return regrouped(results, [len(photograph.cutouts) for photograph in photographs])


def _write(
    item: Item, photograph: Photograph, inverted: Inverted, *, out: Path, maker: Maker
) -> None:
    """The files of every face; those whose presence says that all is done come last."""
    names = face_names(item.name, len(inverted))
    faces = zip(names, photograph.cutouts, inverted, strict=True)
    for name, cutout, (inversion, picture) in reversed(list(faces)):
        origin = Origin(
            maker=maker,
            picture=item.path.name,
            picture_sha256=photograph.sha256,
            picture_size=photograph.size,
            crop=cutout.kind,
            quad=tuple((x, y) for x, y in cutout.quad.tolist()),
        )
        inverted_file, reconstruction = _results(out, name)
        write_png(picture, reconstruction, compress_level=FAST)  # first, since it refuses NaN
        save_inversion(inversion, inverted_file, origin=origin)


def _results(out: Path, name: str) -> tuple[Path, Path]:
    return out / f"{name}.safetensors", out / f"{name}.png"


def _finished(out: Path, item: Item) -> bool:
    """Whether both files are there, of the picture or of the first of its faces."""
    names = (face_names(item.name, count)[0] for count in (1, 2))
    return any(all(path.is_file() for path in _results(out, name)) for name in names)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Inverts pictures: for each, what the generator makes of its codes, and a "
        "file of the codes from which it can be edited later.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return parser


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
