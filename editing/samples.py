"""Codes with the scores of their pictures: drawn and judged here, or read from arrays."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from clcae.arrays import read_npy
from clcae.data.transforms import at_input_size
from clcae.files import replacing
from clcae.images import write_png
from clcae.pretrained.assets import portraits_judges
from clcae.stylegan2 import Generator, LatentSpace, normalize_z

Judge = Callable[[Tensor], Tensor]  # images [N, 3, H, W] in [-1, 1] -> [N, A]


@dataclass(frozen=True, eq=False)
class Attribute:
    """One attribute of a judge."""

    name: str
    column: int  # of the judge's scores
    deviation: float  # its standard deviation over samples
    binary: bool  # a probability: the pictures lie on either side of 0.5


@dataclass(frozen=True, eq=False)
class Samples:
    """Codes and the scores of their pictures.

    Raises:
        ValueError: if scores and codes differ in number, or two attributes share a name.
    """

    codes: Tensor  # [N, D], or rows [N, L, D]
    scores: Tensor  # [N, A]
    names: Sequence[str]  # of the columns
    binary: Sequence[str] = ()  # those that are probabilities

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.codes), len(self.names)):
            raise ValueError(
                f"codes {tuple(self.codes.shape)} and scores {tuple(self.scores.shape)} of "
                f"{len(self.names)} attributes: expected as many scores as codes"
            )
        if repeated := {name for name in self.names if list(self.names).count(name) > 1}:
            raise ValueError(f"attributes are named twice: {', '.join(sorted(repeated))}")

    def column(self, name: str) -> int:
        """Returns the column of an attribute. Raises ValueError if there is none."""
        check_attributes([name], self.names)
        return list(self.names).index(name)

    def attribute(self, name: str) -> Attribute:
        """Describes an attribute, with its deviation over the samples whose score is finite."""
        column = self.column(name)
        values = self.scores[:, column].double()
        deviation = float(values[values.isfinite()].std())
        return Attribute(name=name, column=column, deviation=deviation, binary=name in self.binary)


def check_attributes(wanted: Sequence[str], known: Sequence[str]) -> None:
    """Raises ValueError if an attribute is unknown, with those there are."""
    for name in wanted:
        if name not in known:
            raise ValueError(f"there is no attribute {name!r}; there are: {', '.join(known)}")


def sample_codes(
    generator: Generator,
    *,
    space: LatentSpace,
    count: int,
    rng: torch.Generator,
    truncation: float = 1.0,
) -> Tensor:
    """Draws codes of a latent space: [N, D], or [N, L, D] for W+ and Z+.

    Args:
        generator: whose latent space it is.
        space: Z and Z+ are brought to the sphere of radius sqrt(D); W and W+ are mapped.
        count: N.
        rng: source of all draws, on the CPU.
        truncation: psi, of W and W+; 1 changes nothing.

    Raises:
        ValueError: if truncation is no number, or codes of Z are to be truncated.
    """
    if not math.isfinite(truncation) or (truncation != 1 and not space.is_mapped):
        raise ValueError(
            f"truncation is {truncation} for codes of {space}: expected a number, and 1 for codes "
            "of Z and Z+, which have no mean to be drawn to"
        )
    shape = (count, generator.num_codes) if space.has_rows else (count,)
    z = torch.randn(*shape, generator.z_dim, generator=rng).to(generator.w_average)
    if not space.is_mapped:
        return normalize_z(z)
    with torch.no_grad():
        return generator.map(z, truncation=truncation)


@torch.no_grad()
def draw(
    generator: Generator,
    *,
    space: LatentSpace,
    count: int,
    seed: int = 0,
    truncation: float = 1.0,
    batch: int = 256,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draws codes and synthesizes their pictures, batch by batch.

    The same seed gives the same codes with the same `batch` (pictures at once, fewer where they are
    large). `truncation` is psi, of W and W+.

    Yields:
        Codes [N, D] or [N, L, D] on the CPU, and pictures [N, 3, H, W], not clamped.
    """
    rng = torch.Generator().manual_seed(seed)
    step = min(generator.at_once, batch)
    with tqdm(total=count, unit="picture", disable=None) as bar:
        for first in range(0, count, step):
            size = min(step, count - first)
            codes = sample_codes(generator, space=space, count=size, rng=rng, truncation=truncation)
            latent = codes if space.is_mapped else generator.map(codes)
            yield codes.cpu(), generator.synthesize(latent)
            bar.update(size)


def write_samples(
    generator: Generator,
    folder: Path,
    *,
    space: LatentSpace,
    count: int,
    seed: int,
    truncation: float,
) -> None:
    """Draws samples and writes pictures/000000.png, ..., then codes.npy, to be scored elsewhere.

    Arguments are those of `draw`.

    Raises:
        ValueError: if the folder has codes already.
    """
    codes_file = folder / "codes.npy"
    if codes_file.exists():
        raise ValueError(f"{codes_file} is there already: give another --out")
    parts, index = [], 0
    for codes, pictures in draw(
        generator, space=space, count=count, seed=seed, truncation=truncation, batch=64
    ):
        parts.append(codes)
        for picture in pictures.cpu():
            write_png(picture, folder / "pictures" / f"{index:06d}.png")
            index += 1
    with replacing(codes_file) as unfinished, unfinished.open("wb") as file:
        np.save(file, torch.cat(parts).numpy())


def parse_scores(text: str) -> tuple[str, Path]:
    """Parses NAME=FILE for `read_samples`; a file alone has its own name, without the suffix."""
    name, _, path = text.partition("=")
    return (name, Path(path)) if name and path else (Path(text).stem, Path(text))


def read_samples(codes: Path, scores: Sequence[tuple[str, Path]]) -> Samples:
    """Reads samples as InterFaceGAN takes them: codes (N, D) or (N, L, D), scores (N,) or (N, 1).

    NaN marks a score that is missing.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file holds something else, or scores and codes differ in number.
    """
    values = torch.from_numpy(np.array(read_npy(codes), dtype=np.float32))
    columns = []
    for name, path in scores:
        column = np.array(read_npy(path), dtype=np.float32)
        if column.shape not in ((len(values),), (len(values), 1)):
            raise ValueError(
                f"{path}: scores of {name} have shape {column.shape}, expected ({len(values)},) or "
                f"({len(values)}, 1), one for each code"
            )
        columns.append(torch.from_numpy(column.reshape(-1)))
    return Samples(values, torch.stack(columns, dim=1), [name for name, _ in scores])


def portraits_scorer(generator: Generator) -> tuple[Judge, Judge]:
    """Builds the portraits judges for a generator: attributes [N, 8] and identity [N, D].

    Larger pictures are averaged to the size that the judges read. The judges move to the
    generator's device.

    Raises:
        ValueError: if the generator's pictures are smaller than what the judges read.
    """
    judges = portraits_judges().to(generator.w_average.device)
    side = judges.attributes.size
    if generator.resolution < side:
        raise ValueError(
            f"the generator's pictures are {generator.resolution} pixels, the portraits scorer "
            f"reads {side}: score pictures of your own (sample, then --codes and --scores)"
        )

    def sized(images: Tensor) -> Tensor:
        return images if images.shape[-1] == side else at_input_size(images, (side, side))

    return (
        lambda images: judges.attributes(sized(images)),
        lambda images: judges.identity(sized(images)),
    )
