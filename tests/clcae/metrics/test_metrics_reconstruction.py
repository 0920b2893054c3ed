"""Pixel metrics against scikit-image and scipy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio
from skimage.metrics import structural_similarity as skimage_ssim
from torch import Tensor

from clcae.images import to_uint8
from clcae.metrics.metric import MeanMetric
from clcae.metrics.reconstruction import (
    GAUSSIAN_7,
    GAUSSIAN_11,
    UNIFORM_21,
    MeanSquaredError,
    PeakSignalToNoiseRatio,
    SsimWindow,
    StructuralSimilarity,
    mean_squared_error,
    peak_signal_to_noise_ratio,
    structural_similarity,
)

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


@pytest.mark.parametrize("window", [GAUSSIAN_11, UNIFORM_21, SsimWindow(size=7, sigma=None)])
def test_ssim_agrees_with_skimage(pair: tuple[Tensor, Tensor], window: SsimWindow) -> None:
    kind = (
        {"win_size": window.size}
        if window.sigma is None
        else {"gaussian_weights": True, "sigma": window.sigma, "use_sample_covariance": False}
    )
    expected = [
        skimage_ssim(a, b, data_range=1, channel_axis=-1, **kind)
        for a, b in zip(*map(unit, pair), strict=True)
    ]
    np.testing.assert_allclose(structural_similarity(*pair, window=window), expected, rtol=1e-9)


def test_ssim_with_the_default_window_agrees_with_scipy(pair: tuple[Tensor, Tensor]) -> None:
    """scikit-image derives the size of a Gaussian from its sigma, so 7x7 is checked with scipy."""

    def blur(channel: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(channel, 1.5, radius=3)[3:-3, 3:-3]

    expected = []
    for a, b in zip(*map(unit, pair), strict=True):
        channels = []
        for x, y in zip(np.moveaxis(a, 2, 0), np.moveaxis(b, 2, 0), strict=True):
            mx, my = blur(x), blur(y)
            vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
            ratio = (2 * mx * my + 1e-4) * (2 * cov + 9e-4)
            channels.append(np.mean(ratio / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))))
        expected.append(np.mean(channels))
    np.testing.assert_allclose(structural_similarity(*pair), expected, rtol=1e-9)
    np.testing.assert_allclose(
        structural_similarity(*pair, window=GAUSSIAN_7), structural_similarity(*pair)
    )


def test_ssim_of_identical_images_is_one(pair: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(structural_similarity(pair[1], pair[1]), torch.ones(4).double())


def test_quantised_metrics_measure_saved_pictures(pair: tuple[Tensor, Tensor]) -> None:
    saved = [to_uint8(images).permute(0, 2, 3, 1).numpy() for images in pair]
    expected = np.mean([peak_signal_noise_ratio(b, a) for a, b in zip(*saved, strict=True)])
    metric = PeakSignalToNoiseRatio(quantise=True)
    metric.update(*pair)
    assert metric.compute() == pytest.approx(expected, rel=1e-6)
    assert metric.protocol["levels"] == "uint8"
    assert PeakSignalToNoiseRatio().protocol["levels"] == "continuous"


@pytest.mark.parametrize("make", METRICS)
def test_merge_equals_whole(make: type[MeanMetric], pair: tuple[Tensor, Tensor]) -> None:
    whole, first, second = make(), make(), make()
    whole.update(*pair)
    first.update(pair[0][:1], pair[1][:1])
    second.update(pair[0][1:], pair[1][1:])
    first.merge(second)
    assert first.num_counted == whole.num_counted == 4
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-12)
    assert first.standard_deviation() == pytest.approx(whole.standard_deviation(), rel=1e-12)
    assert whole.standard_deviation() == pytest.approx(float(whole.values(*pair).std(correction=0)))
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


def test_protocols_differ_and_do_not_merge() -> None:
    small, large = StructuralSimilarity(), StructuralSimilarity(window=UNIFORM_21)
    assert small.protocol["window"] == "gaussian 7x7, sigma 1.5"
    assert large.protocol["window"] == "uniform 21x21, sample covariance"
    with pytest.raises(ValueError, match="cannot merge StructuralSimilarity"):
        small.merge(large)


def test_nothing_taken_in() -> None:
    with pytest.raises(ValueError, match="nothing to average"):
        MeanSquaredError().compute()


@pytest.mark.parametrize(("size", "sigma"), [(6, 1.5), (1, 1.5), (7, 0.0)])
def test_windows_out_of_range(size: int, sigma: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        SsimWindow(size=size, sigma=sigma)


def test_image_smaller_than_the_window() -> None:
    with pytest.raises(ValueError, match="smaller than the 21 window"):
        structural_similarity(
            torch.zeros(1, 3, 20, 30), torch.zeros(1, 3, 20, 30), window=UNIFORM_21
        )
