"""What is measured of an embedded generator, and the card on which it stands."""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clcae.frozen.portraits import PortraitJudges
from clcae.images import labelled_grid, make_grid, write_png
from clcae.methods.projection import project
from clcae.metrics.frechet import FrechetDistance
from clcae.portraits import PortraitImages
from clcae.serialization import save
from clcae.stylegan2 import Generator, LatentSpace

BATCH = 64
IMITATION = (
    "Its mapping network was fitted to a rotation of the latents' scores, then all of it was "
    "trained by imitation of the renderer: pictures regressed from the latents they are drawn "
    "from. The StyleGAN2 losses had no part in it; +experiment=portraits_adversarial goes on with "
    "them."
)


class GeneratorReport:
    """Frechet distance, imitation error and projections on held-out people."""

    def __init__(
        self,
        *,
        judges: PortraitJudges,
        held_out_images: PortraitImages,  # details as rare as in training
        plain_images: PortraitImages,  # held-out people without details
        num_samples: int = 2048,  # of either side of the Frechet distance
        num_projected: int = 64,
        projection_steps: int = 500,
        command: str = "python train.py +experiment=portraits_generator",
        history: str = IMITATION,  # what was done to the generator, for the card
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
        """Frechet distance of random samples, and the error of imitation on held-out people."""
        distance = self._distance(generator)
        indices = torch.arange(min(512, len(self.plain_images)))
        psnr = []
        for part in indices.split(BATCH):
            latents = self.plain_images.plain_latents(part)
            rng = torch.Generator().manual_seed(int(part[0]))
            z = torch.randn(len(part), generator.z_dim, generator=rng)
            z[:, : latents.shape[1]] = latents
            images = generator.synthesize(generator.map(z.to(self._device(generator))))
            psnr += psnr_of(images, self.plain_images.images(part).to(images.device))
        return {"fd": distance, "psnr_imitation": statistics.mean(psnr)}

    def projections(self, generator: Generator, space: LatentSpace) -> tuple[Tensor, list[float]]:
        """Pictures [N, 3, H, W] of optimised codes of held-out people, and their PSNR."""
        targets = self.plain_images.images(torch.arange(self.num_projected))
        targets = targets.to(self._device(generator))
        codes = project(generator, targets, space=space, steps=self.projection_steps)
        images = torch.cat([generator.synthesize(part) for part in codes.split(BATCH)])
        return images, psnr_of(images, targets)

    def write(self, generator: Generator, folder: Path, *, curve: Path) -> Mapping[str, Any]:
        """generator.safetensors, its card generator.md and pictures, in `folder`.

        Args:
            generator: what is measured and written.
            folder: where.
            curve: the run's metrics.jsonl.
        """
        figures: dict[str, Any] = self.quick(generator)
        pictures = {"target": self.plain_images.images(torch.arange(self.num_projected))}
        for space in (LatentSpace.W, LatentSpace.W_PLUS):
            images, psnr = self.projections(generator, space)
            pictures[str(space)] = images.cpu().clamp(-1, 1)
            figures[f"psnr_{space}_median"] = statistics.median(psnr)
        first = {name: images[:8] for name, images in pictures.items()}
        write_png(labelled_grid(first, scale=2), folder / "projections.png")
        rng = torch.Generator().manual_seed(0)
        z = torch.randn(64, generator.z_dim, generator=rng).to(self._device(generator))
        samples = generator.synthesize(generator.map(z)).cpu().clamp(-1, 1)
        write_png(make_grid(samples, columns=8), folder / "samples.png")
        path = folder / "generator.safetensors"
        provenance = {"command": self.command, **figures}
        save(generator, path, provenance=provenance, half=True)
        (folder / "generator.md").write_text(
            card(
                figures,
                read_curve(curve),
                history=self.history,
                command=self.command,
                num_projected=self.num_projected,
            )
        )
        return {**figures, "file": path.name}

    def _distance(self, generator: Generator) -> float:
        if self._targets is None:
            self._targets = self._empty()
            for part in torch.arange(self.num_samples).split(BATCH):
                images = self.held_out_images.images(part).to(self._device(generator))
                self._targets.update_targets(images)
        distance = self._empty()
        distance.targets = self._targets.targets
        rng = torch.Generator().manual_seed(1)
        for part in torch.arange(self.num_samples).split(BATCH):
            z = torch.randn(len(part), generator.z_dim, generator=rng)
            images = generator.synthesize(generator.map(z.to(self._device(generator))))
            distance.update_outputs(images.clamp(-1, 1))
        return distance.compute()

    def _empty(self) -> FrechetDistance:
        return FrechetDistance(
            features=self.judges.pooled,
            features_name="portraits identity embedder, channel means of the last stage",
            dimension=self.judges.pooled_dim,
        )

    def _device(self, generator: Generator) -> torch.device:
        return generator.w_average.device


def psnr_of(images: Tensor, targets: Tensor) -> list[float]:
    """PSNR of every picture, in dB, on the [0, 1] scale after clamping."""
    error = (images.clamp(-1, 1) - targets).square().mean(dim=(1, 2, 3)) / 4.0
    return (-10.0 * torch.log10(error.clamp_min(1e-10))).tolist()


def read_curve(path: Path) -> list[tuple[str, int, float]]:
    """(stage, step, Frechet distance) of every validation in a run's metrics.jsonl."""
    points = []
    for line in path.read_text().splitlines() if path.exists() else []:
        record = json.loads(line)
        values = record.get("validation") or {}
        if "fd" in values:
            points.append((record["stage"], record["step"], values["fd"]))
    return points


def card(
    figures: Mapping[str, Any],
    curve: list[tuple[str, int, float]],
    *,
    history: str,
    command: str,
    num_projected: int,
) -> str:
    """The Markdown card of the generator."""
    rows = "\n".join(f"| {stage} | {step} | {value:.3f} |" for stage, step, value in curve)
    return f"""# generator.safetensors

The embedded StyleGAN2 of the portraits domain: 64x64, z and w of 128, skip architecture. {history}

Made by `{command}`. Weights are stored in
float16; the figures are of the float32 weights before.

| figure | value |
| --- | --- |
| Frechet distance, generated against held-out people | {figures["fd"]:.3f} |
| PSNR of W projections, median | {figures["psnr_W_median"]:.2f} dB |
| PSNR of W+ projections, median | {figures["psnr_W+_median"]:.2f} dB |
| PSNR of imitation, mean | {figures["psnr_imitation"]:.2f} dB |

Projections are 500 Adam steps on {num_projected} held-out portraits without details; imitation is
G(f(z)) for the z that a held-out portrait without details is drawn from. The Frechet distance
is on features of the identity embedder, 2,048 pictures on either side, details as rare as in
training. Over training:

| stage | step | distance |
| --- | --- | --- |
{rows}
"""
