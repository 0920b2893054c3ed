"""Features computed once for several metrics."""

import pytest
import torch
from torch import Tensor

from clcae.metrics.frechet import FrechetDistance
from clcae.metrics.kernel import KernelDistance
from clcae.metrics.shared import Remembered


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_two_metrics_over_two_spaces_compute_features_once() -> None:
    calls: list[int] = []

    def features(images: Tensor) -> Tensor:
        calls.append(len(images))
        return images.flatten(1)

    kind = {"features": Remembered(features), "features_name": "pixels", "dimension": 12}
    targets = torch.rand(6, 3, 2, 2)
    values = []
    for _ in ("W", "W+"):
        outputs = torch.rand(6, 3, 2, 2)
        metrics = FrechetDistance(**kind), KernelDistance(**kind)
        for metric in metrics:
            metric.update(outputs.clamp(-1, 1), targets)  # equal, not the same
        values.append([metric.compute() for metric in metrics])
        plain = FrechetDistance(**{**kind, "features": lambda images: images.flatten(1)})
        plain.update(outputs, targets)
        assert values[-1][0] == plain.compute()
    assert len(calls) == 3  # the targets, and the outputs of each space
    assert values[0] != values[1]


def test_images_changed_in_place_are_computed_again() -> None:
    remembered = Remembered(lambda images: images.sum(dim=(1, 2, 3)), kept=1)
    images = torch.rand(2, 3, 4, 4)
    first = remembered(images)
    images[0] += 1
    assert not torch.equal(remembered(images), first)
    assert torch.equal(remembered(images.double()), images.double().sum(dim=(1, 2, 3)))
    with pytest.raises(ValueError, match="0 batches"):
        Remembered(torch.clone, kept=0)
