"""What every form of CLCAE promises, on a generator of odd sizes."""

from pathlib import Path

import pytest
import torch

import clcae
from clcae.methods.clcae import CLCAE
from clcae.serialization import save
from clcae.stylegan2 import Generator, LatentSpace

SMALL = {
    "image_size": 32,
    "layer": "8x8/1",
    "stem_channels": 6,
    "stages": [[8, 1], [10, 1]],
    "stem_stride": 2,
    "width": 12,
    "num_levels": 3,
    "feature_hidden": 9,
}


def build(attention: str = "many_token", edit_rule: str = "refined") -> CLCAE:
    torch.manual_seed(0)
    generator = Generator(
        resolution=32, z_dim=12, w_dim=20, mapping_layers=2, channels=[9, 8, 7, 5]
    )
    generator.update_average(num_samples=500)
    method = CLCAE(generator=generator, attention=attention, edit_rule=edit_rule, **SMALL)  # type: ignore[arg-type]
    for parameter in method.encoder_modules()["feature"].parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)  # away from the start at zero
    if attention == "many_token":
        torch.nn.init.normal_(method.rows.out, std=0.05)  # type: ignore[union-attr]
    return method.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=["many_token", "one_token"])
def method(request: pytest.FixtureRequest) -> CLCAE:
    return build(request.param)


IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_inversion_has_codes_and_a_feature(method: CLCAE) -> None:
    inversion = method.invert(IMAGES)
    assert inversion.space is LatentSpace.W_PLUS
    assert inversion.codes.shape == (3, 8, 20)
    assert inversion.feature is not None
    assert inversion.feature.shape == (3, 8, 8, 8)
    assert method.synthesize(inversion).shape == (3, 3, 32, 32)


def test_outputs_agree_however_they_are_asked_for(method: CLCAE) -> None:
    together = method.reconstructions(IMAGES)
    assert list(together) == ["W", "W+", "F"]
    for name, picture in together.items():
        torch.testing.assert_close(method.reconstruct(IMAGES, name), picture, rtol=0, atol=1e-5)
    whole = method.synthesize(method.invert(IMAGES))
    torch.testing.assert_close(whole, together["F"], rtol=0, atol=1e-5)
    assert not torch.allclose(together["W"], together["W+"])
    assert not torch.allclose(together["W+"], together["F"])


@pytest.mark.parametrize("rule", ["refined", "foundation"])
@pytest.mark.parametrize("attention", ["many_token", "one_token"])
def test_edits(attention: str, rule: str) -> None:
    method = build(attention, rule)
    inversion = method.invert(IMAGES)
    picture = method.synthesize(inversion)
    still = method.edit(inversion, lambda codes: codes)
    torch.testing.assert_close(method.synthesize(still), picture, rtol=0, atol=1e-5)
    direction = torch.randn(20) * 0.3
    there = method.edit(inversion, lambda codes: codes + direction)
    assert not torch.allclose(method.synthesize(there), picture, atol=1e-3)
    back = method.edit(there, lambda codes: codes - direction)
    torch.testing.assert_close(back.codes, inversion.codes, rtol=0, atol=1e-4)
    torch.testing.assert_close(method.synthesize(back), picture, rtol=0, atol=1e-4)


def test_refined_rule_moves_the_feature_by_the_generators_difference() -> None:
    method = build()
    inversion = method.invert(IMAGES)
    edited = method.edit(inversion, lambda codes: codes + 0.2)
    assert inversion.feature is not None and edited.feature is not None
    before = method.generator.features(inversion.codes, method.layer)
    after = method.generator.features(inversion.codes + 0.2, method.layer)
    torch.testing.assert_close(edited.feature, inversion.feature + after - before)


def test_training_starts_at_the_foundation() -> None:
    torch.manual_seed(0)
    generator = Generator(
        resolution=32, z_dim=12, w_dim=20, mapping_layers=2, channels=[9, 8, 7, 5]
    )
    method = CLCAE(generator=generator, **SMALL).eval()  # type: ignore[arg-type]
    pictures = method.reconstructions(IMAGES)
    torch.testing.assert_close(pictures["W+"], pictures["W"], rtol=0, atol=1e-5)
    torch.testing.assert_close(pictures["F"], pictures["W"], rtol=0, atol=1e-5)


def test_many_tokens_attend_and_one_token_cannot() -> None:
    levels = build().pyramid(IMAGES)
    for attention, depends in (("many_token", True), ("one_token", False)):
        rows = build(attention).rows
        first, second = (rows(torch.full([3, 20], value), levels) for value in (0.0, 1.0))
        assert torch.allclose(first, second) is not depends


def test_generator_gets_no_gradient() -> None:
    method = build()
    for module in method.encoder_modules().values():
        module.requires_grad_(True)
    pictures, feature, _ = method.pictures(method.encode(IMAGES), noise="random")
    (sum(picture.square().mean() for picture in pictures.values()) + feature.mean()).backward()
    assert all(parameter.grad is None for parameter in method.generator.parameters())
    trained = [p for module in method.encoder_modules().values() for p in module.parameters()]
    assert all(parameter.grad is not None for parameter in trained)


def test_native_file_holds_all_of_it(tmp_path: Path) -> None:
    method = build()
    path = tmp_path / "clcae.safetensors"
    save(method, path, provenance={"made": "here"})
    loaded = clcae.load_method(path)
    expected = method.synthesize(method.invert(IMAGES))
    assert torch.equal(loaded.synthesize(loaded.invert(IMAGES)), expected)


def test_bad_input_names_what_was_given() -> None:
    method = build()
    with pytest.raises(ValueError, match=r"\(3, 3, 16, 16\)"):
        method.invert(IMAGES[:, :, :16, :16])
    with pytest.raises(ValueError, match="'some'"):
        build("some")
    with pytest.raises(ValueError, match="128x128"):
        CLCAE(generator=method.generator, **{**SMALL, "layer": "128x128/0"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="4x4"):
        CLCAE(generator=method.generator, **{**SMALL, "layer": "32x32/1", "feature_level": 0})  # type: ignore[arg-type]
