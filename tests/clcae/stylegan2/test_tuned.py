"""Changed weights of a generator: which are chosen, what they draw, and their files."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_methods import tiny_generator

from clcae.serialization import save
from clcae.stylegan2 import Generator
from clcae.stylegan2.delta_file import load_delta, save_delta
from clcae.stylegan2.tuned import GAIN, PRESETS, chosen_names, unchanged, with_changes


def w_of(generator: Generator) -> torch.Tensor:
    return generator.map(torch.randn(2, 8, generator=torch.Generator().manual_seed(1)))


def drawn(names: list[str], generator: Generator) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(2)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=rng)
        for name, value in unchanged(generator, names).items()
    }


def test_choices_name_parameters_of_the_synthesis_network() -> None:
    generator = tiny_generator()
    known = [name for name, _ in generator.named_parameters() if name.startswith("synthesis.")]
    assert chosen_names(generator, "all") == known
    assert chosen_names(generator, "to_rgb") == [name for name in known if "to_rgbs" in name]
    assert chosen_names(generator, ["styles"]) == [name for name in known if "affine" in name]
    assert chosen_names(generator, "convolutions") == [
        f"synthesis.layers.{index}.weight" for index in range(5)
    ]
    gains = chosen_names(generator, "gains")
    assert len(gains) == 5 + 3 and all(name.endswith(f".weight{GAIN}") for name in gains)
    top = chosen_names(generator, "from 16x16/0")  # layers 3 and 4, and the to-RGB of 16x16
    heads = {".".join(name.split(".")[:3]) for name in top}
    assert heads == {"synthesis.layers.3", "synthesis.layers.4", "synthesis.to_rgbs.2"}
    middle = {".".join(name.split(".")[:3]) for name in chosen_names(generator, "from 8x8/1")}
    assert middle == heads | {"synthesis.layers.2", "synthesis.to_rgbs.1"}
    assert chosen_names(generator, "from 4x4/0") == known
    biases = chosen_names(generator, ["synthesis.layers.*.bias", "synthesis.const"])
    assert biases == ["synthesis.const", *(f"synthesis.layers.{index}.bias" for index in range(5))]
    assert len(PRESETS) == 5


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("mapping.**", "tuned has 'mapping.\\*\\*', which names no parameter"),
        (["all", "to_grb"], "tuned has 'to_grb'"),
        ([], "tuned is empty"),
        (["convolutions", "gains"], "weight and its gain: expected one"),
        ("from 32x32/0", "layer 32x32/0 is not in this generator"),
        ("**" * 30 + "!", "which names no parameter"),  # a regular expression would take hours
        ("*s" * 30, "which names no parameter"),
    ],
)
def test_wrong_choices(choice: str | list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        chosen_names(tiny_generator(), choice)


@torch.no_grad()
def test_a_changed_generator_is_one_with_these_weights() -> None:
    generator = tiny_generator()
    codes, before = w_of(generator), {k: v.clone() for k, v in generator.state_dict().items()}
    picture = generator.synthesize(codes)
    for choice in ("all", "gains"):
        names = chosen_names(generator, choice)
        same = with_changes(generator, unchanged(generator, names))
        assert torch.equal(same.synthesize(codes), picture)
        changes = drawn(names, generator)
        expected, state = tiny_generator(), dict(before)
        for name, value in changes.items():
            if name.endswith(GAIN):  # a slow statement of it
                weight = state[name.removesuffix(GAIN)].clone()
                for out in range(weight.shape[0]):
                    for into in range(weight.shape[1]):
                        weight[out, into] *= 1 + value[out, into, 0, 0]
                state[name.removesuffix(GAIN)] = weight
            else:
                state[name] = value
        expected.load_state_dict(state)
        tuned = with_changes(generator, changes)
        torch.testing.assert_close(tuned.synthesize(codes), expected.synthesize(codes))
        assert (tuned.synthesize(codes) - picture).abs().max() > 1e-2
        assert tuned.w_average is generator.w_average  # all else is shared
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())
    assert torch.equal(generator.synthesize(codes), picture)


def test_gradients_reach_the_changes_alone() -> None:
    generator = tiny_generator()
    changes = drawn(chosen_names(generator, ["to_rgb", "from 16x16/1"]), generator)
    for value in changes.values():
        value.requires_grad_()
    with_changes(generator, changes).synthesize(w_of(generator)).square().sum().backward()
    assert all(value.grad is not None for value in changes.values())
    assert all(parameter.grad is None for parameter in generator.parameters())


@pytest.mark.parametrize("choice", ["all", "to_rgb", "gains"])
def test_files_hold_the_changes_bit_for_bit_and_little_else(choice: str, tmp_path: Path) -> None:
    generator = Generator(resolution=32, channels=[64, 64, 48, 32], z_dim=16, w_dim=24)
    changes = drawn(chosen_names(generator, choice), generator)
    file = tmp_path / "a.safetensors"
    save_delta(changes, file, generator=generator)
    read = load_delta(file, generator=generator)
    assert {*read} == {*changes}
    assert all(torch.equal(read[name], value) for name, value in changes.items())
    size = sum(value.nbytes for value in changes.values())
    assert file.stat().st_size < 1.05 * size + 4096  # names and places


def test_a_file_fits_a_generator_that_was_stored_and_no_other(tmp_path: Path) -> None:
    generator, file = tiny_generator(), tmp_path / "a.safetensors"
    save_delta(drawn(["synthesis.const"], generator), file, generator=generator)
    assert load_delta(file, generator=tiny_generator()).keys() == {"synthesis.const"}
    other = tiny_generator()
    other.synthesis.const.data[0, 0, 0] += 1
    with pytest.raises(ValueError, match="of another generator, sha256") as caught:
        load_delta(file, generator=other)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="has shape"):
        save_delta({"synthesis.const": torch.zeros(1)}, file, generator=generator)
    double = {"synthesis.const": generator.synthesis.const.double()}
    with pytest.raises(ValueError, match=r"const is of torch\.float64, expected torch\.float32"):
        save_delta(double, file, generator=generator)  # which nothing would read
    with pytest.raises(ValueError, match="NaN"):
        save_delta(
            {"synthesis.const": generator.synthesis.const * torch.nan}, file, generator=generator
        )


def _rewritten(file: Path, *, fields: dict[str, object], tensors: dict[str, torch.Tensor]) -> None:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        description = json.loads(opened.metadata()["clcae_delta"])
    description.update(fields)
    save_file(tensors or load_file(file), file, {"clcae_delta": json.dumps(description)})


@pytest.mark.parametrize(
    ("fields", "tensors", "words"),
    [
        ({"format_version": 2}, {}, "format version 2, expected 1"),
        ({"more": 1}, {}, "other fields"),
        ({"generator_sha256": ["a"] * 1000}, {}, "of another generator"),
        ({"sha256": 3}, {}, "do not match their sha256"),
        ({}, {"synthesis.const": torch.zeros(8, 4, 4) * torch.nan}, "sha256"),
        ({}, {"synthesis.const": torch.zeros(8, 4, 5)}, "has shape"),
        ({}, {"synthesis.const": torch.zeros(8, 4, 4).double()}, "torch.float64"),
        ({}, {"__class__": torch.zeros(1)}, "'__class__' is no parameter"),
        ({}, {"mapping.layers.0.weight": torch.zeros(1)}, "is no parameter"),
    ],
)
def test_hostile_files(
    fields: dict[str, object], tensors: dict[str, torch.Tensor], words: str, tmp_path: Path
) -> None:
    generator, file = tiny_generator(), tmp_path / "a.safetensors"
    save_delta(drawn(["synthesis.const"], generator), file, generator=generator)
    _rewritten(file, fields=fields, tensors=tensors)
    with pytest.raises(ValueError, match=words) as caught:
        load_delta(file, generator=generator)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_other_files_are_refused(tmp_path: Path) -> None:
    generator, file = tiny_generator(), tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError):
        load_delta(file, generator=generator)
    save(generator, file, provenance={})
    with pytest.raises(ValueError, match="none of changed weights"):
        load_delta(file, generator=generator)
    file.write_bytes(b"\x80\x02torch.save(module)")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_delta(file, generator=generator)
