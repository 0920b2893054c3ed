"""Running moments against numpy, in any division into parts."""

import numpy as np
import pytest
import torch

from clcae.metrics.moments import Moments


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("sizes", [[50], [1, 49], [10, 0, 25, 15]])
def test_batches_and_parts_equal_numpy(sizes: list[int], offset: float) -> None:
    vectors = torch.randn(50, 4, dtype=torch.float64) * torch.tensor([1, 2, 0.1, 9]) + offset
    running, merged = Moments(dimension=4), Moments(dimension=4)
    for batch in vectors.split(sizes):
        running.update(batch)
        part = Moments(dimension=4)
        part.update(batch)
        merged.merge(part)
    for moments in (running, merged):
        assert moments.count == 50
        np.testing.assert_allclose(moments.mean, vectors.numpy().mean(axis=0), rtol=1e-13)
        expected = np.cov(vectors.numpy(), rowvar=False)
        # Around a million float64 resolves 1e-10.
        np.testing.assert_allclose(
            moments.covariance(), expected, rtol=1e-12, atol=1e-8 if offset else 1e-12
        )


def test_merging_leaves_the_part_as_it_is() -> None:
    whole, part = Moments(dimension=2), Moments(dimension=2)
    part.update(torch.rand(3, 2))
    mean = part.mean.clone()
    whole.merge(part)
    whole.update(torch.rand(3, 2))
    assert part.count == 3
    assert torch.equal(part.mean, mean)


def test_refusals() -> None:
    moments = Moments(dimension=2)
    with pytest.raises(ValueError, match=r"expected \[N, 2\]"):
        moments.update(torch.rand(3, 3))
    with pytest.raises(ValueError, match="not finite"):
        moments.update(torch.tensor([[1.0, float("inf")]]))
    with pytest.raises(ValueError, match="2 and 3 dimensions"):
        moments.merge(Moments(dimension=3))
    moments.update(torch.rand(1, 2))
    with pytest.raises(ValueError, match="1 vectors: a covariance needs two"):
        moments.covariance()
