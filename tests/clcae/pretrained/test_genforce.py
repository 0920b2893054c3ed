"""GenForce's generator and the base-code encoder of F/Z+, against the official modules' outputs."""

from pathlib import Path

import goldens
import pytest
import torch

import clcae
from clcae.encoders.base_code import BaseCodeEncoder
from clcae.methods.interface import Inversion
from clcae.methods.optimization import Optimization
from clcae.pretrained import base_code, genforce
from clcae.pretrained.loading import import_checkpoint, load_base_code
from clcae.serialization import load, save
from clcae.stylegan2 import Generator, LatentSpace, normalize_z

TOLERANCE = 5e-5  # tests/fixtures/README.md
BASE_CODE = 2e-5


@pytest.fixture(scope="module")
def generator() -> Generator:
    made = genforce.generator_from_state(goldens.state("genforce_64", "generator_smooth"))
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def encoder() -> BaseCodeEncoder:
    made = base_code.base_code_from_state(goldens.state("basecode_16", "encoder"))
    return made.requires_grad_(False)


def test_pictures_rows_and_the_replaced_feature(generator: Generator) -> None:
    golden = goldens.Golden("genforce_64", TOLERANCE)
    rows, feature = golden.latent("zplus"), golden.latent("basecode")
    golden.check("z_normalised", normalize_z(rows))
    wplus = generator.map(
        rows[None],
        truncation=golden.meta["trunc_psi"],
        truncated_rows=golden.meta["trunc_layers"],
    )
    golden.check("wplus", wplus)
    golden.check("image", generator.synthesize(wplus))
    golden.check("image_wplus", generator.synthesize(golden.latent("wplus")))
    layer = generator.layer("16x16/0")
    golden.check("x03", generator.features(wplus, layer))
    image = generator.synthesize(wplus, at=(layer, lambda own: feature), keep_skip=False)
    golden.check("image_basecode", image)
    covered = {name.split(".")[0] for name in golden.entries}
    assert covered == {"z_normalised", "wplus", "image", "image_wplus", "x03", "image_basecode"}


def test_optimisation_makes_the_pictures_of_the_official_code(generator: Generator) -> None:
    """The code, feature and truncation of F/Z+ as an inversion, and before a step of a search."""
    golden = goldens.Golden("genforce_64", TOLERANCE)
    method = Optimization(generator=generator, output="F/Z+", truncation=0.7, truncated_rows=8)
    inversion = Inversion(
        codes=golden.latent("zplus")[None],
        space=LatentSpace.Z_PLUS,
        feature=golden.latent("basecode"),
        layer=generator.layer("16x16/0"),
    )
    golden.check("image_basecode", method.synthesize(inversion))
    golden.check("wplus", method.mapped(inversion).codes)
    assert method.inert_rows == 4  # rows 0 to 3 change no picture


def test_base_code(encoder: BaseCodeEncoder) -> None:
    golden = goldens.Golden("basecode_16", BASE_CODE)
    golden.check("basecode", encoder(golden.images()))
    assert encoder.out_shape == (512, 16, 16) and encoder.image_size == 128


def test_keys_come_back_as_they_were(generator: Generator, encoder: BaseCodeEncoder) -> None:
    keymap = genforce.generator_keymap(num_layers=9, mapping_layers=8)
    pairs = {
        ("genforce_64", "generator_smooth"): keymap.to_theirs(generator),
        ("basecode_16", "encoder"): base_code.encoder_keymap(encoder).to_theirs(encoder),
    }
    for layout, back in pairs.items():
        state = goldens.state(*layout)
        assert back.keys() == state.keys()
        for key, value in back.items():
            assert value.shape == state[key].shape
            torch.testing.assert_close(value, state[key], rtol=0, atol=1e-6)


def test_files_through_the_door(
    tmp_path: Path, generator: Generator, encoder: BaseCodeEncoder
) -> None:
    path = tmp_path / "any-name.pth"
    content = goldens.checkpoint("genforce_64")
    torch.save({**content, "generator": content["generator_smooth"], "discriminator": {}}, path)
    imported = import_checkpoint(path)
    assert imported.layout == "GenForce generator (generator_smooth)"
    assert len(imported.report.used) == len(content["generator_smooth"])
    assert imported.report.ignored == ("generator", "discriminator")
    loaded = clcae.load_generator(path)
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, generator.state_dict()[key])
    torch.save(content["generator_smooth"], path)
    assert isinstance(clcae.load_generator(path), Generator)

    torch.save(goldens.checkpoint("basecode_16"), path)
    assert import_checkpoint(path).layout == "base-code encoder (encoder)"
    again = load_base_code(path)
    native = tmp_path / "native.safetensors"
    save(again, native, provenance={})
    for found in (again, load_base_code(native), load(native)):
        for key, value in found.state_dict().items():
            assert torch.equal(value, encoder.state_dict()[key])
    with pytest.raises(ValueError, match="holds a BaseCodeEncoder, expected a generator"):
        clcae.load_generator(path)


def test_what_does_not_fit_is_listed() -> None:
    state = dict(goldens.state("genforce_64", "generator_smooth"))
    del state["synthesis.layer3.style.bias"]
    state["synthesis.layer3.style.extra"] = torch.zeros(1)
    with pytest.raises(ValueError, match="no GenForce generator") as caught:
        genforce.generator_from_state(state)
    for words in (
        "1 missing (synthesis.layer3.style.bias)",
        "1 unexpected (synthesis.layer3.style",
    ):
        assert words in str(caught.value)
    of_stylegan = {**state, "synthesis.layer0.epilogue.style_mod.dense.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match="of StyleGAN, only those of StyleGAN2"):
        genforce.generator_from_state(of_stylegan)
    encoder = dict(goldens.state("basecode_16", "encoder"))
    del encoder["model.33.bias"]
    with pytest.raises(ValueError, match=r"no base-code encoder.*1 missing \(model.33.bias\)"):
        base_code.base_code_from_state(encoder)
    with pytest.raises(ValueError, match=r"missing \(model\.0\.weight\)"):
        base_code.base_code_from_state({"a": torch.zeros(1)})


def test_files_without_channels_and_of_another_filter(tmp_path: Path) -> None:
    small = Generator(resolution=8, z_dim=4, w_dim=4, mapping_layers=1, channels=[3, 2])
    state = genforce.generator_keymap(num_layers=3, mapping_layers=1).to_theirs(small)
    path = tmp_path / "a.pth"
    for key, words in (("layer0.weight", "does not fit"), ("upsample.kernel", "is not the .* fil")):
        torch.save({"generator_smooth": state | {f"synthesis.{key}": torch.zeros(0)}}, path)
        with pytest.raises(ValueError, match=rf"a\.pth.*{words}"):
            clcae.load_generator(path)
