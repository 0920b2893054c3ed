"""The official measures: CLCAE's PSNR, SSIM and MSE, the papers' MS-SSIM, of a pair of images."""

import goldens
import official
import torch

from clcae.images import from_uint8, to_uint8
from clcae.metrics.metric import Metric
from clcae.metrics.reconstruction import MeanSquaredError, PeakSignalToNoiseRatio
from clcae.metrics.ssim import UNIFORM_21, PortedMultiscaleSimilarity, StructuralSimilarity


def test_official_measure() -> None:
    golden = goldens.Golden("metrics", tolerance=1e-5)
    targets = golden.images()
    seed, shape = golden.meta["seed"], tuple(targets.shape)
    mixed = 0.8 * targets + 0.2 * official.image(*golden.meta["image"], seed=seed + 10)
    outputs = (mixed + 0.05 * official.latent("noise", shape, seed)).clamp(-1, 1)
    metrics: dict[str, Metric] = {
        "psnr": PeakSignalToNoiseRatio(),
        "ssim21": StructuralSimilarity(window=UNIFORM_21),
        "mse": MeanSquaredError(),
        "ms_ssim": PortedMultiscaleSimilarity(),
    }
    for name, metric in metrics.items():
        pair = outputs, targets
        if name in ("psnr", "ssim21"):  # the script reads files
            pair = from_uint8(to_uint8(outputs)), from_uint8(to_uint8(targets))
        metric.update(*pair)
        golden.check(name, torch.tensor([metric.compute()]))
