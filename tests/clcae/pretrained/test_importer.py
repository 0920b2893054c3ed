"""Official layouts through one door, told by their content, with an account of every key."""

import hashlib
from pathlib import Path
from typing import Any

import goldens
import official
import pytest
import torch
from official_files import e4e_to_checkpoint, nvidia_state
from small_methods import small_e4e
from torch import Tensor

import clcae
from clcae.evaluation.networks import Networks
from clcae.methods.e4e import E4E, PSP
from clcae.methods.interface import InversionMethod
from clcae.pretrained import nvidia, rosinality
from clcae.pretrained.layouts import LAYOUTS
from clcae.pretrained.loading import import_checkpoint
from clcae.pretrained.rosinality import export_rosinality
from clcae.serialization import load, save
from clcae.stylegan2 import Discriminator, Generator


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def small(**changes: Any) -> Generator:
    torch.manual_seed(0)
    settings = {"resolution": 16, "z_dim": 12, "w_dim": 20, "channels": [8, 6, 4]}
    generator = Generator(**{**settings, "mapping_layers": 2, **changes}).eval()
    generator.w_average.normal_()
    return generator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "any-name.bin"  # the content says what it is


FLAT = {
    "rosinality_disc_64": (Discriminator, "rosinality discriminator (d)"),
    "nvidia_64": (Generator, "stylegan2-ada generator state dict"),
    "nvidia_disc_64": (Discriminator, "stylegan2-ada discriminator state dict"),
}


@pytest.mark.parametrize("stream", [False, True])
def test_rosinality_generator(path: Path, stream: bool) -> None:
    content = goldens.checkpoint("rosinality_64")
    torch.save(content, path, _use_new_zipfile_serialization=not stream)
    imported = import_checkpoint(path)
    assert imported.layout == "rosinality generator (g_ema)"
    assert len(imported.report.used) == len(content["g_ema"]) + 1
    assert "latent_avg" in imported.report.used
    assert imported.report.ignored == imported.report.notes == ()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert imported.provenance == {
        "layout": "rosinality generator (g_ema)",
        "file": "any-name.bin",
        "sha256": digest,
    }
    generator = imported.module
    assert isinstance(generator, Generator) and not generator.training
    golden = goldens.Golden("rosinality_64", 5e-5)
    golden.check("image_wplus", generator.synthesize(golden.latent("wplus")))


def test_training_checkpoint_of_rosinality(path: Path) -> None:
    content = goldens.checkpoint("rosinality_64")
    disc, other = goldens.state("rosinality_disc_64"), small()
    other_state, _ = rosinality.generator_to_state(other)
    torch.save({"g": other_state, "d": disc, "g_optim": {"state": {0: disc}}, **content}, path)
    imported = import_checkpoint(path)
    assert imported.report.ignored == ("g", "d", "g_optim")
    assert same(import_checkpoint(path, which="g").module.mapping.state_dict(),
                other.mapping.state_dict())  # fmt: skip
    discriminator = import_checkpoint(path, which="d").module
    assert isinstance(discriminator, Discriminator)
    golden = goldens.Golden("rosinality_disc_64", 5e-5)
    golden.check("logits", discriminator(golden.images()))
    with pytest.raises(ValueError, match=r"has no 'G_ema': g_ema, g, d"):
        import_checkpoint(path, which="G_ema")


def test_missing_mean_latent_is_computed_and_said(path: Path) -> None:
    generator = small()
    state, _ = rosinality.generator_to_state(generator)
    torch.save({"g_ema": state}, path)
    imported = import_checkpoint(path)
    assert any("computed from 100,000 mapped samples" in note for note in imported.report.notes)
    generator.update_average(seed=1)  # another sample of the same mean
    average = imported.module.w_average
    assert torch.allclose(average, generator.w_average, atol=0.02)
    assert average.abs().max() > 0.01
    assert any("computed" in line for line in imported.report.lines())


@pytest.mark.parametrize("name", FLAT)
def test_bare_state_dicts(path: Path, name: str) -> None:
    cls, layout = FLAT[name]
    torch.save(goldens.state(name), path)
    imported = import_checkpoint(path)
    assert isinstance(imported.module, cls) and imported.layout == layout
    assert set(imported.report.used) == set(goldens.state(name))


def test_bare_rosinality_generator(path: Path) -> None:
    torch.save(goldens.state("rosinality_64", "g_ema"), path)
    assert isinstance(import_checkpoint(path).module, Generator)


def test_moco_ignores_by_name(path: Path) -> None:
    state = official.state_dict("moco_v2")
    torch.save({"state_dict": state, "arch": "resnet50", "epoch": 800, "optimizer": {}}, path)
    report = import_checkpoint(path).report
    kept = [key for key in state if key.startswith("module.encoder_q.") and ".fc." not in key]
    assert set(report.used) == {f"state_dict.{key}" for key in kept}
    assert len(report.ignored) == len(state) - len(kept) + 3
    lines = report.lines()
    assert f"{len(kept)} keys used" in lines
    assert "  state_dict.module.encoder_q.fc.* (4 keys)" in lines and "  arch" in lines


