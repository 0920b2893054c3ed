"""Judging networks: computed once for several metrics, missing ones named."""

import pytest
import torch
from torch import Tensor

from clcae.evaluation.networks import Cached
from clcae.metrics.frechet import FrechetDistance
from clcae.metrics.kernel import KernelDistance


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_two_metrics_over_two_spaces_compute_features_once() -> None:
    calls: list[int] = []

    def features(images: Tensor) -> Tensor:
        calls.append(len(images))
        return images.flatten(1)

    kind = {"features": Cached(features), "features_name": "pixels", "dimension": 12}
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
    cached = Cached(lambda images: images.sum(dim=(1, 2, 3)), kept=1)
    images = torch.rand(2, 3, 4, 4)
    first = cached(images)
    images[0] += 1
    assert not torch.equal(cached(images), first)
    assert torch.equal(cached(images.double()), images.double().sum(dim=(1, 2, 3)))
    with pytest.raises(ValueError, match="0 batches"):
        Cached(torch.clone, kept=0)
