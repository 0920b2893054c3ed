"""Portraits as an image source: drawn once into a cache, then read by index."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from clcae.portraits.dataset import PortraitDataset, Split
from clcae.portraits.parameters import NUM_PLAIN_LATENTS, decode


class PortraitImages:
    """The portraits of a split, with one or several pictures of every person.

    Index i shows person i // pictures_per_person.

    Args:
        split: "train", "validation" or "test"; the splits share no person.
        cache: folder of the drawn pictures, made where missing.
        size: side of the pictures, in pixels.
        num_people: people; None is the split's own number.
        pictures_per_person: pictures of each, under other attributes, scenes and details.
        detail_rate: probability of each detail, in [0, 1]; None is the split's own.

    Raises:
        ValueError: for an unknown split, and for values out of range.
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
        """How many people there are."""
        return len(self.dataset) // self.pictures_per_person

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.dataset)

    def images(
        self,
        indices: Sequence[int] | Tensor,  # [N]
    ) -> Tensor:
        """Pictures [N, 3, size, size] in [-1, 1]; the first call draws the whole cache."""
        if self._pixels is None:
            self._pixels = self.dataset.cached(self.cache, progress=_reporter(self.dataset))
        rows = torch.as_tensor(indices, dtype=torch.int64)
        return self._pixels[rows].float().div_(127.5).sub_(1.0)

    def plain_latents(self, indices: Sequence[int] | Tensor) -> Tensor:
        """What the pictures are drawn from, details aside: [N, NUM_PLAIN_LATENTS]."""
        return self.dataset.latents(indices)[:, :NUM_PLAIN_LATENTS]

    def attributes(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Labels [N, 8], in the order of ATTRIBUTES."""
        latents = self.dataset.latents(indices)
        return decode(latents, detail_rate=self.dataset.detail_rate).attributes

    def people(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Numbers [N] of the people shown."""
        return torch.as_tensor(indices, dtype=torch.int64) // self.pictures_per_person

    def name(self, index: int) -> str:
        """What a report calls a picture."""
        return f"{self.dataset.split}/{index:05d}"


def _reporter(dataset: PortraitDataset) -> Callable[[int, int], None] | None:
    """Says how far the drawing is, at every tenth; silent for what takes a moment."""
    if len(dataset) < 4096:
        return None

    def report(done: int, total: int) -> None:
        if done == total or done * 10 // total > (done - 64) * 10 // total:
            print(f"drawing {dataset.split} portraits {done}/{total}", file=sys.stderr, flush=True)

    return report
