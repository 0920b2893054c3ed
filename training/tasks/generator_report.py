"""The report on a trained portraits generator: figures, pictures and the Markdown card."""

import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clcae.files import write_text
from clcae.frozen.portraits import PortraitJudges
from clcae.images import labelled_grid, write_png
from clcae.methods.optimization import Optimization
from clcae.metrics.frechet import FrechetDistance
from clcae.metrics.reconstruction import peak_signal_to_noise_ratio
from clcae.portraits import PortraitImages
from clcae.serialization import save
from clcae.stylegan2 import Generator, LatentSpace

BATCH = 64


class GeneratorReport:
    """Measures the Frechet distance, imitation error and projections on held-out people."""

    def __init__(
        self,
        *,
        judges: PortraitJudges,
        held_out_images: PortraitImages,  # details as rare as in training
        plain_images: PortraitImages,  # held-out people without details
        num_samples: int = 2048,  # of either side of the Frechet distance
        num_projected: int = 64,
        projection_steps: int = 500,
        command: str,  # that trains the generator, for the card
        history: str,  # sentences about the training, for the card
    ) -> None:
        self.judges = judges
        self.held_out_images = held_out_images
        self.plain_images = plain_images
        self.num_samples = min(num_samples, len(held_out_images))
        self.num_projected = num_projected
        self.projection_steps = projection_steps
        self.command = command
        self.history = history
        self._targets: FrechetDistance | None = None

    def quick(self, generator: Generator) -> dict[str, float]:
        """Computes the Frechet distance of random samples, and the PSNR of imitation."""
        distance = self._distance(generator)
        indices = torch.arange(min(512, len(self.plain_images)))
        psnr = []
        for part in indices.split(BATCH):
            latents = self.plain_images.plain_latents(part)
            rng = torch.Generator().manual_seed(int(part[0]))
            z = torch.randn(len(part), generator.z_dim, generator=rng)
            z[:, : latents.shape[1]] = latents
            images = generator.synthesize(generator.map(z.to(generator.w_average.device)))
            psnr += _psnr(images, self.plain_images.images(part).to(images.device))
        return {"fd": distance, "psnr_imitation": statistics.mean(psnr)}

    def projections(self, generator: Generator, space: LatentSpace) -> tuple[Tensor, list[float]]:
        """Projects held-out people; returns pictures [N, 3, H, W] and the PSNR of each."""
        targets = self.plain_images.images(torch.arange(self.num_projected))
        targets = targets.to(generator.w_average.device)
        method = Optimization(generator=generator, steps=self.projection_steps, output=space.value)
        codes = method.invert(targets).codes
        images = torch.cat([generator.synthesize(part) for part in codes.split(BATCH)])
        return images, _psnr(images, targets)

    def write(self, generator: Generator, folder: Path) -> Mapping[str, Any]:
        """Writes the generator, its card and pictures into the run folder."""
        figures: dict[str, Any] = self.quick(generator)
        pictures = {"target": self.plain_images.images(torch.arange(self.num_projected))}
        for space in (LatentSpace.W, LatentSpace.W_PLUS):
            images, psnr = self.projections(generator, space)
            pictures[str(space)] = images.cpu().clamp(-1, 1)
            figures[f"psnr_{space}_median"] = statistics.median(psnr)
        first = {name: images[:8] for name, images in pictures.items()}
        write_png(labelled_grid(first, scale=2), folder / "projections.png")
        write_png(sample_grid(generator), folder / "samples.png")
        path = folder / "generator.safetensors"
        save(generator, path, provenance={"command": self.command, **figures}, half=True)
        write_text(folder / "generator.md", self._card(figures, folder / "metrics.jsonl"))
        return {**figures, "file": path.name}

    def _distance(self, generator: Generator) -> float:
        if self._targets is None:
            self._targets = self._empty()
            for part in torch.arange(self.num_samples).split(BATCH):
                images = self.held_out_images.images(part).to(generator.w_average.device)
                self._targets.update_targets(images)
        distance = self._empty()
        distance.targets.merge(self._targets.targets)
        rng = torch.Generator().manual_seed(1)
        for part in torch.arange(self.num_samples).split(BATCH):
            z = torch.randn(len(part), generator.z_dim, generator=rng)
            images = generator.synthesize(generator.map(z.to(generator.w_average.device)))
            distance.update_outputs(images.clamp(-1, 1))
        return distance.compute()

    def _empty(self) -> FrechetDistance:
        return FrechetDistance(
            features=self.judges.pooled,
            features_name="portraits identity embedder, channel means of the last stage",
            dimension=self.judges.pooled_dim,
        )

    def _card(self, figures: Mapping[str, Any], log: Path) -> str:
        """Formats the Markdown card; the curve is that of the run's metrics.jsonl."""
        rows = "\n".join(f"| {stage} | {step} | {fd:.3f} |" for stage, step, fd in _curve(log))
        return f"""# generator.safetensors

The embedded StyleGAN2 of the portraits domain: 64x64, z and w of 128, skip architecture.
{self.history}

Made by `{self.command}`. Weights are stored in
float16; the figures are of the float32 weights before.

| figure | value |
| --- | --- |
| Frechet distance, generated against held-out people | {figures["fd"]:.3f} |
| PSNR of W projections, median | {figures["psnr_W_median"]:.2f} dB |
| PSNR of W+ projections, median | {figures["psnr_W+_median"]:.2f} dB |
| PSNR of imitation, mean | {figures["psnr_imitation"]:.2f} dB |

Projections are {self.projection_steps} Adam steps on {self.num_projected} held-out portraits
without details; imitation is G(f(z)) for the z that such a portrait is drawn from. The Frechet
distance is on features of the identity embedder, 2,048 pictures on either side, details as rare as
in training. Over training:

| stage | step | distance |
| --- | --- | --- |
{rows}
"""


def sample_grid(generator: Generator) -> Tensor:
    """Draws an 8x8 grid of random samples, the same z every time, [3, H, W]."""
    from torchvision.utils import make_grid  # slow to import

    z = torch.randn(64, generator.z_dim, generator=torch.Generator().manual_seed(0))
    images = generator.synthesize(generator.map(z.to(generator.w_average.device)))
    return make_grid(images.float().cpu().clamp(-1, 1), nrow=8, pad_value=1.0)


def _psnr(images: Tensor, targets: Tensor) -> list[float]:
    return peak_signal_to_noise_ratio(images.clamp(-1, 1), targets).tolist()


def _curve(path: Path) -> Iterator[tuple[str, int, float]]:
    """Yields stage, step and Frechet distance of every validation in a log."""
    for line in path.read_text().splitlines() if path.exists() else []:
        record = json.loads(line)
        if "fd" in (values := record.get("validation") or {}):
            yield record["stage"], record["step"], values["fd"]
