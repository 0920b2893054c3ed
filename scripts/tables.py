"""Tables by name, from the runs of this machine; see --help."""

import argparse
import csv
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from clcae.evaluation.repeats import Runs, difference, spaces, spread
from clcae.evaluation.results import read_rows

NAME = "tables.py"
TABLES = Path(__file__).resolve().parents[1] / "configs" / "table"
EXAMPLES = """
examples:
  python scripts/tables.py portraits_ablation
      mean ± standard deviation over the seeds, then the differences from the full run, seed by seed
  python scripts/tables.py portraits_ablation --format latex > ablation.tex

tables (configs/table; each names the command that makes its runs):
"""

Line = list[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, or 1 where it failed with one line on stderr. SystemExit 2: usage."""
    options = _parser().parse_args(arguments)
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(TABLES / f"{options.name}.yaml"))
        found = {
            variant: _runs(options.runs, config["runs"].format(variant=variant))
            for variant in config["variants"]
        }
        absent = [variant for variant, runs in found.items() if not runs]
        if len(absent) == len(found):
            raise FileNotFoundError(
                f"{options.runs} holds no finished run of this table; make them with the command "
                f"that heads {TABLES.name}/{options.name}.yaml"
            )
        present = {variant: runs for variant, runs in found.items() if runs}
        texts = [_values(present, config)]
        if config["reference"] in present and len(present) > 1:
            texts.append(_differences(present, config))
    except (ValueError, OSError) as error:
        print(f"{NAME}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print("\n".join(FORMATS[options.format](*text) for text in texts))
    for variant in absent:
        print(f"{NAME}: no finished run of {variant} yet", file=sys.stderr)
    return 0


def _runs(folder: Path, pattern: str) -> Runs:
    """seed -> rows of every finished run whose folder fits."""
    runs = {}
    for path in sorted(folder.glob(f"{pattern}/table.json")):
        match = re.search(r"seed(\d+)$", path.parent.name)
        if match:
            runs[match[1]] = read_rows(path)
    return runs


def _values(present: dict[str, Runs], config: dict[str, Any]) -> tuple[str, Line, list[Line]]:
    decimals = config["decimals"]
    lines = []
    for variant, runs in present.items():
        for space in spaces(runs):
            cells = [
                spread(runs, space=space, metric=metric).text(places)
                for metric, places in decimals.items()
            ]
            lines.append([config["variants"][variant], space, str(len(runs)), *cells])
    return config["title"], ["method", "space", "seeds", *decimals], lines


def _differences(present: dict[str, Runs], config: dict[str, Any]) -> tuple[str, Line, list[Line]]:
    decimals, reference = config["decimals"], config["reference"]
    lines = []
    for variant, runs in present.items():
        if variant == reference:
            continue
        for space in spaces(runs):
            cells = [
                difference(runs, present[reference], space=space, metric=metric).text(
                    places, signed=True
                )
                for metric, places in decimals.items()
            ]
            lines.append([config["variants"][variant], space, *cells])
    title = f"Difference from {config['variants'][reference]} of the same seed"
    return title, ["method", "space", *decimals], lines


def _markdown(title: str, head: Line, lines: list[Line]) -> str:
    rule = ["---"] * 2 + ["---:"] * (len(head) - 2)
    drawn = "".join(f"| {' | '.join(line)} |\n" for line in [head, rule, *lines])
    return f"{title}\n\n{drawn}"


def _latex(title: str, head: Line, lines: list[Line]) -> str:
    rows = "".join(" & ".join(map(_escaped, line)) + " \\\\\n" for line in lines)
    top = " & ".join(map(_escaped, head)) + " \\\\\n"
    columns = "ll" + "r" * (len(head) - 2)
    return (
        f"% {title}; needs booktabs\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{top}\\midrule\n"
        f"{rows}\\bottomrule\n\\end{{tabular}}\n"
    )


def _escaped(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text).replace("±", "$\\pm$")


def _csv(title: str, head: Line, lines: list[Line]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *lines])
    return text.getvalue()


FORMATS = {"markdown": _markdown, "latex": _latex, "csv": _csv}


def _parser() -> argparse.ArgumentParser:
    names = sorted(path.stem for path in TABLES.glob("*.yaml"))
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Prints a table by name.",
        epilog=EXAMPLES + "\n".join(f"  {name}" for name in names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument(
        "--format", choices=sorted(FORMATS), default="markdown", help="default: markdown"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of the runs (default: runs)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
