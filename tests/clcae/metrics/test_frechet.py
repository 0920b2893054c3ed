"""The Frechet distance against the matrix square root of scipy, and against torch-fidelity."""

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor
from torch_fidelity import metric_fid

from clcae.metrics.frechet import EditingFrechetDistance, FrechetDistance, frechet_distance
from clcae.metrics.moments import Moments


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def moments(vectors: Tensor) -> Moments:
    result = Moments(dimension=vectors.shape[1])
    result.update(vectors)
    return result


def reference(first: Tensor, second: Tensor) -> float:
    a, b = first.double().numpy(), second.double().numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(cov_a @ cov_b).real
    means = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    return float(means + np.trace(cov_a + cov_b - 2 * root))


def metric(dimension: int = 12) -> FrechetDistance:
    return FrechetDistance(
        features=lambda images: images.flatten(1), features_name="pixels", dimension=dimension
    )


@pytest.mark.parametrize("dimension", [2, 16, 64])
def test_agrees_with_scipy(dimension: int) -> None:
    first = torch.randn(300, dimension) @ torch.randn(dimension, dimension)
    second = torch.randn(200, dimension) @ torch.randn(dimension, dimension) + 0.5
    expected = reference(first, second)
    assert frechet_distance(moments(first), moments(second)) == pytest.approx(expected, rel=1e-7)
    assert frechet_distance(moments(second), moments(first)) == pytest.approx(expected, rel=1e-7)


def test_diagonal_covariances_have_a_closed_form() -> None:
    first, second = Moments(dimension=3), Moments(dimension=3)
    first.count = second.count = 2
    first.scatter, second.scatter = torch.diag(torch.tensor([1.0, 4, 0])), torch.eye(3) * 9
    first.scatter, second.scatter = first.scatter.double(), second.scatter.double()
    second.mean = torch.tensor([0.0, 0, 2]).double()
    # sum of squared differences of means (4) and of standard deviations (2^2 + 1^2 + 3^2)
    assert frechet_distance(first, second) == pytest.approx(18, rel=1e-12)


def test_fewer_images_than_dimensions() -> None:
    first, second = torch.randn(20, 64), torch.randn(15, 64) + 1
    # Roots of rounded zeros leave scipy 1e-6 away on singular matrices.
    ours = frechet_distance(moments(first), moments(second))
    assert ours == pytest.approx(reference(first, second), rel=1e-5)
    assert frechet_distance(moments(first), moments(first)) == pytest.approx(0, abs=1e-6)


def test_merge_equals_whole() -> None:
    outputs, targets = torch.rand(2, 40, 3, 2, 2).unbind()
    whole, first, second = metric(), metric(), metric()
    assert whole.update(outputs, targets).tolist() == [True] * 40
    first.update(outputs[:7], targets[:7])
    second.update_outputs(outputs[7:])
    second.update_targets(targets[7:20])
    second.update_targets(targets[20:])
    first.merge_state(second.state())
    assert first.num_counted == whole.num_counted == 40
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-12)
    assert whole.compute() == pytest.approx(
        reference(outputs.flatten(1), targets.flatten(1)), rel=1e-7
    )


def test_agrees_with_torch_fidelity() -> None:
    outputs, targets = torch.rand(150, 3, 3, 3).double(), torch.rand(120, 3, 3, 3).double() ** 2
    ours = metric(27)
    ours.update_outputs(outputs)
    ours.update_targets(targets)
    statistics = [
        metric_fid.fid_features_to_statistics(images.flatten(1)) for images in (outputs, targets)
    ]
    theirs = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    expected = theirs["frechet_inception_distance"]
    assert ours.compute() == pytest.approx(expected, rel=1e-7)


