"""Pictures, or inversion files, to edited pictures; see --help."""

import argparse
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from clcae.data.pictures import Item, find_items
from clcae.device import pick_device
from clcae.methods.foundation import FoundationInversion
from clcae.methods.interface import Inversion, InversionMethod
from clcae.methods.inversion_file import Maker, check_fit, check_origin, load_inversion
from clcae.ops.memory import keep_freed_memory
from clcae.photographs.account import Account
from clcae.photographs.arguments import add_arguments
from clcae.photographs.cutouts import (
    Alpha,
    box_mask,
    forgotten,
    packed,
    picture_mask,
)
from clcae.photographs.edited import Change, Given, Results, Stored, pictures_of
from clcae.photographs.passes import (
    check_names,
    claim,
    open_method,
    pass_over,
    reading,
    reported,
)
from clcae.pretrained.assets import portraits_generator
from clcae.stylegan2 import Generator
from editing import (
    Direction,
    LatentStatistics,
    Watch,
    chosen_edits,
    edit_inversion,
    load_directions,
)

NAME = "edit.py"
EXAMPLES = """
examples:
  python scripts/edit.py crops --method portraits/clcae --edit smile=2 --out edited
      every picture of a folder with more of a smile
  python scripts/edit.py crops --method portraits/clcae --edit smile=2 --edit age=-1 --out edited
      several edits add up; a name alone takes the direction's own strength
  python scripts/edit.py inverted --method portraits/clcae --edit smile=2 --out edited
      from what scripts/invert.py left, without inverting again
  python scripts/edit.py a.png --method clcae_ffhq.safetensors --directions age.pt \\
      --edit age=3 --strip --strengths -5,...,5 --out edited
      edited/a-strip.png shows the input, the inversion and the edit from -5 to 5
  python scripts/edit.py photos --method clcae_ffhq.safetensors --directions age.pt \\
      --edit age=3 --align --out edited
      photographs: the face is found, cropped, edited and pasted back; NAME-crop.png is the crop
  python scripts/edit.py a.png --method portraits/clcae --edit smile=3 --mask 16,36,48,60 --out e
      nothing but that box changes (left, top, right, bottom in pixels; or a picture, white: edit)

results, for every picture NAME:
  NAME.png        the edited picture as large as the generator's; with --align or --mask the
                  photograph, at its own size, with the edit in it
  NAME-crop.png   with --align: the edited crop; of several faces NAME-0-crop.png, ...
  NAME-strip.png  with --strip: input, inversion, and every edit by itself over its strengths
The same command again goes on where it stopped. What cannot be used is listed, and the exit status
is 1.
"""
Edit = tuple[Direction, float]

