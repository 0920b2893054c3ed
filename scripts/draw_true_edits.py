"""Draws true edits: a sheet, methods beside them, curves over the strength, far edits; --help."""

from clcae.command import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from clcae.command import make_parser, positive, run_command
from clcae.command import names as names_of
from clcae.evaluation.rows import read_rows
from clcae.images import labelled_grid, read_image, write_png
from clcae.methods.optimization import Optimization
from clcae.portraits import TRUE_EDITS, TrueEditImages
from clcae.pretrained.assets import SHIPPED, portraits_generator
from clcae.pretrained.loading import load_base_code
from clcae.tables.figures import true_edit_curves, write_figure
from clcae.tables.pooled import curves_of
from editing import edit_inversion, load_directions

NAME = "draw_true_edits.py"
EXAMPLES = """examples:
  python scripts/draw_true_edits.py
      the sheet of the documentation, docs/true_edits.png
  python scripts/evaluate.py data=portraits_true_edits protocol=true_edits save=sheets
  python scripts/draw_true_edits.py --beside "CLCAE F=sheets/F" --out beside.png
      edits of methods beside the true ones, at equal change, from the sheets that evaluate.py saved
  python scripts/evaluate.py data=portraits_true_edits protocol=true_edits_curve results=curve.jsonl
  python scripts/draw_true_edits.py --curves curve.jsonl --out curves.png
      distance to the true edit while edits grow, a curve for each row of the file; --images and
      --only choose among the rows of a comparison, and seeds are drawn as their mean
  python scripts/draw_true_edits.py --far yaw+,smile+,glasses+ --person 9 --out far.png
      edits up to three times the range of their directions, in W+, Z+, F/W+ and F/Z+ by a search of
      codes; codes of Z walk on their sphere; with --base-code FILE the feature begins at what
      +experiment=portraits_base_code has learned, and is held near it
"""
SHEET = Path("docs/true_edits.png")
FAR_SPACES, FARTHEST = ("W+", "Z+", "F/W+", "F/Z+"), 3  # times the range of a direction
COLUMNS = ("input", "unedited", "edited", "ceiling", "true edit")  # of a sheet of evaluate.py


def draw(person: int, *, num_people: int) -> torch.Tensor:
    """Draws one sheet [3, H, W]: a row for each edit, shown on one of the people it is made of."""
    source = TrueEditImages(num_people=num_people)
    most = max(len(edit.steps) for edit in source.edits.values())
    blank = torch.ones(3, source.size, source.size)
    rows = []
    for name, edit in source.edits.items():
        pairs = source.pairs([source.rows(name, step)[person] for step in edit.steps])
        missing = most - len(edit.steps)
        mask = pairs.changed[-1].float().mul(2).sub(1).expand(3, -1, -1)
        details = pairs.edited_details[-1].any(dim=0).float().mul(2).sub(1).expand(3, -1, -1)
        rows.append([pairs.images[0], *pairs.edited, *[blank] * missing, mask, details])
    headings = ["input", *(f"step {number + 1}" for number in range(most)), "changed", "details"]
    columns = {
        heading: torch.stack([row[number] for row in rows])
        for number, heading in enumerate(headings)
    }
    labels = [
        f"{name}  " + " ".join(f"{abs(step):g}" for step in edit.steps)
        for name, edit in source.edits.items()
    ]
    return labelled_grid(columns, scale=2, row_labels=labels)


