"""What pSp and e4e promise, on a generator of odd sizes."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import clcae
from clcae.data.transforms import at_input_size
from clcae.methods.e4e import E4E, PSP
from clcae.serialization import save
from clcae.stylegan2 import Generator, LatentSpace

SMALL = {"image_size": 32, "stem_channels": 6, "stages": [[6, 1], [7, 1], [12, 2]], "width": 12}
IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
LOW = IMAGES[:, :, 4:28]  # as cars are: three quarters of the width

Method = E4E | PSP


def build(cls: type[Method], resolution: int = 64) -> Method:
    torch.manual_seed(0)
    channels = [9, 8, 8, 7, 5][: resolution.bit_length() - 2]
    generator = Generator(
        resolution=resolution, z_dim=12, w_dim=20, mapping_layers=2, channels=channels
    )
    generator.update_average(num_samples=500)
    return cls(generator=generator, **SMALL).eval().requires_grad_(False)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=[E4E, PSP])
def method(request: pytest.FixtureRequest) -> Method:
    return build(request.param)


@pytest.mark.parametrize("images", [IMAGES, LOW, IMAGES[..., 4:28]], ids=["square", "low", "high"])
def test_inversion_and_pictures(method: Method, images: Tensor) -> None:
    inversion = method.invert(images)
    assert inversion.space is LatentSpace.W_PLUS
    assert inversion.codes.shape == (3, 10, 20)
    assert inversion.feature is None
    whole = method.synthesize(inversion)
    assert whole.shape == (3, 3, 64, 64)
    pictures = method.reconstructions(images)
    assert list(pictures) == ["W+"]
    assert pictures["W+"].shape == images.shape
    pooled = F.avg_pool2d(whole, 2)
    top, left = ((32 - length) // 2 for length in images.shape[2:])
    expected = pooled[:, :, top : 32 - top, left : 32 - left]
    torch.testing.assert_close(pictures["W+"], expected)


def test_image_shape_is_the_one_given() -> None:
    generator = build(E4E).generator
    assert build(E4E).image_shape == (32, 32)
    cars = E4E(generator=generator, **{**SMALL, "image_size": [24, 32]})  # type: ignore[arg-type]
    assert cars.image_shape == (24, 32)
    assert cars.reconstruct(LOW).shape == LOW.shape


def test_rows_of_cars_are_those_of_the_official_crop() -> None:
    pictures = torch.arange(256.0)[:, None].expand(1, 3, 256, 256)
    rows = at_input_size(pictures, (192, 256))[0, 0, :, 0]
    assert rows.tolist() == list(range(32, 224))


def test_stages_free_one_row_after_the_other() -> None:
    method = build(E4E)
    assert isinstance(method, E4E)
    method.latent_average.normal_(generator=torch.Generator().manual_seed(3))
    full = method.encode(IMAGES) - method.latent_average
    for stage in (0, 1, 4, 9):
        codes = method.encoder(IMAGES, stage=stage)
        torch.testing.assert_close(codes[:, : stage + 1], full[:, : stage + 1])
        torch.testing.assert_close(codes[:, stage + 1 :], full[:, :1].expand(-1, 9 - stage, -1))
    with pytest.raises(ValueError, match="stage is 10, expected 0 to 9"):
        method.encoder(IMAGES, stage=10)


def test_the_two_read_the_same_heads_in_their_own_way() -> None:
    e4e, psp = build(E4E), build(PSP)
    psp.load_state_dict(e4e.state_dict())
    offsets = psp.encode(IMAGES) - psp.latent_average
    codes = e4e.encode(IMAGES) - e4e.latent_average
    torch.testing.assert_close(codes[:, 0], offsets[:, 0])
    torch.testing.assert_close(codes[:, 1:], offsets[:, 1:] + offsets[:, :1])


def test_batches_do_not_matter_and_float64_agrees(method: Method) -> None:
    codes = method.encode(IMAGES)
    alone = torch.cat([method.encode(image[None]) for image in IMAGES])
    torch.testing.assert_close(alone, codes, rtol=0, atol=1e-5)
    wide = build(type(method)).double()
    exact = wide.reconstruct(IMAGES.double())
    assert exact.dtype == torch.float64
    single = method.reconstruct(IMAGES).double()
    assert float((single - exact).abs().max() / exact.square().mean().sqrt()) <= 5e-5


def test_training_reaches_every_head_and_no_generator() -> None:
    method = build(E4E).train()
    for module in method.encoder_modules().values():
        module.requires_grad_(True)
    method.reconstruct(IMAGES).square().mean().backward()
    assert all(p.grad is not None for p in method.encoder.parameters())
    assert all(p.grad is None for p in method.generator.parameters())


def test_native_files_hold_all_of_it(method: Method, tmp_path: Path) -> None:
    rows = torch.randn(10, 20, generator=torch.Generator().manual_seed(4))
    own = method.latent_average.clone()
    method.latent_average.copy_(rows)
    save(method, tmp_path / "method.safetensors", provenance={"made": "here"})
    loaded = clcae.load_method(tmp_path / "method.safetensors")
    assert type(loaded) is type(method)
    assert torch.equal(loaded.latent_average, rows)
    expected = method.synthesize(method.invert(IMAGES))
    method.latent_average.copy_(own)
    assert torch.equal(loaded.synthesize(loaded.invert(IMAGES)), expected)


def test_bad_input_names_what_was_given(method: Method) -> None:
    with pytest.raises(ValueError, match=r"\(3, 3, 16, 16\).*longer side is 32"):
        method.invert(IMAGES[:, :, :16, :16])
    with pytest.raises(ValueError, match=r"\(3, 1, 32, 32\)"):
        method.invert(IMAGES[:, :1])
    with pytest.raises(ValueError, match="'F'"):
        method.reconstruct(IMAGES, "F")
    inversion = method.invert(IMAGES)
    with pytest.raises(ValueError, match=r"\(3, 4, 20\)"):
        method.edit(inversion, lambda codes: codes[:, :4])
