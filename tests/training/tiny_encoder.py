"""A new method in two classes: an encoder of W+, and the loss that it is trained with."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from clcae.frozen.judges import Judges
from clcae.losses.inversion import reconstruction_terms, weighted_sum
from clcae.methods.interface import Inversion, InversionMethod
from clcae.serialization import register
from clcae.stylegan2 import Generator, LatentSpace
from training.task import Phase, StepContext, StepOutput
from training.tasks.encoder import EncoderTask


@register("tiny_encoder")
class TinyEncoder(InversionMethod):
    """Offsets of W+ from a few convolutions and a linear layer."""

    outputs = ("W+",)
    output = "W+"
    image_shape = (64, 64)

    def __init__(self, *, generator: Generator, width: int) -> None:
        super().__init__()
        self.generator = generator
        self.network = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(16 * width, generator.num_codes * generator.w_dim),
        )

    def invert(self, images: Tensor) -> Inversion:
        offsets = self.network(images).unflatten(1, (self.generator.num_codes, -1))
        return Inversion(codes=self.generator.w_average + offsets, space=LatentSpace.W_PLUS)


class TinyTask(EncoderTask):
    """Squared error, perceptual distance and identity of the one reconstruction."""

    name = "tiny"

    def __init__(self, *, judges: Judges, weights: Mapping[str, float], **shared: object) -> None:
        super().__init__(**shared)  # type: ignore[arg-type]
        self.judges, self.weights = judges, weights

    def loss(self, phase: Phase, batch: Tensor, context: StepContext) -> StepOutput:
        by_output = reconstruction_terms(self.method.reconstructions(batch), batch, self.judges)
        terms = {kind: torch.stack([*each.values()]).sum() for kind, each in by_output.items()}
        return StepOutput(loss=weighted_sum(terms, self.weights), terms=terms)
