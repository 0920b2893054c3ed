"""Training of an inversion encoder: everything that the tasks of all methods share.

Batches, flips, validation, sample grids and export of any `InversionMethod`. A method's own task
names its file and adds its losses, and phases with their parameters where it has further networks.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clcae.data.sampler import shuffled
from clcae.data.sources import ImageSource
from clcae.images import labelled_grid
from clcae.methods.interface import InversionMethod
from clcae.serialization import save
from training.task import StepContext, Task

VALIDATED = 256  # images
SHOWN = 8
BATCH = 64


class EncoderTask(Task):
    """Trains the encoder of a method under its frozen generator.

    Args:
        method: the method; its `encoder_modules` are trained, averaged and saved in checkpoints.
        images: the pictures to train on.
        validation_images: the pictures to validate on; the first ones are drawn as samples.
        flip: mirror half of the pictures, chosen at random.
    """

    name: str  # the exported file is NAME.safetensors

    def __init__(
        self,
        *,
        method: InversionMethod,
        images: ImageSource,
        validation_images: ImageSource,
        flip: bool = True,
    ) -> None:
        self.method = method
        self.images = images
        self.validation_images = validation_images
        self.flip = flip
        self.encoder = nn.ModuleDict(method.encoder_modules())
        self.monitor = (f"mse_{method.output}", "min")

    def modules(self) -> Mapping[str, nn.Module]:
        return {"encoder": self.encoder}

    def averaged(self) -> Mapping[str, nn.Module]:
        return self.modules()

    def load_batch(self, context: StepContext) -> Any:
        """Loads shuffled images [N, 3, H, W], each flipped with probability 1/2."""
        images = self.images.images(shuffled(len(self.images), context.seed, context.samples))
        if self.flip:  # drawn for the whole batch, so that it does not matter who computes a row
            coins = torch.rand(context.batch_size, generator=context.generator("flip"))
            flipped = (coins[context.rows] < 0.5)[:, None, None, None]
            images = torch.where(flipped, images.flip(-1), images)
        return images.to(self.method.device)

    def validate(self) -> Mapping[str, float]:
        """Computes the mean squared error of every output on validation images."""
        total = dict.fromkeys(self.method.outputs, 0.0)
        count = min(VALIDATED, len(self.validation_images))
        for part in torch.arange(count).split(min(BATCH, self.method.generator.at_once)):
            images = self.validation_images.images(part).to(self.method.device)
            for name, picture in self.method.reconstructions(images).items():
                error = (picture.float().clamp(-1, 1) - images).square().mean(dim=(1, 2, 3))
                total[name] += float(error.sum())
        return {f"mse_{name}": value / count for name, value in total.items()}

    def samples(self) -> Tensor:
        """Draws the first validation images beside their reconstructions in every output."""
        return reconstruction_grid(self.method, self.validation_images)

    def finish(self, folder: Path) -> Mapping[str, Any]:
        """Writes NAME.safetensors: encoder, generator and averages in one file."""
        figures = dict(self.validate())
        save(self.method, folder / f"{self.name}.safetensors", provenance=figures)
        return figures


def reconstruction_grid(method: InversionMethod, source: ImageSource) -> Tensor:
    """Draws the first images of a source beside their reconstructions, [3, H, W]."""
    indices = torch.arange(min(SHOWN, len(source)))
    images = source.images(indices).to(method.device)
    columns = {"input": images, **method.reconstructions(images)}
    shown = {name: column.float().clamp(-1, 1).cpu() for name, column in columns.items()}
    return labelled_grid(shown, scale=2)
