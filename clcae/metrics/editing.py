"""Quality of edits: attribute change, leakage into other attributes, identity kept.

The axes of the field's curves (attribute change against identity kept; GAN inversion surveys and
StyleRes, arXiv 2212.14359, section 4.3): here every number is defined in words by `PROTOCOL`.
Deviation: attributes are continuous judgements, so a change is counted in standard deviations of
the attribute over the inputs instead of in classifier accuracy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clcae.metrics.identity import cosine_similarity
from clcae.metrics.metric import MeanMetric, check_images
from clcae.metrics.moments import Moments

PROTOCOL = {
    "change": "mean change of the edited attribute, in standard deviations over the inputs",
    "right way": "share of pictures whose edited attribute moves the way of the strength",
    "leakage": "mean absolute change of the other attributes, in standard deviations over the "
    "inputs, averaged over them",
    "identity": "mean cosine with the unedited reconstruction",
    "identity with input": "mean cosine with the input",
}


@dataclass(frozen=True)
class Judgement:
    """Attributes and identity embeddings that judges find in a batch of pictures."""

    attributes: Tensor  # [N, A]
    embeddings: Tensor  # [N, D], of identity


@dataclass(frozen=True)
class EditEffect:
    """Means over pictures, as `PROTOCOL` defines them."""

    count: int
    change: float
    right_way: float
    leakage: float
    identity: float
    identity_with_input: float
    shifts: tuple[float, ...]  # of every attribute, signed, in standard deviations


class EditQuality:
    """Accumulates the effect of one edit at one strength.

    Args:
        num_attributes: A, how many attributes are judged.
        target: column of the attribute that the edit means to change.
        sign: the way it means to change it: 1 or -1; 0 for an edit of no strength, whose share of
            pictures moved the right way is NaN.

    Raises:
        ValueError: if there is no such column, or no other attribute to leak into.
    """

    def __init__(self, *, num_attributes: int, target: int, sign: int) -> None:
        if not 0 <= target < num_attributes or num_attributes < 2:
            raise ValueError(f"target is {target} of {num_attributes} attributes, expected two up")
        self.target, self.sign, self.num_attributes = target, sign, num_attributes
        self._moments = Moments(dimension=2 * num_attributes + 3)

    def update(self, edited: Judgement, unedited: Judgement, inputs: Judgement) -> None:
        """Takes in judgements of edited pictures, of their reconstructions and of the inputs.

        Raises:
            ValueError: if judgements differ in shape, or one is NaN.
        """
        shape = (len(edited.attributes), self.num_attributes)
        for judged in (edited, unedited, inputs):
            if judged.attributes.shape != shape:
                raise ValueError(f"attributes are {tuple(judged.attributes.shape)}, not {shape}")
        difference = (edited.attributes - unedited.attributes).detach().cpu().double()
        right = (difference[:, self.target] * self.sign > 0).double()
        cosines = [
            cosine_similarity(edited.embeddings, other.embeddings) for other in (unedited, inputs)
        ]
        rows = [difference, difference.abs(), torch.stack([right, *cosines], dim=1)]
        self._moments.update(torch.cat(rows, dim=1))

    def compute(self, deviations: Sequence[float] | Tensor) -> EditEffect:
        """Computes the means.

        Args:
            deviations: standard deviation of every attribute over the inputs, [A].

        Raises:
            ValueError: if nothing was taken in, or a deviation is not positive.
        """
        scale = torch.as_tensor(deviations, dtype=torch.float64)
        if scale.shape != (self.num_attributes,) or not (scale > 0).all():
            raise ValueError(f"deviations are {scale.tolist()}: expected {self.num_attributes} > 0")
        if self._moments.count == 0:
            raise ValueError("no picture was judged")
        signed, absolute, means = self._moments.mean.split([len(scale), len(scale), 3])
        others = torch.arange(len(scale)) != self.target
        return EditEffect(
            count=self._moments.count,
            change=float((signed / scale)[self.target]),
            right_way=float(means[0]) if self.sign else float("nan"),
            leakage=float((absolute / scale)[others].mean()),
            identity=float(means[1]),
            identity_with_input=float(means[2]),
            shifts=tuple((signed / scale).tolist()),
        )


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
