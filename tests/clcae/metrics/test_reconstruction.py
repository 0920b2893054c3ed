"""MSE, PSNR and perceptual distance against scikit-image and numpy; images that are refused."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from clcae.metrics.metric import MeanMetric
from clcae.metrics.reconstruction import (
    MeanSquaredError,
    PeakSignalToNoiseRatio,
    PerceptualDistance,
    mean_squared_error,
    peak_signal_to_noise_ratio,
)
from clcae.metrics.ssim import StructuralSimilarity

METRICS = [MeanSquaredError, PeakSignalToNoiseRatio, StructuralSimilarity]


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.standard_normal((4, 3, 40, 36)), (0, 0, 3, 3))
    targets = torch.from_numpy(smooth / np.abs(smooth).max()).float()
    noise = torch.from_numpy(rng.standard_normal(targets.shape)).float()
    strengths = torch.tensor([0.02, 0.1, 0.3, 0.8]).view(4, 1, 1, 1)
    return (targets + strengths * noise).clamp(-1, 1), targets


def unit(images: Tensor) -> list[np.ndarray]:
    return list((images.double().permute(0, 2, 3, 1).numpy() + 1) / 2)


def test_mse_is_on_the_scale_of_minus_one_to_one(pair: tuple[Tensor, Tensor]) -> None:
    expected = [4 * np.mean((a - b) ** 2) for a, b in zip(*map(unit, pair), strict=True)]
    np.testing.assert_allclose(mean_squared_error(*pair), expected, rtol=1e-9)
    assert mean_squared_error(torch.ones(1, 3, 2, 2), -torch.ones(1, 3, 2, 2)).item() == 4


def test_psnr_agrees_with_skimage(pair: tuple[Tensor, Tensor]) -> None:
    expected = [
        peak_signal_noise_ratio(b, a, data_range=1) for a, b in zip(*map(unit, pair), strict=True)
    ]
    np.testing.assert_allclose(peak_signal_to_noise_ratio(*pair), expected, rtol=1e-9)


def test_psnr_of_identical_images_is_the_ceiling(pair: tuple[Tensor, Tensor]) -> None:
    assert peak_signal_to_noise_ratio(pair[1], pair[1]).tolist() == [100.0] * 4


@pytest.mark.parametrize("make", METRICS)
def test_merge_equals_whole(make: type[MeanMetric], pair: tuple[Tensor, Tensor]) -> None:
    whole, first, second = make(), make(), make()
    whole.update(*pair)
    first.update(pair[0][:1], pair[1][:1])
    second.update(pair[0][1:], pair[1][1:])
    first.merge_state(second.state())
    assert first.num_counted == whole.num_counted == 4
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-12)
    assert make.range[0] <= whole.compute() <= make.range[1]


@pytest.mark.parametrize("make", METRICS)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda images: images * 127.5, "expected"),
        (lambda images: images + 1.5, "expected"),
        (lambda images: images * torch.nan, "without NaN"),
        (lambda images: images[:, :, :-1], "expected one shape"),
    ],
)
def test_images_out_of_range_are_refused(
    make: type[MeanMetric],
    spoil: Callable[[Tensor], Tensor],
    message: str,
    pair: tuple[Tensor, Tensor],
) -> None:
    metric = make()
    with pytest.raises(ValueError, match=message):
        metric.update(spoil(pair[0]), pair[1])
    with pytest.raises(ValueError, match=message):
        metric.update(pair[1], spoil(pair[0]))
    assert metric.num_counted == 0


def test_one_nan_pixel_is_found(pair: tuple[Tensor, Tensor]) -> None:
    pair[0][2, 1, 5, 5] = torch.nan
    with pytest.raises(ValueError, match="without NaN"):
        mean_squared_error(*pair)


def test_nothing_taken_in() -> None:
    with pytest.raises(ValueError, match="nothing to average"):
        MeanSquaredError().compute()


def test_perceptual_distance_is_the_mean_of_the_distances() -> None:
    outputs, targets = torch.rand(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)

    metric = PerceptualDistance(distance=distance, distance_name="mean absolute difference")
    metric.update(outputs[:2], targets[:2])
    metric.update(outputs[2:], targets[2:])
    expected = np.abs(outputs.numpy() - targets.numpy()).mean()
    assert metric.compute() == pytest.approx(expected, rel=1e-5)
    assert metric.protocol["network"] == "mean absolute difference"
    assert metric.direction == "lower"


@pytest.mark.parametrize("value", [torch.zeros(1), torch.full((2,), torch.nan)])
def test_perceptual_distance_refuses_what_is_no_distance(value: Tensor) -> None:
    metric = PerceptualDistance(distance=lambda a, b: value, distance_name="faulty")
    with pytest.raises(ValueError, match=r"faulty gave .* for 2 images"):
        metric.update(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"expected \[-1, 1\]"):
        metric.update(torch.full((2, 3, 4, 4), 255.0), torch.zeros(2, 3, 4, 4))
