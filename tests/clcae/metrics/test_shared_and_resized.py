"""Features computed once for several metrics, and metrics at another size."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from clcae.images import to_uint8
from clcae.metrics.frechet import FrechetDistance
from clcae.metrics.kernel import KernelDistance
from clcae.metrics.reconstruction import MeanSquaredError, StructuralSimilarity
from clcae.metrics.resized import Resized
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


def test_resizing_is_pillows() -> None:
    outputs, targets = (torch.rand(2, 1, 3, 60, 44) * 2 - 1).unbind()
    small = []
    for images in (outputs, targets):
        planes = [
            np.asarray(Image.fromarray(plane.numpy()).resize((22, 32), Image.Resampling.BILINEAR))
            for plane in images[0]
        ]
        small.append(np.stack(planes))
    metric = Resized(metric=MeanSquaredError(), size=(32, 22))
    metric.update(outputs, targets)
    assert metric.compute() == pytest.approx(np.mean((small[0] - small[1]) ** 2), rel=1e-5)
    assert metric.protocol["measured at"].startswith("32 x 22")
    assert (metric.direction, metric.range) == ("lower", (0.0, 4.0))


def test_same_size_is_left_alone_and_parts_merge() -> None:
    outputs, targets = torch.rand(2, 6, 3, 32, 32).unbind()
    parts = [Resized(metric=StructuralSimilarity(), size=(32, 32)) for _ in range(2)]
    plain = StructuralSimilarity()
    plain.update(outputs, targets)
    parts[0].update(outputs[4:], targets[4:])
    parts[1].update(outputs[:4], targets[:4])
    parts[0].merge(parts[1])
    assert parts[0].compute() == plain.compute()
    assert parts[0].num_counted == 6
    with pytest.raises(ValueError, match="cannot merge"):
        parts[0].merge(Resized(metric=MeanSquaredError(), size=(32, 32)))
    with pytest.raises(ValueError, match="cannot merge"):
        parts[0].merge(Resized(metric=StructuralSimilarity(), size=(16, 16)))
    with pytest.raises(ValueError, match=r"expected \[-1, 1\]"):
        parts[0].update(to_uint8(outputs).float(), targets)
    with pytest.raises(ValueError, match="expected positive"):
        Resized(metric=plain, size=(0, 4))
