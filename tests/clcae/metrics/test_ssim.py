"""SSIM against scikit-image and scipy; MS-SSIM against its definition, scale by scale."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity as skimage_ssim
from torch import Tensor

from clcae.metrics.ssim import (
    GAUSSIAN_7,
    GAUSSIAN_11,
    UNIFORM_21,
    MultiscaleSimilarity,
    PortedMultiscaleSimilarity,
    SsimWindow,
    StructuralSimilarity,
    multiscale_similarity,
    ported_multiscale_similarity,
    structural_similarity,
)

EXPONENTS = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]  # Wang et al. 2003, section 3.2


def pair(height: int, width: int, *, darkest: float = -1.0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.standard_normal((3, 3, height, width)), (0, 0, 4, 4))
    targets = torch.from_numpy(smooth / np.abs(smooth).max())
    noise = torch.from_numpy(rng.standard_normal(targets.shape))
    strengths = torch.tensor([0.05, 0.2, 0.6]).view(3, 1, 1, 1)
    outputs = (targets + strengths * noise).clamp(-1, 1)
    return outputs.clamp(min=darkest), targets.clamp(min=darkest)


def factors(x: np.ndarray, y: np.ndarray, span: float, size: int) -> tuple[float, float]:
    """Mean SSIM, and mean of contrast times structure, of one channel."""
    offsets = np.arange(size) - size // 2
    weights = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()

    def blur(channel: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(channel, (size, size))
        return np.einsum("hwij,i,j->hw", windows, weights, weights)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    structure = (2 * cov + c2) / (vx + vy + c2)
    luminance = (2 * mx * my + c1) / (mx**2 + my**2 + c1)
    return float((luminance * structure).mean()), float(structure.mean())


def halved(x: np.ndarray) -> np.ndarray:
    height, width = (side // 2 * 2 for side in x.shape)
    x = x[:height, :width]
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4


def pyramid(x: np.ndarray, y: np.ndarray, span: float) -> np.ndarray:
    """[5] of one channel: the factor that each scale has in the product."""
    values = []
    for scale in range(5):
        ssim, structure = factors(x, y, span, min(11, *x.shape))
        values.append(ssim if scale == 4 else structure)
        x, y = halved(x), halved(y)
    return np.array(values)


def product(values: np.ndarray) -> float:
    """Of the scales' factors; a negative one has no power, and counts as 0."""
    return float(np.prod(np.maximum(values, 0) ** EXPONENTS))


@pytest.mark.parametrize(("height", "width"), [(176, 192), (179, 193)])
def test_agrees_with_the_definition_on_the_unit_scale(height: int, width: int) -> None:
    outputs, targets = pair(height, width)
    expected = [
        np.mean(
            [
                product(pyramid((x + 1) / 2, (y + 1) / 2, span=1.0))
                for x, y in zip(output, target, strict=True)
            ]
        )
        for output, target in zip(outputs.numpy(), targets.numpy(), strict=True)
    ]
    np.testing.assert_allclose(multiscale_similarity(outputs, targets), expected, rtol=1e-9)


@pytest.mark.parametrize(("side", "darkest", "span"), [(64, -1.0, 2.0), (64, -0.4, 1.0)])
def test_the_port_averages_channels_and_guesses_the_span(
    side: int, darkest: float, span: float
) -> None:
    outputs, targets = pair(side, side, darkest=darkest)
    expected = [
        product(np.mean([pyramid(x, y, span) for x, y in zip(o, t, strict=True)], axis=0))
        for o, t in zip(outputs.numpy(), targets.numpy(), strict=True)
    ]
    assert max(expected) > 0.5
    np.testing.assert_allclose(ported_multiscale_similarity(outputs, targets), expected, rtol=1e-9)


def test_opposites_count_as_zero_and_equals_as_one() -> None:
    _, targets = pair(176, 176)
    for function in (multiscale_similarity, ported_multiscale_similarity):
        torch.testing.assert_close(function(targets, targets), torch.ones(3).double())
        assert function(-targets, targets).tolist() == [0.0] * 3


