"""Draws a sheet of true edits: input, the edit at every step, and where it changes; see --help."""

from clcae.command import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from clcae.command import make_parser, run_command
from clcae.images import labelled_grid, write_png
from clcae.portraits import TrueEditImages

NAME = "draw_true_edits.py"
EXAMPLES = """examples:
  python scripts/draw_true_edits.py
      the sheet of the documentation, docs/true_edits.png
  python scripts/draw_true_edits.py --person 3 --out other.png
"""


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, or 1 where it failed with one line on stderr. SystemExit 2: usage."""
    parser = make_parser(
        NAME,
        description="Draws a sheet of true edits of the embedded portraits: the input, the same "
        "portrait with one attribute moved by every step, where the largest step changes pixels, "
        "and where details show after it.",
        examples=EXAMPLES,
    )
    parser.add_argument("--person", type=int, default=14, help="which of the people of each edit")
    parser.add_argument("--out", type=Path, default=Path("docs/true_edits.png"), help="PNG file")
    options = parser.parse_args(arguments)

    def work() -> None:
        if options.person < 0:
            raise ValueError(f"--person is {options.person}: expected 0 or more")
        write_png(draw(options.person, num_people=options.person + 1), options.out)

    return run_command(NAME, work)


if __name__ == "__main__":
    sys.exit(main())
