"""All metrics of pictures in one evaluation, with the networks of the portraits that are shipped.

What `direction` promises is checked on real pictures: worse ones score worse, under every metric.
"""

from collections.abc import Callable, Mapping

import pytest
import torch.nn.functional as F
from torch import Tensor

from clcae.data.sources import TensorImages
from clcae.evaluation.networks import Cached
from clcae.evaluation.rows import Row
from clcae.evaluation.sharded import evaluate
from clcae.evaluation.tally import Measure
from clcae.frozen.portraits import PortraitJudges
from clcae.images import to_uint8
from clcae.metrics.frechet import FrechetDistance
from clcae.metrics.identity import IdentitySimilarity
from clcae.metrics.kernel import KernelDistance, SubsetKernelDistance
from clcae.metrics.manifold import Precision, Recall
from clcae.metrics.metric import Metric
from clcae.metrics.reconstruction import (
    MeanSquaredError,
    PeakSignalToNoiseRatio,
    PerceptualDistance,
)
from clcae.metrics.ssim import (
    UNIFORM_21,
    MultiscaleSimilarity,
    PortedMultiscaleSimilarity,
    StructuralSimilarity,
)
from clcae.portraits import PortraitImages
from clcae.pretrained.assets import portraits_judges

COUNT = 40


@pytest.fixture(scope="module")
def judges() -> PortraitJudges:
    return portraits_judges()


@pytest.fixture(scope="module")
def source() -> TensorImages:
    portraits = PortraitImages(split="test", size=64, num_people=COUNT)
    return TensorImages(pixels=to_uint8(portraits.batch(list(range(COUNT))).images))


class Enlarged(MultiscaleSimilarity):
    """At 192 pixels: five scales need 176."""

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        size = (192, 192)
        enlarged = [F.interpolate(x, size=size, mode="bilinear") for x in (outputs, targets)]
        return super().values(*enlarged)


def metrics_of(judges: PortraitJudges) -> dict[str, Callable[[], Metric]]:
    pooled = {
        "features": Cached(judges.pooled),
        "features_name": "portraits identity embedder, pooled",
        "dimension": judges.pooled_dim,
    }
    return {
        "MSE": MeanSquaredError,
        "PSNR": PeakSignalToNoiseRatio,
        "SSIM": StructuralSimilarity,
        "SSIM 21": lambda: StructuralSimilarity(window=UNIFORM_21),
        "MS-SSIM port": PortedMultiscaleSimilarity,
        "MS-SSIM": Enlarged,
        "perceptual": lambda: PerceptualDistance(
            distance=lambda x, y: judges.distance(judges.features(x), judges.features(y)),
            distance_name=judges.distance_name,
        ),
        "identity": lambda: IdentitySimilarity(
            embedder=judges.identity, embedder_name=judges.identity_name
        ),
        "FD": lambda: FrechetDistance(**pooled),
        "KD": lambda: KernelDistance(**pooled),
        "KD subsets": lambda: SubsetKernelDistance(**pooled, number=5, size=20),
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
        measures={name: Measure(make) for name, make in metrics_of(judges).items()},
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
