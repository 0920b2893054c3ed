"""Rows of a matrix over all pairs, so many at once that memory does not grow with their number."""

from torch import Tensor

ENTRIES = 2**19  # of the matrix at once: 4 MiB of float64


def row_blocks(
    vectors: Tensor,  # [M, D]
    *,
    columns: int,
) -> tuple[Tensor, ...]:
    """Vectors in blocks, each a block of rows of a matrix.

    Args:
        vectors: Vectors [M, D], one for each row.
        columns: Length of the rows.

    Returns:
        Blocks [m, D] in order; a row longer than `ENTRIES` is a block of its own.
    """
    return vectors.split(max(ENTRIES // max(columns, 1), 1))
