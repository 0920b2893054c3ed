"""Measures of true edits against slow implementations of their own, and strengths known exactly."""

import math

import numpy as np
import pytest
import torch

from clcae.metrics.true_edit import TrueEditMean, area_psnr, equal_change, pasted

GENERATOR = torch.Generator().manual_seed(3)
OUTPUTS, TARGETS = (torch.rand(4, 3, 6, 5, generator=GENERATOR) * 2 - 1 for _ in range(2))
AREA = torch.rand(4, 6, 5, generator=GENERATOR) < 0.4
AREA[2] = False


def test_psnr_within_an_area_pixel_by_pixel() -> None:
    found = area_psnr(OUTPUTS, TARGETS, AREA)
    for picture in range(4):
        squares = [
            ((o + 1) / 2 - (t + 1) / 2) ** 2  # on [0, 1]
            for row in range(6)
            for column in range(5)
            if AREA[picture, row, column]
            for o, t in zip(
                OUTPUTS[picture, :, row, column].tolist(),
                TARGETS[picture, :, row, column].tolist(),
                strict=True,
            )
        ]
        if not squares:
            assert math.isnan(found[picture])
            continue
        assert float(found[picture]) == pytest.approx(
            10 * math.log10(1 / np.mean(squares)), abs=1e-5
        )
    assert area_psnr(TARGETS, TARGETS, AREA)[0] == 100.0


def test_pasting_changes_nothing_outside() -> None:
    mixed = pasted(OUTPUTS, TARGETS, AREA)
    inside = AREA[:, None].expand_as(mixed)
    assert torch.equal(mixed[inside], OUTPUTS[inside])
    assert torch.equal(mixed[~inside], TARGETS[~inside])


def test_mean_is_of_pictures_and_passes_over_what_has_no_value() -> None:
    metric = TrueEditMean("psnr")
    values = torch.tensor([[1.0, 3.0], [math.nan, 8.0], [math.nan, math.nan]])
    assert metric.update(values, values).tolist() == [True, True, False]
    assert metric.compute() == 5.0 and metric.direction == "higher"
    assert TrueEditMean("perceptual").direction == "lower"
    with pytest.raises(ValueError, match=r"values \(3,\): expected \[N, E\]"):
        metric.update(values[:, 0], values[:, 0])


def test_strength_of_equal_change() -> None:
    """Of curves whose inverse is known: linear, bent, too flat, wanted the other way."""
    wanted = torch.tensor([0.3, 0.25, 0.5, -0.1, 1.0], dtype=torch.float64)

    def change(strength: torch.Tensor) -> torch.Tensor:
        one, two, three, four, five = strength
        return torch.stack([one, two**2, 0.4 * three, four, five])

    found = equal_change(change, wanted)
    assert found.reached.tolist() == [True, True, False, True, True]
    assert found.strengths[:2].tolist() == pytest.approx([0.3, 0.5], abs=1e-3)
    assert found.strengths[2:].tolist() == pytest.approx([1.0, 0.0, 1.0], abs=1e-6)
    assert found.grid.tolist() == pytest.approx([k / 8 for k in range(9)])
    assert found.changes[:, 1].tolist() == pytest.approx([(k / 8) ** 2 for k in range(9)])


def test_the_first_strength_counts_and_the_largest_change_where_none_is_enough() -> None:
    """Of a change that comes and goes: sin(pi s), which is at most 1, at 1/2."""
    wanted = torch.tensor([math.sqrt(0.5), 1.5], dtype=torch.float64)
    found = equal_change(lambda strength: (math.pi * strength).sin(), wanted)
    assert found.reached.tolist() == [True, False]
    assert found.strengths.tolist() == pytest.approx([0.25, 0.5], abs=1e-3)
