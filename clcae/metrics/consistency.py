"""LEC (latent editing consistency): whether an edit survives a second inversion.

Tov et al., "Designing an encoder for StyleGAN image manipulation" (2021), section 5.3 and
`metrics/LEC.py`: an image is inverted, edited and synthesized; that picture is inverted again and
the edit taken back. The distance of the codes at both ends, the lower the better, depends on their
number and width, on the edit and its strength: values of different generators do not compare.
Deviation: images are averaged one by one; the official script averages means of batches within
their 1st and 99th percentile, without a last smaller batch, and so depends on the batch size.
"""

from collections.abc import Mapping

from torch import Tensor

from clcae.metrics.metric import MeanMetric


def editing_distance(
    recovered: Tensor,  # [N, L, D], after the edit was taken back
    codes: Tensor,  # [N, L, D], before it
) -> Tensor:
    """Computes the Euclidean distance over all rows of the codes together.

    Returns:
        [N], float64, 0 or more.

    Raises:
        ValueError: if shapes differ, or a value is not finite.
    """
    if recovered.shape != codes.shape or codes.ndim != 3:
        raise ValueError(
            f"codes {tuple(recovered.shape)} and {tuple(codes.shape)}: expected one [N, L, D]"
        )
    difference = recovered.detach().cpu().double() - codes.detach().cpu().double()
    if not difference.isfinite().all():
        raise ValueError("codes hold values that are not finite")
    return difference.flatten(1).norm(dim=1)


class EditingConsistency(MeanMetric):
    """Averages `editing_distance` over images; it does not depend on batches.

    Args:
        edit: the edit, its strength and the noise, in words, for the protocol.
    """

    direction = "lower"
    range = (0.0, float("inf"))

    def __init__(self, *, edit: str) -> None:
        super().__init__()
        self.edit = edit

    @property
    def protocol(self) -> Mapping[str, str]:
        return {
            "edit": self.edit,
            "distance": "Euclidean over all rows of the codes",
            "averaging": "mean over images",
        }

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return editing_distance(outputs, targets)