def test_merge_equals_whole_to_the_last_digit() -> None:
    outputs, targets = pair(176, 176)
    for make in (MultiscaleSimilarity, PortedMultiscaleSimilarity):
        whole, first, second = make(), make(), make()
        whole.update(outputs, targets)
        first.update(outputs[2:], targets[2:])
        second.update(outputs[:2], targets[:2])
        first.merge_state(second.state())
        assert first.compute() == whole.compute()
        assert make.direction == "higher"
    assert MultiscaleSimilarity().protocol["form"] != PortedMultiscaleSimilarity().protocol["form"]


@pytest.mark.parametrize(
    ("metric", "side", "smallest"),
    [(MultiscaleSimilarity(), 175, 176), (PortedMultiscaleSimilarity(), 15, 16)],
)
def test_small_images_and_wrong_ranges_are_refused(
    metric: MultiscaleSimilarity | PortedMultiscaleSimilarity, side: int, smallest: int
) -> None:
    images = torch.zeros(1, 3, side, 200)
    with pytest.raises(ValueError, match=f"needs {smallest} pixels or more"):
        metric.update(images, images)
    fitting = torch.zeros(1, 3, smallest, 200)
    metric.update(fitting, fitting)
    with pytest.raises(ValueError, match=r"expected \[-1, 1\]"):
        metric.update(fitting + 127, fitting)
    with pytest.raises(ValueError, match="expected one shape"):
        metric.update(fitting, fitting[:, :1])
    assert metric.num_counted == 1


def unit(images: Tensor) -> list[np.ndarray]:
    return list((images.double().permute(0, 2, 3, 1).numpy() + 1) / 2)


@pytest.mark.parametrize("window", [GAUSSIAN_11, UNIFORM_21, SsimWindow(size=7, sigma=None)])
def test_ssim_agrees_with_skimage(window: SsimWindow) -> None:
    images = pair(40, 36)
    kind = (
        {"win_size": window.size}
        if window.sigma is None
        else {"gaussian_weights": True, "sigma": window.sigma, "use_sample_covariance": False}
    )
    expected = [
        skimage_ssim(a, b, data_range=1, channel_axis=-1, **kind)
        for a, b in zip(*map(unit, images), strict=True)
    ]
    np.testing.assert_allclose(structural_similarity(*images, window=window), expected, rtol=1e-9)


def test_ssim_with_the_default_window_agrees_with_scipy() -> None:
    """scikit-image derives the size of a Gaussian from its sigma, so 7x7 is checked with scipy."""

    images = pair(40, 36)

    def blur(channel: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(channel, 1.5, radius=3)[3:-3, 3:-3]

    expected = []
    for a, b in zip(*map(unit, images), strict=True):
        channels = []
        for x, y in zip(np.moveaxis(a, 2, 0), np.moveaxis(b, 2, 0), strict=True):
            mx, my = blur(x), blur(y)
            vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
            ratio = (2 * mx * my + 1e-4) * (2 * cov + 9e-4)
            channels.append(np.mean(ratio / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))))
        expected.append(np.mean(channels))
    np.testing.assert_allclose(structural_similarity(*images), expected, rtol=1e-9)
    np.testing.assert_allclose(
        structural_similarity(*images, window=GAUSSIAN_7), structural_similarity(*images)
    )


def test_ssim_of_identical_images_is_one() -> None:
    images = pair(40, 36)
    torch.testing.assert_close(structural_similarity(images[1], images[1]), torch.ones(3).double())


def test_protocols_differ_and_do_not_merge() -> None:
    small, large = StructuralSimilarity(), StructuralSimilarity(window=UNIFORM_21)
    assert small.protocol["window"] == "gaussian 7x7, sigma 1.5"
    assert large.protocol["window"] == "uniform 21x21, sample covariance"


def test_image_smaller_than_the_window() -> None:
    with pytest.raises(ValueError, match="smaller than the 21 window"):
        structural_similarity(
            torch.zeros(1, 3, 20, 30), torch.zeros(1, 3, 20, 30), window=UNIFORM_21
        )
