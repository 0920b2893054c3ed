"""Finds directions of a generator's latent space, and shows what a file of them holds; --help."""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import clcae
from clcae.files import replacing
from clcae.images import write_png
from clcae.ops.memory import keep_freed_memory
from clcae.portraits import ATTRIBUTES
from clcae.stylegan2 import Generator, LatentSpace
from editing import Direction, LatentStatistics, Watch, load_directions, save_directions
from editing import ganspace as ganspace_
from editing import sefa as sefa_
from editing.calibration import Judge, by_width
from editing.finding import Off, find_directions, largest_leaks, measured
from editing.interfacegan import SHARE, linear_svm, sample_codes
from editing.report import card, listing, strip, summary
from editing.samples import Samples, given_samples, portraits_scorer, score_samples
from editing.statistics import mapped

NAME = "directions.py"
SCORERS = ("portraits",)
STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # of a strip
EXAMPLES = """
examples:
  python scripts/directions.py show portraits
      the shipped directions: units, ranges, how much they leak; --strips DIR draws them
  python scripts/directions.py interfacegan --attributes smile,yaw,age,glasses,beard \\
      --condition-on others --off gradients --out mine.safetensors
      how they were found: 50,000 pictures of the portraits generator, scored by its judge
  python scripts/directions.py sample --generator ffhq.pkl --num-samples 20000 --out samples
      for a generator that no judge here knows: codes.npy and pictures, to be scored by you
  python scripts/directions.py interfacegan --generator ffhq.pkl --codes samples/codes.npy \\
      --scores smile=smile.npy --scores age=age.npy --condition-on others --out faces.safetensors
      from your scores, (N,) or (N, 1) in the order of the pictures; NaN drops a picture
  python scripts/directions.py ganspace --generator ffhq.pkl --components 20 --out pca.safetensors
  python scripts/directions.py sefa --generator ffhq.pkl --layers 2-6 --out sefa.safetensors
      no labels needed: look at the strips (show --strips) and name what you see
  python scripts/directions.py show ffhq_pca.pt
      official files: e4e's .pt, InterFaceGAN's .npy, GANSpace's .pt and .npz, SeFa factors

A strength of 1 is one unit: of a judged attribute its standard deviation over samples (glasses: the
length that puts them on), else one standard deviation of the latent space along the direction.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, or 1 where it failed with one line on stderr. SystemExit 2: usage."""
    logging.basicConfig(format=f"{NAME}: %(message)s")
    options = _parser().parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options.run(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"{NAME}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _sample(options: argparse.Namespace) -> None:
    codes_file = options.out / "codes.npy"
    if codes_file.exists():
        raise ValueError(f"{codes_file} is there already: give another --out")
    generator = clcae.load_generator(options.generator).to(options.device)
    rng, step = torch.Generator().manual_seed(options.seed), min(generator.at_once, 64)
    parts: list[Tensor] = []
    for first in tqdm(range(0, options.num_samples, step), unit="batch", disable=None):
        count = min(step, options.num_samples - first)
        codes = sample_codes(
            generator, space=options.space, count=count, rng=rng, truncation=options.truncation
        )
        with torch.no_grad():
            latent = codes if options.space.is_mapped else generator.map(codes)
            pictures = generator.synthesize(latent).cpu()
        for index, picture in enumerate(pictures):
            write_png(picture, options.out / "pictures" / f"{first + index:06d}.png")
        parts.append(codes.cpu())
    with replacing(codes_file) as unfinished, unfinished.open("wb") as file:
        np.save(file, torch.cat(parts).numpy())
    print(f"{options.num_samples} codes of {options.space}: {codes_file}")
    print(f"their pictures, by number: {options.out / 'pictures'}")


def _interfacegan(options: argparse.Namespace) -> None:
    if (options.codes is None) != (not options.scores):
        raise ValueError("--codes and --scores go together: one row of scores for each code")
    linear_svm()  # says what is missing before anything is drawn
    generator = clcae.load_generator(options.generator).to(options.device)
    if options.codes is not None:
        found = _found(given_samples(options.codes, options.scores), options)
        for direction in found.values():
            direction.check(generator)
    else:
        judge, embed = portraits_scorer(generator)
        _check_names(options)
        with tqdm(total=options.num_samples, unit="picture", disable=None) as bar:
            samples = score_samples(
                generator,
                judge,
                names=ATTRIBUTES,
                binary=("glasses",),
                space=options.space,
                count=options.num_samples,
                seed=options.seed,
                truncation=options.truncation,
                progress=bar.update,
            )
        found = _found(samples, options)
        rng = torch.Generator().manual_seed(options.seed + 1)
        count = 2 * options.calibrate_on
        codes = sample_codes(generator, space=options.space, count=count, rng=rng).cpu()
        for name in tqdm(found, unit="direction", disable=None):
            found[name] = measured(
                generator, found[name], samples, judge=judge, embed=embed, codes=codes
            )
        if options.compare:
            found = _compared(found, generator, judge, samples, codes.chunk(2)[1], options)
    _write(found, options)


def _check_names(options: argparse.Namespace) -> None:
    """Refuses attributes the scorer does not know, before pictures are drawn."""
    conditions = [] if options.condition_on == ["others"] else options.condition_on
    for name in [*(options.attributes or []), *conditions]:
        if name not in ATTRIBUTES:
            raise ValueError(f"there is no attribute {name!r}; there are: {', '.join(ATTRIBUTES)}")


def _found(samples: Samples, options: argparse.Namespace) -> dict[str, Direction]:
    """The directions as they are asked for."""
    conditions = None if options.condition_on == ["others"] else options.condition_on
    return _in_way(samples, options, conditions, options.off)


def _in_way(
    samples: Samples, options: argparse.Namespace, conditions: Sequence[str] | None, off: Off
) -> dict[str, Direction]:
    return find_directions(
        samples,
        options.attributes or list(samples.names),
        space=options.space,
        conditions=conditions,
        off=off,
        share=options.share,
        invalid=options.invalid,
        seed=options.seed,
    )


def _compared(
    found: dict[str, Direction],
    generator: Generator,
    judge: Judge,
    samples: Samples,
    codes: Tensor,  # [N, D] or [N, L, D]
    options: argparse.Namespace,
) -> dict[str, Direction]:
    """The directions, with how much each way of finding them leaks."""
    ways = {
        "plain": _in_way(samples, options, (), "boundaries"),
        "boundaries": _in_way(samples, options, None, "boundaries"),
        "gradients": _in_way(samples, options, None, "gradients"),
    }
    with_leaks = {}
    for name, direction in found.items():
        leaks = largest_leaks(
            generator,
            {way: directions[name] for way, directions in ways.items()},
            samples,
            unit=direction.unit,
            judge=judge,
            codes=codes,
        )
        provenance = {**direction.provenance, "compared": leaks}
        with_leaks[name] = replace(direction, provenance=provenance)
    return with_leaks


def _ganspace(options: argparse.Namespace) -> None:
    generator = clcae.load_generator(options.generator).to(options.device)
    if options.layers is not None and options.layers[1] > generator.num_codes:
        raise ValueError(
            f"layers {options.layers[0]}-{options.layers[1]}, the generator's codes have "
            f"{generator.num_codes} rows"
        )
    pca = ganspace_.components_of_generator(
        generator, count=options.components, num_samples=options.num_samples, seed=options.seed
    )
    found = {}
    for index in range(len(pca.components)):
        direction = pca.direction(index, layers=options.layers, semantics=options.semantics)
        direction.check(generator)
        found[direction.name] = direction
    _write(found, options)


def _sefa(options: argparse.Namespace) -> None:
    generator = clcae.load_generator(options.generator)
    if options.whole:
        rows, (_, vectors) = None, sefa_.factorize_whole(generator)
    else:
        rows = options.layers
        _, vectors = sefa_.factorize(generator, layers=rows)
    found = sefa_.directions_of(vectors, count=options.components, rows=rows)
    statistics = LatentStatistics.of_generator(generator)
    for name, direction in found.items():
        found[name] = by_width(direction, statistics.deviation(direction.vector[0]))
    _write(found, options)


def _write(found: dict[str, Direction], options: argparse.Namespace) -> None:
    command = f"python scripts/directions.py {' '.join(options.arguments)}"
    provenance = {"command": command, "generator": Path(options.generator).name}
    save_directions(found, options.out, provenance=provenance)
    if options.card is not None:
        with replacing(options.card) as unfinished:
            unfinished.write_text(card(found, name=options.out.name, command=command))
    print(summary(found))
    print(f"written: {options.out}")


def _show(options: argparse.Namespace) -> None:
    found = load_directions(options.file)
    print(listing(found))
    if options.strips is None:
        return
    generator = clcae.load_generator(options.generator)
    statistics = LatentStatistics.of_generator(generator)
    people = next(mapped(generator, num_samples=options.people, seed=options.seed))
    codes = torch.cat([statistics.mean[None].float(), people])
    watch = Watch(statistics)
    for name in options.names or list(found):
        if name not in found:
            raise ValueError(f"there is no direction {name!r}; there are: {', '.join(found)}")
        picture = strip(generator, found[name], codes, options.strengths, watch=watch)
        path = options.strips / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.png"
        write_png(picture, path)
        print(f"strip: {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Finds directions for editing in a generator's latent space: with scores "
        "(InterFaceGAN), or without (GANSpace, SeFa); and shows what a file of directions holds.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_interfacegan(commands)
    _add_sample(commands)

    ganspace = commands.add_parser("ganspace", help="principal components of W")
    _add_common(ganspace, finds=True)
    ganspace.add_argument("--components", type=_positive, default=10, help="how many (default: 10)")
    ganspace.add_argument(
        "--num-samples", type=_positive, default=1_000_000, help="mapped codes (default: 1000000)"
    )
    ganspace.add_argument("--layers", type=_layers, help="rows moved, as 2-6 (end excluded)")
    ganspace.add_argument(
        "--semantics",
        choices=["increment", "coordinate"],
        default="increment",
        help="add so many standard deviations, or bring the code to that coordinate",
    )
    ganspace.set_defaults(run=_ganspace)

    sefa = commands.add_parser("sefa", help="closed form, from the modulation weights")
    _add_common(sefa, finds=True)
    sefa.add_argument("--components", type=_positive, default=10, help="how many (default: 10)")
    sefa.add_argument(
        "--layers",
        type=_layers,
        default=sefa_.LAYERS,
        help="convolutions factorised and rows moved, end excluded (default: 2-6, as e4e)",
    )
    sefa.add_argument(
        "--whole", action="store_true", help="rosinality's form instead: all layers, all rows"
    )
    sefa.set_defaults(run=_sefa)

    show = commands.add_parser("show", help="what a file holds; strips of pictures")
    show.add_argument("file", help="a file of directions, or portraits for the shipped ones")
    show.add_argument("--strips", type=Path, metavar="DIR", help="draw one for each direction here")
    show.add_argument("--names", type=_names, help="of the directions drawn (default: all)")
    show.add_argument(
        "--strengths", type=_numbers, default=STRENGTHS, help="of the strips (default: -2,-1,0,1,2)"
    )
    show.add_argument(
        "--people", type=_positive, default=4, help="samples below the mean code (default: 4)"
    )
    show.add_argument("--seed", type=int, default=0, help="of the samples (default: 0)")
    show.add_argument(
        "--generator", default="portraits", help="that draws the strips (default: portraits)"
    )
    show.set_defaults(run=_show)
    return parser


def _add_interfacegan(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("interfacegan", help="boundaries between high and low scores")
    _add_common(parser, finds=True)
    parser.add_argument(
        "--scorer",
        choices=SCORERS,
        default="portraits",
        help="who scores the pictures, where no --scores are given (default: portraits)",
    )
    parser.add_argument("--codes", type=Path, help="codes (N, D) or (N, L, D), a .npy file")
    parser.add_argument(
        "--scores",
        type=_scores,
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="scores of the codes, a .npy file; once for each attribute (name: the file's)",
    )
    parser.add_argument("--attributes", type=_names, help="to be found (default: all scored)")
    parser.add_argument(
        "--condition-on",
        type=_names,
        default=[],
        metavar="others|NAMES",
        help="attributes that shall stay as they are; others: all but the direction's own",
    )
    parser.add_argument(
        "--off",
        choices=["boundaries", "gradients"],
        default="boundaries",
        help="what of them is projected off: the paper's boundaries, or least-squares gradients",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="note how much each way leaks: nothing projected off, boundaries, gradients",
    )
    parser.add_argument(
        "--num-samples", type=_positive, default=50_000, help="pictures scored (default: 50000)"
    )
    parser.add_argument(
        "--share",
        type=float,
        default=SHARE,
        help=f"extremes on either side, a share or a number (default: {SHARE})",
    )
    parser.add_argument("--invalid", type=float, help="a score that marks unscored pictures")
    parser.add_argument(
        "--calibrate-on",
        type=_positive,
        default=256,
        help="codes for units and ranges, and as many for the account (default: 256)",
    )
    _add_space(parser)
    parser.set_defaults(run=_interfacegan)


def _add_sample(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("sample", help="codes and pictures, to be scored by you")
    _add_common(parser, finds=False)
    parser.add_argument("--out", type=Path, required=True, help="folder of codes.npy and pictures")
    parser.add_argument(
        "--num-samples", type=_positive, default=20_000, help="how many (default: 20000)"
    )
    _add_space(parser)
    parser.set_defaults(run=_sample)


def _add_space(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--space",
        type=LatentSpace,
        choices=list(LatentSpace),
        default=LatentSpace.W,
        help="of the codes (default: W, which separates best)",
    )
    parser.add_argument(
        "--truncation", type=float, default=1.0, help="of sampled codes (default: 1, none)"
    )


def _add_common(parser: argparse.ArgumentParser, *, finds: bool) -> None:
    parser.add_argument(
        "--generator",
        default="portraits",
        help="portraits, or a native or official generator file (default: portraits)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps (default: cpu)")
    if finds:
        parser.add_argument(
            "--out", type=Path, required=True, help="the .safetensors file to write"
        )
        parser.add_argument("--card", type=Path, help="a Markdown card to write beside it")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r}, expected names such as smile,age")
    return names


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}, expected numbers as -2,0,2") from error


def _layers(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,3})-(\d{1,3})", text)
    if not match or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r}, expected first-end (end excluded) as 2-6")
    return int(match[1]), int(match[2])


def _scores(text: str) -> tuple[str, Path]:
    name, sign, path = text.partition("=")
    return (name, Path(path)) if sign and name and path else (Path(text).stem, Path(text))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a positive number")
    return int(text)


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
