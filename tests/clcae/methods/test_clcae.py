"""What every form of CLCAE promises, on a generator of odd sizes."""

import re
from pathlib import Path

import official
import pytest
import torch
from small_methods import small_official

import clcae
from clcae.aligner import ImageTower
from clcae.methods.clcae import CLCAE
from clcae.methods.foundation import FoundationInversion, Rule
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


def small_generator() -> Generator:
    torch.manual_seed(0)
    generator = Generator(
        resolution=32, z_dim=12, w_dim=20, mapping_layers=2, channels=[9, 8, 7, 5]
    )
    generator.update_average(num_samples=500)
    return generator


def build(attention: str = "many_token", edit_rule: Rule = "refined") -> FoundationInversion:
    if attention == "official":
        return small_official(edit_rule=edit_rule)
    generator = small_generator()
    method = CLCAE(generator=generator, attention=attention, edit_rule=edit_rule, **SMALL)  # type: ignore[arg-type]
    for parameter in method.encoder_modules()["feature"].parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)  # away from the start at zero
    if attention == "many_token":
        torch.nn.init.normal_(method.rows.out, std=0.05)  # type: ignore[arg-type]
    return method.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=["many_token", "one_token", "official"])
def method(request: pytest.FixtureRequest) -> FoundationInversion:
    return build(request.param)


IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_inversion_has_codes_and_a_feature(method: FoundationInversion) -> None:
    inversion = method.invert(IMAGES)
    assert inversion.space is LatentSpace.W_PLUS
    assert inversion.codes.shape == (3, 8, 20)
    assert inversion.feature is not None
    assert inversion.feature.shape == (3, 8, 8, 8)
    assert method.synthesize(inversion).shape == (3, 3, 32, 32)


def test_outputs_agree_however_they_are_asked_for(method: FoundationInversion) -> None:
    together = method.reconstructions(IMAGES)
    assert list(together) == ["W", "W+", "F"]
    for name, picture in together.items():
        torch.testing.assert_close(method.reconstruct(IMAGES, name), picture, rtol=0, atol=1e-5)
    whole = method.synthesize(method.invert(IMAGES))
    torch.testing.assert_close(whole, together["F"], rtol=0, atol=1e-5)
    assert not torch.allclose(together["W"], together["W+"])
    assert not torch.allclose(together["W+"], together["F"])


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


@pytest.mark.parametrize("attention", ["many_token", "official"])
def test_generator_gets_no_gradient(attention: str) -> None:
    method = build(attention)
    for module in method.encoder_modules().values():
        module.requires_grad_(True)
    pictures, feature, _ = method.pictures(method.encode(IMAGES), noise="random")
    (sum(picture.square().mean() for picture in pictures.values()) + feature.mean()).backward()
    assert all(parameter.grad is None for parameter in method.generator.parameters())
    trained = [p for module in method.encoder_modules().values() for p in module.parameters()]
    assert all(parameter.grad is not None for parameter in trained)


@pytest.mark.parametrize("attention", ["many_token", "official"])
def test_native_file_holds_all_of_it(tmp_path: Path, attention: str) -> None:
    method = build(attention)
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


@pytest.mark.parametrize("attention", ["many_token", "official"])
def test_scaled_feature_leads_from_the_codes_to_the_feature(attention: str) -> None:
    method = build(attention)
    encoding = method.encode(IMAGES)
    whole, feature, own = method.pictures(encoding)
    none, same, _ = method.pictures(encoding, feature_scale=0.0)
    half, _, _ = method.pictures(encoding, feature_scale=0.5)
    assert torch.equal(feature, same)
    torch.testing.assert_close(none["F"], whole["W+"], rtol=0, atol=1e-5)
    expected = method.generator.synthesize(
        encoding.w_plus, at=(method.layer, lambda _: (own + feature) / 2)
    )
    torch.testing.assert_close(half["F"], expected, rtol=0, atol=1e-5)


def test_official_cars_are_the_middle_rows() -> None:
    method = small_official(image_size=(24, 32))
    images = IMAGES[:, :, 4:28]
    pictures = method.reconstructions(images)
    encoding = method.encode(images)
    assert {picture.shape for picture in pictures.values()} == {images.shape}
    square = method.generator.synthesize(encoding.w)
    torch.testing.assert_close(pictures["W"], square[:, :, 4:28])
    method.resize = False
    assert method.synthesize(method.invert(images)).shape == (3, 3, 32, 32)
    assert method.average_image.shape == (3, 24, 32)
    with pytest.raises(ValueError, match=r"\(3, 3, 32, 32\)"):
        method.invert(IMAGES)
    with pytest.raises(ValueError, match="26x32"):
        small_official(image_size=(26, 32))


