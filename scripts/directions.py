"""Finds directions of a generator's latent space, and shows what a file of them holds; --help."""

from clcae.command import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import clcae
from clcae.command import HelpFormatter, make_parser, names, numbers, positive, run_command, span
from clcae.device import pick_device
from clcae.ops.memory import keep_freed_memory
from clcae.stylegan2 import Generator, LatentSpace
from editing import Direction, ganspace, load_directions, official_directions, save_directions, sefa
from editing.interfacegan import SHARE, Search, find_directions, find_judged, linear_svm
from editing.report import listing, summary, write_found, write_strips
from editing.samples import parse_scores, read_samples, write_samples

NAME = "directions.py"
EXAMPLES = """
examples:
  python scripts/directions.py show portraits
      the shipped directions: units, ranges, leaks; --strips DIR draws them
  python scripts/directions.py interfacegan --attributes smile,yaw,age,glasses,beard \\
      --condition-on others --off gradients --out mine.safetensors
      how they were found, in 50,000 pictures scored by the portraits' judge
  python scripts/directions.py sample --generator ffhq.pkl --num-samples 20000 --out samples
      codes.npy and pictures of another generator, for you to score
  python scripts/directions.py interfacegan --generator ffhq.pkl --codes samples/codes.npy \\
      --scores smile=smile.npy --scores age=age.npy --condition-on others --out faces.safetensors
      from your scores, (N,) or (N, 1) in the order of the pictures; NaN drops a picture
  python scripts/directions.py sefa --generator ffhq.pkl --layers 2-6 --out sefa.safetensors
      no labels needed (nor by ganspace): look at the strips (show --strips), name what you see
  python scripts/directions.py import smile_boundary.npy --space Z+ --out smile.safetensors
      a file that does not say its latent space; moves of Z and Z+ walk on the sphere

A strength of 1 is one unit: of a judged attribute its standard deviation over samples (glasses: the
length that puts them on), else one standard deviation of the latent space along the direction.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, or 1 where it failed with one line on stderr. SystemExit 2: usage."""
    logging.basicConfig(format=f"{NAME}: %(message)s")
    options = _parser().parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else list(arguments)
    return run_command(NAME, lambda: options.run(options))


def _generator(options: argparse.Namespace) -> Generator:
    return clcae.load_generator(options.generator).to(pick_device(options.device))


def _sample(options: argparse.Namespace) -> None:
    write_samples(
        _generator(options),
        options.out,
        space=options.space,
        count=options.num_samples,
        seed=options.seed,
        truncation=options.truncation,
    )
    print(f"{options.num_samples} codes of {options.space} and their pictures: {options.out}")


def _interfacegan(options: argparse.Namespace) -> None:
    if (options.codes is None) != (not options.scores):
        raise ValueError("--codes and --scores go together: one row of scores for each code")
    linear_svm()  # says what is missing before anything is drawn
    generator = _generator(options)
    search = Search(
        space=options.space,
        conditions=None if options.condition_on == ["others"] else options.condition_on,
        off=options.off,
        share=options.share,
        invalid=options.invalid,
        seed=options.seed,
    )
    if options.codes is not None:
        samples = read_samples(options.codes, options.scores)
        found = find_directions(samples, options.attributes or list(samples.names), search)
    else:
        found = find_judged(
            generator,
            options.attributes,
            search,
            num_samples=options.num_samples,
            truncation=options.truncation,
            calibrate_on=options.calibrate_on,
            compare=options.compare,
        )
    _write(found, generator, options)


def _ganspace(options: argparse.Namespace) -> None:
    generator = _generator(options)
    sampled = {"num_samples": options.num_samples, "seed": options.seed, "space": options.space}
    pca = ganspace.components_of_generator(generator, count=options.components, **sampled)
    _write(pca.directions(layers=options.layers, semantics=options.semantics), generator, options)


def _sefa(options: argparse.Namespace) -> None:
    generator, layers = _generator(options), None if options.whole else options.layers
    found = sefa.find_directions(generator, layers=layers, count=options.components)
    _write(found, generator, options)


def _write(found: dict[str, Direction], generator: Generator, options: argparse.Namespace) -> None:
    command = f"python scripts/directions.py {' '.join(options.arguments)}"
    origin = {"command": command, "generator": Path(options.generator).name}
    write_found(found, options.out, generator, origin=origin, card_path=options.card)
    print(f"{summary(found)}\nwritten: {options.out}")


def _import(options: argparse.Namespace) -> None:
    found = official_directions(options.file, space=options.space)
    save_directions(found, options.out, provenance={"file": Path(options.file).name})
    print(f"{listing(found)}\nwritten: {options.out}")


