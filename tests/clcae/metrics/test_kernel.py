"""The kernel distance against torch-fidelity's KID and against numpy, pair by pair."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity import metric_kid

from clcae.metrics.kernel import KernelDistance, SubsetKernelDistance, kernel_distance


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def fidelity(first: Tensor, second: Tensor, **settings: int) -> float:
    result = metric_kid.kid_features_to_metric(
        first.double(), second.double(), verbose=False, **settings
    )
    return result["kernel_inception_distance_mean"]


def metric(dimension: int = 12, maximum: int = 1000) -> KernelDistance:
    return KernelDistance(
        features=lambda images: images.flatten(1),
        features_name="pixels",
        dimension=dimension,
        maximum=maximum,
    )


def test_all_pairs_agree_with_torch_fidelity() -> None:
    first, second = torch.randn(200, 32), torch.randn(200, 32) * 1.3 + 0.2
    expected = fidelity(first, second, kid_subsets=1, kid_subset_size=200)
    assert kernel_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_sets_of_other_sizes_agree_with_the_definition() -> None:
    first, second = np.random.default_rng(0).standard_normal((2, 9, 4))
    second = second[:5] + 1

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 4 + 1) ** 3)

    within = [
        np.mean([kernel(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j])
        for s in (first, second)
    ]
    across = np.mean([kernel(a, b) for a in first for b in second])
    ours = kernel_distance(torch.from_numpy(first), torch.from_numpy(second))
    assert ours == pytest.approx(sum(within) - 2 * across, rel=1e-10)


def test_the_estimate_is_unbiased() -> None:
    """Its mean over draws from one distribution is 0, where a biased one would exceed 0."""
    values = torch.tensor(
        [kernel_distance(torch.randn(20, 4), torch.randn(20, 4)) for _ in "x" * 400]
    )
    assert abs(float(values.mean())) < 3 * float(values.std()) / 20
    assert (values < 0).any()


def test_subsets_agree_with_torch_fidelity() -> None:
    ours = SubsetKernelDistance(
        features=lambda images: images.flatten(1),
        features_name="pixels",
        dimension=12,
        number=7,
        size=40,
    )
    ours.update_outputs(torch.rand(90, 3, 2, 2))
    ours.update_targets(torch.rand(70, 3, 2, 2) ** 2)
    kept = ours.outputs.vectors(), ours.targets.vectors()
    expected = fidelity(*kept, kid_subsets=7, kid_subset_size=40, rng_seed=2020)
    assert ours.compute() == pytest.approx(expected, rel=1e-9)
    assert ours.protocol["estimate"].endswith("7 subsets of 40, seed 2020")


@pytest.mark.parametrize("maximum", [1000, 25])
def test_merge_equals_whole_to_the_last_digit(maximum: int) -> None:
    outputs, targets = torch.rand(2, 60, 3, 2, 2).unbind()
    whole, first, second = (metric(maximum=maximum) for _ in range(3))
    whole.update(outputs, targets)
    first.update(outputs[40:], targets[40:])
    second.update_outputs(outputs[:40])
    second.update_targets(targets[:11])
    second.update_targets(targets[11:40])
    first.merge_state(second.state())
    assert first.num_counted == whole.num_counted == 60
    assert first.compute() == whole.compute()
    assert len(whole.outputs.vectors()) == min(60, maximum)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="0 outputs and 0 targets: it needs 2 or more of each"):
        metric().compute()
    single = metric()
    single.update(torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2))
    with pytest.raises(ValueError, match="1 outputs and 1 targets"):
        single.compute()
    with pytest.raises(ValueError, match="without NaN"):
        single.update_outputs(torch.full((1, 3, 2, 2), torch.nan))
    with pytest.raises(ValueError, match=r"expected \[-1, 1\]"):
        single.update_targets(torch.full((1, 3, 2, 2), 255.0))
    with pytest.raises(ValueError, match=r"expected \[M, D\] and \[K, D\]"):
        kernel_distance(torch.rand(3, 2), torch.rand(3, 4))
    with pytest.raises(ValueError, match="two or more of each"):
        kernel_distance(torch.rand(1, 2), torch.rand(3, 2))