def test_pictures_of_a_larger_generator_are_averaged_to_the_input() -> None:
    generator = Generator(
        resolution=64, z_dim=12, w_dim=20, mapping_layers=2, channels=[9, 8, 7, 5, 4]
    )
    method = CLCAE(generator=generator, **SMALL).eval()  # type: ignore[arg-type]
    method.update_average_image()
    whole = method.synthesize(method.invert(IMAGES))
    assert whole.shape == (3, 3, 64, 64)
    pooled = torch.nn.functional.avg_pool2d(whole, 2)
    torch.testing.assert_close(method.reconstructions(IMAGES)["F"], pooled)


def test_official_encoder_learns_with_dropout() -> None:
    method = small_official()
    for module in method.encoder_modules().values():
        module.requires_grad_(True).train()
    assert not torch.equal(method.encode(IMAGES).w_plus, method.encode(IMAGES).w_plus)
    trained = [p for module in method.encoder_modules().values() for p in module.parameters()]
    optimizer = torch.optim.Adam(trained, lr=3e-3)
    losses = []
    for step in range(60):
        pictures, _, _ = method.pictures(method.encode(IMAGES), feature_scale=min(1.0, step / 30))
        loss = torch.stack([(p - IMAGES).square().mean() for p in pictures.values()]).mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_official_code_means_to_load_trunk_and_head() -> None:
    tower, encoder = official.layout("clcae_align_image"), official.layout("clcae_1024")
    keys = [key for key in tower["state_dict"] if key.startswith("encoder.")]
    assert len(keys) == 399 and {*keys} <= {*encoder["state_dict"]}
    parts = {re.match(r"encoder\.(input_layer|body|styles\.0|latlayer[12])\.", key) for key in keys}
    assert None not in parts  # trunk, head, and 1x1 convolutions that stage 1 never trains


def test_encoder_starts_from_an_aligners_tower() -> None:
    method = small_official()
    sizes = {"image_size": 32, "stem_channels": 6, "stages": [[8, 1], [12, 1]], "stem_stride": 1}
    tower = ImageTower(**sizes, dim=20)  # type: ignore[arg-type]
    method.start_from(tower)
    for ours, theirs in ((method.pyramid.trunk, tower.trunk), (method.foundation, tower.head)):
        state = theirs.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in ours.state_dict().items())
    with pytest.raises(ValueError, match=r"does not fit.* StyleHead: size mismatch") as error:
        method.start_from(ImageTower(**sizes, dim=16))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("attention", ["many_token", "official"])
def test_checkpointed_activations_change_no_gradient(attention: str) -> None:
    gradients = []
    for checkpointed in (False, True):
        method = build(attention)
        encoder = torch.nn.ModuleDict(method.encoder_modules()).requires_grad_(True)
        torch.manual_seed(3)
        pictures, _, _ = method.pictures(
            method.encode(IMAGES), noise="random", checkpoint_activations=checkpointed
        )
        torch.stack([p.square().mean() for p in pictures.values()]).sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert one is not None and torch.equal(one, other)


def test_pictures_that_are_not_square_are_read_and_compared_in_their_own_shape() -> None:
    generator = small_generator()
    for attention in ("many_token", "one_token", "none"):
        settings = {**SMALL, "image_size": [24, 32], "attention": attention}
        method = CLCAE(generator=generator, **settings)  # type: ignore[arg-type]
        method.update_average_image()
        outputs = method.reconstructions(torch.rand(2, 3, 24, 32) * 2 - 1)
        assert {picture.shape for picture in outputs.values()} == {(2, 3, 24, 32)}


def test_the_ablations_are_settings_of_their_own() -> None:
    method = CLCAE(
        generator=small_generator(), attention="none", feature_attention="one_token", **SMALL
    )  # type: ignore[arg-type]
    assert not any("attention" in name for name, _ in method.rows.named_modules())
    with pytest.raises(ValueError, match="feature_attention is 'some'"):
        CLCAE(generator=small_generator(), feature_attention="some", **SMALL)  # type: ignore[arg-type]
