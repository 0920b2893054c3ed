"""Measures what edits change and what they spoil, on portraits; see --help."""

from clcae.command import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from clcae import load_method
from clcae.command import make_parser, numbers, positive, run_command
from clcae.evaluation.edit_quality import PROTOCOL, EditRow, Judgement, measure_edits
from clcae.evaluation.rows import software_versions
from clcae.files import replacing, write_text
from clcae.methods.foundation import FoundationInversion
from clcae.methods.interface import Inversion, InversionMethod
from clcae.ops.memory import keep_freed_memory
from clcae.portraits import ATTRIBUTES, PortraitImages
from clcae.pretrained.assets import portraits_judges
from editing import Direction, edit_inversion, load_directions

NAME = "edit_quality.py"
EXAMPLES = """
examples:
  python scripts/edit_quality.py --out runs/edits
      the shipped CLCAE and directions: W, W+ and F, edited by both rules
  python scripts/edit_quality.py --method runs/mine/clcae.safetensors --out runs/edits_of_mine
  python scripts/edit_quality.py --strengths=-1,0,1 --num-images 64 --out runs/quick

writes edits.json (every number), edits.md (one unit of every direction) and edits.png (identity
kept against attribute change, a curve for every space and rule)
"""
MARKERS = "osv^DPX*"
STRENGTHS = "-3,-2,-1,-0.5,0,0.5,1,2,3"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, or 1 where it failed with one line on stderr. SystemExit 2: usage."""
    options = _parser().parse_args(arguments)
    return run_command(NAME, lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    method = load_method(options.method)
    if method.image_shape != (64, 64):
        raise ValueError(
            f"{options.method} reads {method.image_shape}; portraits and their judges are 64x64"
        )
    directions = load_directions(options.directions)
    known = {name: direction for name, direction in directions.items() if name in ATTRIBUTES}
    rows = _measured(method, known, options)
    _write(rows, options)
    print(_table(rows), f"\nwritten: {options.out}/edits.json, edits.md, edits.png", sep="")


def _measured(
    method: InversionMethod, directions: dict[str, Direction], options: argparse.Namespace
) -> list[EditRow]:
    source = PortraitImages(split="test", cache=options.cache, num_people=options.num_images)
    judges = portraits_judges()

    def judge(images: Tensor) -> Judgement:
        images = images.clamp(-1, 1)
        return Judgement(judges.attributes(images), judges.identity(images))

    with tqdm(disable=not sys.stderr.isatty(), unit="batch", desc="edits") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return measure_edits(
            _variants(method),
            source,
            directions={
                name: partial(_edited, direction=direction)
                for name, direction in directions.items()
            },
            strengths=sorted(set(options.strengths)),
            judge=judge,
            attributes=ATTRIBUTES,
            progress=progress,
        )


def _edited(
    method: InversionMethod, inversion: Inversion, strength: float, *, direction: Direction
) -> Inversion:
    return edit_inversion(method, inversion, [(direction, strength)])


def _variants(method: InversionMethod) -> dict[str, InversionMethod]:
    """Lists the method's outputs, each with every rule of editing where there are two."""
    variants: dict[str, InversionMethod] = {}
    for output in method.outputs:
        asked = method.with_output(output)
        if isinstance(asked, FoundationInversion) and output != "W":
            variants[f"{output}, refined codes"] = asked.with_rule("refined")
            variants[f"{output}, foundation code"] = asked.with_rule("foundation")
        else:
            variants[output] = asked
    return variants


def _write(rows: list[EditRow], options: argparse.Namespace) -> None:
    contents = {
        "method": options.method,
        "directions": options.directions,
        "protocol": PROTOCOL
        | {"pictures": f"the first {options.num_images} portraits of the test split"},
        "attributes": list(ATTRIBUTES),
        "versions": software_versions(),
        "rows": [asdict(row) for row in rows],
    }
    text = json.dumps(contents, indent=1).replace("NaN", "null")
    write_text(options.out / "edits.json", text + "\n")
    write_text(options.out / "edits.md", _table(rows))
    with replacing(options.out / "edits.png") as path:
        _draw(rows, path)


def _table(rows: list[EditRow]) -> str:
    """Tabulates one unit of every direction in Markdown."""
    plain = {
        (row.method, row.direction): row.identity_with_input for row in rows if row.strength == 0
    }
    lines = [
        "| space and rule | direction | change, σ | right way | leakage, σ | identity | kept |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        if row.strength != 1:
            continue
        still = plain.get((row.method, row.direction), math.nan)
        lines.append(
            f"| {row.method} | {row.direction} +1 | {row.change:+.2f} | "
            f"{row.right_way:.1%} | {row.leakage:.2f} | {row.identity:.3f} | "
            f"{row.identity_with_input / still:.3f} |"
        )
    return "\n".join(lines) + "\n"


def _draw(rows: list[EditRow], path: Path) -> None:
    """Draws a panel for every direction, a curve for every space and rule."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("curves need matplotlib: pip install -e '.[edit]'") from error
    directions = list(dict.fromkeys(row.direction for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    figure = Figure(figsize=(3.2 * len(directions), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(directions), squeeze=False, sharey=True)[0]
    for panel, direction in zip(panels, directions, strict=True):
        for index, method in enumerate(methods):
            found = [row for row in rows if (row.method, row.direction) == (method, direction)]
            found.sort(key=lambda row: row.strength)
            panel.plot(
                [row.change for row in found],
                [row.identity for row in found],
                marker=MARKERS[index % len(MARKERS)],
                markersize=4,
                label=method,
            )
        panel.set_title(direction)
        panel.set_xlabel("attribute change, standard deviations")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("identity kept (cosine)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(methods))
    figure.savefig(path, dpi=110, format="png")


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        NAME,
        description="Measures edits on held-out portraits: how far the attribute moves, whether "
        "the others stay, whether the person stays the same.",
        examples=EXAMPLES,
    )
    add = parser.add_argument
    add("--method", default="portraits/clcae", help="a file, or a shipped name")
    add("--directions", default="portraits", help="a file of directions, or portraits")
    add("--out", type=Path, required=True, help="folder of the results")
    add("--strengths", type=numbers, default=STRENGTHS, help="of every direction, in its units")
    add("--num-images", type=positive, default=256, help="test portraits")
    add("--cache", type=Path, default=Path(".cache"), help="folder that keeps drawn portraits")
    return parser


if __name__ == "__main__":
    keep_freed_memory()
    torch.set_grad_enabled(False)
    sys.exit(main())
