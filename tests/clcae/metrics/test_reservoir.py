"""What a reservoir keeps: the same however it came in, and a fair sample."""

import pytest
import torch

from clcae.metrics.reservoir import Reservoir


def filled(vectors: torch.Tensor, *, maximum: int, batch: int) -> Reservoir:
    reservoir = Reservoir(dimension=vectors.shape[1], maximum=maximum)
    for part in vectors.split(batch):
        reservoir.update(part)
    return reservoir


@pytest.mark.parametrize("maximum", [7, 50, 200])
def test_what_is_kept_does_not_depend_on_the_way(maximum: int) -> None:
    vectors = torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
    whole = filled(vectors, maximum=maximum, batch=120)
    shuffled = vectors[torch.randperm(120, generator=torch.Generator().manual_seed(1))]
    first = filled(shuffled[:31], maximum=maximum, batch=2)
    first.merge(filled(shuffled[31:], maximum=maximum, batch=17))
    assert torch.equal(first.vectors(), whole.vectors())
    assert first.count == whole.count == 120
    assert len(whole.vectors()) == min(maximum, 120)
    kept = {tuple(row) for row in whole.vectors().tolist()}
    assert kept <= {tuple(row) for row in vectors.double().tolist()}
    assert len(kept) == len(whole.vectors())


def test_the_sample_is_fair() -> None:
    """Which vectors are kept has nothing to do with where they lie."""
    vectors = torch.randn(10_000, 16, generator=torch.Generator().manual_seed(0)) + 2
    kept = filled(vectors, maximum=1000, batch=640).vectors()
    # Mean and covariance of a sample of 1000, against those of all: within their sampling errors.
    assert float(kept.mean(dim=0).sub(2).abs().max()) < 4 / 1000**0.5
    assert float((kept.T.cov() - torch.eye(16)).abs().max()) < 0.25
    line = filled(torch.arange(1.0, 10_001)[:, None], maximum=1000, batch=640).vectors()
    assert abs(float(line.mean()) - 5000) < 300


def test_rounding_hardly_changes_what_is_kept() -> None:
    """Features differ in their last bits with the batch size of a network."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.rand(3000, 256, generator=generator)
    noise = 1 + 2e-7 * torch.randn(vectors.shape, generator=generator)
    all_of_it = [filled(v, maximum=5000, batch=500).vectors() for v in (vectors, vectors * noise)]
    moved = (all_of_it[0] - all_of_it[1]).abs().max(dim=1).values > 1e-5
    assert float(moved.double().mean()) < 0.01
    some = [filled(v, maximum=500, batch=500).vectors() for v in (vectors, vectors * noise)]
    nearest = torch.cdist(*some).min(dim=1).values
    assert float((nearest > 1e-4).double().mean()) < 0.02


def test_memory_is_bounded_and_copied() -> None:
    reservoir = Reservoir(dimension=2, maximum=5)
    batch = torch.zeros(1, 2)
    for number in range(50):
        batch[:] = number
        reservoir.update(batch)
        assert sum(len(part) for part in reservoir._parts) <= 10
    assert len(set(reservoir.vectors()[:, 0].tolist())) == 5


def test_half_precision_is_kept_as_it_is() -> None:
    half = torch.tensor([[0.1, 1.0], [0.0, 0.0]]).half()
    assert torch.equal(filled(half, maximum=3, batch=1).vectors().sum(dim=0), half.double().sum(0))


def test_refusals() -> None:
    reservoir = Reservoir(dimension=2, maximum=5)
    with pytest.raises(ValueError, match=r"expected \[N, 2\]"):
        reservoir.update(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="not finite"):
        reservoir.update(torch.full((1, 2), torch.inf))
    with pytest.raises(ValueError, match="cannot merge 5 vectors"):
        reservoir.merge(Reservoir(dimension=2, maximum=6))
    with pytest.raises(ValueError, match="expected 1 or more"):
        Reservoir(dimension=2, maximum=0)
    assert reservoir.vectors().shape == (0, 2)
