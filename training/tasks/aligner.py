"""Stage 1: the contrastive aligner of W space (CLCAE section 3.1).

Pairs (G(w), w) are drawn on the fly from the frozen generator, or read from the shards that
scripts/render_pairs.py writes; the paper renders 100,000 once.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clcae.aligner import Aligner
from clcae.data.pairs import RenderedPairs, generated_pairs
from clcae.data.sampler import shuffled
from clcae.data.transforms import at_input_size
from clcae.frozen.judges import Judges, trunk_of
from clcae.losses.contrastive import info_nce, retrieval_accuracy
from clcae.nn.gather import gather_rows
from clcae.serialization import save
from clcae.stylegan2 import Generator
from clcae.stylegan2.synthesis import NoiseMode
from training.task import Phase, StepContext, StepOutput, Task

BATCH = 256  # images embedded at once


class AlignerTask(Task):
    """Trains an aligner with InfoNCE between generated images and their codes."""

    monitor = ("top1_lowest", "max")

    def __init__(
        self,
        *,
        aligner: Aligner,
        generator: Generator,
        judges: Judges | None = None,
        start: Literal["identity", "random"],  # of the image tower's trunk
        pairs: RenderedPairs | None = None,  # None: drawn from the generator in every step
        truncation: float = 1.0,  # of pairs that are drawn; the paper does not state one
        noise: NoiseMode = "random",
        held_out_pairs: int = 256,  # among which partners are looked for in validation
    ) -> None:
        self.aligner = aligner
        self.generator = generator
        self.pairs = pairs
        self.truncation = truncation
        self.noise: NoiseMode = noise
        self.held_out_pairs = held_out_pairs
        self.held_out: tuple[Tensor, Tensor] | None = None
        if start == "identity" and judges is None:
            raise ValueError("start='identity' needs judges, got None: give them, or 'random'")
        self.start_trunk = trunk_of(judges) if judges and start == "identity" else None

    @torch.no_grad()
    def prepare(self) -> None:
        """Sets the averages that the towers subtract, and the start weights of the trunk."""
        picture = self.generator.synthesize(self.generator.w_average[None])
        average = at_input_size(picture, self._size)[0]
        self.aligner.set_averages(image=average, w=self.generator.w_average)
        if self.start_trunk is not None:
            self.aligner.image_tower.trunk.load_state_dict(self.start_trunk.state_dict())

    def modules(self) -> Mapping[str, nn.Module]:
        return {"aligner": self.aligner}

    def load_batch(self, context: StepContext) -> tuple[Tensor, Tensor]:
        """Draws or reads pairs: images at the aligner's input size, and w."""
        if self.pairs is not None:
            indices = shuffled(len(self.pairs), context.seed, context.samples)
            images, w = self.pairs.pairs(indices)
            device = self.generator.w_average.device
            return at_input_size(images.to(device), self._size), w.to(device)
        z = context.normal("z", self.generator.z_dim).to(self.generator.w_average.device)
        w = self.generator.map(z, truncation=self.truncation)
        images = self.generator.synthesize(w, noise=self.noise)
        return at_input_size(images, self._size).clamp(-1.0, 1.0), w

    @property
    def _size(self) -> torch.Size:
        return self.aligner.average_image.shape[1:]

    def loss(self, phase: Phase, batch: tuple[Tensor, Tensor], context: StepContext) -> StepOutput:
        """Computes the symmetric InfoNCE over the global batch."""
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
        """Computes the top-1 retrieval accuracy among held-out pairs, both ways."""
        if self.held_out is None:
            self.held_out = self._held_out_pairs()
        images, w = self.held_out
        embedded = [self.aligner.embed_images(part) for part in images.split(BATCH)]
        to_latent, to_image = retrieval_accuracy(torch.cat(embedded), self.aligner.embed_latents(w))
        return {
            "top1_image_to_latent": float(to_latent),
            "top1_latent_to_image": float(to_image),
            "top1_lowest": min(float(to_latent), float(to_image)),
        }

    def _held_out_pairs(self) -> tuple[Tensor, Tensor]:
        """Draws pairs that no step draws, few at a time where pictures are large."""
        rng = torch.Generator().manual_seed(2**31)
        at_once = min(self.held_out_pairs, self.generator.at_once)
        images, codes = [], []
        for start in range(0, self.held_out_pairs, at_once):
            drawn, w = generated_pairs(
                self.generator,
                count=min(at_once, self.held_out_pairs - start),
                rng=rng,
                device=self.generator.w_average.device,
            )
            images.append(at_input_size(drawn, self._size))
            codes.append(w)
        return torch.cat(images), torch.cat(codes)

    def finish(self, folder: Path) -> Mapping[str, Any]:
        """Writes aligner.safetensors."""
        figures = dict(self.validate())
        save(self.aligner, folder / "aligner.safetensors", provenance={"stage": 1, **figures})
        return figures