def _show(options: argparse.Namespace) -> None:
    found = load_directions(options.file)
    print(listing(found))
    if options.strips is None:
        return
    for path in write_strips(
        options.strips,
        _generator(options),
        found,
        names=options.names or list(found),
        strengths=options.strengths,
        people=options.people,
        seed=options.seed,
    ):
        print(f"strip: {path}")


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        NAME,
        description="Finds directions for editing in a generator's latent space, with scores "
        "(InterFaceGAN) or without (GANSpace, SeFa), and shows what a file of directions holds.",
        examples=EXAMPLES,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("interfacegan", help="boundaries of high and low scores")
    add = _add_common(command, _interfacegan, samples=50_000, spaces=True, finds=True)
    add("--codes", type=Path, help="codes (N, D) or (N, L, D), a .npy file")
    add(
        "--scores",
        type=parse_scores,
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="scores of the codes, a .npy file; once for each attribute (name: the file's)",
    )
    add("--attributes", type=names, help="to find (default: all scored)")
    add(
        "--condition-on",
        type=names,
        default=[],
        metavar="others|NAMES",
        help="attributes to keep unchanged; others: all but the direction's own",
    )
    add(
        "--off",
        choices=["boundaries", "gradients"],
        default="boundaries",
        help="project off their boundaries, as the paper, or their least-squares gradients",
    )
    add("--compare", action="store_true", help="measure the leaks of all ways to project off")
    add("--share", type=float, default=SHARE, help="extremes on either side, share or number")
    add("--invalid", type=float, help="score that marks unscored pictures")
    add("--calibrate-on", type=positive, default=256, help="for units and leaks; 32 is quick")

    command = commands.add_parser("sample", help="codes and pictures, for you to score")
    add = _add_common(command, _sample, samples=20_000, spaces=True)
    add("--out", type=Path, required=True, help="folder of codes.npy and pictures")

    command = commands.add_parser("ganspace", help="principal components of W")
    add = _add_common(command, _ganspace, samples=1_000_000, finds=True)
    add("--components", type=positive, default=10, help="how many directions")
    add("--space", type=LatentSpace, choices=["W", "Z"], default="W", help="Z: fitted to W's")
    add("--layers", type=span, help="rows to move, as 2-6, end excluded (default: all)")
    add(
        "--semantics",
        choices=["increment", "coordinate"],
        default="increment",
        help="add standard deviations, or bring the code to that coordinate",
    )

    command = commands.add_parser("sefa", help="closed form, from the modulation weights")
    add = _add_common(command, _sefa, finds=True)
    add("--components", type=positive, default=10, help="how many directions")
    add("--layers", type=span, default="2-6", help="convolutions, end excluded")
    add("--whole", action="store_true", help="rosinality's form: all layers, all rows")
    add("--space", choices=["W"], help="W alone, since the weights read w and never z")

    command = commands.add_parser("import", help="an official file to a native one, of any space")
    command.set_defaults(run=_import)
    command.add_argument("file", help="an official file of directions")
    command.add_argument("--space", type=LatentSpace, choices=list(LatentSpace), help="of the file")
    command.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")

    command = commands.add_parser("show", help="contents of a file; strips of pictures")
    add = _add_common(command, _show)
    add("file", help="a file of directions, or portraits for the shipped ones")
    add("--strips", type=Path, metavar="DIR", help="folder to draw a strip of each direction in")
    add("--names", type=names, help="directions to draw (default: all)")
    add("--strengths", type=numbers, default="-2,-1,0,1,2", help="of the strips")
    add("--people", type=positive, default=4, help="samples below the mean code")
    return parser


def _add_common(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], None],
    *,
    samples: int | None = None,  # default of --num-samples; None leaves the option out
    spaces: bool = False,
    finds: bool = False,
) -> Callable[..., argparse.Action]:
    """Adds the options that several subcommands share; returns the method that adds more."""
    parser.set_defaults(run=run)
    parser.formatter_class = HelpFormatter
    add = parser.add_argument
    add("--generator", default="portraits", help="portraits, or a native or official file")
    add("--seed", type=int, default=0, help="of all random draws")
    add("--device", default="cpu", help="auto (a GPU if there is one), cpu, cuda, mps")
    if samples is not None:
        add("--num-samples", type=positive, default=samples, help="codes to draw")
    if spaces:
        add("--space", type=LatentSpace, choices=list(LatentSpace), default="W", help="of codes")
        add("--truncation", type=float, default=1.0, help="of sampled codes; 1 is none")
    if finds:
        add("--out", type=Path, required=True, help="the .safetensors file to write")
        add("--card", type=Path, help="a Markdown card to write beside it")
    return add


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
