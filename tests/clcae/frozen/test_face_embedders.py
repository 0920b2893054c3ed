"""Face embedders of any size: crops, unit length, native files, plain refusals."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.frozen.face_embedders import (
    FaceEmbedder,
    arcface_ir_se50,
    curricularface_ir_101,
    to_width,
    training_crop,
    unit_length,
)
from clcae.serialization import load, save

SMALL = {"size": 16, "stem_channels": 4, "stages": [[6, 1], [8, 2]], "embedding_dim": 5}


def pictures(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def embedder() -> FaceEmbedder:
    torch.manual_seed(0)
    return FaceEmbedder(**SMALL).eval().requires_grad_(False)  # type: ignore[arg-type]


def test_the_official_networks_have_their_sizes() -> None:
    with torch.device("meta"):
        arcface, curricularface = arcface_ir_se50(), curricularface_ir_101()
    assert sum(p.numel() for p in arcface.parameters()) == 43_797_696  # the official count
    assert [len(stage) for stage in curricularface.trunk.stages] == [3, 13, 30, 3]  # type: ignore[arg-type]
    assert not any("gates" in name for name in curricularface.state_dict())


@pytest.mark.parametrize("size", [(256, 256), (192, 256), (1024, 1024), (64, 64), (300, 256)])
def test_pictures_of_any_size(embedder: FaceEmbedder, size: tuple[int, int]) -> None:
    embeddings = embedder.embed_images(pictures(2, 3, *size))
    assert embeddings.shape == (2, 5)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))


def test_a_picture_of_four_times_the_size_has_the_same_crop() -> None:
    images = pictures(1, 3, 256, 256)
    large = F.interpolate(images, scale_factor=4.0)  # nearest: averages give the pixels back
    torch.testing.assert_close(training_crop(large), training_crop(images), rtol=0, atol=1e-6)


def test_lower_pictures_are_simply_cut() -> None:
    images = pictures(1, 3, 192, 256)
    expected = F.adaptive_avg_pool2d(images[:, :, 35:192, 32:220], 112)
    assert torch.equal(training_crop(images), expected)
    assert to_width(pictures(1, 3, 384, 512), 256).shape == (1, 3, 192, 256)
    assert to_width(pictures(1, 3, 48, 64), 256).shape == (1, 3, 192, 256)


def test_bfloat16_features_give_float32_embeddings(embedder: FaceEmbedder) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = embedder.embed_images(pictures(2, 3, 256, 256))
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))
    assert unit_length(torch.ones(1, 4).double()).dtype == torch.float64


def test_native_files(embedder: FaceEmbedder, tmp_path: Path) -> None:
    save(embedder, tmp_path / "embedder.safetensors", provenance={"made": "here"})
    loaded = load(tmp_path / "embedder.safetensors", expected=FaceEmbedder)
    images = pictures(2, 3, 256, 256)
    assert torch.equal(loaded.embed_images(images), embedder.embed_images(images))


def test_bad_input_names_what_was_given(embedder: FaceEmbedder) -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 12, 16\).*\[N, 3, 16, 16\]"):
        embedder(pictures(1, 3, 12, 16))
    with pytest.raises(ValueError, match=r"\(30, 256\).*row 35"):
        embedder.embed_images(pictures(1, 3, 30, 256))
