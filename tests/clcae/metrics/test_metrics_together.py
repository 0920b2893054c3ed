"""All metrics of pictures in one evaluation, with the networks of the portraits that are shipped.

What `direction` promises is checked on real pictures: worse ones score worse, under every metric.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import clcae
from clcae.data.sources import TensorImages
from clcae.evaluation.rows import Row
from clcae.evaluation.tally import evaluate
from clcae.frozen.portraits import PortraitJudges
from clcae.images import to_uint8
from clcae.metrics.consistency import EditingConsistency, OfficialEditingConsistency, edit_and_undo
from clcae.metrics.frechet import FrechetDistance
from clcae.metrics.identity import IdentitySimilarity
from clcae.metrics.kernel import KernelDistance, SubsetKernelDistance, Subsets
from clcae.metrics.manifold import Precision, Recall
from clcae.metrics.metric import Metric
from clcae.metrics.multiscale import MultiscaleSimilarity, PortedMultiscaleSimilarity
from clcae.metrics.perceptual import PerceptualDistance
from clcae.metrics.reconstruction import (
    UNIFORM_21,
    MeanSquaredError,
    PeakSignalToNoiseRatio,
    StructuralSimilarity,
)
from clcae.metrics.shared import Remembered
from clcae.portraits import PortraitDataset
from clcae.pretrained.assets import portraits_judges

COUNT = 40


@pytest.fixture(scope="module")
def judges() -> PortraitJudges:
    return portraits_judges()


@pytest.fixture(scope="module")
def source() -> TensorImages:
    portraits = PortraitDataset("test", size=64, length=COUNT)
    return TensorImages(
        pixels=torch.stack([to_uint8(portraits[index].images) for index in range(COUNT)])
    )


class Enlarged(MultiscaleSimilarity):
    """At 192 pixels: five scales need 176."""

    def pixel_values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        size = (192, 192)
        enlarged = [F.interpolate(x, size=size, mode="bilinear") for x in (outputs, targets)]
        return super().pixel_values(*enlarged)


def metrics_of(judges: PortraitJudges) -> dict[str, Callable[[], Metric]]:
    pooled = {
        "features": Remembered(judges.pooled),
        "features_name": "portraits identity embedder, pooled",
        "dimension": judges.pooled_dim,
    }
    subsets = Subsets(number=5, size=20)
    return {
        "MSE": MeanSquaredError,
        "PSNR": PeakSignalToNoiseRatio,
        "SSIM": StructuralSimilarity,
        "SSIM 21": lambda: StructuralSimilarity(window=UNIFORM_21, quantise=True),
        "MS-SSIM port": PortedMultiscaleSimilarity,
        "MS-SSIM": Enlarged,
        "perceptual": lambda: PerceptualDistance(
            distance=judges.distance_of_images, distance_name=judges.distance_name
        ),
        "identity": lambda: IdentitySimilarity(
            embedder=judges.embed_images, embedder_name=judges.identity_name
        ),
        "FD": lambda: FrechetDistance(**pooled),
        "KD": lambda: KernelDistance(**pooled),
        "KD subsets": lambda: SubsetKernelDistance(**pooled, subsets=subsets),
        "precision": lambda: Precision(**pooled),
        "recall": lambda: Recall(**pooled),
    }


def reconstructions(images: Tensor) -> Mapping[str, Tensor]:
    """The pictures slightly and strongly blurred, as a bad encoder does."""
    fine = F.avg_pool2d(images, 3, stride=1, padding=1)
    coarse = F.interpolate(F.avg_pool2d(images, 8), scale_factor=8, mode="bilinear")
    return {"fine": fine, "coarse": coarse}


def evaluated(judges: PortraitJudges, source: TensorImages, batch_size: int) -> dict[str, Row]:
    return evaluate(
        reconstructions,
        source,
        method="blur",
        metrics=metrics_of(judges),
        batch_size=batch_size,
    )


def test_worse_pictures_score_worse_under_every_metric(
    judges: PortraitJudges, source: TensorImages
) -> None:
    rows = evaluated(judges, source, 20)
    assert len(rows["fine"].metrics) == 13
    for name, make in metrics_of(judges).items():
        fine, coarse = rows["fine"].metrics[name], rows["coarse"].metrics[name]
        low, high = make().range
        assert low <= fine <= high and low <= coarse <= high, name
        assert (fine > coarse) == (make().direction == "higher"), (name, fine, coarse)
        assert rows["fine"].protocol[name]["direction"] == make().direction
    again = evaluated(judges, source, 7)
    for space, row in rows.items():
        for name, value in row.metrics.items():
            assert again[space].metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_latent_editing_consistency_of_a_method(source: TensorImages) -> None:
    method = clcae.load_method("portraits/clcae").with_output("W+").eval()
    images = source.images(range(10))
    step = 0.05 * torch.randn(1, generator=torch.Generator().manual_seed(0))
    template = method.invert(images[:1])

    def invert(pictures: Tensor) -> Tensor:
        return method.invert(pictures).codes

    def synthesize(codes: Tensor) -> Tensor:
        return method.synthesize(replace(template, codes=codes))

    def measure(batch_size: int, undo: float) -> tuple[float, float]:
        plain = EditingConsistency(edit="all codes moved")
        official = OfficialEditingConsistency(edit="all codes moved", batch_size=batch_size)
        for part in images.split(batch_size):
            pair = edit_and_undo(
                part,
                invert=invert,
                synthesize=synthesize,
                edit=lambda codes: codes + step,
                undo=lambda codes: codes - undo * step,
            )
            for metric in (plain, official):
                metric.update(*pair)
        return plain.compute(), official.compute()

    whole, parts = measure(10, undo=1), measure(5, undo=1)
    assert whole[0] == pytest.approx(parts[0], rel=1e-4)  # it does not depend on the batch size
    assert whole[0] == pytest.approx(whole[1], rel=1e-9)  # nor, with so few batches, the script
    assert 0 < whole[0] < math.inf
    assert measure(4, undo=1)[1] != pytest.approx(whole[1], rel=1e-3)  # the last two are dropped
