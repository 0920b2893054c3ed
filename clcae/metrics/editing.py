"""Metrics of edits: how much an attribute changes, and whether an edit survives a second inversion.

LEC (latent editing consistency), Tov et al., "Designing an encoder for StyleGAN image manipulation"
(2021), section 5.3 and `metrics/LEC.py`: an image is inverted, edited and synthesized; that picture
is inverted again and the edit taken back. The distance of the codes at both ends, the lower the
better, depends on their number and width, on the edit and its strength: values of different
generators do not compare. Deviation: images are averaged one by one; the official script averages
means of batches within their 1st and 99th percentile, without a last smaller batch, and so depends
on the batch size.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from clcae.metrics.metric import MeanMetric, check_images


class AttributeChange(MeanMetric):
    """Averages how much more of an attribute the edited picture has than the unedited one.

    Args:
        attribute: images [N, 3, H, W] in [-1, 1] to [N], the more the better the edit succeeded.
        attribute_name: the attribute, its unit and what judges it, in words, for the protocol.
    """

    direction = "higher"
    range = (float("-inf"), float("inf"))

    def __init__(self, *, attribute: Callable[[Tensor], Tensor], attribute_name: str) -> None:
        super().__init__()
        self.attribute = attribute
        self.attribute_name = attribute_name

    @property
    def protocol(self) -> Mapping[str, str]:
        return {
            "attribute": self.attribute_name,
            "value": "mean change from the unedited reconstruction",
        }

    def values(
        self,
        outputs: Tensor,  # [N, 3, H, W], edited
        targets: Tensor,  # [N, 3, H, W], the same ones unedited
    ) -> Tensor:
        check_images(outputs, targets)
        return self.attribute(outputs).double() - self.attribute(targets).double()


class EditingConsistency(MeanMetric):
    """Averages `editing_distance`, LEC, over images.

    `edit` says the edit, its strength and the noise in words, for the protocol.
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


def editing_distance(
    recovered: Tensor,  # [N, L, D], after the edit was taken back
    codes: Tensor,  # [N, L, D], before it
) -> Tensor:
    """Computes the Euclidean distance over all rows of the codes together: [N], float64.

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
