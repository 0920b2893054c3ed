"""Renders pairs (G(w), w) for the aligner into shards; see --help."""

from clcae.command import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import clcae
from clcae.command import claim, make_parser, positive, run_command
from clcae.data.pairs import generated_pairs, render_shard, shard_digest
from clcae.data.transforms import at_input_size
from clcae.ops.memory import keep_freed_memory
from clcae.photographs.results import shared
from clcae.serialization import settings_digest
from clcae.stylegan2 import Generator
from clcae.weight_file import weights_digest

NAME = "render_pairs.py"
EXAMPLES = """
examples:
  python scripts/render_pairs.py --generator portraits --count 2000 --size 64 --out pairs
      2,000 pairs of the embedded generator
  python scripts/render_pairs.py --generator stylegan2-ffhq-config-f.pt --out pairs/ffhq
      as many as CLCAE's aligner was trained on, 100,000 at 256 x 256; then add
      +data@stages.aligner.task.pairs=rendered_pairs stages.aligner.task.pairs.root=pairs/ffhq

The same command again goes on where it stopped; shards of another generator of that name are made
anew. Without rendered pairs, training draws them anew in every step.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, or 1 where it failed with one line on stderr. SystemExit 2: usage."""
    options = _parser().parse_args(arguments)
    return run_command(NAME, lambda: _render(options), resumable=True)


def _render(options: argparse.Namespace) -> None:
    settings = {
        "generator": Path(options.generator).name,
        "count": options.count,
        "size": list(options.size),
        "shard": options.shard,
        "seed": options.seed,
        "truncation": options.truncation,
    }
    generator = clcae.load_generator(options.generator)
    # Beside the settings in every shard: another generator may have the same file name.
    made_with = {**settings, "built": settings_digest(generator)}
    made_with["weights"] = weights_digest(generator)
    digest = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()
    claim(options.out / "pairs.json", settings)
    generator = generator.to(options.device)
    if max(options.size) > generator.resolution:
        raise ValueError(
            f"--size is {max(options.size)}, the generator's pictures are {generator.resolution}"
        )
    with shared(options.out):
        _render_shards(generator, options, digest)


def _render_shards(generator: Generator, options: argparse.Namespace, digest: str) -> None:
    starts = range(0, options.count, options.shard)
    paths = [options.out / f"pairs_{index:05d}.safetensors" for index in range(len(starts))]
    made = [shard_digest(path) if path.is_file() else digest for path in paths]
    if others := sum(each != digest for each in made):
        print(f"{others} earlier shards are made anew: no record says they are of this generator")
    for index in tqdm(range(len(starts)), unit="shard", disable=None):
        path = paths[index]
        if path.is_file() and made[index] == digest:
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
        render_shard(path, draw, count=count, at_once=generator.at_once, digest=digest)
    print(f"{options.count} pairs in {len(starts)} shards: {options.out}")


def _size(text: str) -> tuple[int, int]:
    sides = [int(side) for side in text.split("x") if side.isdecimal()]
    if len(sides) != text.count("x") + 1 or not 1 <= len(sides) <= 2 or min(sides) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size, expected 256 or 192x256")
    return sides[0], sides[-1]


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        NAME,
        description="Renders pairs of a generator's pictures and their codes w into shards, from "
        "which the contrastive aligner can be trained.",
        examples=EXAMPLES,
    )
    add = parser.add_argument
    add("--generator", required=True, help="portraits, or a native or official file")
    add("--out", type=Path, required=True, help="folder of the shards")
    add("--count", type=positive, default=100_000, help="pairs")
    add("--size", type=_size, default="256", help="of the pictures: 256, 192x256")
    add("--shard", type=positive, default=1000, help="pairs in a file")
    add("--seed", type=int, default=0, help="of all random draws")
    add("--truncation", type=float, default=1.0, help="of the codes; 1 is none")
    add("--device", default="cpu", help="cpu, cuda, mps")
    return parser


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
