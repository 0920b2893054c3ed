"""Training of the base-code encoder of F/Z+ and BDInvert, on pictures of the generator alone.

F/Z+ (arXiv 2307.08995), section 3; BDInvert's training of its base-code encoder, whose values are
those of task/base_code_paper.yaml. A picture is sampled, encoded as the feature at one layer, and
synthesized from that feature and the rows of its own code behind the layer.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from clcae.encoders.base_code import BaseCodeEncoder
from clcae.frozen.judges import PerceptualNetwork
from clcae.images import labelled_grid
from clcae.losses.inversion import checked_weights, weighted_sum
from clcae.losses.optimization import perceptual_features
from clcae.serialization import save
from clcae.stylegan2 import Generator, Prefix
from training.task import Phase, StepContext, StepOutput, Task

TERMS = ("l2", "perceptual")
SHOWN = 8
HELD_OUT_SEED = 2**31  # of codes that no step draws


class BaseCodeTask(Task):
    """Trains the encoder so that pictures synthesized from its feature equal those it reads.

    Args:
        encoder: its feature has the shape of the generator's at `layer`.
        generator: frozen.
        layer: whose feature is replaced.
        perceptual: network of the perceptual distance.
        perceptual_size: side to which pictures are scaled for it; None leaves them.
        weights: of "l2" and "perceptual".
        truncation: psi of the sampled codes.
        truncated_rows: number of their first rows that are truncated; None: all.
        held_out: pictures that validation samples.

    Raises:
        ValueError: if the feature has another shape, weights are others, or a number
            is out of range.
    """

    monitor = ("l2", "min")

    def __init__(
        self,
        *,
        encoder: BaseCodeEncoder,
        generator: Generator,
        layer: str,
        perceptual: nn.Module,
        perceptual_size: int | None,
        weights: Mapping[str, float],
        truncation: float,
        truncated_rows: int | None,
        held_out: int = 256,
    ) -> None:
        self.layer = generator.layer(layer)
        expected = generator.feature_shape(self.layer)
        if encoder.out_shape != expected:
            raise ValueError(
                f"the encoder gives features {encoder.out_shape}, the generator's layer "
                f"{self.layer} has {expected}"
            )
        if not math.isfinite(truncation) or held_out < 1:
            raise ValueError(
                f"truncation is {truncation} and held_out {held_out}: expected a number, and 1 or "
                "more"
            )
        if {*weights} != {*TERMS}:
            raise ValueError(f"weights are {[*weights]}: expected those of {', '.join(TERMS)}")
        self.encoder, self.generator = encoder, generator
        self.perceptual = cast("PerceptualNetwork", perceptual)
        self.perceptual_size = perceptual_size
        self.weights = checked_weights(weights)
        self.truncation, self.truncated_rows = truncation, truncated_rows
        self.held_out = held_out

    def modules(self) -> Mapping[str, nn.Module]:
        return {"encoder": self.encoder}

    def averaged(self) -> Mapping[str, nn.Module]:
        return self.modules()

    def load_batch(self, context: StepContext) -> dict[str, Tensor]:
        """Samples codes of W+ [N, L, w_dim] and generates their pictures."""
        return self._sampled(context.normal("z", self.generator.z_dim))

    def _sampled(self, z: Tensor) -> dict[str, Tensor]:
        codes = self.generator.map(
            z.to(self.generator.w_average),
            truncation=self.truncation,
            truncated_rows=self.truncated_rows,
        )
        return {"codes": codes, "images": self.generator.synthesize(codes)}

    def _reconstructed(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Synthesizes pictures [N, 3, R, R] from the encoder's feature and the batch's codes."""
        prefix = Prefix(self.layer, self.encoder(batch["images"]), None)
        return self.generator.finish(prefix, batch["codes"])

    def loss(self, phase: Phase, batch: Mapping[str, Tensor], context: StepContext) -> StepOutput:
        """Computes the squared error and the perceptual distance of pictures."""
        pictures, images = self._reconstructed(batch), batch["images"]
        with torch.no_grad():
            targets = perceptual_features(images, self.perceptual, self.perceptual_size)
        made = perceptual_features(pictures, self.perceptual, self.perceptual_size)
        terms = {
            "l2": (pictures.float() - images).square().mean(),
            "perceptual": self.perceptual.distance(made, targets).float().mean(),
        }
        return StepOutput(loss=weighted_sum(terms, self.weights), terms=terms)

    def validate(self) -> Mapping[str, float]:
        """Computes the mean squared error on held-out samples, few at a time."""
        total = 0.0
        for batch in self._held_out(self.held_out):
            error = (self._reconstructed(batch).float() - batch["images"]).square()
            total += float(error.mean(dim=(1, 2, 3)).sum())
        return {"l2": total / self.held_out}

    def _held_out(self, number: int) -> Iterator[dict[str, Tensor]]:
        rng = torch.Generator().manual_seed(HELD_OUT_SEED)
        z = torch.randn(number, self.generator.z_dim, generator=rng)
        yield from map(self._sampled, z.split(min(64, self.generator.at_once)))

    def samples(self) -> Tensor:
        """Draws held-out samples beside what is made of their base codes, [3, H, W]."""
        batches = [*self._held_out(SHOWN)]
        columns = {
            "sample": torch.cat([batch["images"] for batch in batches]),
            "base code": torch.cat([self._reconstructed(batch) for batch in batches]),
        }
        shown = {name: column.float().clamp(-1, 1).cpu() for name, column in columns.items()}
        return labelled_grid(shown, scale=2)

    def finish(self, folder: Path) -> Mapping[str, Any]:
        """Writes base_code.safetensors."""
        figures = {**self.validate(), "layer": self.layer.name}
        save(self.encoder, folder / "base_code.safetensors", provenance=figures)
        return figures
