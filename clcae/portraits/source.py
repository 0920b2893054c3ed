"""Portraits as an image source, read from a cache of drawn pictures."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from clcae.images import from_uint8
from clcae.portraits.dataset import PortraitDataset, Split
from clcae.portraits.parameters import NUM_PLAIN_LATENTS, decode


class PortraitImages:
    """The portraits of a split, with one or several pictures of every person.

    Index i shows person i // pictures_per_person.

    Args:
        split: "train", "validation" or "test"; the splits share no person.
        cache: folder of the drawn pictures, made if missing.
        size: side of the pictures, in pixels.
        num_people: number of people; None: the split's default.
        pictures_per_person: pictures of each, under other attributes, scenes and details.
        detail_rate: probability of each detail, in [0, 1]; None: the split's default.

    Raises:
        ValueError: if the split is unknown or a value is out of range.
    """

    def __init__(
        self,
        *,
        split: Split,
        cache: str | Path = ".cache",
        size: int = 64,
        num_people: int | None = None,
        pictures_per_person: int = 1,
        detail_rate: float | None = None,
    ) -> None:
        self.dataset = PortraitDataset(
            split,
            size=size,
            length=num_people,
            detail_rate=detail_rate,
            pictures_per_person=pictures_per_person,
        )
        self.pictures_per_person = pictures_per_person
        self.cache = Path(cache)
        self._pixels: Tensor | None = None

    @property
    def num_people(self) -> int:
        """Number of people."""
        return self.dataset.num_people

    def __len__(self) -> int:
        return len(self.dataset)

    def images(
        self,
        indices: Sequence[int] | Tensor,  # [N]
    ) -> Tensor:
        """Returns images [N, 3, size, size] in [-1, 1]; the first call draws the whole cache."""
        if self._pixels is None:
            self._pixels = self.dataset.cached(self.cache, progress=_reporter(self.dataset))
        return from_uint8(self._pixels[torch.as_tensor(indices, dtype=torch.int64)])

    def plain_latents(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns the latents [N, NUM_PLAIN_LATENTS] of pictures, those of details left out."""
        return self.dataset.latents(indices)[:, :NUM_PLAIN_LATENTS]

    def attributes(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns labels [N, 8], in the order of ATTRIBUTES."""
        latents = self.dataset.latents(indices)
        return decode(latents, detail_rate=self.dataset.detail_rate).attributes

    def people(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns the numbers [N] of the people shown."""
        return torch.as_tensor(indices, dtype=torch.int64) // self.pictures_per_person

    def name(self, index: int) -> str:
        """Names a picture in reports: "test/00042"."""
        return f"{self.dataset.split}/{index:05d}"


def _reporter(dataset: PortraitDataset) -> Callable[[int, int], None] | None:
    """Makes a function that prints the progress in tenths; None if drawing takes a moment only."""
    if len(dataset) < 4096:
        return None

    def report(done: int, total: int) -> None:
        if done == total or done * 10 // total > (done - 64) * 10 // total:
            print(f"drawing {dataset.split} portraits {done}/{total}", file=sys.stderr, flush=True)

    return report
