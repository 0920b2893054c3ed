"""Random edits of StyleRes, and the regularisers of what it adds to the generator's feature.

"StyleRes: Transforming the Residuals for Real Image Editing with StyleGAN" (arXiv 2212.14359, CVPR
2023), section 3. The paper sums L2 norms and does not say over what a norm runs; here it is a
picture's feature, divided by the root of the number of its entries, so that a weight means the same
at any size. The lab's training code takes the mean absolute value.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

Regularizer = Literal["norm", "absolute"]


def edit_towards(
    codes: Tensor,  # [N, L, D], of W+
    w: Tensor,  # [N, D], sampled codes of W
    alpha: Tensor,  # [N], 0 is no edit, 10 goes all the way
) -> Tensor:
    """Computes the move alpha (w - codes) / 10 of every row, [N, L, D]."""
    return (w[:, None] - codes) * (alpha / 10)[:, None, None]


def norm_term(delta: Tensor) -> Tensor:
    """Computes the root mean square of each row of [N, ...], mean over the batch, []."""
    rows = delta.float().flatten(1)
    return rows.norm(dim=1).mean() / rows.shape[1] ** 0.5


def absolute_term(delta: Tensor) -> Tensor:
    """Computes the mean absolute value, []."""
    return delta.float().abs().mean()


REGULARIZERS: dict[Regularizer, Callable[[Tensor], Tensor]] = {
    "norm": norm_term,
    "absolute": absolute_term,
}
