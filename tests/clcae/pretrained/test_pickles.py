"""NVIDIA's .pkl files, written as NVIDIA writes them, through the whole path."""

from pathlib import Path
from typing import Any

import goldens
import nvidia_files
import pytest
import torch
from official_files import nvidia_state

import clcae
from clcae.pretrained.loading import import_checkpoint
from clcae.pretrained.nvidia import read_nvidia_pickle
from clcae.stylegan2 import Discriminator, Generator

KWARGS: dict[str, Any] = {  # as train.py of stylegan2-ada-pytorch gives them
    "z_dim": 512,
    "w_dim": 512,
    "mapping_kwargs": nvidia_files.EasyDict(num_layers=8),
    "synthesis_kwargs": nvidia_files.EasyDict(channel_base=1024, channel_max=64, conv_clamp=256),
    "c_dim": 0,
    "img_resolution": 64,
    "img_channels": 3,
}


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pkl") / "snapshot.pkl"
    state = goldens.state("nvidia_64")
    doubled = {key: value * 2 if "fc0" in key else value for key, value in state.items()}
    nvidia_files.write(
        path,
        G=nvidia_files.network("Generator", doubled, **KWARGS),
        D=nvidia_files.network("Discriminator", goldens.state("nvidia_disc_64"), c_dim=0),
        G_ema=nvidia_files.network("Generator", state, **KWARGS),
    )
    return path


def test_state_dicts_and_settings_are_those_written(snapshot: Path) -> None:
    networks = read_nvidia_pickle(snapshot)
    assert list(networks) == ["G", "D", "G_ema"]
    average = networks["G_ema"]
    assert average.class_name == "Generator"
    assert average.init_args == (512, 0)
    assert average.init_kwargs == KWARGS
    expected = goldens.state("nvidia_64")
    assert average.state.keys() == expected.keys()
    assert all(torch.equal(average.state[key], expected[key]) for key in expected)
    assert not any(value.requires_grad for value in average.state.values())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_golden_pictures_through_the_door(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.pkl"
    network = nvidia_files.network("Generator", goldens.state("nvidia_64"), **KWARGS)
    nvidia_files.write(path, protocol=protocol, G_ema=network)
    golden, generator = goldens.Golden("nvidia_64", 5e-5), clcae.load_generator(path)
    golden.check("w", generator.map(golden.latent("z")))
    golden.check("image_wplus", generator.synthesize(golden.latent("wplus")))


def test_the_discriminator_and_the_training_generator(snapshot: Path) -> None:
    discriminator = import_checkpoint(snapshot, which="D").module
    assert isinstance(discriminator, Discriminator)
    golden = goldens.Golden("nvidia_disc_64", 5e-5)
    golden.check("logits", discriminator(golden.images()))
    imported = import_checkpoint(snapshot, which="G")
    first = imported.module.state_dict()["mapping.layers.0.weight"]
    assert torch.equal(first, 2 * goldens.state("nvidia_64")["mapping.fc0.weight"])
    assert imported.report.ignored == ("D", "G_ema")
    assert len(imported.report.used) == len(goldens.state("nvidia_64"))


def test_any_resolution_width_depth_and_learning_rate(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = Generator(
        resolution=32,
        z_dim=96,
        w_dim=256,
        mapping_layers=3,
        mapping_dim=160,
        mapping_lr_multiplier=0.1,
        channel_base=512,
        channel_max=48,
    ).eval()
    path = tmp_path / "a.pkl"
    kwargs = {"z_dim": 96, "w_dim": 256, "mapping_kwargs": {"num_layers": 3, "lr_multiplier": 0.1}}
    state = nvidia_state(ours)
    nvidia_files.write(path, G_ema=nvidia_files.network("Generator", state, **kwargs))
    loaded = clcae.load_generator(path)
    assert loaded.settings == ours.settings
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in ours.state_dict().items())
    z = torch.randn(2, 96)
    with torch.no_grad():
        assert torch.equal(loaded.synthesize(loaded.map(z)), ours.synthesize(ours.map(z)))


def test_group_of_the_minibatch_statistics(tmp_path: Path) -> None:
    path, state = tmp_path / "a.pkl", goldens.state("nvidia_disc_64")
    kwargs = {"epilogue_kwargs": {"mbstd_group_size": 2}, "block_kwargs": {}}
    nvidia_files.write(path, D=nvidia_files.network("Discriminator", state, **kwargs))
    discriminator = import_checkpoint(path, which="D").module
    assert isinstance(discriminator, Discriminator) and discriminator.group_size == 2


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"synthesis_kwargs": {"architecture": "resnet"}}, "architecture='resnet'"),
        ({"architecture": "orig"}, "architecture='orig'"),
        ({"synthesis_kwargs": {"activation": "relu"}}, "activation='relu'"),
        ({"mapping_kwargs": {"activation": "linear"}}, "activation='linear'"),
        ({"conv_clamp": 1}, "conv_clamp=1"),
        ({"synthesis_kwargs": {"use_noise": False}}, "use_noise=False"),
        ({"mapping_kwargs": {"lr_multiplier": "1"}}, "lr_multiplier '1'"),
    ],
)
def test_other_architectures_are_refused(tmp_path: Path, kwargs: dict, words: str) -> None:
    path = tmp_path / "a.pkl"
    network = nvidia_files.network("Generator", goldens.state("nvidia_64"), **kwargs)
    nvidia_files.write(path, G_ema=network)
    with pytest.raises(ValueError, match=r"a\.pkl") as caught:
        clcae.load_generator(path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mapping.embed.weight": torch.zeros(2, 2)}, "conditional"),
        ({"synthesis.L0_36_512.weight": torch.zeros(2, 2)}, "StyleGAN3"),
        ({"synthesis.b8.conv0.resample_filter": torch.full([4, 4], 1 / 16)}, "filter"),
        ({"mapping.w_avg": torch.zeros(7)}, "of another shape (mapping.w_avg (7,))"),
        ({"synthesis.b8.extra": torch.zeros(7)}, "1 unexpected (synthesis.b8.extra)"),
    ],
)
def test_networks_that_do_not_fit(tmp_path: Path, change: dict, words: str) -> None:
    path = tmp_path / "a.pkl"
    state = {**goldens.state("nvidia_64"), **change}
    nvidia_files.write(path, G_ema=nvidia_files.network("Generator", state))
    with pytest.raises(ValueError, match=r"a\.pkl") as caught:
        clcae.load_generator(path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_files_without_the_networks(tmp_path: Path, snapshot: Path) -> None:
    path = tmp_path / "a.pkl"
    nvidia_files.write(path, Gs=3)
    with pytest.raises(ValueError, match="without the networks G, D or G_ema"):
        clcae.load_generator(path)
    nvidia_files.write(path, D=nvidia_files.network("Discriminator", {}))
    with pytest.raises(ValueError, match="has no network G_ema, it has D"):
        clcae.load_generator(path)
    with pytest.raises(ValueError, match="has no 'g_ema': G_ema, G, D"):
        import_checkpoint(snapshot, which="g_ema")
