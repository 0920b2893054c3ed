"""Foreign layouts load whole or not at all, and come back as they were."""

from pathlib import Path

import goldens
import pytest
import torch

import clcae
from clcae.pretrained import nvidia, rosinality


def test_rosinality_round_trip_is_exact() -> None:
    state = goldens.state("rosinality_64", "g_ema")
    average = goldens.checkpoint("rosinality_64")["latent_avg"]
    generator = rosinality.generator_from_state(state, average)
    keymap = rosinality.generator_keymap(num_layers=9, mapping_layers=8)
    back = keymap.to_theirs(generator)
    assert torch.equal(back.pop("latent_avg"), average)
    assert set(back) == set(state)
    assert all(back[key].shape == value.shape for key, value in state.items())
    assert all(torch.allclose(back[key], value, atol=1e-6) for key, value in state.items())


def test_nvidia_round_trip_is_exact() -> None:
    state = goldens.state("nvidia_64")
    generator = nvidia.generator_from_state(state)
    back = nvidia.generator_keymap(num_layers=9, mapping_layers=8).to_theirs(generator)
    assert set(back) == set(state)
    assert all(torch.allclose(back[key], value, atol=1e-6) for key, value in state.items())
    discriminator_state = goldens.state("nvidia_disc_64")
    discriminator = nvidia.discriminator_from_state(discriminator_state)
    back = nvidia.discriminator_keymap(num_blocks=4).to_theirs(discriminator)
    assert set(back) == set(discriminator_state)


def test_what_does_not_fit_is_listed() -> None:
    state = dict(goldens.state("nvidia_64"))
    del state["synthesis.b16.conv0.bias"]
    state["synthesis.b16.conv2.bias"] = torch.zeros(3)
    state["mapping.fc3.weight"] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="no stylegan2-ada generator") as caught:
        nvidia.generator_from_state(state)
    line = str(caught.value)
    assert "\n" not in line
    for part in ("1 missing (synthesis.b16.conv0.bias)", "synthesis.b16.conv2.bias", "mapping.fc3"):
        assert part in line


def test_other_layouts_are_named_as_such() -> None:
    with pytest.raises(ValueError, match="rosinality generator"):
        rosinality.generator_from_state(goldens.state("nvidia_64"))
    with pytest.raises(ValueError, match="stylegan2-ada generator"):
        nvidia.generator_from_state(goldens.state("rosinality_64", "g_ema"))
    with pytest.raises(ValueError, match="rosinality discriminator"):
        rosinality.discriminator_from_state(goldens.state("nvidia_disc_64"))
    with pytest.raises(ValueError, match="conditional"):
        nvidia.generator_from_state({"mapping.embed.weight": torch.zeros(1)})


def test_another_filter_is_refused() -> None:
    state = dict(goldens.state("nvidia_64"))
    state["synthesis.b8.conv0.resample_filter"] = torch.full([4, 4], 1 / 16)
    with pytest.raises(ValueError, match="filter"):
        nvidia.generator_from_state(state)


def test_a_pt_file_through_the_door(tmp_path: Path) -> None:
    path = tmp_path / "generator.pt"
    torch.save(goldens.checkpoint("rosinality_64"), path)
    generator = clcae.load_generator(path)
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    golden = goldens.Golden("rosinality_64", 5e-5)
    golden.check("image_wplus", generator.synthesize(golden.latent("wplus")))


def test_files_that_are_no_generator(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        clcae.load_generator(tmp_path / "nothing.pt")
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match=r"broken\.pt"):
        clcae.load_generator(broken)
    other = tmp_path / "other.pt"
    torch.save({"weights": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match="g_ema"):
        clcae.load_generator(other)
