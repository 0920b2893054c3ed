"""The end of a run: the held-out images through the trained method, as table and picture."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clcae.data.sources import ImageSource
from clcae.evaluation.preparation import Preparation
from clcae.evaluation.rows import Row, write_rows
from clcae.evaluation.tally import Measure, evaluate, time_per_image, timing_words
from clcae.files import replacing
from clcae.frozen.judges import Judges
from clcae.images import labelled_grid, write_png
from clcae.methods.foundation import FoundationInversion
from clcae.metrics.identity import IdentitySimilarity
from clcae.metrics.perceptual import PerceptualDistance
from clcae.metrics.reconstruction import (
    MeanSquaredError,
    PeakSignalToNoiseRatio,
    StructuralSimilarity,
)
from clcae.metrics.shared import Remembered
from clcae.tables.markdown import markdown_table

COLUMNS = {"MSE": 4, "PSNR": 2, "SSIM": 3, "perceptual": 3, "identity": 3, "ms": 1}
SHOWN = 8
BATCH = 64


class InversionReport:
    """Rows W, W+ and F of a method on held-out images; table.json, table.md and grid.png."""

    def __init__(
        self,
        *,
        method: FoundationInversion,
        test_images: ImageSource,
        judges: Judges,
        name: str = "CLCAE",
        timed_batch: int = 1,
    ) -> None:
        self.method = method
        self.test_images = test_images
        self.judges = judges
        self.name = name
        self.timed_batch = timed_batch

    @torch.no_grad()
    def write(self, folder: Path) -> dict[str, Any]:
        """Evaluates, times, writes and prints; returns space -> metric -> value."""
        rows = list(self.rows().values())
        write_rows(rows, folder / "table.json")
        table = markdown_table(rows, metrics=list(COLUMNS), decimals=COLUMNS)
        with replacing(folder / "table.md") as unfinished:
            unfinished.write_text(table)
        write_png(self.grid(), folder / "grid.png")
        print(f"\n{len(self.test_images)} held-out images\n\n{table}\n{folder / 'grid.png'}")
        return {row.space: dict(row.metrics) for row in rows}

    def rows(self) -> dict[str, Row]:
        """One row a space, timings included."""
        judges, as_files = self.judges, Preparation(levels="uint8")
        # Every picture goes through the judges once, for both questions; a list is remembered too.
        features: Callable[[Tensor], Any] = Remembered(judges.features)  # type: ignore[arg-type]
        rows = evaluate(
            self.method.reconstructions,
            self.test_images,
            method=self.name,
            metrics={
                "MSE": Measure(MeanSquaredError, as_files),
                "PSNR": Measure(PeakSignalToNoiseRatio, as_files),
                "SSIM": Measure(StructuralSimilarity, as_files),
                "perceptual": lambda: PerceptualDistance(
                    distance=lambda x, y: judges.distance(features(x), features(y)),
                    distance_name=judges.distance_name,
                ),
                "identity": lambda: IdentitySimilarity(
                    embedder=lambda x: judges.embed(features(x)),
                    embedder_name=judges.identity_name,
                ),
            },
            batch_size=min(BATCH, self.method.generator.at_once),
            device=self._device,
        )
        images = self._images(self.timed_batch)
        protocol = timing_words(self._device, batch=self.timed_batch)
        timed = {}
        for space, row in rows.items():
            reconstruct = partial(self.method.reconstruct, output=space)
            milliseconds = time_per_image(reconstruct, images)
            timed[space] = replace(
                row,
                metrics={**row.metrics, "ms": milliseconds},
                protocol={**row.protocol, "ms": protocol},
            )
        return timed

    def grid(self) -> Tensor:
        """input | W | W+ | F of the first images, [3, H, W]."""
        images = self._images(SHOWN)
        columns = {"input": images, **self.method.reconstructions(images)}
        shown = {name: column.clamp(-1, 1).cpu() for name, column in columns.items()}
        return labelled_grid(shown, scale=2)

    @property
    def _device(self) -> torch.device:
        return self.method.average_image.device

    def _images(self, count: int) -> Tensor:
        count = min(count, len(self.test_images))
        return self.test_images.images(torch.arange(count)).to(self._device)
