"""Training of in-domain inversion's encoder, in turn with a discriminator of images.

Zhu et al. 2020, "In-Domain GAN Inversion for Real Image Editing" (arXiv 2004.00049, ECCV 2020),
section 3.1; training/training_loop_encoder.py and training/loss_encoder.py of genforce/idinvert.
Real pictures x go through the encoder and the frozen generator; G(E(x)) is to equal x in pixels and
in the features of a perceptual network, and to fool a discriminator that tells it from x.

Known deviations: the weights of the encoder are averaged over training (`trainer.ema`), which
the official code does not do. Batch norm and R1 are those of the whole batch, over all processes.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from clcae.data.sources import ImageSource
from clcae.data.transforms import at_input_size
from clcae.frozen.judges import PerceptualNetwork
from clcae.methods.in_domain import InDomain
from clcae.stylegan2 import Discriminator
from clcae.stylegan2.synthesis import NoiseMode
from training.task import Phase, StepContext, StepOutput
from training.tasks.adversarial import AdversarialEncoderTask, check_side

TERMS = ("l2", "perceptual", "adversarial")
Order = Literal["encoder_first", "discriminator_first"]


class InDomainTask(AdversarialEncoderTask):
    """Trains the encoder and the discriminator, one step of each on a batch.

    Args:
        method: of W+ or Z+.
        judges: features and perceptual distance; judges of identity have both.
        discriminator: of images; it has no phases if the weight of "adversarial" is 0.
        weights: of TERMS.
        order: who steps first; the official code begins with the encoder.
        r1_gamma: weight of R1. With `r1_every` 1 it is a part of the discriminator's loss, as in
            the official code; else it has a step of its own every so often, times as strong, as
            StyleGAN2 has it.
        start: "samples" begins with mean and deviation of codes of samples; None leaves the
            encoder's, mean 0 and deviation 1 of every number if it is new.

    Raises:
        ValueError: if the method is another, the discriminator reads another size, weights are not
            those of TERMS, or a name or number is out of range.
    """

    name = "in_domain"
    method: InDomain

    def __init__(
        self,
        *,
        method: InDomain,
        images: ImageSource,
        validation_images: ImageSource,
        judges: PerceptualNetwork,
        discriminator: Discriminator,
        weights: Mapping[str, float],
        order: Order = "encoder_first",
        r1_gamma: float = 10.0,
        r1_every: int = 1,
        start: Literal["samples"] | None = "samples",
        flip: bool = True,
        noise: NoiseMode = "const",
    ) -> None:
        if not isinstance(method, InDomain):
            raise ValueError(f"method is a {type(method).__name__}, expected InDomain")
        if order not in ("encoder_first", "discriminator_first"):
            raise ValueError(
                f"order is {order!r}, expected 'encoder_first' or 'discriminator_first'"
            )
        if start not in ("samples", None):
            raise ValueError(f"start is {start!r}, expected 'samples' or null")
        check_side(discriminator, method.image_shape[0])
        super().__init__(
            method=method,
            images=images,
            validation_images=validation_images,
            flip=flip,
            terms=TERMS,
            discriminator=discriminator,
            weights=weights,
            r1_gamma=r1_gamma,
            r1_every=r1_every,
        )
        self.judges = judges
        self.order = order
        self.start = start
        self.noise: NoiseMode = noise

    def prepare(self) -> None:
        """Sets mean and deviation of the codes."""
        if self.start is not None:
            self.method.start_at_samples()

    def phases(self, step: int) -> Sequence[Phase]:
        """Both players in their order; R1 behind the discriminator where it has its own step."""
        phases = [*super().phases(step)]
        if self.r1_every == 1:
            phases = [phase for phase in phases if phase.name != "r1"]
        if self.order == "encoder_first":
            phases.sort(key=lambda phase: phase.name != "encoder")
        return phases

    def load_batch(self, context: StepContext) -> dict[str, Tensor]:
        """Loads images [N, 3, H, W]."""
        return {"images": super().load_batch(context)}

    def loss(self, phase: Phase, batch: Mapping[str, Tensor], context: StepContext) -> StepOutput:
        """Computes the loss of one player; R1 is a part of it if it is taken in every step."""
        output = super().loss(phase, batch, context)
        if phase.name != "discriminator" or self.r1_every != 1:
            return output
        r1 = super().loss(Phase("r1", phase.optimizer), batch, context)
        return StepOutput(loss=output.loss + r1.loss, terms={**output.terms, **r1.terms})

    def pictures(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> Tensor:
        """Computes G(E(x)), as large as the images."""
        picture = self.method.generator.synthesize(self.method.encode(images), noise=self.noise)
        return at_input_size(picture, images.shape[-2:])

    def reals(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The images."""
        return batch["images"]

    def fakes(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Their reconstructions; the encoder is in train mode, as in the official code."""
        return self.pictures(batch["images"])

    def encoder_terms(
        self, batch: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor, Mapping[str, Tensor]]:
        """Computes squared error and perceptual distance; the reconstructions are to fool."""
        images = batch["images"]
        pictures = self.pictures(images)
        wanted = [feature.detach() for feature in self.judges.features(images)]
        distance = self.judges.distance(self.judges.features(pictures), wanted)
        terms = {
            "l2": (pictures.float() - images).square().mean(),
            "perceptual": distance.float().mean(),
        }
        return terms, pictures, {}
