"""Names of the generator's layers, in place of bare indices.

Styled convolutions are numbered from 0: the 4x4 one is 0, the 8x8 pair 1 and 2, the 16x16 pair 3
and 4. "16x16/1" is the second 16x16 one, number 4: CLCAE's G^5, whose code counts the constant
input too. "16x16/0" is the x03 of F/Z+; "64x64/0" is where StyleRes acts.
"""

import re
from dataclasses import dataclass
from typing import Self

from clcae.quoting import shown

LAST = 40  # pictures of four million pixels a side; a stranger's file may ask for any


@dataclass(frozen=True, order=True)
class Layer:
    """A styled convolution of the synthesis network."""

    index: int

    def __post_init__(self) -> None:
        if not 0 <= self.index <= LAST:
            raise ValueError(f"layer index is {shown(self.index)}, expected 0 to {LAST}")

    @classmethod
    def parse(cls, name: "str | int | Layer") -> Self:
        """Parses "16x16/1", an index, or a layer. Raises ValueError if StyleGAN2 lacks it."""
        if isinstance(name, Layer):
            return cls(name.index)
        if isinstance(name, int):
            return cls(name)
        match = re.fullmatch(r"(\d+)x(\d+)/([01])", name)
        if match and match[1] == match[2]:
            resolution, place = int(match[1]), int(match[3])
            block = resolution.bit_length() - 3
            if resolution == 4 << max(block, 0) and (block > 0 or place == 0):
                return cls(2 * block - 1 + place if block else 0)
        raise ValueError(
            f"layer is {name!r}, expected '4x4/0' or 'RxR/0', 'RxR/1' with R = 8, 16, 32, ..."
        )

    @property
    def block(self) -> int:
        """Index of its block: 0 for 4x4, 1 for 8x8, ..."""
        return (self.index + 1) // 2

    @property
    def resolution(self) -> int:
        """Side of its feature, in pixels."""
        return 4 << self.block

    @property
    def ends_block(self) -> bool:
        """Whether a to-RGB convolution follows it."""
        return self.index % 2 == 0

    @property
    def name(self) -> str:
        """Its name, as `parse` takes it."""
        place = 1 if self.ends_block and self.index else 0
        return f"{self.resolution}x{self.resolution}/{place}"

    def __str__(self) -> str:
        return self.name
