"""The Inceptions of evaluations against the packages they come from, with random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from facenet_pytorch import InceptionResnetV1
from PIL import Image
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from clcae.images import to_uint8
from clcae.metrics.frechet import FrechetDistance
from clcae.pretrained import frozen


def alive(module: nn.Module) -> dict[str, Tensor]:
    """Makes weights under which features differ between pictures, unlike fresh ones."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.weight[0].numel()
            noise = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.data = noise * (2 / fan_in) ** 0.5
    return module.state_dict()


def pictures(count: int = 3, height: int = 64, width: int = 80) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def fid_state() -> dict[str, Tensor]:
    return alive(
        torchvision.models.inception_v3(
            weights=None, aux_logits=False, init_weights=False, num_classes=1008
        )
    )


def test_fids_network_is_torch_fidelitys(fid_state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(fid_state, path)
    theirs = FeatureExtractorInceptionV3("", ["2048"], feature_extractor_weights_path=str(path))
    ours = frozen.tf_inception_from_state(fid_state)
    images = pictures()
    features = ours(images)
    torch.testing.assert_close(features, theirs(to_uint8(images))[0], rtol=1e-5, atol=1e-6)
    assert features.shape == (3, ours.dimension)
    assert float(features.std(dim=0).mean()) > 1e-3
    assert not ours.train().training
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    metric = FrechetDistance(features=ours, features_name=ours.name, dimension=ours.dimension)
    assert metric.update(images, images).all()


def test_torchvisions_network_reads_pictures_as_starganv2_does() -> None:
    model = torchvision.models.inception_v3(weights=None, aux_logits=True, init_weights=False)
    state = alive(model)
    ours = frozen.torchvision_inception_from_state(state)
    images = pictures(2, 256, 256)
    normalize = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize([299, 299]),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    pixels = to_uint8(images).permute(0, 2, 3, 1).numpy()
    saved = torch.stack([normalize(Image.fromarray(picture)) for picture in pixels])
    resized = ours.resized(images)
    level = 1 / 255 / 0.224
    assert float((resized - saved).abs().max()) < 1.01 * level
    assert float((resized - saved).abs().mean()) < 0.01 * level
    model.fc = nn.Identity()
    with torch.no_grad():
        expected = model.eval()(resized)  # without transform_input, which those blocks bypass
    torch.testing.assert_close(ours(images), expected, rtol=1e-5, atol=1e-6)
    assert expected.shape == (2, ours.dimension)
    assert float(expected.std(dim=0).mean()) > 1e-3


def test_facenet_is_the_packages() -> None:
    model = InceptionResnetV1(classify=True, num_classes=11)
    state = alive(model)
    model.classify = False
    ours = frozen.facenet_from_state(state)
    faces = pictures(2, 160, 160)
    with torch.no_grad():
        expected = model.eval()(((faces + 1) * 127.5 - 127.5) / 128)
    torch.testing.assert_close(ours(faces), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours(faces).norm(dim=1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match=r"reads \[N, 3, 160, 160\]"):
        ours(pictures())


LOADERS = [
    (frozen.load_tf_inception, frozen.TF_INCEPTION),
    (frozen.load_torchvision_inception, frozen.TORCHVISION_INCEPTION),
    (frozen.load_facenet, frozen.FACENET),
]


@pytest.mark.parametrize(("load", "file"), LOADERS)
def test_a_missing_file_is_told_in_one_line(
    load: object, file: frozen.WeightFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(load)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        load()
    line = str(caught.value)
    for part in (str(tmp_path / "hub" / "checkpoints" / file.name), file.url):
        assert part in line
    assert "\n" not in line
    assert list(tmp_path.rglob("*")) == []  # nothing was fetched


def test_other_files_are_refused(fid_state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / frozen.TF_INCEPTION.name
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"its sha256 begins with .{8}, not 6726825d"):
        frozen.load_tf_inception(path)
    with pytest.raises(ValueError, match=r"472 missing .*; 1 unexpected \(a\)"):
        frozen.tf_inception_from_state({"a": torch.zeros(1)})
    broken = {**fid_state, "fc.bias": torch.zeros(1000)}
    with pytest.raises(ValueError, match=r"fc\.bias \(1000,\)"):
        frozen.tf_inception_from_state(broken)
    other = tmp_path / "list.pt"
    torch.save([1, 2], other)
    with pytest.raises(ValueError, match="holds a list, expected 20180402"):
        frozen.load_facenet(other)


def test_facenet_loads_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "vggface2.pt"
    torch.save(InceptionResnetV1().state_dict(), path)
    assert frozen.load_facenet(path).embedding_dim == 512
