"""What StyleRes promises beyond the contract of all methods: residuals, variants, frozen parts."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_methods import SIDE, small_e4e, small_styleres
from torch import nn

import clcae
from clcae.construction import without_weights
from clcae.methods.e4e import E4E
from clcae.methods.styleres import StyleRes
from clcae.serialization import save
from clcae.stylegan2 import Generator, LatentSpace
from clcae.stylegan2.synthesis import Prefix

IMAGES = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1
MOVE = torch.randn(8, 20, generator=torch.Generator().manual_seed(2))
TRUNK: dict[str, Any] = {"stem_channels": 4, "stages": [[4, 1], [6, 1], [8, 1]], "width": 6}


@pytest.fixture(scope="module", params=["sum", "gate"])
def method(request: pytest.FixtureRequest) -> StyleRes:
    return small_styleres(fusion=request.param)


@torch.no_grad()
def test_zero_edit_is_the_identity_bit_for_bit(method: StyleRes) -> None:
    inversion = method.invert(IMAGES)
    picture = method.synthesize(inversion)
    for still in (lambda codes: codes, lambda codes: codes + 0 * MOVE):
        assert torch.equal(method.synthesize(method.edit(inversion, still)), picture)


@torch.no_grad()
def test_edits_keep_the_residual_and_transform_it(method: StyleRes) -> None:
    inversion = method.invert(IMAGES)
    assert inversion.space is LatentSpace.W_PLUS and inversion.layer == method.layer
    edited = method.edit(inversion, lambda codes: codes + MOVE)
    assert edited.feature is inversion.feature
    assert edited.feature is not None and edited.feature.shape == (3, 8, 16, 16)
    prefix = method.generator.begin(inversion.codes + MOVE, method.layer)
    injection = method.transform(prefix.feature, edited.feature)
    gate = 1.0 if injection.gate is None else injection.gate
    expected = prefix.feature + gate * injection.delta
    torch.testing.assert_close(injection.feature, expected)
    changed = Prefix(prefix.layer, expected, prefix.rgb)
    picture = method.generator.finish(changed, edited.codes)
    torch.testing.assert_close(method.synthesize(edited), picture)
    before = method.transform(inversion.context["own"], edited.feature)
    assert (before.delta - injection.delta).abs().max() > 1e-2  # by what E2 reads of the codes
    plain = method.generator.synthesize(edited.codes)
    assert (picture - plain).abs().max() > 1e-2


@torch.no_grad()
def test_both_outputs_are_those_of_e4e_and_of_the_residual(method: StyleRes) -> None:
    together = method.reconstructions(IMAGES)
    assert [*together] == ["W+", "F"] and method.output == "F"
    codes = method.with_output("W+").invert(IMAGES).codes
    assert torch.equal(method.invert(IMAGES).codes, codes)
    torch.testing.assert_close(together["W+"], method.generator.synthesize(codes))
    assert (together["W+"] - together["F"]).abs().max() > 1e-2


def test_a_gate_of_one_is_the_sum() -> None:
    summed, gated = small_styleres(fusion="sum"), small_styleres(fusion="gate")
    missing = gated.load_state_dict(summed.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(key.startswith("transform.gate.") for key in missing.missing_keys)
    last = gated.transform.get_submodule("gate.2.conv1")
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    last.bias.fill_(1e6)
    torch.testing.assert_close(gated.reconstruct(IMAGES), summed.reconstruct(IMAGES))
    last.bias.fill_(-1e6)
    torch.testing.assert_close(gated.reconstruct(IMAGES), gated.reconstruct(IMAGES, "W+"))


@torch.no_grad()
def test_ablations_of_the_paper() -> None:
    """Without E2 the residual is added whatever the codes are; without E1 it is e4e's feature."""
    without_e2, without_e1 = small_styleres(fusion="none"), small_styleres(source="skip")
    inversion = without_e2.invert(IMAGES)
    edited = without_e2.edit(inversion, lambda codes: codes + MOVE)
    prefix = without_e2.begin(edited.codes)
    assert inversion.feature is not None
    changed = Prefix(prefix.layer, prefix.feature + inversion.feature, prefix.rgb)
    picture = without_e2.generator.finish(changed, edited.codes)
    torch.testing.assert_close(without_e2.synthesize(edited), picture)
    feature = without_e1.invert(IMAGES).feature
    assert feature is not None and torch.equal(feature, without_e1.encode_with_skip(IMAGES)[1])
    assert not [*without_e2.transform.parameters()] and not [*without_e1.residual.parameters()]


def test_training_reaches_e1_and_e2_alone(method: StyleRes) -> None:
    fresh = small_styleres(fusion=method.settings["fusion"]).train()
    modules = fresh.encoder_modules()
    assert [*modules] == ["residual", "transform"]
    assert all(module.training for module in modules.values())
    assert not any(module.training for module in fresh.encoder.modules())
    trained = nn.ModuleDict(modules).requires_grad_(True)
    running = {key: value.clone() for key, value in fresh.encoder.state_dict().items()}
    edited = fresh.edit(fresh.invert(IMAGES), lambda codes: codes + MOVE)
    fresh.synthesize(edited).square().mean().backward()
    assert all(parameter.grad is not None for parameter in trained.parameters())
    rest = [*fresh.encoder.parameters(), *fresh.generator.parameters()]
    assert all(parameter.grad is None for parameter in rest)
    assert all(
        torch.equal(value, running[key]) for key, value in fresh.encoder.state_dict().items()
    )


