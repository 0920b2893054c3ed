"""Edits pictures, or inversion files, along directions; see --help."""

from clcae.command import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial

from clcae.command import make_parser, numbers, run_command
from clcae.data.pictures import find_items
from clcae.device import pick_device
from clcae.methods.foundation import FoundationInversion
from clcae.methods.interface import InversionMethod
from clcae.ops.memory import keep_freed_memory
from clcae.photographs.arguments import add_method_arguments, faces_to_align, settings_of_precision
from clcae.photographs.codes import SUFFIXES, is_codes_file
from clcae.photographs.edited import Change, Edits, Sweep
from clcae.photographs.masks import read_mask
from clcae.photographs.passes import check_names, open_method, pass_over
from clcae.photographs.reader import Reader, without_reconstructions
from clcae.photographs.results import Results, shared
from clcae.serialization import settings_digest
from clcae.stylegan2 import LatentSpace
from editing import LatentStatistics, Watch, chosen_edits, directions_for, edit_inversion
from editing.editor import Edit
from training.untrained import load_or_build

NAME = "edit.py"
EXAMPLES = """
examples:
  python scripts/edit.py crops --method portraits/clcae --edit smile=2 --out edited
      every picture of a folder with more of a smile; portraits have smile, yaw, age, glasses, beard
  python scripts/edit.py crops --method portraits/clcae --edit smile=2 --edit age=-1 --out edited
      several edits add up; a name alone takes the direction's own strength
  python scripts/edit.py inverted --method portraits/clcae --edit smile=2 --out edited
      inversion files of scripts/invert.py, without inverting again; --set as when they were made
  python scripts/edit.py codes.npy --method clcae_ffhq.safetensors --edit smile=2 --out edited
      codes of other code: [N, 512] or [N, layers, 512] in .npy, .npz, .pt or .safetensors; the
      pictures are codes-0.png, codes-1.png, ... (--space W+ where [18, 512] is one code)
  python scripts/edit.py codes.npy --space Z+ --method clcae_ffhq.safetensors --out edited \\
      --directions smile_boundary.npy --directions-space Z+ --edit smile=2
      codes and a boundary of Z+, as F/Z+ writes them: rows walk on their spheres
  python scripts/edit.py a.png --method clcae_ffhq.safetensors --directions age.pt \\
      --edit age=3 --strip --strengths -5,...,5 --out edited
      edited/a-strip.png shows the input, the inversion and the edit from -5 to 5
  python scripts/edit.py photos --method clcae_ffhq.safetensors --directions age.pt \\
      --edit age=3 --align --out edited
      photographs: the face is found, cropped, edited and pasted back; NAME-crop.png is the crop
  python scripts/edit.py a.png --method portraits/clcae --edit smile=3 --mask 16,36,48,60 --out e
      only that box changes (left, top, right, bottom in pixels; or a picture, white where to edit)

results, for every picture NAME:
  NAME.png        the edited picture as large as the generator's; with --align or --mask the
                  photograph, at its own size, with the edit in it
  NAME-crop.png   with --align: the edited crop; of several faces NAME-0-crop.png, ...
  NAME-strip.png  with --strip: input, inversion, and every edit by itself over its strengths
The same command again goes on where it stopped; another picture under the name of an earlier one
is edited anew. Files that cannot be used are listed, and the exit status is 1.
"""
FEATHER = 4  # pixels
STEPS = 7  # of a sweep over a direction's own range


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, or 1 with a line on stderr for what failed. SystemExit 2: usage."""
    parser = _parser()
    texts = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(list(_with_negative_lists(texts)))
    if options.strengths is not None and not options.strip:
        parser.error("--strengths is for --strip")
    if options.feather is not None and not options.mask:
        parser.error("--feather is for --mask")
    if options.paste is not None and not (options.align or options.mask):
        parser.error("--paste is for --align or --mask")
    return run_command(NAME, lambda: _edit(options), resumable=True)


def _edit(options: argparse.Namespace) -> int:
    found = find_items(options.images, without=options.out, inversions=True)
    items = without_reconstructions(found)
    endings = ["crop"] * options.align + ["strip"] * options.strip
    several = any(is_codes_file(item.path) for item in items)  # pictures NAME-0, NAME-1, ...
    check_names(items, [rf"(?:\d+-)?{ending}" for ending in endings] + [r"\d+"] * several)
    method, maker = open_method(
        options.method,
        output=options.output,
        device=pick_device(options.device),
        precision=options.precision,
        compile=options.compile,
        load=partial(load_or_build, generator=options.generator, settings=options.set),
    )
    method = _with_rule(method, options.rule)
    of_files = LatentSpace(options.directions_space) if options.directions_space else None
    directions = directions_for(method.generator, options.directions, space=of_files)
    edits = chosen_edits(directions, options.edit)
    for direction, _ in edits:
        direction.check(method.generator)
    watch = Watch(LatentStatistics.of_generator(method.generator))
    feather = FEATHER if options.feather is None else options.feather
    mask = read_mask(options.mask, feather=feather) if options.mask else None
    work = Edits(
        method=method,
        edit=_change(method, edits, watch),
        whole=bool(options.align or options.mask),
        crops=options.align,
        difference=options.paste == "change",
        mask=mask,
        sweeps=[_sweep(method, edit, options.strengths) for edit in edits] if options.strip else [],
    )
    faces = faces_to_align(options)
    stored = any(item.path.suffix.lower() in SUFFIXES for item in items)
    space = LatentSpace(options.space) if options.space else None
    reader = Reader(
        method, faces=faces, keep_image=work.whole, maker=maker if stored else None, space=space
    )
    settings = {
        "method": maker.sha256,
        "output": maker.output,
        "rule": options.rule,
        "edits": [[d.name, strength, d.digest()] for d, strength in edits],
        "faces": faces,
        "paste": options.paste or "crop",
        "mask": mask and mask.label,
        "feather": options.feather,
        "strip": [[sweep.name, sweep.strengths] for sweep in work.sweeps],
        **({"space": options.space} if options.space else {}),
        **settings_of_precision(maker),
    }
    with shared(options.out):
        results = Results(
            options.out,
            command="edit",
            settings=settings,
            built=settings_digest(method),
            overwrite=options.overwrite,
        )
        return pass_over(
            items,
            method,
            results=results,
            read=reader.read,
            compute=work.compute,
            files=work.files,
            write=work.write,
            batch_size=options.batch_size,
            ahead=8 if work.whole else 32,  # whole photographs are large
        )


def _with_rule(method: InversionMethod, rule: str | None) -> InversionMethod:
    if rule is None:
        return method
    if not isinstance(method, FoundationInversion):
        raise ValueError(f"--rule is for CLCAE; {type(method).__name__} has one way to edit")
    return method.with_rule("refined" if rule == "refined" else "foundation")


def _sweep(method: InversionMethod, edit: Edit, strengths: Sequence[float] | None) -> Sweep:
    direction, _ = edit
    if strengths is None:
        strengths = direction.spread(STEPS)
    changes = [_change(method, [(direction, strength)], None) for strength in strengths]
    return Sweep(direction.name, strengths, changes)


def _change(method: InversionMethod, edits: Sequence[Edit], watch: Watch | None) -> Change:
    return partial(edit_inversion, method, edits=edits, watch=watch)


def _with_negative_lists(arguments: Sequence[str]) -> Iterator[str]:
    """Writes `--strengths -3,3` as `--strengths=-3,3`, since argparse takes -3,3 for an option."""
    rest = iter(arguments)
    for argument in rest:
        following = next(rest, None) if argument in ("--strengths", "--mask") else None
        yield argument if following is None else f"{argument}={following}"


def _pixels(text: str) -> int:
    if not text.isdecimal() or int(text) > 1000:
        raise argparse.ArgumentTypeError(f"{text!r}, expected pixels from 0 to 1000")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        NAME,
        description="Edits pictures along directions of latent space. IMAGES may be inversion "
        "files of scripts/invert.py, or files of codes.",
        examples=EXAMPLES,
    )
    add_method_arguments(parser)
    add = parser.add_argument
    edit_help = "a direction and how far; several add up"
    add("--edit", action="append", required=True, metavar="NAME=STRENGTH", help=edit_help)
    add(
        "--directions",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="files of directions, or portraits (default: portraits, for its generator)",
    )
    add(
        "--directions-space",
        choices=[space.value for space in LatentSpace],
        help="of official files that do not say it (default: Z for InterFaceGAN's and GANSpace's "
        "names without _w, else W); directions of Z and Z+ walk on the sphere of their codes",
    )
    add(
        "--rule",
        choices=["refined", "foundation"],
        help="of CLCAE: edit the refined codes, as the paper does, or the foundation code before "
        "it is refined, as the official InterFaceGAN script does (default: the method's own)",
    )
    add(
        "--space",
        choices=[space.value for space in LatentSpace],
        help="latent space of codes that come without a picture (default: W for one row of "
        "numbers, W+ for one for each layer)",
    )
    add("--strip", action="store_true", help="draw every edit over its strengths")
    strengths_help = f"of a strip (default: {STEPS} over the direction's own range)"
    add("--strengths", type=numbers, metavar="-3,...,3", help=strengths_help)
    add(
        "--mask",
        metavar="FILE|x0,y0,x1,y1",
        help="edit only this region: a picture of the same size, white where it may change (of "
        "colours the brightest channel counts; transparency on one colour is read instead of it), "
        "or a box in pixels; all else keeps its values",
    )
    feather_help = f"pixels over which the mask rises inwards (default: {FEATHER})"
    add("--feather", type=_pixels, metavar="PX", help=feather_help)
    add(
        "--paste",
        choices=["crop", "change"],
        help="with --align or --mask: put the edited crop into the photograph, or add only what "
        "the edit changed, which keeps the photograph's own detail (default: crop)",
    )
    return parser


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
