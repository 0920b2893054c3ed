"""What a data set of images is to the rest of the project, and the one that lies in memory."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from clcae.images import from_uint8


@runtime_checkable
class ImageSource(Protocol):
    """Images by index, all of one size; the order in which they are asked for is the caller's."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def images(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Images [N, 3, H, W] of N indices, float32 in [-1, 1], on the CPU."""
        ...

    def name(self, index: int) -> str:
        """What a report calls an image."""
        ...


class TensorImages:
    """Images held as one uint8 tensor, in memory or memory-mapped.

    Args:
        pixels: Images [N, 3, H, W], uint8 RGB. Memory-mapped ones (`torch.from_file`, or
            `torch.load(..., mmap=True)`) are read as they are asked for.

    Raises:
        ValueError: If shape or type are others, or there is no image.
    """

    def __init__(
        self,
        *,
        pixels: Tensor,  # [N, 3, H, W], uint8
    ) -> None:
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
        """Return images by index.

        Args:
            indices: N indices in [0, len).

        Returns:
            Images [N, 3, H, W], float32 in [-1, 1].

        Raises:
            IndexError: If an index is outside the range.
        """
        wanted = torch.as_tensor(indices, dtype=torch.int64)
        check_indices(wanted, len(self))
        return from_uint8(self.pixels[wanted])

    def name(self, index: int) -> str:
        """Return the index as a name of six digits."""
        return f"{index:06d}"


def check_indices(indices: Tensor, length: int) -> None:
    """Refuse indices outside a data set, negative ones included.

    Args:
        indices: Indices, any number.
        length: Number of images of the data set.

    Raises:
        IndexError: If an index is outside [0, length).
    """
    outside = indices[(indices < 0) | (indices >= length)]
    if len(outside):
        raise IndexError(f"index {int(outside[0])} of {length} images: expected 0 to {length - 1}")
