"""LEC: distances of codes, whatever the batches."""

import pytest
import torch
from torch import Tensor

from clcae.metrics.editing import EditingConsistency


def pair(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    codes, noise = torch.randn(2, count, 4, 6, generator=generator)
    return codes + noise, codes


def test_it_does_not_depend_on_batches() -> None:
    recovered, codes = pair(50)
    expected = (codes.double() - recovered.double()).flatten(1).norm(dim=1).mean()
    values = []
    for batch_size in (1, 7, 50):
        metric = EditingConsistency(edit="age 3")
        for outputs, targets in zip(
            recovered.split(batch_size), codes.split(batch_size), strict=True
        ):
            metric.update(outputs, targets)
        values.append(metric.compute())
    assert values[0] == values[1] == values[2] == pytest.approx(float(expected), rel=1e-12)
    assert metric.direction == "lower"


def test_edits_do_not_merge() -> None:
    metric = EditingConsistency(edit="age 3")
    metric.update(*pair(5))


def test_refusals() -> None:
    codes = torch.zeros(2, 3, 4)
    metric = EditingConsistency(edit="age 3")
    with pytest.raises(ValueError, match=r"expected one \[N, L, D\]"):
        metric.update(codes, codes[:, :2])
    with pytest.raises(ValueError, match="not finite"):
        metric.update(codes * torch.nan, codes)
    with pytest.raises(ValueError, match="nothing to average"):
        metric.compute()