@pytest.mark.parametrize("name", ["arcface_irse50", "curricularface_ir101"])
def test_face_embedders_come_back_from_native_files(path: Path, name: str) -> None:
    state = official.state_dict(name)
    torch.save(state, path)
    imported = import_checkpoint(path)
    assert len(imported.report.used) == len(state)
    native = path.with_suffix(".safetensors")
    save(imported.module, native, provenance=imported.provenance)
    assert same(load(native).state_dict(), imported.module.state_dict())


def test_e4e_is_asked_which_it_is_and_is_a_method(path: Path) -> None:
    content = official.checkpoint("e4e_256")
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"give which='e4e'"):
        import_checkpoint(path)
    content["opts"] = {"encoder_type": "Encoder4Editing", "device": torch.device("cuda:0")}
    torch.save(content, path)
    del content
    method = clcae.load_method(path)
    assert isinstance(method, InversionMethod) and type(method).__name__ == "E4E"
    assert not any(parameter.requires_grad for parameter in method.parameters())


def e4e_content(image_size: int = 32, **options: object) -> dict[str, Any]:
    sizes = {"stem_channels": 4, "stages": [[4, 1], [5, 1], [6, 1]], "width": 6}
    method = E4E(generator=small(), image_size=image_size, **sizes)  # type: ignore[arg-type]
    content = e4e_to_checkpoint(method)
    return {**content, "opts": {**content["opts"], **options}}


def test_cars_files_of_e4e_read_192_x_256(path: Path) -> None:
    torch.save(e4e_content(256, dataset_type="cars_encode"), path)
    assert clcae.load_method(path).image_shape == (192, 256)
    assert "192 x 256" in import_checkpoint(path).report.notes[0]
    assert clcae.load_method(path, image_size=(128, 256)).image_shape == (128, 256)
    torch.save(e4e_content(256, dataset_type="ffhq_encode"), path)
    assert clcae.load_method(path).image_shape == (256, 256)
    with pytest.raises(ValueError, match=r"image_size is \(192, 200\), the heads .* are for 256"):
        clcae.load_method(path, image_size=(192, 200))


def test_which_is_said_where_the_file_does_not(tmp_path: Path, path: Path) -> None:
    content = e4e_content()
    torch.save({**content, "opts": {}}, path)
    with pytest.raises(ValueError, match=r"encoder_type is None.*give which='e4e'") as caught:
        clcae.load_method(path)
    assert "scripts/import_checkpoint.py FILE --which psp" in str(caught.value)
    torch.save({**content, "opts": {"encoder_type": "SingleStyleCodeEncoder"}}, path)
    with pytest.raises(ValueError, match="'SingleStyleCodeEncoder'"):
        clcae.load_method(path)
    assert isinstance(clcae.load_method(path, which="psp"), PSP)
    method = clcae.load_method(path, which="e4e")
    assert isinstance(method, E4E)
    with pytest.raises(ValueError, match=r"has no 'clcae': e4e, psp"):
        clcae.load_method(path, which="clcae")
    save(method, tmp_path / "native", provenance={})
    with pytest.raises(ValueError, match=r"native is a native file, which takes no which"):
        clcae.load_method(tmp_path / "native", which="e4e")


def test_codes_that_start_at_zero_are_pointed_out(path: Path) -> None:
    options = {"encoder_type": "GradualStyleEncoder", "stylegan_size": 1024}  # the size is wrong
    torch.save(e4e_content(**options, start_from_latent_avg=False), path)
    imported = import_checkpoint(path)
    assert isinstance(imported.module, PSP) and not imported.module.latent_average.any()
    assert imported.report.notes == ("opts.start_from_latent_avg is False: codes start at zero",)


def test_heads_of_rows_too_many_are_ignored_by_name(path: Path) -> None:
    content = e4e_content()
    state = content["state_dict"]
    surplus = {key.replace("styles.0.", "styles.6."): value for key, value in state.items()}
    torch.save({**content, "state_dict": state | surplus}, path)
    report = import_checkpoint(path).report
    assert set(report.ignored) == {"opts", *(f"state_dict.{key}" for key in surplus.keys() - state)}
    assert len(report.used) == len(state) + 1


def test_aligner_needs_both_towers_and_a_generator(tmp_path: Path, path: Path) -> None:
    towers = {}
    for kind in ("image", "latent"):
        towers[kind] = tmp_path / kind
        torch.save(official.checkpoint(f"clcae_align_{kind}"), towers[kind])
    with pytest.raises(ValueError, match=r"image tower: give the latent tower as companion"):
        import_checkpoint(towers["image"])
    with pytest.raises(ValueError, match=r"--generator"):
        import_checkpoint(towers["latent"], companion=towers["image"])
    torch.save(goldens.checkpoint("rosinality_64"), path)
    imported = import_checkpoint(towers["latent"], companion=towers["image"], generator=path)
    average = goldens.checkpoint("rosinality_64")["latent_avg"]
    assert torch.equal(imported.module.state_dict()["w_average"], average)
    assert imported.provenance["companion"]["file"] == "image"
    assert imported.provenance["generator"]["file"] == path.name
    assert "state_dict.logit_scale" in {*imported.report.used, *imported.report.ignored}


