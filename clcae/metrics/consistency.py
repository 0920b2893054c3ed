"""LEC: whether an edit survives a second inversion (latent editing consistency).

Tov et al., "Designing an encoder for StyleGAN image manipulation" (2021), section 5.3 and
`metrics/LEC.py`: an image is inverted, edited and synthesized; that picture is inverted again and
the edit taken back. The distance of the codes at both ends, the lower the better, depends on their
number and width, on the edit and its strength: values of different generators do not compare.
Deviation of the plain form: images are averaged one by one; the official one filters and averages
the means of batches, so that it depends on the batch size.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from clcae.metrics.checks import check_image_set
from clcae.metrics.metric import Direction, MeanMetric, Metric

CodesFunction = Callable[[Tensor], Tensor]


@torch.no_grad()
def edit_and_undo(
    images: Tensor,  # [N, 3, H, W], in [-1, 1]
    *,
    invert: Callable[[Tensor], Tensor],
    synthesize: Callable[[Tensor], Tensor],
    edit: CodesFunction,
    undo: CodesFunction,
) -> tuple[Tensor, Tensor]:
    """The codes of images, and what comes back of them after an edit and a second inversion.

    Args:
        images: Images [N, 3, H, W] in [-1, 1].
        invert: Images to codes [N, L, D], with the average added where a method predicts offsets.
        synthesize: Codes to images of the shape that `invert` reads, with fixed noise. The official
            script neither clamps nor rounds them.
        edit: Codes to edited codes.
        undo: Edited codes to codes: its inverse.

    Returns:
        The codes recovered and the first codes, [N, L, D] both, in the order that metrics take.

    Raises:
        ValueError: If the images are not in the range, or codes are not [N, L, D].
    """
    check_image_set(images)
    codes = invert(images)
    recovered = undo(invert(synthesize(edit(codes))))
    editing_distance(recovered, codes)  # for what it refuses
    return recovered, codes


def editing_distance(
    recovered: Tensor,  # [N, L, D]
    codes: Tensor,  # [N, L, D]
) -> Tensor:
    """Euclidean distance of all rows of the codes together.

    Args:
        recovered: Codes after the edit was taken back.
        codes: Codes before it, of the same shape.

    Returns:
        [N], float64, 0 or more.

    Raises:
        ValueError: If shapes differ, or a value is not finite.
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
    """Mean over images of `editing_distance`; it does not depend on batches.

    `update(*edit_and_undo(images, ...))` takes in a batch.

    Args:
        edit: The edit, its strength and the noise, in words, for the protocol.
    """

    direction: ClassVar[Direction] = "lower"
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def __init__(self, *, edit: str) -> None:
        super().__init__()
        self.edit = edit

    @property
    def protocol(self) -> Mapping[str, str]:
        """Everything that would change the value, in words."""
        return {
            "edit": self.edit,
            "distance": "Euclidean over all rows of the codes",
            "averaging": "mean over images",
        }

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Distance of each pair of codes [N, L, D], [N]."""
        return editing_distance(outputs, targets)


class OfficialEditingConsistency(Metric):
    """`editing_distance` averaged as e4e's script does.

    Means of full batches are collected; those below their 1st or above their 99th percentile are
    left out, and the rest is averaged. With 100 batches or fewer nothing is left out. As there, a
    last smaller batch does not enter; `update` says so.

    Args:
        edit: The edit, its strength and the noise, in words, for the protocol.
        batch_size: Of the script's data loader.
    """

    direction: ClassVar[Direction] = "lower"
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def __init__(self, *, edit: str, batch_size: int = 8) -> None:
        if batch_size < 1:
            raise ValueError(f"batch size is {batch_size}: expected 1 or more")
        self.edit = edit
        self.batch_size = batch_size
        self._means: list[float] = []

    @property
    def protocol(self) -> Mapping[str, str]:
        """Everything that would change the value, in words."""
        return {
            "edit": self.edit,
            "distance": "Euclidean over all rows of the codes",
            "averaging": f"mean over batches of {self.batch_size} between their percentiles 1 "
            "(lower) and 99 (higher); a smaller batch is dropped",
        }

    @property
    def num_counted(self) -> int:
        """Number of images that entered so far."""
        return len(self._means) * self.batch_size

    def update(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Take in codes recovered and first codes [N, L, D]; False for all of a smaller batch.

        Raises:
            ValueError: If shapes differ, a value is not finite, or the batch is larger.
        """
        distances = editing_distance(outputs, targets)
        if len(distances) > self.batch_size:
            raise ValueError(f"{len(distances)} codes at once: expected {self.batch_size}")
        full = len(distances) == self.batch_size
        if full:
            self._means.append(float(distances.mean()))
        return torch.full((len(distances),), full)

    def compute(self) -> float:
        """Mean of the batches that are left. Raises ValueError if none has entered."""
        if not self._means:
            raise ValueError(f"{type(self).__name__} has no full batch of {self.batch_size}")
        means = sorted(self._means)
        last = len(means) - 1
        low, high = means[math.floor(0.01 * last)], means[math.ceil(0.99 * last)]
        kept = [mean for mean in means if low <= mean <= high]
        return math.fsum(kept) / len(kept)

    def state(self) -> dict[str, Any]:
        """Mean distance of each batch."""
        return {"means": list(self._means)}

    def merge_state(self, state: Mapping[str, Any]) -> None:
        """Take in the `state` of a part."""
        self._means += state["means"]
