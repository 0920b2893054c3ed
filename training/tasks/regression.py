"""Training on samples of the generator, whose codes are known: a warm start for other stages.

Gradients that come from pictures to codes of Z through the mapping network say little at first.
Here codes are drawn, their pictures are inverted, and the codes themselves are the targets; no
picture of a data set is read but for validation. It serves any encoder of codes alone.

This is no published training; ALAE and others regress codes of samples too. Half of the pictures
may mix two codes at a random layer (Karras et al. 2019, section 3.1), the way in which the
generator itself was trained, so that rows differ.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.data.sources import ImageSource
from clcae.data.transforms import at_input_size
from clcae.losses.inversion import checked_weights, weighted_sum
from clcae.methods.interface import InversionMethod
from clcae.nn.trunk import Trunk
from clcae.stylegan2.generator import style_mixing
from clcae.stylegan2.synthesis import NoiseMode
from training.task import Phase, StepContext, StepOutput
from training.tasks.encoder import EncoderTask

TERMS = ("angle", "w")


class RegressionTask(EncoderTask):
    """Regresses the codes of samples on their pictures.

    Args:
        method: gives codes of Z, Z+, W or W+.
        weights: of TERMS: "angle" is 1 - cosine of rows of Z and Z+, "w" the squared error of codes
            of W+, after the mapping.
        mixing: probability that a picture has two codes.
        start: the trunk with whose weights an encoder of the pSp family begins; None: random ones.

    Raises:
        ValueError: if weights are not those of TERMS, angles are weighted for a method of W or W+,
            mixing is no probability, or a start is given for an encoder without a trunk.
    """

    name = "regression"

    def __init__(
        self,
        *,
        method: InversionMethod,
        validation_images: ImageSource,
        weights: Mapping[str, float],
        mixing: float = 0.5,
        start: Trunk | None = None,
        noise: NoiseMode = "random",
    ) -> None:
        if {*weights} != {*TERMS}:
            given = ", ".join(map(str, weights)) or "empty"
            raise ValueError(f"weights are {given}: expected those of {', '.join(TERMS)}")
        if method.output not in ("Z", "Z+") and weights["angle"]:
            raise ValueError(
                f"weights.angle is {weights['angle']}, expected 0: the method has codes of "
                f"{method.output}, not of Z or Z+"
            )
        if not 0.0 <= mixing <= 1.0:
            raise ValueError(f"mixing is {mixing}, expected a probability")
        trunks = [module for module in method.modules() if isinstance(module, Trunk)]
        if start is not None and len(trunks) != 1:
            raise ValueError(f"start is given, and the method has {len(trunks)} trunks, not one")
        super().__init__(
            method=method, images=validation_images, validation_images=validation_images, flip=False
        )
        self.weights = checked_weights(weights)
        self.mixing = mixing
        self.start, self.trunks = start, trunks
        self.noise: NoiseMode = noise

    def prepare(self) -> None:
        """Sets the start weights of the trunk."""
        if self.start is not None:
            self.trunks[0].load_state_dict(self.start.state_dict())

    def load_batch(self, context: StepContext) -> dict[str, Tensor]:
        """Draws rows of Z+ [N, L, z_dim], equal ones where nothing is mixed."""
        generator = self.method.generator
        rows, count = generator.num_codes, context.batch_size
        rng = context.generator("mixing")
        mixed = torch.rand(count, generator=rng) < self.mixing
        crossover = torch.randint(1, rows, [count], generator=rng)
        crossover = torch.where(mixed, crossover, rows)[context.rows]
        first, second = (context.normal(name, generator.z_dim) for name in ("z", "second z"))
        z = style_mixing(first, second, num_rows=rows, crossover=crossover)
        return {"z": z.to(self.method.device)}

    def loss(self, phase: Phase, batch: Mapping[str, Tensor], context: StepContext) -> StepOutput:
        """Synthesizes pictures of the codes, inverts them, and compares the codes."""
        generator, z = self.method.generator, batch["z"]
        with torch.no_grad():
            w = generator.map(z)
            pictures = generator.synthesize(w, noise=self.noise)
            images = at_input_size(pictures.float(), self.method.image_shape).clamp(-1, 1)
        inversion = self.method.invert(images)
        found = self.method.mapped(inversion).codes.float()
        terms = {"w": (found - w.float()).square().mean()}
        if not inversion.space.is_mapped:
            cosine = F.cosine_similarity(inversion.codes.float(), z, dim=2)
            terms["angle"] = 1.0 - cosine.mean()
        loss = weighted_sum(terms, self.weights)
        return StepOutput(loss=loss, terms=terms)

    def finish(self, folder: Path) -> Mapping[str, Any]:
        """Returns the validation values; the weights are those that the next stage begins with."""
        return self.validate()
