"""Draws the portraits of a split by index; every index shows another person.

There is no random state: the latents of index i are the splitmix64 hash (Steele et al., "Fast
splittable pseudorandom number generators", OOPSLA 2014) of a stream and a counter, made normal by
the inverse distribution function, so that they depend neither on the order of access nor on the
version of a library.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from clcae.files import replacing
from clcae.images import to_uint8
from clcae.portraits.parameters import NUM_LATENTS, Group, decode, group_slice
from clcae.portraits.renderer import render

Split = Literal["train", "validation", "test"]
DETAIL_RATES = {"train": 0.05, "validation": 0.5, "test": 0.5}
LENGTHS = {"train": 65536, "validation": 1024, "test": 2824}
RENDER_BATCH = 64
_STREAMS = {"train": 1, "validation": 2, "test": 3}
# Pictures of a person are numbered below 2^24 and people below 2^32: no two share a counter.
_PICTURE_BITS = 24


@dataclass(frozen=True)
class Portraits:
    """A batch of portraits with their latents and labels."""

    images: Tensor  # [N, 3, S, S], in [-1, 1]
    latents: Tensor  # [N, D], standard normal
    people: Tensor  # [N], int64, the person's number in the split
    attributes: Tensor  # [N, 8], in the order of ATTRIBUTES
    details: Tensor  # [N, 6], 0 or 1, in the order of DETAILS


class PortraitDataset:
    """The portraits of one split.

    Args:
        split: "train", "validation" or "test"; the splits share no person.
        size: side of the pictures, in pixels.
        length: number of people; None: 65536, 1024 or 2824 by the split.
        detail_rate: probability of each detail, in [0, 1]; None: DETAIL_RATES of the split.
        pictures_per_person: pictures of each person, under other attributes, scenes and details;
            index i is picture i % pictures_per_person of person i // pictures_per_person.

    Raises:
        ValueError: if the split is unknown, or a size, length, rate or number is out of range.
    """

    def __init__(
        self,
        split: Split,
        *,
        size: int = 64,
        length: int | None = None,
        detail_rate: float | None = None,
        pictures_per_person: int = 1,
    ) -> None:
        if split not in _STREAMS:
            raise ValueError(f"unknown split {split!r}; accepted: {', '.join(_STREAMS)}")
        if length is not None and not 0 < length <= 2**32:
            raise ValueError(f"length is {length}; accepted: from 1 to {2**32}")
        if detail_rate is not None and not 0.0 <= detail_rate <= 1.0:
            raise ValueError(f"detail_rate is {detail_rate}; accepted: from 0 to 1")
        if not 1 <= pictures_per_person <= 2**_PICTURE_BITS:
            raise ValueError(
                f"pictures_per_person is {pictures_per_person}; accepted: from 1 to "
                f"{2**_PICTURE_BITS}"
            )
        if size < 8:
            raise ValueError(f"size is {size}; accepted: 8 or more")
        self.split = split
        self.size = size
        self.num_people = LENGTHS[split] if length is None else length
        self.pictures_per_person = pictures_per_person
        self.length = self.num_people * pictures_per_person
        self.detail_rate = DETAIL_RATES[split] if detail_rate is None else detail_rate

    def __len__(self) -> int:
        return self.length

    def latents(
        self,
        indices: Sequence[int] | Tensor,  # [N]
    ) -> Tensor:
        """Returns the latents [N, D] of some portraits, without drawing them.

        Raises:
            IndexError: if an index is out of range.
        """
        rows = self._checked(indices)
        pictures = (rows % self.pictures_per_person).numpy().astype(np.uint64)
        return self._draw(rows // self.pictures_per_person, pictures)

    def batch(
        self,
        indices: Sequence[int] | Tensor,  # [N]
    ) -> Portraits:
        """Draws some portraits.

        Raises:
            IndexError: if an index is out of range.
        """
        latents = self.latents(indices)
        parameters = decode(latents, detail_rate=self.detail_rate)
        return Portraits(
            images=render(parameters, size=self.size),
            latents=latents,
            people=self._checked(indices) // self.pictures_per_person,
            attributes=parameters.attributes,
            details=parameters.details,
        )

    def cached(
        self,
        folder: Path,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Draws the whole split into a file, unless it is there, and memory-maps the file.

        Args:
            folder: folder of the file, made if missing. The file's name holds all that decides its
                content, with a digest of this package's sources: a changed renderer draws anew.
            progress: called after each batch with the numbers of portraits drawn and in all; None:
                no calls.

        Returns:
            Read-only bytes [len, 3, S, S], 0 to 255, mapped from the file.
        """
        path = folder / self._file_name()
        if not path.exists():
            with replacing(path) as partial:
                self._write(partial, progress)
        # A copy-on-write map: torch has no read-only tensors and warns of read-only arrays.
        return torch.from_numpy(np.load(path, mmap_mode="c"))

    def _write(self, path: Path, progress: Callable[[int, int], None] | None) -> None:
        shape = (self.length, 3, self.size, self.size)
        pixels = open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # maps this small are drawn fastest by one
        try:
            for start in range(0, self.length, RENDER_BATCH):
                stop = min(start + RENDER_BATCH, self.length)
                images = self.batch(range(start, stop)).images
                pixels[start:stop] = to_uint8(images).numpy()
                if progress is not None:
                    progress(stop, self.length)
        finally:
            torch.set_num_threads(threads)
        pixels.flush()

    def _file_name(self) -> str:
        digest = hashlib.sha256()
        for source in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(source.read_bytes())
        return (
            f"portraits_{self.split}_{self.size}px_{self.num_people}x{self.pictures_per_person}_details{self.detail_rate:g}"
            f"_{digest.hexdigest()[:12]}.npy"
        )

    def _checked(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns indices as int64 [N]."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        outside = rows[(rows < 0) | (rows >= self.length)]
        if outside.numel():
            raise IndexError(f"index {int(outside[0])} is out of range for {self.length} portraits")
        return rows

    def _draw(
        self,
        people: Tensor,  # [N]
        pictures: NDArray[np.uint64],  # [N]
    ) -> Tensor:
        """Draws latents [N, D]: those of the group IDENTITY by person, the others by picture."""
        stream = np.uint64(_STREAMS[self.split] << 58)
        person = people.numpy().astype(np.uint64) << np.uint64(_PICTURE_BITS)
        latents = _normals(stream | person | pictures, np.arange(NUM_LATENTS))
        columns = np.arange(NUM_LATENTS)[group_slice(Group.IDENTITY)]
        latents[:, group_slice(Group.IDENTITY)] = _normals(stream | person, columns)
        return latents


def _splitmix(counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hashes 64-bit counters (the output function of splitmix64)."""
    state = counters + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _normals(
    keys: NDArray[np.uint64],  # [N]
    columns: NDArray[np.int64],  # [K]
) -> Tensor:
    """Hashes keys and columns to standard-normal numbers, float32 [N, K]."""
    counters = _splitmix(keys)[:, None] + columns.astype(np.uint64)
    # 52 bits and a half, exact in float64: uniform strictly between 0 and 1.
    uniform = ((_splitmix(_splitmix(counters)) >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52
    return torch.special.ndtri(torch.from_numpy(uniform)).float()
