"""CLCAE files in the official layout, small: whole or not at all, and what carries nothing."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from clcae import load_method
from clcae.aligner import ImageTower, LatentTower
from clcae.encoders.official import OneTokenLayer
from clcae.methods.official_clcae import OfficialCLCAE
from clcae.pretrained import clcae as pretrained
from clcae.pretrained.rosinality import generator_keymap
from clcae.stylegan2 import Generator

SIZES = {"stem_channels": 6, "stages": [[8, 1], [12, 2]]}
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def small_method() -> OfficialCLCAE:
    torch.manual_seed(0)
    generator = Generator(
        resolution=32, z_dim=20, w_dim=20, mapping_layers=2, channels=[9, 8, 7, 5]
    )
    generator.update_average(num_samples=500)
    method = OfficialCLCAE(generator=generator, image_size=[32, 32], width=12, **SIZES)  # type: ignore[arg-type]
    method.update_average_image()
    return method.eval().requires_grad_(False)


def official_state(method: OfficialCLCAE) -> dict[str, Tensor]:
    """The file that holds the method, with weights that the official modules never use."""
    modules = method.encoder_modules()
    state = pretrained.encoder_keymap(modules).to_theirs(nn.ModuleDict(modules))
    for name in [key for key in state if key.endswith("norm2.weight")]:
        for part in ("weight", "bias"):
            state[name.replace("norm2.weight", f"norm1.{part}")] = torch.randn(12)
    keymap = generator_keymap(num_layers=7, mapping_layers=2)
    decoder = keymap.to_theirs(method.generator)
    del decoder["latent_avg"]
    return state | {f"decoder.{key}": value for key, value in decoder.items()}


def test_everything_comes_back() -> None:
    method = small_method()
    state = official_state(method)
    loaded = pretrained.clcae_from_state(state, latent_average=method.generator.w_average)
    assert loaded.settings | {"generator": None} == method.settings | {"generator": None}
    for key, value in method.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=0, atol=1e-6)
    expected, given = (m.synthesize(m.invert(IMAGES)) for m in (method, loaded))
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-6)
    back = official_state(loaded)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state if "norm1" not in key)
    assert not any(p.requires_grad for p in loaded.generator.parameters())
    assert loaded.pyramid.trunk.stem[0].weight.data_ptr() == (
        state["encoder.input_layer.0.weight"].data_ptr()
    )


def test_averages_are_computed_where_none_is_given() -> None:
    method = small_method()
    loaded = pretrained.clcae_from_state(official_state(method))
    generator = loaded.generator
    expected = method.generator.map(torch.randn(50_000, 20)).mean(dim=0)
    torch.testing.assert_close(generator.w_average, expected, rtol=0, atol=0.03)
    picture = generator.synthesize(generator.w_average[None])[0]
    torch.testing.assert_close(loaded.average_image, picture)


def test_query_and_key_weights_and_unused_norms_carry_nothing() -> None:
    method = small_method()
    state, other = official_state(method), official_state(method)
    for key, value in other.items():
        if "in_proj" in key:
            other[key] = torch.cat(
                [torch.randn_like(value[: len(value) // 3 * 2]), value[-len(value) // 3 :]]
            )
    average = method.generator.w_average
    first, second = (
        pretrained.clcae_from_state(given, latent_average=average).state_dict()
        for given in (state, other)
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_layer_is_the_decoder_layer_of_one_token() -> None:
    """Against torch's attention with queries, keys and values: the query does not matter to it."""
    torch.manual_seed(0)
    layer = OneTokenLayer(dim=16, token_dim=16).eval()
    attention = nn.MultiheadAttention(16, 4, batch_first=True)
    state = attention.state_dict()
    layer.attention.value.weight.data = state["in_proj_weight"][32:]
    layer.attention.value.bias.data = state["in_proj_bias"][32:]
    layer.attention.out.load_state_dict(attention.out_proj.state_dict())
    token, queries = torch.randn(3, 16), torch.randn(3, 5, 16)
    attended, _ = attention(queries, token[:, None], token[:, None])
    others, _ = attention(queries * 7 + 1, token[:, None], token[:, None])
    torch.testing.assert_close(attended, others)
    x = layer.norm1(queries + attended)
    x = layer.norm2(x + layer.feed_forward(x))
    torch.testing.assert_close(layer(queries, token), x)