def draw_beside(folders: dict[str, Path], person: int) -> torch.Tensor:
    """Draws methods beside the true edits [3, H, W], from sheets of evaluate.py.

    Raises:
        FileNotFoundError: if a folder has no sheet of the person.
        ValueError: if a picture is no such sheet, or sheets are of different edits or sizes.
    """
    columns: dict[str, torch.Tensor] = {}
    for name, folder in folders.items():
        path = folder / "edits" / f"{person:05d}.png"
        if not path.is_file():
            raise FileNotFoundError(_missing(folder, person))
        sheet = read_image(path)
        side = max(sheet.shape[2] // len(COLUMNS), 1)
        if sheet.shape[1] % side or sheet.shape[2] % len(COLUMNS):
            raise ValueError(f"{path}: not a sheet of evaluate.py with protocol=true_edits")
        cells = sheet.unfold(1, side, side).unfold(2, side, side)  # [3, E, 5, side, side]
        made = dict(zip(COLUMNS, cells.permute(2, 1, 0, 3, 4), strict=True))
        columns |= {key: made[key] for key in ("input", "true edit") if key not in columns}
        if any(not torch.equal(made[key], columns[key]) for key in ("input", "true edit")):
            raise ValueError(f"{path}: its portraits or edits are other than those of the first")
        columns[name] = made["edited"]
    count = len(columns["input"])
    labels = [*TRUE_EDITS] if count == len(TRUE_EDITS) else [f"edit {n + 1}" for n in range(count)]
    return labelled_grid(columns, scale=2, row_labels=labels)


def draw_far(
    names: Sequence[str], person: int, *, steps: int, base_code: Path | None = None
) -> torch.Tensor:
    """Draws edits far beyond the range of their directions, a row for each edit and space.

    Raises:
        ValueError: if no true edit is called so, or the file holds no base-code encoder.
    """
    shares = range(-FARTHEST, FARTHEST + 1)
    source = TrueEditImages(num_people=person + 1)
    method = Optimization(
        generator=portraits_generator(),
        output="W+",
        outputs=FAR_SPACES,
        steps=steps,
        base_code=None if base_code is None else load_base_code(base_code),
        weights={"pixel": 1.0} | ({} if base_code is None else {"feature": 1.0}),
    )
    if wrong := [name for name in names if name not in source.edits]:
        raise ValueError(f"--far is {wrong[0]!r}: expected some of {', '.join(source.edits)}")
    columns: dict[str, list[torch.Tensor]] = {"input": [], "true edit": []}
    columns |= {f"{share:+d} x range" if share else "inversion": [] for share in shares}
    labels = []
    for name in names:
        edit = source.edits[name]
        pair = source.pairs([source.rows(name, edit.steps[-1])[person]])
        for space in FAR_SPACES:
            own = method.with_output(space)
            inversion = own.invert(pair.images)
            file = SHIPPED if inversion.space.is_mapped else f"{SHIPPED}/directions_z"
            direction = load_directions(file)[edit.attribute]
            least, most = direction.strengths
            moved = [
                edit_inversion(own, inversion, [(direction, s * (most if s > 0 else -least))])
                for s in shares
            ]
            row = [pair.images, pair.edited, *(own.synthesize(one).clamp(-1, 1) for one in moved)]
            for column, picture in zip(columns.values(), row, strict=True):
                column.append(picture[0])
            labels.append(f"{name} {space}")
    return labelled_grid(
        {key: torch.stack(column) for key, column in columns.items()}, scale=2, row_labels=labels
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, or 1 where it failed with one line on stderr. SystemExit 2: usage."""
    parser = make_parser(
        NAME,
        description="Draws a sheet of true edits of the embedded portraits: the input, the same "
        "portrait with one attribute moved by every step, where the largest step changes pixels, "
        "and where details show after it. Or edits of methods beside the true ones, curves, or "
        "edits that go far.",
        examples=EXAMPLES,
    )
    add = parser.add_argument
    add("--person", type=int, default=14, help="which of the people of each edit")
    add(
        "--beside",
        type=_named,
        action="append",
        metavar="NAME=FOLDER",
        help="heading of a method, and its folder below save=, as sheets/W+; may be repeated",
    )
    add("--curves", type=Path, metavar="ROWS", help="rows of protocol=true_edits_curve")
    add("--images", metavar="LIST", help="with --curves: the rows of this list of images alone")
    add(
        "--only",
        action="append",
        default=[],
        metavar="METHOD",
        help='with --curves: rows alone whose method and space begin so, as "e4e W+"; repeatable',
    )
    add("--far", type=names_of, metavar="EDITS", help="true edits, each to be made far")
    add("--steps", type=positive, default=200, help="of the search of codes, with --far")
    add("--base-code", type=Path, metavar="FILE", help="with --far: where F begins, and its anchor")
    add("--out", type=Path, help=f"PNG file; {SHEET} if neither of the other pictures is asked for")
    options = parser.parse_args(arguments)
    asked = [one for one in ("beside", "curves", "far") if getattr(options, one)]
    if len(asked) > 1:
        parser.error(f"--{asked[0]} and --{asked[1]} are two pictures: give one of them")
    for name, given, needed in (
        ("images", options.images, options.curves),
        ("only", options.only, options.curves),
        ("base-code", options.base_code, options.far),
    ):
        if given and not needed:
            parser.error(f"--{name} is for --{'far' if name == 'base-code' else 'curves'}")
    if asked and not options.out:
        parser.error(f"--{asked[0]} needs --out FILE")
    out = options.out or SHEET

    def work() -> None:
        if options.person < 0:
            raise ValueError(f"--person is {options.person}: expected 0 or more")
        names = [name for name, _ in options.beside or ()]
        if wrong := [n for n in names if n in ("input", "true edit") or names.count(n) > 1]:
            raise ValueError(f"--beside names {wrong[0]!r} twice, or it is a column of every sheet")
        if options.curves:
            rows = read_rows(options.curves)
            rows = curves_of(rows, images=options.images, begin=options.only)
            figure = true_edit_curves(rows, edits=["", *TRUE_EDITS])
            write_figure(figure, out)
        elif options.beside:
            write_png(draw_beside(dict(options.beside), options.person), out)
        elif options.far:
            given = {"steps": options.steps, "base_code": options.base_code}
            write_png(draw_far(options.far, options.person, **given), out)
        else:
            write_png(draw(options.person, num_people=options.person + 1), out)
        print(out)

    return run_command(NAME, work)


def _missing(folder: Path, person: int) -> str:
    """Says why a folder has no sheet of a person: there are other people, or it holds spaces."""
    if people := sorted(folder.glob("edits/*.png")):
        first, last = (int(sheet.stem) for sheet in (people[0], people[-1]))
        return f"{folder} has no person {person}: it has {first} to {last} (--person)"
    if spaces := sorted(path.parent for path in folder.glob("*/edits")):
        return f"{folder} holds a folder for each space: expected {' or '.join(map(str, spaces))}"
    return f"{folder} holds no edits: expected a folder of evaluate.py save=FOLDER, as FOLDER/W+"


def _named(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=FOLDER")
    return name, Path(folder)


if __name__ == "__main__":
    sys.exit(main())
