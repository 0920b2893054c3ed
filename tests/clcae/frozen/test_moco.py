"""MoCo's preprocessing and files; its values stand in the golden tests."""

from pathlib import Path

import pytest
import torch

from clcae.frozen.moco import MoCo
from clcae.serialization import load, save


@pytest.fixture(scope="module")
def moco() -> MoCo:
    torch.manual_seed(0)
    return MoCo().eval().requires_grad_(False)


def test_pictures_of_any_size_have_unit_embeddings(moco: MoCo) -> None:
    rng = torch.Generator().manual_seed(0)
    for size in ((192, 256), (512, 512), (64, 48)):
        embeddings = moco.embed_images(torch.rand(1, 3, *size, generator=rng) * 2 - 1)
        assert embeddings.shape == (1, MoCo.embedding_dim)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(1))


def test_resizing_picks_pixels(moco: MoCo) -> None:
    images = torch.rand(1, 3, 448, 448, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(moco(images), moco(images[:, :, ::2, ::2]))


def test_native_files(moco: MoCo, tmp_path: Path) -> None:
    save(moco, tmp_path / "moco.safetensors", provenance={"made": "here"})
    loaded = load(tmp_path / "moco.safetensors", expected=MoCo)
    images = torch.zeros(1, 3, 224, 224)
    assert torch.equal(loaded(images), moco(images))
