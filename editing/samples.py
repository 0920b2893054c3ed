"""Codes with the scores of their pictures: drawn and judged here, or given as arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clcae.data.transforms import at_input_size
from clcae.pretrained.assets import portraits_judges
from clcae.stylegan2 import Generator, LatentSpace
from editing.arrays import read_npy
from editing.calibration import Attribute, Judge
from editing.interfacegan import scored_samples


@dataclass(frozen=True, eq=False)
class Samples:
    """Codes with what a judge says of their pictures."""

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
        """Where an attribute stands. Raises ValueError naming those there are."""
        if name not in self.names:
            raise ValueError(f"there is no attribute {name!r}; there are: {', '.join(self.names)}")
        return list(self.names).index(name)

    def attribute(self, name: str) -> Attribute:
        """The attribute with its deviation over the samples whose score is finite."""
        column = self.column(name)
        values = self.scores[:, column].double()
        deviation = float(values[values.isfinite()].std())
        return Attribute(name=name, column=column, deviation=deviation, binary=name in self.binary)


def given_samples(codes: Path, scores: Sequence[tuple[str, Path]]) -> Samples:
    """Samples of files as InterFaceGAN's: codes (N, D) or (N, L, D), scores (N,) or (N, 1) each.

    Args:
        codes: a .npy file.
        scores: name and .npy file of every attribute; NaN marks what was not scored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file holds something else, or another number of scores than there are codes.
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


def score_samples(
    generator: Generator,
    judge: Judge,
    *,
    names: Sequence[str],
    binary: Sequence[str],
    space: LatentSpace,
    count: int,
    seed: int = 0,
    truncation: float = 1.0,
    progress: Callable[[int], object] = lambda count: None,
) -> Samples:
    """Samples of a generator, scored by a judge whose columns have these names.

    Args:
        generator: that draws.
        judge: images [N, 3, H, W] to scores [N, A].
        names: of the A columns.
        binary: those of them that are probabilities.
        space: of the codes.
        count: N.
        seed: of the codes.
        truncation: psi, of W and W+.
        progress: called with the number of pictures scored, after each batch.
    """
    codes, scores = [], []
    for some_codes, some_scores in scored_samples(
        generator, judge, space=space, count=count, seed=seed, truncation=truncation
    ):
        codes.append(some_codes)
        scores.append(some_scores)
        progress(len(some_codes))
    return Samples(torch.cat(codes), torch.cat(scores), names, binary)


def portraits_scorer(generator: Generator) -> tuple[Judge, Judge]:
    """The portraits judges for a generator's pictures: attributes [N, 8] and identity [N, D].

    Pictures larger than the judges read are averaged to their size. The judges go to where the
    generator is.

    Raises:
        ValueError: the generator's pictures are smaller than what the judges read.
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
