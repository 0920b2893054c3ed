"""In-domain inversion's encoder: the official modules, its files, Z+, what training changes."""

from pathlib import Path
from typing import Any

import goldens
import official
import pytest
import torch
import torch.nn.functional as F
from official_files import in_domain_to_state
from small_methods import SIDE, small_in_domain
from torch import Tensor, nn

import clcae
from clcae.construction import without_weights
from clcae.encoders.in_domain import DomainGuidedEncoder
from clcae.methods.in_domain import InDomain
from clcae.pretrained.in_domain import in_domain_from_state
from clcae.pretrained.loading import import_checkpoint
from clcae.serialization import save
from clcae.stylegan2 import Generator, LatentSpace

TOLERANCE = 5e-5  # tests/fixtures/README.md
IMAGES = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def thin_generator(resolution: int, *, w_dim: int = 512) -> Generator:
    blocks = resolution.bit_length() - 2
    torch.manual_seed(0)
    return Generator(
        resolution=resolution, z_dim=8, w_dim=w_dim, mapping_layers=1, channels=[3] * blocks
    )


def check_golden(name: str, resolution: int) -> None:
    golden = goldens.Golden(name, TOLERANCE)
    state = official.state_dict(name)
    method = in_domain_from_state(state, thin_generator(resolution))
    encoder, outputs = method.encoder, dict[str, Tensor]()
    parts: list[nn.Module] = [encoder.first, *encoder.blocks]
    for index, part in enumerate(parts):
        part.register_forward_hook(
            lambda _, __, output, index=index: outputs.update({f"block{index}": output})
        )
    inversion = method.invert(golden.images())
    assert inversion.space is LatentSpace.W_PLUS
    golden.check("codes", inversion.codes)
    assert len(outputs) == resolution.bit_length() - 2
    for block, output in outputs.items():
        golden.check(block, output)
    golden.check("codes", method.for_inference().invert(golden.images()).codes)
    back = in_domain_to_state(method)
    assert back.keys() == state.keys()
    for key, value in back.items():
        torch.testing.assert_close(value, state[key], rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_codes_and_blocks_are_those_of_the_official_encoder() -> None:
    check_golden("idinvert_64", 64)


@pytest.mark.slow
@torch.no_grad()
def test_codes_at_256() -> None:
    check_golden("idinvert_256", 256)


def test_official_sizes() -> None:
    """idinvert.md of the facts: 165,326,848 parameters at 256; running values are none of them."""

    def build(**settings: Any) -> DomainGuidedEncoder:
        make = lambda: DomainGuidedEncoder(num_rows=14, **settings)  # noqa: E731
        return without_weights(make, sizes=[1 << 28] * 200)

    def count(encoder: DomainGuidedEncoder) -> int:
        fixed = [value for key, value in encoder.named_buffers() if key.endswith(".weight")]
        return sum(value.numel() for value in [*encoder.parameters(), *fixed])

    assert count(build()) == 165_326_848
    assert count(build(max_width=512)) == 75_401_728


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """An official file of a small encoder, and its generator's."""
    method = small_in_domain()
    save(method.generator, tmp_path / "generator.safetensors", provenance={"made": "here"})
    torch.save(in_domain_to_state(method), tmp_path / "encoder.pth")
    return tmp_path / "encoder.pth", tmp_path / "generator.safetensors"


@torch.no_grad()
def test_a_file_goes_with_a_generator(files: tuple[Path, Path]) -> None:
    encoder, generator = files
    imported = import_checkpoint(encoder, generator=generator)
    assert imported.layout.startswith("encoder of IDInvert")
    assert set(imported.report.used) == set(in_domain_to_state(small_in_domain()))
    assert imported.report.ignored == ()
    assert any("StyleGAN1" in note for note in imported.report.notes)
    method = clcae.load_method(encoder, generator=generator)
    assert isinstance(method, InDomain)
    torch.testing.assert_close(method.reconstruct(IMAGES), small_in_domain().reconstruct(IMAGES))


def test_files_that_do_not_fit_are_refused_in_a_line(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    encoder, generator = files
    state = torch.load(encoder)
    other = tmp_path / "other.safetensors"
    save(thin_generator(32, w_dim=24), other, provenance={"made": "here"})
    lacking = {key: value for key, value in state.items() if key != "block2.wscale1.bias"}
    more = {**state, "block9.conv.weight": torch.ones(1)}
    stylegan1 = {"synthesis.lod": torch.zeros([]), "mapping.dense0.linear.weight": torch.ones(2, 2)}
    for content, file, words in (
        (state, None, "give the file of a StyleGAN2 generator"),
        (state, other, "160 numbers, those of the generator given with it 192"),
        (lacking, generator, "1 missing (block2.wscale1.bias)"),
        (more, generator, "1 unexpected (block9.conv.weight)"),
        (stylegan1, None, "StyleGAN1"),
    ):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(ValueError, match=r"a\.pth") as caught:
            import_checkpoint(tmp_path / "a.pth", generator=file)
        assert words in str(caught.value) and "\n" not in str(caught.value)


@torch.no_grad()
def test_rows_of_z_are_on_the_sphere_and_mapped() -> None:
    method = small_in_domain(space="Z+")
    inversion = method.invert(IMAGES)
    assert inversion.space is LatentSpace.Z_PLUS and inversion.codes.shape == (3, 8, 12)
    radii = inversion.codes.norm(dim=2)
    torch.testing.assert_close(radii, torch.full_like(radii, 12**0.5), rtol=1e-5, atol=0)
    rows = F.normalize(method.encoder(IMAGES), dim=2) * 12**0.5
    torch.testing.assert_close(inversion.codes, rows, rtol=1e-4, atol=1e-5)
    assert (inversion.codes[:, 0] - inversion.codes[:, 1]).abs().max() > 1e-2
    w = method.generator.map(rows)
    torch.testing.assert_close(method.encode(IMAGES), w, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        method.synthesize(inversion), method.generator.synthesize(w), rtol=1e-3, atol=1e-3
    )


def test_the_scale_of_norms_is_no_parameter() -> None:
    method = small_in_domain()
    names = {key for key, _ in method.encoder.named_parameters()}
    assert not any(key.endswith(".1.weight") for key in names)
    assert any(key.endswith(".1.bias") for key in names)
    held = {key for key in method.encoder.state_dict() if key.endswith(".1.weight")}
    assert len(held) == 1 + 3 * 3 - 2 + 1  # only the first of three blocks has a shortcut


@pytest.mark.parametrize("space", ["W+", "Z+"])
@torch.no_grad()
def test_it_starts_at_the_statistics_of_the_space(space: Any) -> None:
    method = small_in_domain(space=space)
    method.start_at_samples(num_samples=4000)
    method.encoder.train()
    rows = method.encoder(torch.rand(64, 3, SIDE, SIDE) * 2 - 1)  # normalised over the batch
    rng = torch.Generator().manual_seed(5)
    expected = torch.randn(4000, 12, generator=rng)
    if space == "W+":
        expected = method.generator.map(expected)
    for row in (0, 7):
        torch.testing.assert_close(rows[:, row].mean(0), expected.mean(0), rtol=0, atol=0.15)
        torch.testing.assert_close(rows[:, row].std(0), expected.std(0), rtol=0.15, atol=0.01)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"space": "W"}, "space is 'W', expected 'W\\+' or 'Z\\+'"),
        ({"image_size": 48}, "image_size is 48, expected a power of two, 8 or more"),
        ({"width": 0}, "width is 0, expected 1 to max_width, 1024"),
        ({"width": 9, "max_width": 8}, "width is 9, expected 1 to max_width, 8"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], words: str) -> None:
    generator = small_in_domain().generator
    with pytest.raises(ValueError, match=words):
        InDomain(generator=generator, **{"image_size": SIDE, **settings})


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 3, 16, 16\), this encoder reads \[N, 3, 32, 32\]"):
        small_in_domain().invert(IMAGES[:, :, :16, :16])
