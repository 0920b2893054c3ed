"""Portraits of a split by index, drawn once into a cache.

There is no random state: the latents of index i are the splitmix64 hash (Steele et al., "Fast
splittable pseudorandom number generators", OOPSLA 2014) of a stream and a counter, made normal by
the inverse distribution function, so that they depend neither on the order of access nor on the
version of a library.
"""

import hashlib
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from clcae.files import leftovers, locked, replacing, sha256
from clcae.images import from_uint8, to_uint8
from clcae.portraits.parameters import (
    NUM_LATENTS,
    NUM_PLAIN_LATENTS,
    Group,
    decode,
    group_slice,
)
from clcae.portraits.renderer import render

Split = Literal["train", "validation", "test"]
DETAIL_RATES = {"train": 0.05, "validation": 0.5, "test": 0.5}
NUM_PEOPLE = {"train": 65536, "validation": 1024, "test": 2824}
RENDER_BATCH = 64
_STREAMS = {"train": 1, "validation": 2, "test": 3}
_DIGEST_SIZE = 32  # bytes, behind the pictures of a cache
_REPORTED = 4096  # pictures from which on the progress of drawing is printed
# Pictures of a person are numbered below 2^24 and people below 2^32: no two share a counter.
_PICTURE_BITS = 24
_ONE_THREAD = threading.Lock()  # the number of threads belongs to the process
_ONE_DRAWS = threading.Lock()  # of the threads of this process


@dataclass(frozen=True)
class Portraits:
    """A batch of portraits with their latents and labels."""

    images: Tensor  # [N, 3, S, S], in [-1, 1]
    latents: Tensor  # [N, D], standard normal
    people: Tensor  # [N], int64, the person's number in the split
    attributes: Tensor  # [N, 8], in the order of ATTRIBUTES
    details: Tensor  # [N, 6], 0 or 1, in the order of DETAILS


