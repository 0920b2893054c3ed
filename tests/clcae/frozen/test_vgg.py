"""The perceptual network of in-domain inversion, layer by layer, and its file."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import vgg16

from clcae.pretrained.frozen import load_vgg_feature

POOLS = (4, 9, 16)  # layers of torchvision's list; the others are convolutions and ReLUs


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    features = vgg16(weights=None).features.state_dict()
    return {f"layer{key}": value for key, value in features.items()}


@torch.no_grad()
def test_the_feature_and_its_distance(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "vgg16.pth")
    network = load_vgg_feature(tmp_path / "vgg16.pth")
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    means = {0: 103.939, 1: 116.779, 2: 123.68}  # blue, green, red
    large = images.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    planes = [(large[:, 2 - plane] + 1) / 2 * 255 - mean for plane, mean in means.items()]
    x = torch.stack(planes, dim=1)
    for layer in range(23):  # up to the ReLU of block4_conv3
        if layer in POOLS:
            x = F.max_pool2d(x, 2)
        elif f"layer{layer}.weight" in state:
            x = F.conv2d(x, state[f"layer{layer}.weight"], state[f"layer{layer}.bias"], padding=1)
        else:
            x = x.clamp(min=0)
    assert x.shape == (2, 512, 32, 32)
    (feature,) = network.features(images)
    torch.testing.assert_close(feature, x, rtol=1e-4, atol=1e-4)
    expected = (x[:1] - x[1:]).square().mean()
    distance = network.distance([feature[:1]], [feature[1:]])
    torch.testing.assert_close(distance, expected.reshape(1), rtol=1e-3, atol=0)
    assert network.train().training is False


def test_the_file_is_read_strictly(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "vgg16.pth"
    lacking = {key: value for key, value in state.items() if key != "layer21.bias"}
    for content, words in (
        (lacking, r"1 missing \(layer21\.bias\)"),
        ({**state, "layer30.weight": torch.ones(1)}, r"1 unexpected \(layer30\.weight\)"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=words):
            load_vgg_feature(path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth, expected VGG16 of IDInvert"):
        load_vgg_feature(tmp_path / "nothing.pth")