FEATHER = 4  # pixels
STEPS = 7  # of a sweep over a direction's own range


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, or 1 with a line on stderr for what failed. SystemExit 2: usage."""
    parser = _parser()
    texts = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(list(_with_negative_lists(texts)))
    for option, needed in (("strengths", "strip"), ("feather", "mask")):
        if getattr(options, option) is not None and not getattr(options, needed):
            parser.error(f"--{option} is for --{needed}")
    if options.paste is not None and not (options.align or options.mask):
        parser.error("--paste is for --align or --mask")
    return reported(NAME, lambda: _edit(options))


def _edit(options: argparse.Namespace) -> Account:
    items = _without_reconstructions(find_items(options.images, without=options.out))
    endings = ["crop"] * options.align + ["strip"] * options.strip
    check_names(items, [rf"(?:\d+-)?{ending}" for ending in endings])
    device = pick_device(options.device)
    method, maker = open_method(
        options.method, output=options.output, device=device, compile=options.compile
    )
    if options.rule is not None:
        _set_rule(method, options.rule)
    edits = chosen_edits(_directions(options.directions, method.generator), options.edit)
    for direction, _ in edits:
        direction.check(method.generator)
    strengths = [options.strengths or _range(direction) for direction, _ in edits]
    results = Results(
        out=options.out,
        shape=method.image_shape,
        whole=bool(options.align or options.mask),
        crops=options.align,
        difference=options.paste == "change",
        mask=_mask(options.mask, FEATHER if options.feather is None else options.feather),
        sweeps=[(d.name, s) for (d, _), s in zip(edits, strengths, strict=True)] * options.strip,
    )
    read = _reading(options, items, method, maker, results)
    settings = _settings(options, maker, edits, results)
    claim(options.out / ".edit.json", settings, again=options.overwrite)
    at_once = options.batch_size or min(16, method.generator.at_once)
    account, todo = Account(), []
    for item in items:
        if not options.overwrite and (options.out / f"{item.name}.png").is_file():
            account.kept.append(item.name)
        else:
            todo.append(item)
    pass_over(
        todo,
        read=read,
        compute=partial(
            pictures_of,
            changes=_changes(method, edits, results),
            method=method,
            device=device,
            at_once=at_once,
        ),
        write=results.write,
        account=account,
        batch_size=at_once,
        device=device,
        ahead=8 if results.whole else 32,  # whole photographs are large
    )
    return account


def _changes(method: InversionMethod, edits: list[Edit], results: Results) -> list[Change]:
    """The edit; the inversion, where it is shown; every step of the sweeps."""
    watch = Watch(LatentStatistics.of_generator(method.generator))
    changes: list[Change] = [_change(method, edits, watch)]
    if results.sweeps or results.difference:
        changes.append(lambda inversion: inversion)
    if results.sweeps:
        for (direction, _), (_, strengths) in zip(edits, results.sweeps, strict=True):
            changes += [_change(method, [(direction, strength)], None) for strength in strengths]
    return changes


def _change(method: InversionMethod, edits: list[Edit], watch: Watch | None) -> Change:
    return lambda inversion: edit_inversion(method, inversion, edits, watch=watch)


def _reading(
    options: argparse.Namespace,
    items: list[Item],
    method: InversionMethod,
    maker: Maker,
    results: Results,
) -> "partial[Given]":
    device = next(method.parameters()).device
    picture = reading(method, align=options.align, faces=options.faces, device=device)
    like = None
    if any(_is_inversion(item.path) for item in items):
        with torch.inference_mode():
            zeros = torch.zeros(1, 3, *method.image_shape, device=device)
            like = method.reduced(method.invert(zeros))
    return partial(_read, picture=picture, whole=results.whole, maker=maker, like=like)


def _read(path: Path, *, picture: Any, whole: bool, maker: Maker, like: Inversion | None) -> Given:
    if not _is_inversion(path):
        return packed(picture(path)) if whole else forgotten(picture(path))
    if whole:
        raise ValueError("an inversion file: --align and --mask need the picture itself")
    assert like is not None
    inversion, origin = load_inversion(path)
    check_origin(origin, maker)
    check_fit(inversion, like)
    return Stored(inversion)


def _is_inversion(path: Path) -> bool:
    return path.suffix == ".safetensors"


def _without_reconstructions(items: list[Item]) -> list[Item]:
    """The inversion files alone, where the reconstructions lie beside them."""
    beside = {item.path.with_suffix(".png") for item in items if _is_inversion(item.path)}
    kept = [item for item in items if item.path not in beside]
    names = {item.name for item in kept}
    shorter = [replace(item, name=item.name.removesuffix("_safetensors")) for item in kept]
    return [s if s.name not in names else item for s, item in zip(shorter, kept, strict=True)]


def _set_rule(method: InversionMethod, rule: Any) -> None:
    if not isinstance(method, FoundationInversion):
        raise ValueError(f"--rule is for CLCAE; {type(method).__name__} has one way to edit")
    method.edit_rule = rule


def _directions(sources: Sequence[str] | None, generator: Generator) -> dict[str, Direction]:
    if sources is None:
        shipped = portraits_generator()
        theirs, own = (each.w_average.cpu() for each in (shipped, generator))
        if theirs.shape != own.shape or not torch.allclose(theirs, own, atol=1e-3):
            raise ValueError(
                "this method's generator is not the portraits one: give --directions FILE (made "
                "by scripts/directions.py, or an official file)"
            )
        sources = ["portraits"]
    found: dict[str, Direction] = {}
    for source in sources:
        more = load_directions(source)
        if twice := sorted(found.keys() & more.keys()):
            raise ValueError(f"{source}: directions of an earlier file again: {', '.join(twice)}")
        found |= more
    return found


def _mask(text: str | None, feather: int) -> Alpha | None:
    if text is None:
        return None
    if not re.fullmatch(r"-?\d{1,6}(,-?\d{1,6}){3}", text):
        if not Path(text).is_file():
            raise FileNotFoundError(f"--mask {text}: no such file, and no box x0,y0,x1,y1")
        return picture_mask(Path(text), feather=feather)
    x0, y0, x1, y1 = (int(number) for number in text.split(","))
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"--mask {text}: an empty box, expected x0,y0,x1,y1 with x0 < x1, y0 < y1")
    return box_mask((x0, y0, x1, y1), feather=feather)


def _settings(
    options: argparse.Namespace, maker: Maker, edits: list[Edit], results: Results
) -> dict[str, Any]:
    """What the results depend on beside the pictures."""
    mask = options.mask
    if mask is not None and Path(mask).is_file():
        mask = hashlib.sha256(Path(mask).read_bytes()).hexdigest()
    return {
        "method": maker.sha256,
        "output": maker.output,
        "rule": options.rule,
        "edits": [[d.name, strength, _digest(d)] for d, strength in edits],
        "faces": options.faces if options.align else None,
        "paste": options.paste or "crop",
        "mask": mask,
        "feather": options.feather,
        "strip": [list(sweep) for sweep in results.sweeps],
    }


def _digest(direction: Direction) -> str:
    tensors = (
        [direction.vector] if direction.center is None else [direction.vector, direction.center]
    )
    digest = hashlib.sha256(f"{direction.layers} {direction.unit} {direction.semantics}".encode())
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _range(direction: Direction) -> list[float]:
    return [round(s, 3) for s in torch.linspace(*direction.strengths, STEPS).tolist()]


def _with_negative_lists(arguments: Sequence[str]) -> Iterator[str]:
    """`--strengths -3,3` as `--strengths=-3,3`, since argparse takes -3,3 for an option."""
    rest = iter(arguments)
    for argument in rest:
        following = next(rest, None) if argument in ("--strengths", "--mask") else None
        yield argument if following is None else f"{argument}={following}"


def _numbers(text: str) -> list[float]:
    """Strengths: "-3,0,3", or "-3,...,3" for whole steps."""
    try:
        if match := re.fullmatch(r"(-?\d{1,4}),\.\.\.,(-?\d{1,4})", text):
            numbers = [float(number) for number in range(int(match[1]), int(match[2]) + 1)]
        else:
            numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 101 or not all(abs(number) < 1e6 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r}, expected strengths as -3,-1,1,3 or -3,...,3")
    return numbers


def _pixels(text: str) -> int:
    if not text.isdecimal() or int(text) > 1000:
        raise argparse.ArgumentTypeError(f"{text!r}, expected pixels from 0 to 1000")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Edits pictures along directions of latent space. IMAGES may be inversion "
        "files of scripts/invert.py.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument(
        "--edit",
        action="append",
        required=True,
        metavar="NAME=STRENGTH",
        help="a direction and how far; several add up",
    )
    parser.add_argument(
        "--directions",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="files of directions, or portraits (default: portraits, for its generator)",
    )
    parser.add_argument(
        "--rule",
        choices=["refined", "foundation"],
        help="of CLCAE: edit the refined codes, as the paper, or the foundation code before it is "
        "refined, as the official InterFaceGAN script (default: the method's own)",
    )
    parser.add_argument("--strip", action="store_true", help="draw every edit over its strengths")
    parser.add_argument(
        "--strengths",
        type=_numbers,
        metavar="-3,...,3",
        help=f"of a strip (default: {STEPS} over the direction's own range)",
    )
    parser.add_argument(
        "--mask",
        metavar="FILE|x0,y0,x1,y1",
        help="edit this region only: a picture of the same size, white where it may change, or a "
        "box in pixels; all else stays as it was",
    )
    parser.add_argument(
        "--feather",
        type=_pixels,
        metavar="PX",
        help=f"over how many pixels the mask rises, inwards (default: {FEATHER})",
    )
    parser.add_argument(
        "--paste",
        choices=["crop", "change"],
        help="with --align or --mask: what goes into the photograph, the edited crop or only what "
        "the edit changed in it, which keeps the photograph's own detail (default: crop)",
    )
    return parser


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