def test_many_small_batches_and_a_set_known_before() -> None:
    outputs, targets = torch.rand(2, 1100, 3, 2, 2).unbind()
    whole, parts = metric(), metric()
    whole.update(outputs, targets)
    for batch in outputs.split(7):
        parts.update_outputs(batch)
        batch.zero_()  # what was taken in is not the caller's any more
    parts.targets.merge(whole.targets)
    assert parts.num_counted == 1100
    assert parts.compute() == pytest.approx(whole.compute(), rel=1e-10)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="2 and 3 dimensions"):
        frechet_distance(moments(torch.rand(4, 2)), moments(torch.rand(4, 3)))
    single = metric()
    with pytest.raises(ValueError, match="0 outputs and 0 targets: it needs two or more of each"):
        single.compute()
    single.update(torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2))
    with pytest.raises(ValueError, match="1 outputs and 1 targets: it needs two or more of each"):
        single.compute()
    with pytest.raises(ValueError, match="needs two or more"):
        frechet_distance(single.outputs, single.targets)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((2, 3, 2, 2), 255.0), r"expected \[-1, 1\]"),
        (torch.full((2, 3, 2, 2), torch.nan), "without NaN"),
        (torch.zeros(2, 1, 2, 2), r"expected \[N, 3, H, W\]"),
        (torch.zeros(2, 3, 2, 2, dtype=torch.uint8), "uint8"),
        (torch.zeros(2, 3, 3, 3), r"expected \[N, 12\]"),
    ],
)
def test_wrong_images_are_refused(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        metric().update(images, images)
    assert "\n" not in str(caught.value)


def test_a_batch_enters_whole_or_not_at_all() -> None:
    ours = metric()
    with pytest.raises(ValueError, match="without NaN"):
        ours.update(torch.rand(2, 3, 2, 2), torch.full((2, 3, 2, 2), torch.nan))
    assert ours.outputs.count == ours.targets.count == 0


def test_a_network_that_gives_nan_is_named() -> None:
    faulty = FrechetDistance(
        features=lambda images: images.flatten(1) / 0, features_name="faulty", dimension=12
    )
    with pytest.raises(ValueError, match=r"faulty gave \(2, 12\) for 2 images"):
        faulty.update_outputs(torch.zeros(2, 3, 2, 2))


def editing(labels: Tensor) -> EditingFrechetDistance:
    return EditingFrechetDistance(
        features=lambda images: images.flatten(1),
        features_name="pixels",
        dimension=12,
        labels=lambda images: labels[: len(images)],
        attribute="smile, by hand",
    )


def test_editing_splits_the_set_by_the_attribute() -> None:
    inputs, edited = torch.rand(2, 60, 3, 2, 2).unbind()
    labels = torch.tensor([1.0, 0.0, 0.0, torch.nan, 1.0, 0.0] * 10)
    ours = editing(labels)
    counted = ours.update(edited, inputs)
    assert counted.tolist() == (~labels.isnan()).tolist()
    assert (ours.num_counted, ours.targets.count) == (30, 20)
    expected = reference(edited[labels == 0].flatten(1), inputs[labels == 1].flatten(1))
    assert ours.compute() == pytest.approx(expected, rel=1e-6)
    parts = [editing(labels), editing(labels)]
    parts[0].update_labelled(edited[:7], inputs[:7], labels[:7])
    parts[1].update_labelled(edited[7:], inputs[7:], labels[7:] == 1)  # NaN is without, here
    parts[1] = editing(labels)
    parts[1].update_labelled(edited[7:], inputs[7:], labels[7:])
    parts[0].merge_state(parts[1].state())
    assert parts[0].compute() == pytest.approx(expected, rel=1e-6)
    assert "edited pictures of inputs without it" in ours.protocol["sets"]


def test_editing_refuses_what_is_no_label() -> None:
    images = torch.rand(2, 3, 2, 2)
    with pytest.raises(ValueError, match="expected 0, 1 or NaN"):
        editing(torch.tensor([0.3, 1.0])).update(images, images)
    with pytest.raises(ValueError, match=r"labels \(1,\): expected one number"):
        editing(torch.tensor([1.0])).update(images, images)
    none = editing(torch.ones(2))
    none.update(images, images)
    with pytest.raises(ValueError, match="0 outputs and 2 targets"):
        none.compute()
