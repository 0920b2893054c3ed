"""The official measures: CLCAE's PSNR, SSIM and MSE, the papers' MS-SSIM, of a pair of images."""

import goldens
import official
import torch

from clcae.metrics.metric import Metric
from clcae.metrics.multiscale import PortedMultiscaleSimilarity
from clcae.metrics.reconstruction import (
    UNIFORM_21,
    MeanSquaredError,
    PeakSignalToNoiseRatio,
    StructuralSimilarity,
)


def test_official_measure() -> None:
    golden = goldens.Golden("metrics", tolerance=1e-5)
    targets = golden.images()
    seed, shape = golden.meta["seed"], tuple(targets.shape)
    mixed = 0.8 * targets + 0.2 * official.image(*golden.meta["image"], seed=seed + 10)
    outputs = (mixed + 0.05 * official.latent("noise", shape, seed)).clamp(-1, 1)
    metrics: dict[str, Metric] = {
        "psnr": PeakSignalToNoiseRatio(quantise=True),
        "ssim21": StructuralSimilarity(quantise=True, window=UNIFORM_21),
        "mse": MeanSquaredError(),
        "ms_ssim": PortedMultiscaleSimilarity(),
    }
    for name, metric in metrics.items():
        metric.update(outputs, targets)
        golden.check(name, torch.tensor([metric.compute()]))