@torch.no_grad()
def test_dropout_of_attention_drops_heads_of_queries() -> None:
    """A query's only weight in a head, 1, is dropped or doubled."""
    torch.manual_seed(0)
    layer = OneTokenLayer(dim=16, token_dim=16, dropout=0.5).train()
    layer.attention.value.weight.data = torch.eye(16)
    layer.attention.value.bias.data.zero_()
    layer.attention.out.weight.data = torch.eye(16)
    layer.attention.out.bias.data.zero_()
    attended = layer._attended(torch.ones(2, 16), 300).unflatten(2, (4, 4))
    assert {float(value) for value in attended.unique()} == {0.0, 2.0}
    assert torch.equal(attended.amin(dim=3), attended.amax(dim=3))  # whole heads
    assert 0.45 < float((attended == 0).float().mean()) < 0.55


def test_what_does_not_fit_is_listed() -> None:
    state = official_state(small_method())
    average = torch.zeros(20)
    del state["encoder.body.1.res_layer.0.bias"]
    state["encoder.cross_attention.0.norm4.weight"] = torch.zeros(3)
    state["encoder.latlayer2.bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match="no CLCAE inversion model") as caught:
        pretrained.clcae_from_state(state, latent_average=average)
    line = str(caught.value)
    assert "\n" not in line
    for part in (
        "1 missing (encoder.body.1.res_layer.0.bias)",
        "1 unexpected (encoder.cross_attention.0.norm4.weight)",
        "1 of another shape (encoder.latlayer2.bias (3,))",
    ):
        assert part in line


def test_other_files_are_refused() -> None:
    state, average = official_state(small_method()), torch.zeros(20)
    with pytest.raises(ValueError, match=r"1 unexpected \(logit_scale\)"):
        pretrained.clcae_from_state(state | {"logit_scale": average}, latent_average=average)
    decoder = {key: value for key, value in state.items() if key != "decoder.conv1.noise.weight"}
    with pytest.raises(ValueError, match=r"decoder.* 1 missing \(conv1.noise.weight\)"):
        pretrained.clcae_from_state(decoder, latent_average=average)
    without = {key: value for key, value in state.items() if key.startswith("decoder.")}
    with pytest.raises(ValueError, match=r"encoder\.input_layer"):
        pretrained.clcae_from_state(without, latent_average=average)
    with pytest.raises(ValueError, match="image_size is 64"):
        pretrained.clcae_from_state(state, latent_average=average, image_size=64)
    with pytest.raises(ValueError, match=r"\(3, 8, 8\)"):
        pretrained.clcae_from_state(
            state, latent_average=average, average_image=torch.zeros(3, 8, 8)
        )
    with pytest.raises(ValueError, match="latent tower"):
        pretrained.aligner_from_states(state, state, average_image=average, w_average=average)


def test_towers_come_back_and_start_an_encoder() -> None:
    torch.manual_seed(0)
    image_tower = ImageTower(image_size=32, stem_stride=1, dim=20, **SIZES)  # type: ignore[arg-type]
    latent_tower = LatentTower(w_dim=20, dim=20)
    image_state = pretrained.image_tower_keymap(image_tower).to_theirs(image_tower)
    latent_state = pretrained.latent_tower_keymap(latent_tower).to_theirs(latent_tower)
    image_state |= {"logit_scale": torch.tensor(2.0), "encoder.latlayer1.bias": torch.zeros(12)}
    latent_state["pos_embedding"] = torch.randn(1, 1, 20)
    averages = {"average_image": torch.randn(3, 24, 32), "w_average": torch.randn(20)}
    aligner = pretrained.aligner_from_states(image_state, latent_state, **averages)
    for ours, expected in (
        (aligner.image_tower, image_tower),
        (aligner.latent_tower, latent_tower),
    ):
        state = expected.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in ours.state_dict().items())
    assert float(aligner.log_scale.detach()) == 2.0
    assert aligner.embed_images(IMAGES[:, :, 4:28]).shape == (2, 20)  # cars, never square
    with pytest.raises(ValueError, match=r"\(2, 3, 32, 32\)"):
        aligner.embed_images(IMAGES)
    method = small_method()
    method.start_from(aligner.image_tower)
    assert torch.equal(method.foundation.linear.weight, image_tower.head.linear.weight)

    del image_state["image_projection.bn.bias"]
    with pytest.raises(ValueError, match=r"1 missing \(image_projection.bn.bias\)"):
        pretrained.aligner_from_states(image_state, latent_state, **averages)
    image_state["image_projection.bn.bias"] = torch.zeros(20)
    latent_state["wide.norm1.bias"] = torch.zeros(2)
    with pytest.raises(ValueError, match=r"1 unexpected \(wide.norm1.bias\)"):
        pretrained.aligner_from_states(image_state, latent_state, **averages)


def test_the_generator_of_another_domain_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clcae.pt"
    torch.save({"state_dict": official_state(small_method())}, path)
    with pytest.raises(
        ValueError, match="has codes of 20 numbers, the generator given with it 128"
    ):
        load_method(path, generator="portraits")
    assert load_method(path).generator.w_dim == 20
