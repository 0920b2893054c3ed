"""Training of an encoder in turn with a discriminator: of latent codes (e4e) or images (StyleRes).

The losses are those of StyleGAN2: non-saturating logistic, and R1 every so many steps and times as
strongly. Without weight the discriminator has no phases, and none of its losses is computed.
"""

import math
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from clcae.data.sources import ImageSource
from clcae.losses.adversarial import logistic_discriminator, logistic_generator, r1_penalty
from clcae.losses.inversion import checked_weights, weighted_sum
from clcae.methods.interface import InversionMethod
from clcae.stylegan2 import Discriminator
from training.task import Phase, StepContext, StepOutput
from training.tasks.encoder import EncoderTask


class AdversarialEncoderTask(EncoderTask):
    """Trains an encoder and a discriminator; a subclass says what the latter sees.

    Args:
        terms: names of the losses of the encoder; one of them is "adversarial".
        discriminator: maps samples [N, ...] to logits [N, 1].
        weights: of `terms`.
        r1_gamma: weight of R1, which is taken every `r1_every` steps and times as strongly.

    Raises:
        ValueError: if weights are not those of `terms`, or a number is negative or not finite.
    """

    def __init__(
        self,
        *,
        method: InversionMethod,
        images: ImageSource,
        validation_images: ImageSource,
        flip: bool,
        terms: Collection[str],
        discriminator: nn.Module,
        weights: Mapping[str, float],
        r1_gamma: float,
        r1_every: int,
    ) -> None:
        if {*weights} != {*terms}:
            given = ", ".join(map(str, weights)) or "empty"
            raise ValueError(f"weights are {given}: expected those of {', '.join(terms)}")
        for key, number, least in (("r1_gamma", r1_gamma, 0), ("r1_every", r1_every, 1)):
            if not least <= number < math.inf:
                raise ValueError(f"{key} is {number}, expected at least {least}")
        super().__init__(
            method=method, images=images, validation_images=validation_images, flip=flip
        )
        self.discriminator = discriminator
        self.weights = checked_weights(weights)
        self.r1_gamma, self.r1_every = r1_gamma, r1_every
        self.adversarial = bool(self.weights["adversarial"])

    @abstractmethod
    def reals(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns real samples [N, ...] for the discriminator."""

    @abstractmethod
    def fakes(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns made samples [N, ...] for the discriminator; called without gradients."""

    @abstractmethod
    def encoder_terms(
        self, batch: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor, Mapping[str, Tensor]]:
        """Computes the losses of the encoder but the adversarial one.

        Returns:
            The terms, the fakes [N, ...] that are to fool the discriminator, and values that are
            logged beside the terms.
        """

    def logits(self, samples: Tensor) -> Tensor:
        """Computes what the discriminator says of samples [N, ...]: [N, 1]."""
        logits: Tensor = self.discriminator(samples)
        return logits

    def modules(self) -> Mapping[str, nn.Module]:
        """Both players."""
        return {"encoder": self.encoder, "discriminator": self.discriminator}

    def parameters(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """One optimizer for each player."""
        players = {"encoder": self.encoder, "discriminator": self.discriminator}
        return {name: module.parameters() for name, module in players.items()}

    def averaged(self) -> Mapping[str, nn.Module]:
        return {"encoder": self.encoder}

    def phases(self, step: int) -> Sequence[Phase]:
        """The discriminator, every so often its R1, then the encoder."""
        phases = [Phase("encoder", "encoder")]
        if self.adversarial and step % self.r1_every == 0:
            phases.insert(0, Phase("r1", "discriminator"))
        if self.adversarial:
            phases.insert(0, Phase("discriminator", "discriminator"))
        return phases

    def loss(self, phase: Phase, batch: Mapping[str, Tensor], context: StepContext) -> StepOutput:
        """Computes the loss of one player, or R1."""
        if phase.name == "encoder":
            terms, fakes, logged = self.encoder_terms(batch)
            if self.adversarial:
                terms = {**terms, "adversarial": logistic_generator(self.logits(fakes).float())}
            loss = weighted_sum(terms, self.weights)
            return StepOutput(loss=loss, terms={**terms, **logged})
        if phase.name == "discriminator":
            with torch.no_grad():
                samples = self.fakes(batch)
            real = self.logits(self.reals(batch)).float()
            fake = self.logits(samples).float()
            loss = logistic_discriminator(real, fake)
            return StepOutput(loss=loss, terms={"real": real.mean(), "fake": fake.mean()})
        with torch.autocast(self.method.device.type, enabled=False):  # differentiated twice
            samples = self.reals(batch).detach().requires_grad_()
            penalty = r1_penalty(self.logits(samples), samples)
        loss = penalty * (self.r1_gamma / 2 * self.r1_every)
        return StepOutput(loss=loss, terms={"penalty": penalty})


def check_side(discriminator: Discriminator, side: int) -> None:
    """Raises ValueError unless a discriminator of images reads pictures of this side, in pixels."""
    reads = 4 << len(discriminator.blocks)
    if reads != side:
        raise ValueError(
            f"the discriminator reads pictures of {reads} pixels, the method those of {side}"
        )
