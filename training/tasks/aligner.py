"""Stage 1: the contrastive aligner of W space (CLCAE section 3.1).

Pairs (G(w), w) are drawn on the fly from the frozen generator; the paper renders 100,000 once.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clcae.aligner import Aligner
from clcae.data.pairs import generated_pairs
from clcae.frozen.portraits import PortraitJudges
from clcae.losses import info_nce, retrieval_accuracy
from clcae.nn.gather import gather_rows
from clcae.serialization import save
from clcae.stylegan2 import Generator
from clcae.stylegan2.synthesis import NoiseMode
from training.task import Phase, StepContext, StepOutput, Task

HELD_OUT_PAIRS = 256


class AlignerTask(Task):
    """InfoNCE between generated images and their codes."""

    monitor = ("top1_lowest", "max")

    def __init__(
        self,
        *,
        aligner: Aligner,
        generator: Generator,
        judges: PortraitJudges | None = None,
        start: Literal["identity", "random"] = "identity",  # of the image tower's trunk
        truncation: float = 1.0,  # of the pairs; the paper does not state one
        noise: NoiseMode = "random",
    ) -> None:
        self.aligner = aligner
        self.generator = generator
        self.truncation = truncation
        self.noise: NoiseMode = noise
        with torch.no_grad():
            image = generator.synthesize(generator.w_average[None])[0]
        aligner.set_averages(image=image, w=generator.w_average)
        if start == "identity":
            if judges is None:
                raise ValueError("start='identity' needs judges, got None: give them, or 'random'")
            trunk = judges.identity.trunk.state_dict()
            aligner.image_tower.trunk.load_state_dict(trunk)
        self.held_out: tuple[Tensor, Tensor] | None = None

    def parameters(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """Both towers and the temperature, under one optimizer."""
        return {"aligner": self.aligner.parameters()}

    def modules(self) -> Mapping[str, nn.Module]:
        """The aligner."""
        return {"aligner": self.aligner}

    def load_batch(self, context: StepContext) -> tuple[Tensor, Tensor]:
        """This rank's rows of the pairs of the step."""
        z = torch.randn(context.batch_size, self.generator.z_dim, generator=context.generator("z"))[
            context.rows
        ]
        w = self.generator.map(z.to(self.generator.w_average.device), truncation=self.truncation)
        return self.generator.synthesize(w, noise=self.noise).clamp(-1.0, 1.0), w

    def loss(self, phase: Phase, batch: tuple[Tensor, Tensor], context: StepContext) -> StepOutput:
        """Symmetric InfoNCE over the global batch."""
        images, w = batch
        image_embeddings = gather_rows(self.aligner.embed_images(images).float())
        latent_embeddings = gather_rows(self.aligner.embed_latents(w).float())
        loss = info_nce(image_embeddings, latent_embeddings, self.aligner.scale)
        to_latent, to_image = retrieval_accuracy(image_embeddings, latent_embeddings)
        terms = {
            "contrastive": loss,
            "top1": (to_latent + to_image) / 2,
            "scale": self.aligner.scale,
        }
        return StepOutput(loss=loss, terms=terms)

    def validate(self) -> Mapping[str, float]:
        """Top-1 retrieval among held-out pairs, both ways."""
        if self.held_out is None:
            self.held_out = generated_pairs(
                self.generator,
                count=HELD_OUT_PAIRS,
                rng=torch.Generator().manual_seed(2**31),
                device=self.generator.w_average.device,
            )
        images, w = self.held_out
        to_latent, to_image = retrieval_accuracy(
            self.aligner.embed_images(images), self.aligner.embed_latents(w)
        )
        return {
            "top1_image_to_latent": float(to_latent),
            "top1_latent_to_image": float(to_image),
            "top1_lowest": min(float(to_latent), float(to_image)),
        }

    def finish(self, folder: Path) -> Mapping[str, Any]:
        """Writes aligner.safetensors."""
        figures = dict(self.validate())
        save(self.aligner, folder / "aligner.safetensors", provenance={"stage": 1, **figures})
        return figures
