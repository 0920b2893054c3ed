"""The aligner's towers, temperature and residuals."""

import math
from pathlib import Path

import pytest
import torch

from clcae.aligner import Aligner
from clcae.serialization import load, save


def build(subtract_average: bool = True, unit_length: bool = True) -> Aligner:
    torch.manual_seed(0)
    return Aligner(
        image_size=16,
        w_dim=5,
        dim=8,
        stem_channels=4,
        stages=[[6, 1], [8, 1]],
        subtract_average=subtract_average,
        unit_length=unit_length,
    ).eval()


def test_embeddings_have_unit_length() -> None:
    aligner = build()
    for embedding in (
        aligner.embed_images(torch.randn(3, 3, 16, 16)),
        aligner.embed_latents(torch.randn(3, 5)),
    ):
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))


def test_embeddings_as_they_are_point_the_same_way() -> None:
    raw, unit = build(unit_length=False), build()
    images, codes = torch.randn(3, 3, 16, 16), torch.randn(3, 5)
    for long, short in (
        (raw.embed_images(images), unit.embed_images(images)),
        (raw.embed_latents(codes), unit.embed_latents(codes)),
    ):
        assert not torch.allclose(long.norm(dim=1), torch.ones(3), atol=1e-2)
        torch.testing.assert_close(long / long.norm(dim=1, keepdim=True), short)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 3, 8, 8\)"):
        build().embed_images(torch.randn(3, 3, 8, 8))


def test_temperature_starts_at_the_papers_and_is_clamped() -> None:
    aligner = build()
    assert float(aligner.scale.detach()) == pytest.approx(1 / 0.07)
    with torch.no_grad():
        aligner.log_scale.fill_(math.log(1e6))
    assert float(aligner.scale.detach()) == 100.0


def test_towers_read_residuals() -> None:
    image, w = torch.randn(3, 16, 16), torch.randn(5)
    images, codes = torch.randn(2, 3, 16, 16), torch.randn(2, 5)
    for subtract in (True, False):
        aligner = build(subtract)
        shifted = aligner.embed_images(images + image), aligner.embed_latents(codes + w)
        plain = aligner.embed_images(images)
        latents = aligner.embed_latents(codes)
        aligner.set_averages(image=image, w=w)
        assert torch.allclose(aligner.embed_images(images + image), plain, atol=1e-5) is subtract
        torch.testing.assert_close(aligner.embed_latents(codes + w), latents, atol=1e-5, rtol=0)
        assert not torch.allclose(shifted[1], latents)


def test_native_file(tmp_path: Path) -> None:
    aligner = build()
    save(aligner, tmp_path / "aligner.safetensors", provenance={})
    loaded = load(tmp_path / "aligner.safetensors", expected=Aligner)
    codes = torch.randn(2, 5)
    assert torch.equal(loaded.embed_latents(codes), aligner.embed_latents(codes))
