"""What a layout promises is checked, and refused in the field's words where a file breaks it."""

from pathlib import Path
from typing import Any

import nvidia_files
import official
import pytest
import torch
from official_files import e4e_to_checkpoint, nvidia_state
from small_methods import small_e4e
from torch import Tensor

import clcae
from clcae.pretrained.frozen import load_arcface
from clcae.pretrained.loading import import_checkpoint
from clcae.pretrained.rosinality import export_rosinality, generator_to_state
from clcae.serialization import load, save
from clcae.stylegan2 import Generator

CLASSES = 10


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(resolution=16, z_dim=12, w_dim=12, mapping_layers=2, channels=[8, 6, 4]).eval()


def refused(content: Any, path: Path, *words: str, **arguments: Any) -> None:
    torch.save(content, path)
    with pytest.raises(ValueError, match=path.name) as caught:
        import_checkpoint(path, **arguments)
    line = str(caught.value)
    assert all(word in line for word in words), line
    assert "\n" not in line and len(line) < 600


def wider(weight: Tensor, more: int, axis: int = 1) -> Tensor:
    shape = list(weight.shape)
    shape[axis] = more
    return torch.cat([weight, torch.ones(shape)], axis)


def test_conditional_generators_of_rosinality(tmp_path: Path, generator: Generator) -> None:
    state, average = generator_to_state(generator)
    path, key = tmp_path / "a.pt", "style.1.weight"
    for more in (len(average), CLASSES, 1):  # an embedding, one-hot classes, an angle
        changed = {**state, key: wider(state[key], more)}
        refused({"g_ema": changed, "latent_avg": average}, path, "condition", f"{12 + more}")
        refused({"g_ema": changed}, path, "condition")
        refused(changed, path, "condition")
    for name in ("embed.weight", "style.embedding.weight", "label_emb.weight", "class_proj.bias"):
        refused({"g_ema": {**state, name: torch.ones(2, 2)}}, path, "condition", name)


def test_conditional_decoders_within_a_method(tmp_path: Path) -> None:
    content = e4e_to_checkpoint(small_e4e())
    key = "decoder.style.1.weight"
    state = {**content["state_dict"], key: wider(content["state_dict"][key], 64)}
    refused({**content, "state_dict": state}, tmp_path / "a.pt", "condition")


def test_what_would_look_conditional_is_not_exported(tmp_path: Path) -> None:
    wide = Generator(resolution=16, z_dim=24, w_dim=12, mapping_layers=2, channels=[8, 6, 4])
    with pytest.raises(ValueError, match="takes for a condition"):
        export_rosinality(wide, tmp_path / "a.pt")


def test_conditional_discriminators(tmp_path: Path) -> None:
    state = official.state_dict("rosinality_disc_64")
    state["final_linear.1.weight"] = torch.ones(CLASSES, len(state["final_linear.0.weight"]))
    refused({"d": state}, tmp_path / "a.pt", "condition", "10 logits", which="d")
    state = official.state_dict("nvidia_disc_64")
    refused({**state, "mapping.embed.weight": torch.ones(2, 2)}, tmp_path / "a.pt", "condition")


@pytest.mark.parametrize("which", ["G_ema", "G", "D"])
def test_conditional_networks_of_nvidia(tmp_path: Path, which: str, generator: Generator) -> None:
    state = nvidia_state(generator) if which != "D" else official.state_dict("nvidia_disc_64")
    path = tmp_path / "a.pkl"
    network = nvidia_files.network("Network", state, c_dim=CLASSES, z_dim=12)
    nvidia_files.write(path, **{which: network})
    with pytest.raises(ValueError, match=r"a\.pkl.*conditional \(c_dim 10\)"):
        import_checkpoint(path, which=which)


@pytest.mark.parametrize(
    ("channels", "words"),
    [(1, "of one colour channel"), (4, "with alpha"), (2, "of 2 colour channels")],
)
def test_pictures_of_other_colours(
    tmp_path: Path, generator: Generator, channels: int, words: str
) -> None:
    path = tmp_path / "a.pt"

    def cut(state: dict[str, Tensor], match: str, axis: int) -> dict[str, Tensor]:
        sliced = {k: v for k, v in state.items() if match in k and v.ndim > axis}
        rows = [0, 1, 2, 0][:channels]
        return state | {k: v.index_select(axis, torch.tensor(rows)) for k, v in sliced.items()}

    state, average = generator_to_state(generator)
    state = cut(cut(state, "to_rgb1.conv.weight", 1), "to_rgb1.bias", 1)
    refused({"g_ema": state, "latent_avg": average}, path, "generator", words)
    refused(cut(nvidia_state(generator), "torgb.weight", 0), path, "generator", words)
    refused(cut(official.state_dict("nvidia_disc_64"), "fromrgb.weight", 1), path, words)
    refused({"d": cut(official.state_dict("rosinality_disc_64"), "convs.0.0", 1)}, path, words)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "key", ["style.1.weight", "to_rgbs.0.bias", "noises.noise_2", "convs.0.noise.weight"]
)
def test_weights_that_are_no_numbers(
    tmp_path: Path, generator: Generator, key: str, value: float
) -> None:
    state, average = generator_to_state(generator)
    state[key].view(-1)[0] = value
    refused({"g_ema": state, "latent_avg": average}, tmp_path / "a.pt", "NaN or infinite", key)


def test_numbers_that_are_none_elsewhere(tmp_path: Path, generator: Generator) -> None:
    path = tmp_path / "a.pt"
    state, average = generator_to_state(generator)
    refused({"g_ema": state, "latent_avg": average * float("nan")}, path, "latent_avg")
    overflow = {**state, "style.1.bias": torch.full([12], 1e300, dtype=torch.float64)}
    refused({"g_ema": overflow, "latent_avg": average}, path, "NaN or infinite", "style.1.bias")
    # Weights that are finite, but what is computed of them is not: the mean of W.
    huge = {**state, **{f"style.{k}.weight": torch.full([12, 12], 3e38) for k in (1, 2)}}
    refused({"g_ema": huge}, path, "NaN or infinite", "w_average")
    nvidia = nvidia_state(generator)
    nvidia["synthesis.b8.conv0.weight"][0, 0, 0, 0] = float("nan")
    refused(nvidia, path, "NaN or infinite", "synthesis.b8.conv0.weight")
    content = e4e_to_checkpoint(small_e4e())
    refused({**content, "latent_avg": content["latent_avg"] / 0}, path, "NaN or infinite")
    embedder = official.state_dict("arcface_irse50")
    embedder["body.3.res_layer.1.weight"][0] = float("nan")
    refused(embedder, path, "body.3.res_layer.1.weight")
    with pytest.raises(ValueError, match=r"NaN or infinite weights: body\.3\.res_layer"):
        load_arcface(path)


def test_native_files(tmp_path: Path, generator: Generator, monkeypatch: Any) -> None:
    path = tmp_path / "a.safetensors"
    with torch.no_grad():
        generator.synthesis.const[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="stylegan2_generator is not saved: NaN or infinite"):
        save(generator, path, provenance={})
    assert not path.exists()
    monkeypatch.setattr("clcae.serialization.check_finite", lambda weights: None)
    save(generator, path, provenance={})  # as it was once saved
    monkeypatch.undo()
    for read in (load, clcae.load_generator):
        with pytest.raises(ValueError, match=r"a\.safetensors: NaN or .*: synthesis\.const") as e:
            read(path)
        assert "\n" not in str(e.value)
