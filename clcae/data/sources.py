"""The interfaces of data sets of images, and one in memory."""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from clcae.images import from_uint8


@runtime_checkable
class ImageSource(Protocol):
    """Images of one size, read by index in any order."""

    def __len__(self) -> int:
        """Counts the images."""
        ...

    def images(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns images [N, 3, H, W] by index, float32 in [-1, 1], on the CPU."""
        ...

    def name(self, index: int) -> str:
        """Names an image in reports and result files."""
        ...


@runtime_checkable
class FileSource(ImageSource, Protocol):
    """Images that are read from files, which may be damaged."""

    def faults(self) -> Iterator[tuple[str, str]]:
        """Looks over the headers of all files; yields the name of each faulty one and why."""
        ...


class TensorImages:
    """Images of one uint8 tensor [N, 3, H, W], in memory or memory-mapped.

    Raises:
        ValueError: if shape or type are others, or there is no image.
    """

    def __init__(self, *, pixels: Tensor) -> None:
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(
                f"pixels are {pixels.dtype} {tuple(pixels.shape)}: expected uint8 [N, 3, H, W]"
            )
        if len(pixels) == 0:
            raise ValueError("pixels hold no image: expected at least one")
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns images [N, 3, H, W] in [-1, 1] by index. Raises IndexError."""
        return from_uint8(self.pixels[checked_indices(indices, len(self))])

    def name(self, index: int) -> str:
        """Returns the index as a name of six digits."""
        return f"{index:06d}"


def checked_indices(indices: Sequence[int] | Tensor, length: int) -> Tensor:
    """Converts indices to int64 [N]. Raises IndexError if one is outside [0, length)."""
    rows = torch.as_tensor(indices, dtype=torch.int64)
    outside = rows[(rows < 0) | (rows >= length)]
    if len(outside):
        raise IndexError(f"index {int(outside[0])} of {length} images: expected 0 to {length - 1}")
    return rows
