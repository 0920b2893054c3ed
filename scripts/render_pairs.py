"""Pairs (G(w), w) for the aligner, rendered once into shards; see --help."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import clcae
from clcae.data.pairs import generated_pairs, render_shard
from clcae.data.transforms import at_input_size
from clcae.files import replacing
from clcae.ops.memory import keep_freed_memory

NAME = "render_pairs.py"
EXAMPLES = """
examples:
  python scripts/render_pairs.py --generator portraits --count 2000 --size 64 --out pairs
      2,000 pairs of the embedded generator
  python scripts/render_pairs.py --generator stylegan2-ffhq-config-f.pt --out pairs/ffhq
      as many as CLCAE's aligner was trained on, 100,000 at 256 x 256; then add
      +data@stages.aligner.task.pairs=rendered_pairs stages.aligner.task.pairs.root=pairs/ffhq

The same command again goes on where it stopped. Without rendered pairs, training draws them anew
in every step.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, or 1 where it failed with one line on stderr. SystemExit 2: usage."""
    options = _parser().parse_args(arguments)
    try:
        _render(options)
    except (ValueError, OSError) as error:
        print(f"{NAME}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _render(options: argparse.Namespace) -> None:
    settings = {
        "generator": Path(options.generator).name,
        "count": options.count,
        "size": list(options.size),
        "shard": options.shard,
        "seed": options.seed,
        "truncation": options.truncation,
    }
    _claim(options.out, settings)
    generator = clcae.load_generator(options.generator).to(options.device)
    if max(options.size) > generator.resolution:
        raise ValueError(
            f"--size is {max(options.size)}, the generator's pictures are {generator.resolution}"
        )
    starts = range(0, options.count, options.shard)
    for index in tqdm(range(len(starts)), unit="shard", disable=None):
        path = options.out / f"pairs_{index:05d}.safetensors"
        if path.is_file():  # complete, since it got its name at the end
            continue
        rng = torch.Generator().manual_seed(options.seed * 1_000_003 + index)

        def draw(count: int, rng: torch.Generator = rng) -> tuple[Tensor, Tensor]:
            images, w = generated_pairs(
                generator,
                count=count,
                rng=rng,
                truncation=options.truncation,
                device=options.device,
            )
            return at_input_size(images, options.size), w

        count = min(options.shard, options.count - starts[index])
        render_shard(path, draw, count=count, at_once=generator.at_once)
    print(f"{options.count} pairs in {len(starts)} shards: {options.out}")


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Writes down what the folder holds, or checks that it is what is asked for."""
    path = folder / "pairs.json"
    if path.is_file():
        found = json.loads(path.read_text())
        if found != settings:
            other = sorted(key for key in settings if found.get(key) != settings[key])
            raise ValueError(
                f"{folder} holds pairs of other settings ({', '.join(other)}): "
                "give another --out, or the same settings to go on"
            )
        return
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(settings, indent=2) + "\n")


def _size(text: str) -> tuple[int, int]:
    sides = [int(side) for side in text.split("x") if side.isdecimal()]
    if len(sides) != text.count("x") + 1 or not 1 <= len(sides) <= 2 or min(sides) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size, expected 256 or 192x256")
    return sides[0], sides[-1]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a positive number")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Renders pairs of a generator's pictures and their codes w into shards, from "
        "which the contrastive aligner can be trained.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--generator", required=True, help="portraits, or a native or official generator file"
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder of the shards")
    parser.add_argument("--count", type=_positive, default=100_000, help="pairs (default: 100000)")
    parser.add_argument(
        "--size",
        type=_size,
        default=(256, 256),
        help="of the pictures: 256, 192x256 (default: 256)",
    )
    parser.add_argument(
        "--shard", type=_positive, default=1000, help="pairs in a file (default: 1000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    parser.add_argument(
        "--truncation", type=float, default=1.0, help="of the codes (default: 1, none)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps (default: cpu)")
    return parser


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
