"""Metrics of edits: attribute change, whether an edit survives a second inversion, response.

LEC (latent editing consistency), Tov et al., "Designing an encoder for StyleGAN image manipulation"
(2021), section 5.3 and `metrics/LEC.py`: an image is inverted, edited and synthesized; that picture
is inverted again and the edit taken back. The distance of the codes at both ends, the lower the
better, depends on their number and width, on the edit and its strength: values of different
generators do not compare. Deviation: images are averaged one by one; the official script averages
means of batches within their 1st and 99th percentile, without a last smaller batch, and so depends
on the batch size.

LEC holds two errors. What the second inversion misses without any edit is drift, the same distance
with no edit made. What the encoder does not see of the edit is the response: along a move d of a
generated code w, <E(G(w + d)) - E(G(w)), d> / |d|^2, which is 1 for an encoder that finds the whole
move and 0 for one that is blind to it. Both are the project's own.
"""

import math
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


class DriftFreeConsistency(EditingConsistency):
    """LEC with the drift taken out in squares: sqrt(mean(LEC^2 - drift^2)) over images, 0 at least.

    Items are the codes of LEC and of drift below each other, [N, 2 L, D].
    """

    @property
    def protocol(self) -> Mapping[str, str]:
        return {
            **super().protocol,
            "averaging": "root of the mean over images of the squared distance less the squared "
            "distance without the edit; 0 where that is negative",
        }

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Computes LEC^2 - drift^2 of each image, [N]. Raises ValueError if rows are odd."""
        if outputs.ndim != 3 or outputs.shape[1] % 2:
            raise ValueError(f"codes {tuple(outputs.shape)}: expected [N, 2 L, D]")
        edited, again = (
            editing_distance(output, target)
            for output, target in zip(outputs.chunk(2, dim=1), targets.chunk(2, dim=1), strict=True)
        )
        return edited.square() - again.square()

    def compute(self) -> float:
        return math.sqrt(max(super().compute(), 0.0))


class EditingResponse(MeanMetric):
    """Averages `editing_response` over codes.

    `edit` says the edit and its strength in words, for the protocol.
    """

    direction = "higher"
    range = (float("-inf"), float("inf"))

    def __init__(self, *, edit: str) -> None:
        super().__init__()
        self.edit = edit

    @property
    def protocol(self) -> Mapping[str, str]:
        return {
            "edit": self.edit,
            "value": "share of the move that is found in the difference of the inversions, along "
            "it: 1 is all, 0 is none",
            "averaging": "mean over codes",
        }

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return editing_response(outputs, targets)


def editing_response(
    change: Tensor,  # [N, L, D], of the inverted codes
    move: Tensor,  # [N, L, D], of the generated codes
) -> Tensor:
    """Computes <change, move> / |move|^2 over all rows of the codes together: [N], float64.

    Raises:
        ValueError: if shapes differ, a value is not finite, or nothing moves.
    """
    if change.shape != move.shape or move.ndim != 3:
        raise ValueError(f"codes {tuple(change.shape)} and {tuple(move.shape)}: expected [N, L, D]")
    found, whole = (codes.detach().cpu().double().flatten(1) for codes in (change, move))
    square = whole.square().sum(dim=1)
    if not (found.isfinite().all() and square.isfinite().all() and (square > 0).all()):
        raise ValueError("codes hold values that are not finite, or a move of length 0")
    return (found * whole).sum(dim=1) / square


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
