"""Metrics over all pairs give the same, however few of the pairs lie in memory at once."""

import pytest
import torch

from clcae.metrics import feature_sets
from clcae.metrics.feature_sets import ENTRIES, row_blocks
from clcae.metrics.kernel import kernel_distance
from clcae.metrics.manifold import share_inside


def test_a_block_is_never_larger_than_it_may_be() -> None:
    vectors = torch.zeros(10_000, 1)
    found = row_blocks(vectors, columns=10_000)
    assert sum(map(len, found)) == 10_000
    assert max(map(len, found)) * 10_000 <= ENTRIES
    assert len(row_blocks(vectors[:3], columns=ENTRIES + 1)) == 3  # one row, however long
    assert len(row_blocks(vectors[:3], columns=1)) == 1


def test_values_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(61, 5, dtype=torch.float64, generator=generator)
    second = torch.randn(47, 5, dtype=torch.float64, generator=generator) + 0.3
    whole = kernel_distance(first, second), share_inside(first, second)
    monkeypatch.setattr(feature_sets, "ENTRIES", 150)
    assert len(row_blocks(first, columns=47)) > 10
    parts = kernel_distance(first, second), share_inside(first, second)
    assert parts == pytest.approx(whole, rel=1e-12)
