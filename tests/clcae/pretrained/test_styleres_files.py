"""StyleRes from its official layout, against the official modules and the equations in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import goldens
import official
import pytest
import torch
import torch.nn.functional as F
from official_files import styleres_to_checkpoint
from small_methods import SIDE, small_styleres
from torch import Tensor, nn

import clcae
from clcae.methods.styleres import StyleRes
from clcae.pretrained.loading import import_checkpoint
from clcae.pretrained.styleres import residual_keymap, styleres_from_states
from clcae.serialization import settings_digest
from scripts.import_checkpoint import main

TOLERANCE = 1e-4  # tests/fixtures/README.md
IMAGES = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1
BLOCK = "synthesis.b16.modify_feature"
UNUSED = f"{BLOCK}_alignment.dconv3"


@pytest.fixture
def content() -> dict[str, Any]:
    return styleres_to_checkpoint(small_styleres())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "any-name.bin"


def loaded(content: Mapping[str, Any]) -> StyleRes:
    return styleres_from_states(content["e4e"], content["latent_avg"], content["generator_smooth"])


class Equations:
    """E1 and E2 layer by layer from the file's own keys, in float64."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = {key: value.double() for key, value in state.items()}

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.state[f"{BLOCK}_{name}.weight"]
        bias = self.state.get(f"{BLOCK}_{name}.bias")
        return F.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2)

    def block(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        hidden = self.conv(f"{name}.res_layer.0", x)
        hidden = torch.where(hidden > 0, hidden, 0.2 * hidden)
        shortcut = f"{name}.shortcut_layer.0"
        known = f"{BLOCK}_{shortcut}.weight" in self.state
        kept = self.conv(shortcut, x, stride) if known else x
        return self.conv(f"{name}.res_layer.2", hidden, stride) + kept

    @staticmethod
    def twice_as_large(x: Tensor) -> Tensor:
        """Linear along both axes, the corners where they were."""
        side = x.shape[-1]
        at = torch.arange(2 * side).double() * (side - 1) / (2 * side - 1)
        weights = (1 - (at[:, None] - torch.arange(side)).abs()).clamp(min=0)
        return torch.einsum("pi,ncij,qj->ncpq", weights, x, weights)

    def residual(self, skip: Tensor, own: Tensor) -> Tensor:
        x = self.conv("alignment.first_layer", torch.cat([skip, own], dim=1).double())
        first = self.block("alignment.conv1.0", x)
        half = self.block("alignment.conv2.0", first, stride=2)
        half = self.block("alignment.conv2.1", half)
        x = self.block("alignment.conv3.0", half, stride=2)
        x = self.block("alignment.conv3.1", x)
        for name, finer in (("dconv1", half), ("dconv2", first)):
            x = self.twice_as_large(x) + finer
            x = self.block(f"alignment.{name}.1", self.block(f"alignment.{name}.0", x))
        x = self.conv("alignment.out_layer", x)
        x = self.conv("extraction.first_layer", x)
        for index in range(3):
            x = self.block(f"extraction.convs.{index}", x)
        return x

    def injected(self, own: Tensor, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The feature that the generator goes on with, delta and gate."""
        own = own.double()
        joined = [self.conv("gates.down1", own), self.conv("gates.down2", residual.double())]
        delta = gate = torch.cat(joined, dim=1)
        for index in range(3):
            delta = self.block(f"gates.convs.{index}", delta)
            gate = self.block(f"gates.convs2.{index}", gate)
        gate = 1 / (1 + torch.exp(-gate))
        return own * (1 - gate) + (own + delta) * gate, delta, gate


def close(value: Tensor, expected: Tensor) -> None:
    assert value.shape == expected.shape
    assert goldens.relative_error(value.double(), expected) <= 5e-5


@torch.no_grad()
def test_small_files_follow_the_equations(content: dict[str, Any]) -> None:
    method, equations = loaded(content), Equations(content["generator_smooth"])
    codes, skip = method.encode_with_skip(IMAGES)
    assert skip.shape == (2, 6, 16, 16)
    own = method.generator.features(codes, method.layer)
    residual = method.residual(skip, own)
    close(residual, equations.residual(skip, own))
    edited = codes + torch.randn(20, generator=torch.Generator().manual_seed(2))
    inversion = method.invert(IMAGES)
    assert torch.equal(inversion.codes, codes)
    for now, state in ((codes, inversion), (edited, method.edit(inversion, lambda _: edited))):
        expected = equations.injected(
            method.generator.features(now, method.layer), equations.residual(skip, own)
        )
        injection = method.transform(method.generator.features(now, method.layer), residual)
        for value, reference in zip(
            (injection.feature, injection.delta, injection.gate), expected, strict=True
        ):
            assert value is not None
            close(value, reference)
        feature = expected[0].float()
        at = (method.layer, lambda _, feature=feature: feature)
        close(method.synthesize(state), method.generator.synthesize(now, at=at).double())


def test_keys_come_back_as_they_were(content: dict[str, Any]) -> None:
    back = styleres_to_checkpoint(loaded(content))
    for name in ("e4e", "generator_smooth"):
        assert back[name].keys() == content[name].keys()
        assert all(torch.allclose(back[name][key], value) for key, value in content[name].items())
    assert torch.equal(back["latent_avg"], content["latent_avg"])


def test_the_import_accounts_for_every_key_and_the_native_file_is_the_same(
    content: dict[str, Any], path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content["latent_avg"] += torch.randn(8, 20, generator=torch.Generator().manual_seed(3))
    torch.save(content, path)
    report = import_checkpoint(path).report
    smooth = content["generator_smooth"]
    unused = {f"generator_smooth.{key}" for key in smooth if key.startswith(UNUSED)}
    assert set(report.ignored) == unused and len(unused) == 8
    used = {f"e4e.{key}" for key in content["e4e"]} | {"latent_avg"}
    used |= {f"generator_smooth.{key}" for key in smooth}
    assert set(report.used) == used - unused and report.notes == ()
    native = path.with_suffix(".safetensors")
    assert main([str(path), "--out", str(native)]) == 0
    printed = capsys.readouterr().out
    assert "StyleRes (e4e, latent_avg, generator_smooth)" in printed
    assert f"  generator_smooth.{UNUSED}.* (8 keys)" in printed
    first, second = clcae.load_method(path), clcae.load_method(native)
    assert isinstance(first, StyleRes) and isinstance(second, StyleRes)
    assert torch.equal(first.latent_average, content["latent_avg"])
    assert torch.equal(first.reconstruct(IMAGES), second.reconstruct(IMAGES))
    assert settings_digest(first) == settings_digest(second)
    assert not any(parameter.requires_grad for parameter in first.parameters())


def test_one_row_for_the_average_and_another_size(content: dict[str, Any], path: Path) -> None:
    row = torch.randn(20, generator=torch.Generator().manual_seed(4))
    for average in (row, row[None]):
        torch.save({**content, "latent_avg": average}, path)
        assert torch.equal(clcae.load_method(path).latent_average, row.expand(8, -1))
    method = clcae.load_method(path, image_size=(24, 32))
    low = IMAGES[:, :, 4:28]
    assert method.image_shape == (24, 32) and method.reconstruct(low).shape == low.shape


def changed(content: dict[str, Any], section: str, **values: Tensor | None) -> dict[str, Any]:
    state = {**content[section], **{key.replace("__", "."): v for key, v in values.items()}}
    return {**content, section: {key: v for key, v in state.items() if v is not None}}


def test_files_that_lack_a_part_are_refused_in_a_line(content: dict[str, Any], path: Path) -> None:
    smooth = content["generator_smooth"]
    bare = {key: value for key, value in smooth.items() if "modify_feature" not in key}
    twice = {key.replace(".b16.", ".b8."): v for key, v in smooth.items() if "modify" in key}
    two = {"generator_smooth": smooth | twice}
    gate = f"{BLOCK}_gates.convs2.2.shortcut_layer.0.weight"
    down, first = f"{BLOCK}_gates.down1.bias", f"{BLOCK}_extraction.first_layer.weight"
    for wrong, words in (
        ({k: v for k, v in content.items() if k != "e4e"}, "StyleRes without e4e, expected e4e, "),
        ({"e4e": content["e4e"]}, "without latent_avg and generator_smooth"),
        ({k: v for k, v in content.items() if k != "latent_avg"}, "without latent_avg"),
        ({**content, "latent_avg": torch.zeros(8, 1)}, "(8, 1), expected rows of 20 numbers"),
        (
            {**content, "latent_avg": torch.zeros(8, 20).int()},
            "latent_avg is of torch.int32, expected",
        ),
        ({**content, "latent_avg": None}, "has no latent_avg"),
        ({**content, "latent_avg": torch.zeros(3, 20)}, "(3, 20), expected 8 rows"),
        ({**content, "generator_smooth": bare}, "0 blocks with modify_feature_*, expected one"),
        ({**content, **two}, "2 blocks with modify_feature_*"),
        (changed(content, "generator_smooth", **{gate: None}), f"1 missing ({gate})"),
        (changed(content, "generator_smooth", **{first: None}), f"1 missing ({first})"),
        (changed(content, "generator_smooth", **{down: torch.zeros(3)}), f"({down} (3,))"),
        (
            changed(content, "generator_smooth", **{down: smooth[down].int()}),
            f"1 of another shape ({down} torch.int32)",
        ),
        (changed(content, "generator_smooth", mapping__w_avg=None), "missing (mapping.w_avg)"),
        (changed(content, "generator_smooth", extra=torch.zeros(1)), "unexpected (extra)"),
        (
            changed(content, "generator_smooth", **{f"{BLOCK}_gates.extra": torch.zeros(1)}),
            f"1 unexpected ({BLOCK}_gates.extra)",
        ),
        (changed(content, "e4e", latlayer2__bias=None), "(e4e): 1 missing (latlayer2.bias)"),
        (changed(content, "e4e", input_layer__0__weight=None), "1 missing (input_layer.0.weight)"),
        (changed(content, "e4e", extra=torch.zeros(1)), "1 unexpected (extra)"),
        (changed(content, "e4e", latlayer2__bias=torch.zeros(12) / 0), "NaN or infinite"),
        ({**content, "surprise": torch.zeros(1)}, "names that no StyleRes"),
    ):
        torch.save(wrong, path)
        with pytest.raises(ValueError, match=r"any-name\.bin") as caught:
            clcae.load_method(path)
        line = str(caught.value)
        assert words in line and "\n" not in line and len(line) < 600, line


def test_a_plain_sum_has_no_official_layout() -> None:
    method = small_styleres(fusion="sum")
    with pytest.raises(ValueError, match="without a gate"):
        residual_keymap(nn.ModuleDict(method.encoder_modules()), layer=method.layer)


@pytest.mark.slow
@torch.no_grad()
def test_styleres_at_1024(tmp_path: Path) -> None:
    """Every entry of the golden, from a file and through the calls of a user."""
    golden = goldens.Golden("styleres_1024", TOLERANCE)
    path = tmp_path / "styleres_ffhq.pt"
    torch.save(official.checkpoint("styleres_1024"), path)
    imported = import_checkpoint(path)
    path.unlink()  # a gigabyte and a half
    assert len(imported.report.used) == 621 + 1 + 275 - 8
    assert len(imported.report.ignored) == 8
    assert all(".modify_feature_alignment.dconv3." in key for key in imported.report.ignored)
    method = imported.module
    assert isinstance(method, StyleRes)
    images, checked = golden.images(), set[str]()

    def check(name: str, value: Tensor | None) -> None:
        assert value is not None
        golden.check(name, value)
        checked.update(key for key in golden.entries if key == name or key.startswith(f"{name}."))

    codes, skip = method.encode_with_skip(images)
    check("wplus", codes)
    check("skip", skip)
    inversion = method.invert(images)
    check("f_feats", inversion.context["own"])
    edited = method.edit(inversion, lambda rows: rows + golden.latent("edit"))
    for name, each in (("inversion", inversion), ("edit", edited)):
        check(f"{name}.aligned", each.feature)
        injection = method.transform(each.context["own"], each.feature)
        check(f"{name}.delta", injection.delta)
        check(f"{name}.gate", injection.gate)
        check(f"{name}.injected", injection.feature)
        check(f"{name}.image", method.synthesize(each))
    assert checked == set(golden.entries)