def test_it_starts_from_a_trained_e4e() -> None:
    e4e, method = small_e4e(), small_styleres()
    e4e.latent_average.copy_(MOVE)
    for head in e4e.encoder.heads:
        nn.init.normal_(head.get_parameter("linear.weight"))
    method.start_from(e4e)
    expected = e4e.invert(IMAGES).codes
    assert torch.equal(method.invert(IMAGES).codes, expected)
    nn.init.zeros_(e4e.encoder.heads[0].get_parameter("linear.weight"))  # a copy of its own
    assert torch.equal(method.invert(IMAGES).codes, expected)
    other = E4E(generator=e4e.generator, image_size=SIDE, **TRUNK)
    with pytest.raises(ValueError, match="the e4e does not fit this encoder") as caught:
        method.start_from(other)
    assert "\n" not in str(caught.value)


def test_native_files_hold_e4e_too(method: StyleRes, tmp_path: Path) -> None:
    save(method, tmp_path / "method.safetensors", provenance={"made": "here"})
    loaded = clcae.load_method(tmp_path / "method.safetensors")
    assert type(loaded) is StyleRes and loaded.settings["fusion"] == method.settings["fusion"]
    assert loaded.state_dict().keys() == method.state_dict().keys()
    assert torch.equal(loaded.reconstruct(IMAGES), method.reconstruct(IMAGES))


def test_sizes_follow_the_generator() -> None:
    generator = clcae.load_generator("portraits")
    portraits = StyleRes(
        generator=generator,
        image_size=64,
        layer="32x32/0",
        stem_channels=24,
        stages=[[48, 1], [72, 2], [96, 2]],
        stem_stride=2,
        width=96,
    )
    channels = generator.feature_shape(portraits.layer)[0]
    inversion = portraits.invert(F.interpolate(IMAGES, 64))
    assert inversion.feature is not None
    assert inversion.feature.shape == (3, channels, 32, 32)
    assert portraits.synthesize(inversion).shape == (3, 3, 64, 64)


def test_official_sizes() -> None:
    def build(**settings: Any) -> StyleRes:
        make = partial(StyleRes, generator=Generator(resolution=1024), **settings)
        return without_weights(make, sizes=[1 << 24] * 1000)

    method, summed = build(fusion="gate"), build()
    assert method.layer.name == "64x64/0" and method.encoder.pyramid.trunk.channels[2] == 128
    assert method.skip_index == 2

    def count(*modules: nn.Module) -> int:
        return sum(parameter.numel() for each in modules for parameter in each.parameters())

    # The official networks, of which the alignment has 9,439,232 more that it never uses.
    assert count(method.residual) == 53_030_912 - 9_439_232 + 14_421_504
    assert count(method.transform) == 25_963_019
    gate = method.transform.get_submodule("gate")
    assert count(method.transform) - count(summed.transform) == count(gate)


def test_cars_are_made_square() -> None:
    method = small_styleres(image_size=[24, 32])
    low = IMAGES[:, :, 4:28]
    inversion = method.invert(low)
    assert inversion.feature is not None and inversion.feature.shape == (3, 8, 16, 16)
    _, skip = method.encode_with_skip(low)
    assert skip.shape == (3, 6, 12, 16)
    square = method.residual(F.pad(skip, (0, 0, 2, 2)), inversion.context["own"])
    torch.testing.assert_close(inversion.feature, square)
    assert method.reconstruct(low).shape == low.shape


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layer": "4x4/0"}, r"layer is 4x4/0, the trunk's outputs have sides \[32, 16, 8\]"),
        ({"layer": "64x64/0"}, "layer 64x64/0 is not in this generator, its last one is 32x32/1"),
        ({"fusion": "product"}, "fusion is 'product', expected 'sum', 'gate' or 'none'"),
        (
            {"fusion": "none", "residual_width": 9},
            "the residual has 9 channels, expected 7, those of the layer",
        ),
        ({"source": "e3"}, "source is 'e3', expected 'e1' or 'skip'"),
        ({"residual_width": 1}, "residual_width is 1, expected 2 or more"),
        ({"stem_stride": 0}, "stem_stride is 0"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], words: str) -> None:
    generator = small_e4e().generator
    given = {"layer": "16x16/0", "image_size": SIDE, **TRUNK, "stages": [[4, 1], [6, 1]]}
    with pytest.raises(ValueError, match=words):
        StyleRes(generator=generator, **{**given, **settings})


def test_images_of_another_size_are_refused(method: StyleRes) -> None:
    for call in (method.invert, method.reconstructions, method.with_output("W+").invert):
        with pytest.raises(ValueError, match=r"\(3, 3, 16, 16\).*longer side is 32"):
            call(IMAGES[:, :, :16, :16])
