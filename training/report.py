"""The final report of a run: the trained method on held-out images, as a table and a picture."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from clcae.data.sources import ImageSource
from clcae.evaluation.networks import Cached
from clcae.evaluation.preparation import Preparation
from clcae.evaluation.rows import Row, write_rows
from clcae.evaluation.sharded import evaluate
from clcae.evaluation.tally import Measure
from clcae.files import write_text
from clcae.frozen.judges import Judges
from clcae.images import write_png
from clcae.methods.interface import InversionMethod
from clcae.metrics.cost import time_per_image, timing_words
from clcae.metrics.identity import IdentitySimilarity
from clcae.metrics.reconstruction import (
    MeanSquaredError,
    PeakSignalToNoiseRatio,
    PerceptualDistance,
)
from clcae.metrics.ssim import StructuralSimilarity
from clcae.tables.comparison import rows_sheet
from clcae.tables.formats import markdown_table
from training.tasks.encoder import reconstruction_grid

COLUMNS = {"MSE": 4, "PSNR": 2, "SSIM": 3, "perceptual": 3, "identity": 3, "ms": 1}
BATCH = 64


class InversionReport:
    """Measures every output of a method on held-out images."""

    def __init__(
        self, *, method: InversionMethod, test_images: ImageSource, judges: Judges
    ) -> None:
        self.method = method
        self.test_images = test_images
        self.judges = judges

    @torch.no_grad()
    def write(self, folder: Path) -> dict[str, Any]:
        """Writes table.json, table.md and grid.png; prints the table: output -> metric -> value."""
        rows = list(self.rows().values())
        write_rows(rows, folder / "table.json")
        table = markdown_table(rows_sheet(rows, metrics=list(COLUMNS), decimals=COLUMNS))
        write_text(folder / "table.md", table)
        write_png(reconstruction_grid(self.method, self.test_images), folder / "grid.png")
        print(f"\n{len(self.test_images)} held-out images\n\n{table}\n{folder / 'grid.png'}")
        return {row.space: dict(row.metrics) for row in rows}

    def rows(self) -> dict[str, Row]:
        """Returns the row of every output, with the time of one image."""
        judges, as_files = self.judges, Preparation(levels="uint8")
        features = Cached(judges.features)  # one pass of the judges answers both questions
        rows = evaluate(
            self.method.reconstructions,
            self.test_images,
            method=self.method.label,
            measures={
                "MSE": Measure(MeanSquaredError, as_files),
                "PSNR": Measure(PeakSignalToNoiseRatio, as_files),
                "SSIM": Measure(StructuralSimilarity, as_files),
                "perceptual": Measure(
                    lambda: PerceptualDistance(
                        distance=lambda x, y: judges.distance(features(x), features(y)),
                        distance_name=judges.distance_name,
                    )
                ),
                "identity": Measure(
                    lambda: IdentitySimilarity(
                        embedder=lambda x: judges.embed(features(x)),
                        embedder_name=judges.identity_name,
                    )
                ),
            },
            batch_size=min(BATCH, self.method.generator.at_once),
            device=self.method.device,
        )
        image = self.test_images.images(torch.arange(1)).to(self.method.device)
        protocol = timing_words(self.method.device, batch=1)
        timed = {}
        for output, row in rows.items():
            milliseconds = time_per_image(partial(self.method.reconstruct, output=output), image)
            timed[output] = replace(
                row,
                metrics={**row.metrics, "ms": milliseconds},
                protocol={**row.protocol, "ms": protocol},
            )
        return timed