class PortraitImages:
    """The portraits of a split, an image source; index i shows person i // pictures_per_person.

    Args:
        split: "train", "validation" or "test"; the splits share no person.
        cache: folder of the drawn pictures, made if missing.
        size: side of the pictures, in pixels.
        num_people: number of people; None: 65536, 1024 or 2824 by the split.
        pictures_per_person: pictures of each, under other attributes, scenes and details.
        detail_rate: probability of each detail, in [0, 1]; None: DETAIL_RATES of the split.

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
        if split not in _STREAMS:
            raise ValueError(f"unknown split {split!r}; accepted: {', '.join(_STREAMS)}")
        if num_people is not None and not 0 < num_people <= 2**32:
            raise ValueError(f"num_people is {num_people}; accepted: from 1 to {2**32}")
        if detail_rate is not None and not 0.0 <= detail_rate <= 1.0:
            raise ValueError(f"detail_rate is {detail_rate}; accepted: from 0 to 1")
        if not 1 <= pictures_per_person <= 2**_PICTURE_BITS:
            raise ValueError(
                f"pictures_per_person is {pictures_per_person}; accepted: from 1 to "
                f"{2**_PICTURE_BITS}"
            )
        if size < 8:
            raise ValueError(f"size is {size}; accepted: 8 or more")
        self.split, self.cache, self.size = split, Path(cache), size
        self.num_people = NUM_PEOPLE[split] if num_people is None else num_people
        self.pictures_per_person = pictures_per_person
        self.detail_rate = DETAIL_RATES[split] if detail_rate is None else detail_rate
        self._pixels: Tensor | None = None

    def __len__(self) -> int:
        return self.num_people * self.pictures_per_person

    def images(
        self,
        indices: Sequence[int] | Tensor,  # [N]
    ) -> Tensor:
        """Returns images [N, 3, size, size] in [-1, 1]; the first call draws the whole cache."""
        if self._pixels is None:
            with _ONE_DRAWS:
                self._pixels = self._opened() if self._pixels is None else self._pixels
        return from_uint8(self._pixels[self._checked(indices)])

    def batch(self, indices: Sequence[int] | Tensor) -> Portraits:
        """Draws portraits with everything that is known of them, uncached. Raises IndexError."""
        latents = self.latents(indices)
        parameters = decode(latents, detail_rate=self.detail_rate)
        return Portraits(
            images=render(parameters, size=self.size),
            latents=latents,
            people=self.people(indices),
            attributes=parameters.attributes,
            details=parameters.details,
        )

    def latents(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns the latents [N, NUM_LATENTS] of portraits, undrawn. Raises IndexError."""
        people = self.people(indices).numpy().astype(np.uint64) << np.uint64(_PICTURE_BITS)
        pictures = (self._checked(indices) % self.pictures_per_person).numpy().astype(np.uint64)
        stream = np.uint64(_STREAMS[self.split] << 58)
        latents = _normals(stream | people | pictures, np.arange(NUM_LATENTS))
        columns = np.arange(NUM_LATENTS)[group_slice(Group.IDENTITY)]
        latents[:, group_slice(Group.IDENTITY)] = _normals(stream | people, columns)
        return latents

    def plain_latents(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns the latents [N, NUM_PLAIN_LATENTS] of portraits, those of details left out."""
        return self.latents(indices)[:, :NUM_PLAIN_LATENTS]

    def attributes(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns labels [N, 8], in the order of ATTRIBUTES."""
        return decode(self.latents(indices), detail_rate=self.detail_rate).attributes

    def people(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns the numbers [N] of the people shown."""
        return self._checked(indices) // self.pictures_per_person

    def name(self, index: int) -> str:
        """Names a picture in reports: "test/00042"."""
        return f"{self.split}/{index:05d}"

    def _opened(self) -> Tensor:
        """Opens the cache, which is drawn if missing: uint8 [N, 3, size, size]."""
        path = self.cache / self._file_name()
        if not path.exists() or not _is_whole(path):
            self._draw(path)
        # A copy-on-write map: torch has no read-only tensors and warns of read-only arrays.
        return torch.from_numpy(np.load(path, mmap_mode="c"))

    def _draw(self, path: Path) -> None:
        """Draws the cache; waits for another process that draws into the same folder."""

        def waits() -> None:
            print(f"another process draws portraits into {self.cache}: waiting", file=sys.stderr)

        with locked(self.cache, waits=waits) as held:
            for leftover in leftovers(self.cache, "portraits_*.npy") if held else ():
                leftover.unlink(missing_ok=True)
            if path.exists() and _is_whole(path):
                return
            if path.exists():
                print(f"{path} is damaged: drawn again", file=sys.stderr)
            with replacing(path) as partial:
                self._write(partial)
                digest = sha256(partial)
                with partial.open("ab") as file:
                    file.write(bytes.fromhex(digest))

    def _write(self, path: Path) -> None:
        """Draws all pictures into a numpy file."""
        count = len(self)
        shape = (count, 3, self.size, self.size)
        pixels = open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        for start in range(0, count, RENDER_BATCH):
            stop = min(start + RENDER_BATCH, count)
            with single_threaded():
                pixels[start:stop] = to_uint8(self.batch(range(start, stop)).images).numpy()
            if count >= _REPORTED and (stop == count or stop * 10 // count > start * 10 // count):
                progress = f"drawing {self.split} portraits {stop}/{count}"
                print(progress, file=sys.stderr, flush=True)
        pixels.flush()

    def _file_name(self) -> str:
        """Names the cache by all that decides its content, the sources of this package included."""
        digest = hashlib.sha256()
        for source in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(source.read_bytes())
        pictures = f"{self.num_people}x{self.pictures_per_person}_details{self.detail_rate:g}"
        kind = f"portraits_{self.split}_{self.size}px_{pictures}"
        return f"{kind}_{digest.hexdigest()[:12]}.npy"

    def _checked(self, indices: Sequence[int] | Tensor) -> Tensor:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        outside = rows[(rows < 0) | (rows >= len(self))]
        if outside.numel():
            raise IndexError(f"index {int(outside[0])} is out of range for {len(self)} portraits")
        return rows


def _is_whole(path: Path) -> bool:
    """Compares a cache with the digest at its end."""
    with path.open("rb") as file:
        rest = path.stat().st_size - _DIGEST_SIZE
        digest = hashlib.sha256()
        while rest > 0 and (block := file.read(min(rest, 1 << 20))):
            digest.update(block)
            rest -= len(block)
        return file.read() == digest.digest()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Computes with one thread, which is faster for maps as small as the renderer's."""
    with _ONE_THREAD:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


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
