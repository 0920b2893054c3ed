"""Judging networks: computed once for several metrics, missing ones named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from clcae.evaluation.networks import Cached, MissingNetworkError, Networks
from clcae.evaluation.protocol import build_measures, read_protocol
from clcae.metrics.frechet import FrechetDistance
from clcae.metrics.kernel import KernelDistance

PROTOCOL = Path(__file__).resolve().parents[3] / "configs" / "protocol" / "clcae.yaml"


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_two_metrics_over_two_spaces_compute_features_once() -> None:
    calls: list[int] = []

    def features(images: Tensor) -> Tensor:
        calls.append(len(images))
        return images.flatten(1)

    kind = {"features": Cached(features), "features_name": "pixels", "dimension": 12}
    targets = torch.rand(6, 3, 2, 2)
    values = []
    for _ in ("W", "W+"):
        outputs = torch.rand(6, 3, 2, 2)
        metrics = FrechetDistance(**kind), KernelDistance(**kind)
        for metric in metrics:
            metric.update(outputs.clamp(-1, 1), targets)  # equal, not the same
        values.append([metric.compute() for metric in metrics])
        plain = FrechetDistance(**{**kind, "features": lambda images: images.flatten(1)})
        plain.update(outputs, targets)
        assert values[-1][0] == plain.compute()
    assert len(calls) == 3  # the targets, and the outputs of each space
    assert values[0] != values[1]


def test_images_changed_in_place_are_computed_again() -> None:
    cached = Cached(lambda images: images.sum(dim=(1, 2, 3)), kept=1)
    images = torch.rand(2, 3, 4, 4)
    first = cached(images)
    images[0] += 1
    assert not torch.equal(cached(images), first)
    assert torch.equal(cached(images.double()), images.double().sum(dim=(1, 2, 3)))


def test_a_missing_network_leaves_the_other_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    values: Any = OmegaConf.to_container(OmegaConf.load(PROTOCOL))
    weights = tmp_path / "CurricularFace_Backbone.pth"
    networks = Networks(paths={"curricularface": weights}, device=torch.device("cpu"))
    measures, missing = build_measures(read_protocol(values), networks.get)
    assert list(measures) == ["PSNR", "SSIM", "L2"]
    assert list(missing) == ["LPIPS", "ID", "FID"]
    for name, *words in (
        ("LPIPS", "alexnet-owt-7be5be79.pth", "https://download.pytorch.org", "put it there"),
        ("ID", str(weights), "hyperstyle", "put it there", "weights.curricularface=FILE"),
        ("FID", "inception_v3_google-0cc3c7bd.pth", "https://download.pytorch.org"),
    ):
        assert "\n" not in missing[name]
        for word in words:
            assert word in missing[name], word
    assert list(networks.missing) == ["lpips_alex", "curricularface", "torchvision_inception"]
    with pytest.raises(MissingNetworkError):
        networks.get("lpips_alex")
    with pytest.raises(ValueError, match="expected one of lpips_alex, "):
        networks.get("vgg")


def test_the_portraits_network_computes_once_and_answers_as_the_judges() -> None:
    network = Networks(paths={}, device=torch.device("cpu")).get("portraits")
    judges: Any = network.module
    x, y = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ask = {question: answer.function for question, answer in network.answers.items()}
    expected = judges.distance(judges.features(x), judges.features(y))
    torch.testing.assert_close(ask["distance"](x, y), expected)
    torch.testing.assert_close(ask["embed"](x), judges.identity(x))
    torch.testing.assert_close(ask["pooled"](x), judges.pooled(x))
    assert ask["pooled"](x).shape[1] == network.answers["pooled"].dimension
    with pytest.raises(ValueError, match="judges read 64 x 64"):
        ask["embed"](torch.zeros(1, 3, 32, 32))