@pytest.mark.slow
def test_clcae_with_its_generator(tmp_path: Path, path: Path) -> None:
    torch.save(official.checkpoint("clcae_256") | {"opts": {}, "iter": 3}, path)
    generator = small(resolution=64, w_dim=512, channels=[8] * 5)
    export_rosinality(generator, tmp_path / "generator")
    method = clcae.load_method(path, generator=tmp_path / "generator")
    assert torch.equal(method.generator.w_average, generator.w_average)
    imported = import_checkpoint(path)
    assert {"opts", "iter"} < set(imported.report.ignored)


@pytest.mark.parametrize("depth", [1, 8])
def test_exported_generators_come_back_bit_for_bit(path: Path, depth: int) -> None:
    generator = small(mapping_layers=depth, mapping_dim=None if depth == 1 else 16)
    export_rosinality(generator, path)
    content = torch.load(path, weights_only=True)
    assert set(content) == {"g_ema", "latent_avg"}
    loaded = clcae.load_generator(path)
    assert same(loaded.state_dict(), generator.state_dict())
    export_rosinality(loaded, path.with_suffix(".again"))
    again = torch.load(path.with_suffix(".again"), weights_only=True)
    assert same(again["g_ema"], content["g_ema"])
    bare = nvidia.generator_from_state(nvidia_state(generator))
    assert same(bare.state_dict(), generator.state_dict())


def test_export_that_the_layout_cannot_hold(path: Path) -> None:
    with pytest.raises(ValueError, match=r"learning rate multiplier 0\.1, this layout implies"):
        export_rosinality(small(mapping_lr_multiplier=0.1), path)
    assert not path.exists()


def test_three_lists_of_what_does_not_fit(path: Path) -> None:
    content = goldens.checkpoint("rosinality_64")
    state = dict(content["g_ema"])
    del state["convs.3.activate.bias"]
    state["convs.99.extra"] = torch.zeros(1)
    state["to_rgbs.0.bias"] = torch.zeros(1, 4, 1, 1)
    torch.save({**content, "g_ema": state}, path)
    with pytest.raises(ValueError, match=r"any-name\.bin: this is no rosinality") as caught:
        import_checkpoint(path)
    line = str(caught.value)
    assert "\n" not in line
    for part in (
        "1 missing (convs.3.activate.bias)",
        "1 unexpected (convs.99.extra)",
        "1 of another shape (to_rgbs.0.bias (1, 4, 1, 1))",
    ):
        assert part in line


def test_names_that_no_layout_has_are_not_passed_over(path: Path) -> None:
    content = goldens.checkpoint("rosinality_64")
    torch.save({**content, "surprise": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"1 names that no rosinality .* has \(surprise\)"):
        import_checkpoint(path)


def test_files_of_no_known_layout(tmp_path: Path, path: Path) -> None:
    for content in ({"weights": torch.zeros(1)}, {"g_ema": 3}, {}, [torch.zeros(1)]):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"any-name\.bin holds") as caught:
            import_checkpoint(path)
        assert "\n" not in str(caught.value)
    torch.save({"g_ema": {"a": "text"}}, path)
    with pytest.raises(ValueError, match="a is a str, expected a tensor"):
        import_checkpoint(path)
    native = tmp_path / "a.safetensors"
    save(small(), native, provenance={})
    with pytest.raises(ValueError, match="is a native file already"):
        import_checkpoint(native)


def test_doors_say_what_a_file_holds(tmp_path: Path, path: Path) -> None:
    torch.save(goldens.state("rosinality_disc_64"), path)
    with pytest.raises(ValueError, match="holds a Discriminator, expected a generator"):
        clcae.load_generator(path)
    with pytest.raises(ValueError, match="holds a Discriminator, expected an inversion method"):
        clcae.load_method(path)
    native = tmp_path / "renamed.pt"  # content, not name
    save(small(), native, provenance={})
    assert isinstance(clcae.load_generator(native), Generator)
    with pytest.raises(ValueError, match="is a folder"):
        clcae.load_generator(tmp_path)


def test_shipped_names_yield_to_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "portraits/clcae").mkdir(parents=True)
    shipped = clcae.load_generator("portraits")
    assert clcae.load_method("portraits/clcae").generator.resolution == 64
    assert shipped.resolution == 64 and Networks({}, torch.device("cpu")).get("portraits")
    (tmp_path / "portraits/clcae").rmdir()
    save(small_e4e(), tmp_path / "portraits/clcae", provenance={})
    assert isinstance(clcae.load_method("portraits/clcae"), E4E)
    (tmp_path / "portraits/clcae").unlink()
    (tmp_path / "portraits").rmdir()
    save(small(), tmp_path / "portraits", provenance={})
    assert clcae.load_generator("portraits").resolution == 16
    with pytest.raises(
        FileNotFoundError, match=r"no shipped file is called '\.\./x'; there are: attr"
    ):
        clcae.load_method("portraits/../x")


def test_number_of_layouts() -> None:
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS) == 17
