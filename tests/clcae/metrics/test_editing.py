"""LEC, with and without drift, and response: distances of codes, whatever the batches."""

import copy
import math

import pytest
import torch
from torch import Tensor

from clcae.metrics.editing import DriftFreeConsistency, EditingConsistency, EditingResponse
from clcae.metrics.metric import MeanMetric


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


def pieces(metric: MeanMetric, outputs: Tensor, targets: Tensor) -> float:
    """In two parts that are merged."""
    part = copy.deepcopy(metric)
    metric.update(outputs[:3], targets[:3])
    part.update(outputs[3:], targets[3:])
    metric.merge_state(part.state())
    return metric.compute()


def test_drift_is_taken_out_in_squares() -> None:
    edited, codes = pair(9)
    again = codes + 0.1 * torch.randn(codes.shape, generator=torch.Generator().manual_seed(1))
    expected = 0.0
    for mine, other, theirs in zip(edited.numpy(), again.numpy(), codes.numpy(), strict=True):
        for row, unchanged, true in zip(mine, other, theirs, strict=True):
            for a, b, c in zip(row, unchanged, true, strict=True):
                expected += (float(a) - float(c)) ** 2 - (float(b) - float(c)) ** 2
    expected = math.sqrt(expected / 9)
    metric = DriftFreeConsistency(edit="age 3")
    found = pieces(metric, torch.cat([edited, again], dim=1), torch.cat([codes, codes], dim=1))
    assert found == pytest.approx(expected, rel=1e-5) and found > 1
    nothing = DriftFreeConsistency(edit="age 3")
    assert pieces(nothing, torch.cat([codes, again], dim=1), torch.cat([codes, codes], dim=1)) == 0
    with pytest.raises(ValueError, match=r"expected \[N, 2 L, D\]"):
        metric.update(codes[:, :3], codes[:, :3])


def test_response_is_the_share_found_along_the_move() -> None:
    change, move = pair(9)
    shares = []
    for mine, theirs in zip(change.double().numpy(), move.double().numpy(), strict=True):
        product = sum(float(a * b) for a, b in zip(mine.ravel(), theirs.ravel(), strict=True))
        shares.append(product / sum(float(b) ** 2 for b in theirs.ravel()))
    metric = EditingResponse(edit="age 3")
    assert pieces(metric, change, move) == pytest.approx(sum(shares) / 9, rel=1e-5)
    assert pieces(EditingResponse(edit="e"), move, move) == pytest.approx(1.0, abs=1e-12)
    assert pieces(EditingResponse(edit="e"), 0 * move, move) == 0.0
    aside = (
        change
        - (change * move).sum((1, 2), keepdim=True) / move.square().sum((1, 2), keepdim=True) * move
    )
    assert pieces(EditingResponse(edit="e"), aside, move) == pytest.approx(0.0, abs=1e-6)
    assert (metric.direction, metric.num_counted) == ("higher", 9)
    with pytest.raises(ValueError, match="a move of length 0"):
        metric.update(change, 0 * move)
    with pytest.raises(ValueError, match=r"codes \(9, 3, 6\) and \(9, 4, 6\)"):
        metric.update(change[:, :3], move)
